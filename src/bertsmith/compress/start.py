"""What a compressing run begins with: a smaller bundle, made of its parent before anything is learned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import ConfigError
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.model.shrink import size
from bertsmith.tokenizer.load import Tokenizer

START = "start"
"""Folder, in a run's, of the bundle that it begins with."""


def written(
    path: Path, model: Model, tokenizer: Tokenizer, parent: Bundle, verb: str, settings: Mapping[str, Any]
) -> Bundle:
    """Save what a run begins with, as a bundle of its parent's task.

    Args:
        path: its folder; left alone when a bundle is there already.
        model: made of the parent.
        tokenizer: its vocabulary.
        parent: where it comes from.
        verb: `distil` or `prune`.
        settings: by which it was made.
    """
    if path.exists():
        return Bundle.open(path)
    meta = {key: value for key, value in parent.meta.items() if key in ("task", "labels", "headline", "task_config")}
    if "labels" not in meta:
        meta["labels"] = parent.labels if model.heads.classify > 1 or model.heads.tag else []
    meta["lineage"] = {"parent": parent.hash, "data": {}, "configs": {}}
    meta["compressed"] = [*parent.meta.get("compressed", []), entry(parent, model, verb, settings)]
    files = tokenizer.files(model.config.architecture, max_length=model.config.max_position_embeddings)
    return save_model(path, model, files, meta)


def entry(parent: Bundle, model: Model, verb: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """One line of a bundle's history: what was done, to which weights, and how many parameters there were and are.

    Args:
        parent: what it was done to.
        model: the result.
        verb: `distil`, `prune` or `quantize`.
        settings: by which.
    """
    before = load_model(parent)
    return {
        "how": verb,
        "parent": parent.hash,
        "settings": dict(settings),
        "parameters": [size(before.config, before.heads), size(model.config, model.heads)],
    }


def refuse_small_parts(config: Any) -> None:
    """Compressing needs whole weights.

    Raises:
        ConfigError: a small part only, fresh weights or a smaller vocabulary are asked for.
    """
    if config.train.shrink_vocab:
        raise ConfigError("train.shrink_vocab belongs to finetune; here prune.vocabulary=used cuts the vocabulary")
    if config.peft.method is not None or config.train.init != "bundle":
        raise ConfigError("a model is compressed as a whole and from its own weights: leave peft and train.init alone")
