"""Bundle: a model folder with all that is needed to use it, trust it and make it again."""

from __future__ import annotations

import difflib
import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertsmith import __version__
from bertsmith.core.card import CARD, card
from bertsmith.core.errors import BundleError
from bertsmith.core.extras import install_command, present
from bertsmith.core.files import as_json, atomic_folder, atomic_write, settled, sha256_file
from bertsmith.core.front_matter import scripts_of

__all__ = ["Bundle", "atomic_folder", "atomic_write", "sha256_file", "write_bundle"]

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"
META = "bertsmith.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
HUB_FILES = ("*.json", "*.txt", "*.safetensors")


@dataclass(frozen=True)
class Bundle:
    """A model folder, opened.

    Attributes:
        path: the folder.
        config: what `config.json` says, in Hugging Face's words.
        meta: what `bertsmith.json` says: task, labels, lineage, scores; empty for a plain Hugging Face folder.
    """

    path: Path
    config: dict[str, Any]
    meta: dict[str, Any]

    @staticmethod
    def open(path: str | Path, *, verify: bool = True) -> Bundle:
        """Open a bundle folder, a run folder (its `bundle/` is meant), a Hugging Face folder, or a name on the hub.

        Args:
            path: where it is; a name such as `bert-base-chinese` is fetched when no such path exists.
            verify: compare every file with the sha256 sums written when the bundle was made.

        Raises:
            BundleError: nothing is there, a file is absent or damaged, or the weights are a pickle.
        """
        folder = settled(Path(path).expanduser())
        if not folder.exists():
            folder = _fetch(str(path))
        if not folder.is_dir():
            raise BundleError(f"{folder}: this is a file; give the folder that holds config.json and {WEIGHTS}")
        if not (folder / "config.json").is_file():
            inner = settled(folder / "bundle")
            if inner.is_dir():
                folder = inner
            elif (folder / "checkpoints").is_dir() or (folder / "config.toml").is_file():
                raise BundleError(
                    f"{folder}: this run has no bundle yet; finish it with its own command and --resume, such as "
                    f"`bertsmith pretrain --out {folder} --resume`"
                )
        if not (folder / "config.json").is_file():
            several = sorted(file.parent for file in folder.glob("*/config.json")) if folder.name == "bundle" else []
            if several:
                raise BundleError(
                    f"{folder}: holds a bundle for each of several tasks; name one of them: "
                    f"{', '.join(str(one) for one in several)}"
                )
            if (folder / ADAPTER).is_file():
                raise BundleError(
                    f"{folder}: an adapter of the peft library, which says too little about its base; make a bundle of "
                    f"it: bertsmith convert {folder} {folder.with_name(folder.name + '-bundle')} --base BASE"
                )
            raise BundleError(f"{folder}: no config.json here; a bundle holds config.json, {WEIGHTS}, tokenizer.json")
        _refuse_pickle(folder)
        config = _read_json(folder / "config.json")
        meta = _read_json(folder / META) if (folder / META).is_file() else {}
        bundle = Bundle(folder, config, meta)
        if verify:
            bundle.verify()
        return bundle

    @property
    def task(self) -> str | None:
        """What the model is for, or None for a folder that does not say."""
        task = self.meta.get("task")
        return None if task is None else str(task)

    @property
    def base(self) -> dict[str, Any] | None:
        """Of a bundle that holds only a small part: which model it belongs to, `sha256` and where it was; else None."""
        return self.meta.get("base")

    def hub_name(self, asked: str | Path) -> str | None:
        """What the hub calls this model, or the one that it was made from; None where that is not known.

        Args:
            asked: what the user named it by; no path means the hub's name.
        """
        if not Path(asked).expanduser().exists():
            return str(asked)
        name = (self.meta.get("lineage") or {}).get("base_model")
        return None if name is None else str(name)

    def whole(self) -> Bundle:
        """This bundle, where a whole model is needed.

        Raises:
            BundleError: it holds only a small part of one; says how to make it whole.
        """
        if self.base is None:
            return self
        target = self.path.with_name(f"{self.path.name}-merged")
        raise BundleError(
            f"{self.path}: this is an adapter, a small part of a model, and a whole one is needed here; make one of it "
            f"and its base: bertsmith convert {self.path} {target} --merge"
        )

    @property
    def labels(self) -> list[str]:
        """Label names in the order of the model's outputs; empty when it has none."""
        if "labels" in self.meta:
            return [str(label) for label in self.meta["labels"]]
        names = self.config.get("id2label", {})
        return [str(names[key]) for key in sorted(names, key=int)]

    @property
    def hash(self) -> str:
        """The sha256 sum of the weights; for weights in several files, of their sums."""
        listed = self.meta.get("files", {})
        sums = [listed[name]["sha256"] if name in listed else sha256_file(self.path / name) for name in self.shards()]
        return str(sums[0]) if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()

    def shards(self) -> list[str]:
        """Names of the weights' files, sorted."""
        for name in (WEIGHTS, ADAPTER):
            if (self.path / name).is_file():
                return [name]
        index = _read_json(self.path / INDEX).get("weight_map", {})
        return sorted(set(index.values()))

    def tensors(self) -> dict[str, Tensor]:
        """Read all weights.

        Returns:
            Tensors on the CPU by their Hugging Face name.

        Raises:
            BundleError: a file is absent or not readable.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        tensors: dict[str, Tensor] = {}
        for name in self.shards():
            try:
                tensors |= load_file(self.path / name)
            except (SafetensorError, OSError) as error:
                raise BundleError(f"{self.path / name}: cannot read the weights ({error}); copy them again") from None
        return tensors

    def verify(self) -> None:
        """Compare every file with the sum written when the bundle was made; does nothing in a plain folder.

        Raises:
            BundleError: names the first file that is absent or differs.
        """
        if not self.meta:
            return
        again = "copy the bundle again from where it was made"
        if self.meta.get("checksum") != _checksum(self.meta):
            raise BundleError(f"{self.path / META}: does not match its own checksum; {again}")
        for name, listed in self.meta.get("files", {}).items():
            file = self.path / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise BundleError(f"{self.path / META}: lists {name}, which lies outside the folder; {again}")
            if not file.is_file():
                raise BundleError(f"{file}: listed in {META} but absent; {again}")
            if file.stat().st_size != listed["bytes"]:
                raise BundleError(f"{file}: has {file.stat().st_size:,} bytes, not {listed['bytes']:,}; {again}")
            if sha256_file(file) != listed["sha256"]:
                raise BundleError(f"{file}: damaged, its sha256 differs from the one in {META}; {again}")

    def add(self, name: str, data: bytes, **changes: Any) -> Bundle:
        """Put one more file beside the weights, with its sum, and change entries of `bertsmith.json`.

        Args:
            name: of the file; one of this name is replaced.
            data: its content.
            changes: entries to add or replace.

        Returns:
            The bundle with the new meta.
        """
        atomic_write(self.path / name, data)
        listed = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        return self.annotate(**changes, files={**self.meta.get("files", {}), name: listed})

    def annotate(self, **changes: Any) -> Bundle:
        """Change entries of `bertsmith.json`, such as `scores`, keeping its checksum right.

        The card follows, unless somebody has changed it by hand.

        Args:
            changes: entries to add or replace.

        Returns:
            The bundle with the new meta.
        """
        file = self.path / CARD
        ours = not file.exists() or file.read_bytes() == card(self.config, self.meta)
        meta = json.loads(as_json({**self.meta, **changes}))
        meta["checksum"] = _checksum(meta)
        atomic_write(self.path / META, as_json(meta))
        if ours:
            atomic_write(file, card(self.config, meta))
        return Bundle(self.path, self.config, meta)


def write_bundle(
    path: str | Path,
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    files: Mapping[str, bytes],
    meta: Mapping[str, Any],
    weights: str = WEIGHTS,
) -> Bundle:
    """Write a bundle whole or not at all, in place of one that may be there already; its card is the last file.

    Args:
        path: the folder.
        config: for `config.json`, in Hugging Face's words.
        tensors: weights by their Hugging Face name, on any device.
        files: other files by name, such as `tokenizer.json`.
        meta: task, labels, lineage, scores; sums of all files, versions and the time are added.
        weights: name of the weights' file; `ADAPTER` where they are a small part of a model.

    Returns:
        The bundle as it is on disk.

    Raises:
        BundleError: the disk is full, or writing is not allowed; an old bundle is untouched.
    """
    from safetensors.torch import save_file

    path = Path(path)
    with atomic_folder(path) as folder:
        save_file(_owned(tensors), folder / weights, metadata={"format": "pt"})
        (folder / "config.json").write_bytes(as_json(config))
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        sums = {
            file.relative_to(folder).as_posix(): {"sha256": sha256_file(file), "bytes": file.stat().st_size}
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        packages = {name: version(name) for name in ("torch", "numpy", "tokenizers", "safetensors", "pydantic")}
        full = {
            "bertsmith": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "lineage": {"parent": None, "data": {}, "configs": {}},
            **({"vocabulary": vocabulary} if (vocabulary := scripts_of(files)) else {}),
            **meta,
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "versions": {"python": platform.python_version(), **packages},
            "files": sums,
        }
        full = json.loads(as_json(full))
        full["checksum"] = _checksum(full)
        (folder / META).write_bytes(as_json(full))
        (folder / CARD).write_bytes(card(json.loads(as_json(config)), full))
    return Bundle.open(path, verify=False)


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors wants them: on the CPU, contiguous, none sharing memory with another.

    Args:
        tensors: tensors by name.
    """
    owned: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        owned[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return owned


def _checksum(meta: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in meta.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({error}); copy it again") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path}: holds no JSON object; copy it again")
    return value


def _refuse_pickle(folder: Path) -> None:
    if any((folder / name).is_file() for name in (WEIGHTS, INDEX, ADAPTER)):
        return
    pickles = sorted(file for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise BundleError(
            f"{pickles[0]}: weights in a pickle can run code when loaded and are refused; if you trust where the file "
            f"came from: bertsmith convert {folder} {folder.with_name(folder.name + '-safe')} --trust-pickle"
        )
    raise BundleError(f"{folder}: no {WEIGHTS} here; copy the weights into this folder")


def _fetch(name: str) -> Path:
    """Fetch a model from the Hugging Face hub, or say why not and where to put the files."""
    parent = Path(name).expanduser().parent
    hub_name = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name) is not None
    if not hub_name or (parent != Path() and parent.is_dir()):
        names = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
        near = difflib.get_close_matches(Path(name).name, names, n=1)
        advice = f"did you mean {parent / near[0]}?" if near else "check the path"
        raise BundleError(f"{name}: no such folder; {advice}")
    place = f"put config.json, {WEIGHTS} and tokenizer.json (or vocab.txt) into the folder ./{name}"
    if not present("huggingface_hub"):
        raise BundleError(
            f"{name}: no such folder, and fetching from the Hugging Face hub needs {install_command('hf')}; or {place}"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # offline, unknown name, no permission: the advice is the same
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BundleError(
            f"{name}: no such folder, and it could not be fetched from the Hugging Face hub ({reason}); {place}"
        ) from error
