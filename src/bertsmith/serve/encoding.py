"""JSON for answers: numbers as short as their type allows, and never one that JSON does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json as _to_json


def to_json(value: Any) -> bytes:
    """A value as UTF-8 JSON.

    Args:
        value: dicts, lists, texts, numbers; a number that is not finite becomes null, a lone surrogate U+FFFD.
    """
    try:
        return _to_json(value, inf_nan_mode="null")
    except ValueError:  # a lone surrogate: an answer may quote a text that came without JSON
        return _to_json(_mended(value), inf_nan_mode="null")


def numbers(vectors: NDArray[np.float32]) -> list[list[float]]:
    """Float32 vectors as numbers of few digits: float64 would show float32's own error in seventeen.

    Args:
        vectors: `[N, H]`, finite.

    Returns:
        N lists; what is cut off is at most 5e-8 of the largest number of its vector, less than float32 itself.
    """
    exact = vectors.astype(np.float64)
    largest = np.abs(exact).max(axis=1, keepdims=True, initial=1e-30)
    scale = 10.0 ** (8 - np.ceil(np.log10(largest)))
    rounded: list[list[float]] = (np.rint(exact * scale) / scale).tolist()
    return rounded


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mended(item) for item in value]
    return value
