"""Bundles that hold a small part and name their base: written, opened on a shared base, moved, merged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertsmith.core.bundle import ADAPTER, Bundle, atomic_folder, write_bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads
from bertsmith.model.convert import from_hf, load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.model.hf_config import read_config, write_config
from bertsmith.peft import library
from bertsmith.peft.adalora import AdaLoRA
from bertsmith.peft.base import counts, insert, method_of, small_part
from bertsmith.peft.config import PeftConfig
from bertsmith.peft.lora import factors_of
from bertsmith.tokenizer.load import Tokenizer

OWN = ("bertsmith", "created", "versions", "files", "checksum", "base", "peft")
"""Entries of `bertsmith.json` that belong to one folder and not to what is made of it."""


@dataclass(frozen=True)
class Base:
    """A model that small parts stand on, held in memory once however many there are.

    Attributes:
        bundle: where it came from.
        encoder: its encoder, on its device; nobody may change it.
    """

    bundle: Bundle
    encoder: Model

    @staticmethod
    def load(bundle: Bundle, device: torch.device | str = "cpu") -> Base:
        """Read a base's weights.

        Args:
            bundle: a whole model.
            device: where to put it.

        Raises:
            BundleError: it is no whole model.
        """
        return Base(bundle, load_model(bundle, Heads()).to(device).eval())


def save_tuned(
    path: str | Path, model: Model, config: PeftConfig, base: Bundle, meta: Mapping[str, Any], *, asked: str = ""
) -> Bundle:
    """Write what moved: the small part and the heads. The base is named by its sha256 and its place.

    Args:
        path: folder of the bundle; replaced when it is there.
        model: with the small part, as `insert` made it.
        config: the method's settings.
        base: the bundle that it was trained on.
        meta: the content of bertsmith.json.
        asked: the base as a user named it; kept where it is a name on the hub.

    Returns:
        The bundle as written.
    """
    place = place_of(base, path, asked)
    tensors: Mapping[str, Tensor] = small_part(model)
    files = {}
    if library.known(model.config, model.heads, config):
        written, tensors = library.to_library(model, config, place["absolute"])
        files[library.ADAPTER_CONFIG] = (json.dumps(written, indent=2) + "\n").encode()
    settings = config.model_dump(mode="json", exclude_none=True)
    peft: dict[str, Any] = {"settings": settings, "heads": model.heads.model_dump(), "parameters": counts(model)}
    if isinstance(method_of(config), AdaLoRA):
        peft["ranks"] = {name: len(factors.a) for name, factors in factors_of(model)}
    known = {name: base.meta[name] for name in ("vocabulary",) if name in base.meta}
    return write_bundle(
        path,
        config=write_config(model.config, model.heads, meta.get("labels")),
        tensors=tensors,
        files=files,
        meta={**known, **meta, "base": place, "peft": peft},
        weights=ADAPTER,
    )


def load_tuned(bundle: Bundle, base: Base) -> Model:
    """The model that a small part and its base make. It shares the base's weights, and its device.

    Args:
        bundle: with a small part.
        base: what it stands on.

    Raises:
        BundleError: the small part was trained on another base, or its tensors do not fit.
    """
    refuse_other(bundle, base.bundle)
    told = bundle.meta["peft"]
    config, heads = PeftConfig.model_validate(told["settings"]), Heads.model_validate(told["heads"])
    shape = read_config(bundle.config, f"{bundle.path}: config.json")
    with torch.device("meta"):
        model = Model(shape, heads)
    tensors: Mapping[str, Tensor] = bundle.tensors()
    if library.known(shape, heads, config):
        tensors = library.from_library(tensors, shape, heads, config, str(bundle.path))
    insert(model, config, saved=tensors)
    wanted = small_part(model)
    wrong = [name for name, own in wanted.items() if name not in tensors or tensors[name].shape != own.shape]
    if wrong or (left := [name for name in tensors if name not in wanted]):
        names = ", ".join((wrong or left)[:4])
        raise BundleError(f"{bundle.path}: {ADAPTER} does not fit {told['settings']}: {names}; copy the bundle again")
    device = next(base.encoder.parameters()).device
    state = base.encoder.state_dict() | {name: value.to(device) for name, value in tensors.items()}
    known = model.state_dict()
    model.load_state_dict({name: value for name, value in state.items() if name in known}, assign=True)
    return model.eval()


def place_of(base: Bundle, at: str | Path, asked: str = "") -> dict[str, Any]:
    """How a bundle at `at` names its base.

    Args:
        base: the base.
        at: folder of the bundle.
        asked: the base as a user named it.
    """
    absolute, here = base.path.resolve(), Path(at).resolve()
    place = {"sha256": base.hash, "path": Path(os.path.relpath(absolute, here)).as_posix(), "absolute": str(absolute)}
    return place | ({"name": asked} if asked and not Path(asked).expanduser().exists() else {})


def find_base(bundle: Bundle) -> Bundle:
    """The base of a bundle: where it stood beside the bundle, where it stood on this machine, or by its hub name.

    Args:
        bundle: with a small part.

    Raises:
        BundleError: it is in none of these places, or what is there has other weights.
    """
    named = bundle.base or {}
    places = [(bundle.path / named["path"]).resolve(), Path(named["absolute"])]
    others: list[Bundle] = []
    for place in dict.fromkeys(places):
        if place.exists():
            found = Bundle.open(place)
            if found.hash == named["sha256"]:
                return found
            others.append(found)
    if others:
        refuse_other(bundle, others[0])
    if "name" in named:
        found = Bundle.open(named["name"])
        refuse_other(bundle, found)
        return found
    looked = " and ".join(map(str, dict.fromkeys(places)))
    raise BundleError(
        f"{bundle.path}: an adapter, whose base (sha256 {named['sha256'][:12]}…) is no longer at {looked}; "
        f"{_say_where(bundle)}"
    )


def refuse_other(bundle: Bundle, base: Bundle) -> None:
    """Refuse a base that a small part was not trained on.

    Args:
        bundle: with the small part.
        base: a whole model.

    Raises:
        BundleError: names both sums.
    """
    wanted = (bundle.base or {}).get("sha256", "")
    if base.hash != wanted:
        raise BundleError(
            f"{bundle.path}: an adapter for the base with sha256 {wanted[:12]}…, but {base.path} has "
            f"{base.hash[:12]}…: it works only with the weights that it was trained on; {_say_where(bundle)}"
        )


def _say_where(bundle: Bundle) -> str:
    return f"say where they are: bertsmith convert {bundle.path} {bundle.path}-moved --base BASE"


def moved(bundle: Bundle, target: str | Path, base: Bundle) -> Bundle:
    """The same bundle at another place, with its base where it is now.

    Args:
        bundle: with a small part.
        target: the new folder.
        base: the base, at its new place.

    Raises:
        BundleError: that is another base.
    """
    refuse_other(bundle, base)
    target = Path(target)
    with atomic_folder(target) as folder:
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
    copied = Bundle.open(target)
    return copied.annotate(base=place_of(base, target, (bundle.base or {}).get("name", "")))


def merged(bundle: Bundle, target: str | Path, base: Bundle | None = None) -> Bundle:
    """Write a small part and its base as one plain model, which `transformers` opens without more.

    Args:
        bundle: with a small part.
        target: folder of the new bundle.
        base: where the base is; None: where the bundle says.

    Raises:
        BundleError: no plain model computes the same, as with bottlenecks and prefixes.
    """
    found = base if base is not None else find_base(bundle)
    model = load_tuned(bundle, Base.load(found))
    with torch.no_grad():
        method_of(PeftConfig.model_validate(bundle.meta["peft"]["settings"])).merge(model)
    meta = {key: value for key, value in bundle.meta.items() if key not in OWN}
    meta["lineage"] = {**meta.get("lineage", {}), "parent": found.hash, "adapter": bundle.hash}
    return save_model(target, model, _tokenizer_files(found, model), meta)


def adopt_adapter(source: Path, target: str | Path, base: Bundle | None = None) -> Bundle:
    """Make a bundle of a folder that the peft library wrote: LoRA, AdaLoRA or a prefix.

    Args:
        source: with adapter_config.json and adapter_model.safetensors.
        target: folder of the bundle.
        base: the model it was trained on; None: the one that the folder names. The library keeps no sum of it, so what
            is given is believed.

    Raises:
        BundleError: something in the folder is not supported, or it does not fit the base.
    """
    from safetensors.torch import load_file

    if not (source / ADAPTER).is_file():
        raise BundleError(f"{source}: no {ADAPTER} here; a pickle (adapter_model.bin) is refused")
    asked = ""
    if base is None:
        written = json.loads((source / library.ADAPTER_CONFIG).read_text(encoding="utf-8"))
        asked = str(written.get("base_model_name_or_path") or "")
        if not asked:
            raise BundleError(f"{source}: the folder does not name its base; give it with --base")
        base = Bundle.open(asked)
    shape = read_config(base.config, f"{base.path}: config.json")
    config, heads, tensors = library.read_library(source, load_file(source / ADAPTER), shape)
    model = load_model(base, heads)
    insert(model, config, saved=tensors)
    own = model.state_dict()
    wrong = [name for name, value in tensors.items() if name not in own or own[name].shape != value.shape]
    if wrong:
        raise BundleError(f"{source}: does not fit the base {base.path}: {', '.join(wrong[:4])} of another shape")
    kept = from_hf(base.config, base.tensors(), str(base.path))[1]
    if drawn := [name for name in own if name.startswith("pooler.") and name not in tensors and name not in kept]:
        raise BundleError(
            f"{source}: neither the adapter nor the base {base.path} has {', '.join(drawn)}: the library drew them at "
            "random and did not save them; train the adapter again with modules_to_save=['classifier', 'pooler']"
        )
    model.load_state_dict(tensors, strict=False)
    names = Bundle(base.path, base.config, {}).labels
    size = heads.classify or heads.tag
    labels = names if len(names) == size else [f"LABEL_{index}" for index in range(size)]
    meta = {
        "task": "classify" if heads.classify else "tag",
        "labels": [] if heads.classify == 1 else labels,
        "lineage": {"parent": base.hash, "data": {}, "configs": {}},
    }
    return save_tuned(target, model, config, base, meta, asked=asked)


def _tokenizer_files(base: Bundle, model: Model) -> dict[str, bytes]:
    shape = model.config
    return Tokenizer.load(base.path).files(shape.architecture, max_length=shape.max_position_embeddings)
