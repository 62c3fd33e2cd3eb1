"""bertsmith: from a folder of text to an encoder you own, and from that encoder to answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertsmith.predict.predictor import Predictor

__version__ = "0.1.0"


def load(path: str | Path, **options: Any) -> Predictor:
    """Open a model to ask: `bertsmith.load("runs/ner")("张三在北京工作")`.

    Args:
        path: a bundle, run or Hugging Face folder, or a hub name.
        options: as for `predict.predictor.Predictor`: `device`, `batch_tokens`, `precision`.

    Raises:
        BundleError: nothing is there, or it cannot answer.
    """
    from bertsmith.predict.predictor import Predictor

    return Predictor.open(path, **options)
