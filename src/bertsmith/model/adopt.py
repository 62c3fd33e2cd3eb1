"""A Hugging Face folder made into a bundle: safe weights, today's spelling of the config, sums and lineage."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertsmith.core.bundle import Bundle, sha256_file, write_bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads
from bertsmith.model.convert import from_hf, to_hf
from bertsmith.model.embedding import read_embedding, write_embedding

PICKLE = "pytorch_model.bin"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)


def adopt(
    source: str | Path,
    target: str | Path,
    *,
    tokenizer_files: Mapping[str, bytes] | None = None,
    trust_pickle: bool = False,
) -> Bundle:
    """Write the model in `source` as a bundle. Heads, labels, token ids and tokenizer files come along.

    So does what sentence-transformers knows of the folder: how texts become vectors.

    Args:
        source: a Hugging Face folder of type `bert`, `modernbert` or `electra`, a bundle, or a name on the hub.
        target: folder of the bundle.
        tokenizer_files: used where `source` has no file of that name.
        trust_pickle: read `pytorch_model.bin` where there are no safetensors. It is read as tensors only
            (`weights_only`), but a pickle is for files whose maker you trust.

    Raises:
        BundleError: the folder is not one of a supported model; says what does not fit.
    """
    if trust_pickle and _only_pickle(Path(source)):
        folder = Path(source)
        hf_config, meta, tensors, parent = _read_json(folder / "config.json"), {}, *_read_pickle(folder)
        name = None
    else:
        bundle = Bundle.open(source)
        folder, hf_config, meta, tensors, parent = (
            bundle.path,
            bundle.config,
            bundle.meta,
            bundle.tensors(),
            bundle.hash,
        )
        name = bundle.hub_name(source)
    config, state, heads = from_hf(hf_config, tensors, str(folder))

    meta = {key: value for key, value in meta.items() if key not in ("bertsmith", "created")}
    embedding = read_embedding(folder)
    meta.setdefault("task", "match" if embedding else _task(heads))
    meta.setdefault("labels", Bundle(folder, hf_config, {}).labels if heads.tag or heads.classify > 1 else [])
    meta["lineage"] = {"data": {}, "configs": {}, **meta.get("lineage", {}), "parent": parent, "base_model": name}
    written, theirs = to_hf(config, state, heads, meta["labels"])
    written |= {key: hf_config[key] for key in written if key.endswith("_token_id") and key in hf_config}
    files = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()}
    files |= write_embedding(embedding, config.hidden_size) if embedding else {}
    return write_bundle(target, config=written, tensors=theirs, files=dict(tokenizer_files or {}) | files, meta=meta)


def _task(heads: Heads) -> str | None:
    if heads.classify:
        return "classify"
    if heads.tag:
        return "tag"
    return "pretraining" if heads.mlm or heads.nsp or heads.rtd else None


def _only_pickle(folder: Path) -> bool:
    return bool(_pickles(folder)) and not any(folder.glob("model*.safetensors*"))


def _pickles(folder: Path) -> list[Path]:
    index = folder / f"{PICKLE}.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(_read_json(index)["weight_map"].values()))]
    return [folder / PICKLE] if (folder / PICKLE).is_file() else []


def _read_pickle(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors of a folder's pickles, and the sum of the first as their hash."""
    tensors: dict[str, Tensor] = {}
    files = _pickles(folder)
    for file in files:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise BundleError(f"{file}: is damaged or holds more than tensors, and is refused ({reason})") from None
        if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
            raise BundleError(
                f"{file}: holds no plain mapping of names to tensors; save the model's state_dict() alone"
            )
        tensors |= content
    return tensors, sha256_file(files[0])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({error}); copy it again") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path}: holds no JSON object; copy it again")
    return value
