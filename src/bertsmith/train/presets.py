"""Named starting points for pretraining: the shapes of google-research/bert, of ModernBERT, and one for a laptop."""

from __future__ import annotations

from typing import Any

SHAPES = {
    "laptop": (3, 192, 4),
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "medium": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
"""Layers, width and heads. Source: Turc et al. 2019 (arXiv:1908.08962); Devlin et al. 2019."""


SIZES = ("tiny", "mini", "small", "medium", "base", "large")


def preset(name: str, *, going_on: bool = False) -> dict[str, Any]:
    """The values of a preset, nested as in the config.

    Args:
        name: one of `PRESETS`.
        going_on: from a model, which has no use for stages that are made for fresh weights.
    """
    values = _values(name)
    if going_on:
        values.get("train", {}).pop("stages", None)
    return values


def _values(name: str) -> dict[str, Any]:
    if name == "laptop":
        # What ten minutes on two cores can fill. A quarter of the steps predicts what comes next, which teaches words
        # and their neighbours much sooner than hidden pieces do; docs/log.md has the figures.
        stages = [{"share": 0.25, "objective": "causal", "predicted": 0.5}, {"share": 0.75}]
        return {
            "model": _modern("laptop") | {"global_attention_every": 1},
            "task": {"mask_rate": 0.3, "mask_rate_end": 0.15},
            "vocab": {"size": 12_000},
            "train": {"batch_tokens": 1024, "stages": stages},
        }
    family, _, size = name.partition("-")
    if family == "classic":
        dropout = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
        train = {"lr": 1e-4 if size in ("base", "large") else 5e-4, "warmup_ratio": 0.01, "beta2": 0.999}
        return {"model": _shape(size) | dropout, "train": train}
    return {"model": _modern(size), "task": {"pairs": "none", "mask_rate": 0.3}}


def _modern(size: str) -> dict[str, Any]:
    shape = _shape(size) | {"architecture": "modernbert"}
    # GeGLU has three matrices where the classic layer has two: two thirds of the width cost the same.
    shape["intermediate_size"] = round(shape["intermediate_size"] * 2 / 3 / 64) * 64
    return shape


def _shape(size: str) -> dict[str, Any]:
    layers, width, heads = SHAPES[size]
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


PRESETS = ("laptop", *(f"{family}-{size}" for family in ("classic", "modern") for size in SIZES))
