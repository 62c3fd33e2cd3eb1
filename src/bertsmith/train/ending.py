"""How a pretraining run ends: scores, report and bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bertsmith.core.bundle import Bundle, atomic_write
from bertsmith.core.files import as_json
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.train import continued
from bertsmith.train import samples as shown
from bertsmith.train.best import Best
from bertsmith.train.report import pretraining_report
from bertsmith.train.run import BUNDLE, SCORES

if TYPE_CHECKING:
    from bertsmith.train.course import Run


def finish(
    run: Run,
    model: Model,
    best: Best,
    forgetting: Sequence[Mapping[str, Any]],
    guesses: Sequence[shown.Guess],
    say: Callable[[str], None],
) -> None:
    """Write scores, report and bundle; the bundle comes last, since a run that has one is finished.

    Args:
        run: that ends.
        model: with the best weights.
        best: when they were, and their scores.
        forgetting: rows of the table; empty where the run began from nothing.
        guesses: of the model.
        say: takes lines for the user.
    """
    config, tokenizer, others = run.config.model_copy(update={"model": model.config}), run.tokenizer, run.others
    found = {"held_out": best.scores} | ({"forgetting": forgetting} if forgetting else {})
    store, start = run.store, Bundle.open(run.start) if run.start is not None else None
    meta = {
        "task": "pretraining",
        "labels": [],
        "task_config": config.task.model_dump(mode="json"),
        "lineage": {
            "parent": start.hash if start is not None else None,
            "base_model": start.hub_name(run.facts["from"]) if start is not None else None,
            "data": {
                "store": store.hash,
                "inputs": run.facts["inputs"],
                "replay": [other.store.hash for other in others if other.role == "replay"],
            },
            "configs": config.model_dump(mode="json"),
            "steps": best.step,
        },
        "text": {"documents": store.num_documents, "sentences": store.num_sentences, "tokens": store.num_tokens},
        "scores": best.scores,
    }
    if forgetting:
        say(continued.told(forgetting))
    atomic_write(run.out / SCORES, as_json(found))
    report = pretraining_report(
        run.out, config, run.facts, run.store, tokenizer, guesses, best.step, forgetting, config.continued.replay
    )
    files = tokenizer.files(model.config.architecture, max_length=model.config.max_position_embeddings)
    bundle = save_model(run.out / BUNDLE, model, files, meta)
    say(f"bundle: {bundle.path}\nreport: {report}")
