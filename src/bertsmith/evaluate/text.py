"""A pretrained bundle against plain text: how well it predicts hidden words, and which sentence follows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.store import Store
from bertsmith.evaluate.pretraining import held_out_scores
from bertsmith.predict.engine import token_batches
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.preparation import is_store, prepare
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tasks.windows import Passages, passages

SEED = 20_181_011


@dataclass(frozen=True, slots=True)
class TextEvaluation:
    """Scores on text, and how much of it there was."""

    scores: dict[str, float]
    tokens: int
    part: str


def evaluate_text(
    predictor: Predictor, data: str, *, sets: Sequence[str] = (), say: Callable[[str], None]
) -> TextEvaluation:
    """Score a pretrained bundle on text, always cut, paired and masked the same way, at 15 %.

    Of the store that the bundle was trained on, only the documents that training left out are read.

    Args:
        predictor: the opened bundle.
        data: a text, folder, glob, `pydoc:`, or a token store.
        sets: changes to the pretraining task's config, such as `task.max_length=128`.
        say: takes sentences meant for the user.

    Raises:
        DataError: no text, or a store made with another vocabulary.
        ConfigError: the model has no MLM head.
    """
    model = predictor.model
    if not model.heads.mlm:
        raise ConfigError(f"{predictor.bundle.path}: this model has no MLM head, so it cannot be scored on plain text")
    saved: dict[str, Any] = dict(predictor.bundle.meta.get("task_config") or {})
    saved["max_length"] = min(saved.get("max_length", 128), model.config.max_position_embeddings)
    saved["pairs"] = saved.get("pairs", "nsp") if model.heads.nsp else "none"
    config = load(PretrainingConfig, base=saved, sets=[item.removeprefix("task.") for item in sets])
    if is_store(data):
        return _score(predictor, config, Store.open(data))
    with tempfile.TemporaryDirectory(prefix="bertsmith-") as folder:
        store = prepare([data], predictor.tokenizer, Path(folder) / "store", say)
        return _score(predictor, config, store)


def _score(predictor: Predictor, config: PretrainingConfig, store: Store) -> TextEvaluation:
    if store.manifest["tokenizer"] != predictor.tokenizer.hash:
        raise DataError(f"{store.path}: made with another vocabulary than the model's; give the text instead")
    learnt = (predictor.bundle.meta.get("lineage") or {}).get("data", {})
    source: Passages = passages(store)
    if len(source) < 2 and config.pairs == "nsp":
        # Without another passage to draw from there are no pairs.
        config = config.model_copy(update={"pairs": "none"})
    task = Pretraining(predictor.tokenizer, config)
    part = "all of it"
    if store.hash in (learnt.get("store"), *learnt.get("replay", ())):
        source, part = task.rows(store)[1], "the documents that training left out"
    windows = task.plan(store, source, SEED)
    batches = [
        batch
        for number, index in enumerate(token_batches(windows.lengths.tolist(), predictor.batch_tokens))
        for batch in task.encode(store, windows.take(index), SEED, 2, number)
    ]
    scores = held_out_scores(predictor.model, task, batches, predictor.precision)
    return TextEvaluation(scores, sum(batch.num_tokens for batch in batches), part)
