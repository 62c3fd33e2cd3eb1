"""One vector a text: how hidden states are pooled, and the files by which sentence-transformers knows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from bertsmith.core.errors import BundleError
from bertsmith.model.packing import Batch

Pooling = Literal["cls", "mean"]

MODULES = "modules.json"
LENGTH = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
# Spelled out for each way of pooling by old versions, in one word by new ones; both are read.
OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Embedding(NamedTuple):
    """What a folder says about the vectors of its texts.

    Attributes:
        pooling: the vector of [CLS], or the mean over all pieces, [CLS] and [SEP] included.
        normalize: whether vectors are scaled to length 1.
        max_length: longest sequence in pieces; None: as many as the model has positions.
        prompt: put before every text.
    """

    pooling: Pooling
    normalize: bool = True
    max_length: int | None = None
    prompt: str = ""


def pool(hidden: Tensor, batch: Batch, how: Pooling) -> Tensor:
    """Hidden states `[T, H]` to one vector a sequence, `[S, H]`.

    Source: Reimers & Gurevych 2019, section 3 (arXiv:1908.10084).

    Args:
        hidden: `[T, H]`; sums are taken in fp32.
        batch: the packed sequences.
        how: [CLS] or the mean.
    """
    if how == "cls":
        return hidden.index_select(0, batch.cu_seqlens[:-1])
    if batch.num_sequences == 1:
        return hidden.mean(0, keepdim=True, dtype=torch.float32).to(hidden.dtype)
    lengths = batch.cu_seqlens.diff()
    index = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
    total = hidden.new_zeros(len(lengths), hidden.shape[1], dtype=torch.float32)
    return (total.index_add_(0, index, hidden.float()) / lengths[:, None]).to(hidden.dtype)


def write_embedding(embedding: Embedding, width: int) -> dict[str, bytes]:
    """The files that make a folder one that sentence-transformers opens.

    Args:
        embedding: how vectors are made.
        width: H.

    Returns:
        Contents by path, in the spelling that its versions from 2 on read.
    """
    kinds = ["Transformer", "Pooling", *(["Normalize"] if embedding.normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, paths, strict=False))
    ]
    pooling = {"word_embedding_dimension": width}
    pooling |= {name: how == embedding.pooling for name, how in list(OLD_NAMES.items())[:4]}
    prompts = {"default": embedding.prompt} if embedding.prompt else {}
    files: dict[str, Any] = {
        MODULES: modules,
        POOLING: pooling,
        LENGTH: {"max_seq_length": embedding.max_length, "do_lower_case": False},
        PROMPTS: {
            "prompts": prompts,
            "default_prompt_name": "default" if prompts else None,
            "similarity_fn_name": "cosine",
        },
    }
    if embedding.normalize:
        files["2_Normalize/config.json"] = {}
    return {
        path: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode() for path, content in files.items()
    }


def read_embedding(folder: Path) -> Embedding | None:
    """What a folder of sentence-transformers says, or None for a folder that is not one.

    Raises:
        BundleError: it asks for something that is not built here, such as a dense layer; names it.
    """
    if not (folder / MODULES).is_file():
        return None
    modules = _read(folder / MODULES)
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise BundleError(f"{folder / MODULES}: holds no list of modules; copy it again")
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise BundleError(
            f"{folder / MODULES}: modules {', '.join(kinds)} are not supported; only Transformer, Pooling and, at the "
            "end, Normalize are"
        )
    if modules[0].get("path"):
        raise BundleError(
            f"{folder / MODULES}: the encoder lies in {modules[0]['path']}/; move its files up into {folder}"
        )
    path = folder / str(modules[1].get("path", "")) / "config.json"
    length = _settings(folder / LENGTH)
    if length.get("do_lower_case"):
        raise BundleError(f"{folder / LENGTH}: do_lower_case = true is not supported; only false is")
    most = length.get("max_seq_length")
    if most is None:
        most = _settings(folder / "tokenizer_config.json").get("model_max_length")
    said = _settings(folder / PROMPTS)
    default = said.get("default_prompt_name")
    if default is not None and default not in said.get("prompts", {}):
        raise BundleError(f"{folder / PROMPTS}: there is no prompt {default!r}, which default_prompt_name asks for")
    return Embedding(
        pooling=_pooling(path),
        normalize="Normalize" in kinds,
        max_length=most if isinstance(most, int) and most < 10**6 else None,
        prompt="" if default is None else str(said.get("prompts", {})[default]),
    )


def _pooling(path: Path) -> Pooling:
    settings = _settings(path, needed=True)
    found = settings.get("pooling_mode")
    hows = [found] if isinstance(found, str) else list(found or [])
    hows = hows or [how for name, how in OLD_NAMES.items() if settings.get(name)]
    if len(hows) != 1 or hows[0] not in ("cls", "mean"):
        raise BundleError(
            f"{path}: pooling {' and '.join(map(str, hows)) or 'of no kind'} is not supported; only cls or mean is"
        )
    if not settings.get("include_prompt", True):
        raise BundleError(f"{path}: include_prompt = false is not supported; only true is")
    return cast(Pooling, hows[0])


def _settings(path: Path, *, needed: bool = False) -> Mapping[str, Any]:
    settings = _read(path) if needed or path.is_file() else {}
    if not isinstance(settings, dict):
        raise BundleError(f"{path}: holds no JSON object; copy it again")
    return settings


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read as JSON ({error}); copy it again") from None
