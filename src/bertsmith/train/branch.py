"""Branching from a checkpoint: a run that goes on from where another stood, with a schedule or a text of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from bertsmith.core.bundle import Bundle
from bertsmith.core.events import read_metrics
from bertsmith.corpus.store import Store
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.tasks.preparation import is_store
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.checkpoint import OPTIMIZER, load_tensors, open_checkpoint, put_state
from bertsmith.train.run import facts_of

START = "start"


def order_of(config: Any) -> dict[str, Any]:
    """The settings of a run on which depends what its step k reads; JSON values.

    Args:
        config: of the run.
    """
    return {
        "train.seed": config.train.seed,
        "train.batch_tokens": config.train.batch_tokens,
        "task.max_length": config.task.max_length,
        "task.pairs": config.task.pairs,
        "train.stages": [stage.model_dump(mode="json") for stage in config.train.stages],
    }


def unfold(
    folder: Path, out: Path, shape: ModelConfig, task: PretrainingConfig, optimizer: str, order: Mapping[str, Any]
) -> dict[str, Any]:
    """Make a bundle of a checkpoint, in `out/start`, with the optimiser's state beside the weights.

    The new run needs nothing more of the old one, which may be removed.

    Args:
        folder: `RUN/checkpoints/step-N`.
        out: the new run.
        shape: of RUN's model.
        task: of RUN.
        optimizer: the name of RUN's.
        order: `order_of` RUN.

    Returns:
        Facts for the new run: `start`, the bundle; and `branch`, where the old run stood: `run`, `step`, `store` (its
        sum), `read` (batches of that store, by the runs before the old one too), `order` and `optimizer`.

    Raises:
        BundleError: the checkpoint is damaged.
    """
    checkpoint = open_checkpoint(folder)
    run = folder.parents[1]
    tokenizer = Tokenizer.load(run / "vocab")
    shape = shape.model_copy(update={"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id})
    model = Model(shape, Pretraining(tokenizer, task).head(shape))
    model.load_state_dict(load_tensors(checkpoint, "model"))
    files = tokenizer.files(shape.architecture, max_length=shape.max_position_embeddings)
    files |= {OPTIMIZER: save(load_tensors(checkpoint, "optimizer"))}
    meta = {
        "task": "pretraining",
        "labels": [],
        "task_config": task.model_dump(mode="json"),
        "lineage": {"parent": None, "run": str(run), "steps": checkpoint.step},
        "scores": {},
    }
    bundle = save_model(out / START, model, files, meta)
    old = facts_of(run, ["inputs"])
    store = run / "store" if is_store(run / "store") else Path(old["inputs"][0])
    text = Store.open(store) if is_store(store) else None
    others = {int(line["step"]) for line in read_metrics(run) if line.get("source")}
    read = checkpoint.step - sum(step <= checkpoint.step for step in others)
    return {
        "start": str(bundle.path),
        "branch": {
            "run": str(run),
            "step": checkpoint.step,
            "store": text.hash if text else None,
            "read": read + (passed_over(old, text) if text else 0),
            "order": dict(order),
            "optimizer": optimizer,
        },
    }


def passed_over(facts: Mapping[str, Any], store: Store) -> int:
    """Batches of the text that the runs it branches from have seen, and that this one therefore begins after.

    Args:
        facts: of the new run.
        store: what it learns from; another one than the old run's has not been seen.
    """
    branch = facts.get("branch")
    return branch.get("read", branch["step"]) if branch and branch["store"] == store.hash else 0


def read_again(facts: Mapping[str, Any], store: Store, config: Any) -> str:
    """A line for somebody whose run reads the text in another order than the run it branches from; else empty.

    Args:
        facts: of the new run.
        store: what it learns from.
        config: its settings.
    """
    if not passed_over(facts, store):
        return ""
    then, now = facts["branch"].get("order", {}), order_of(config)
    other = [name for name in now if name in then and then[name] != now[name]]
    if not other:
        return ""
    return (
        f"{', '.join(other)} differ from those of {facts['branch']['run']}, so the text is read in another order: some "
        "of what that run has read comes again before the rest"
    )


def take_state(facts: dict[str, Any], model: Model, optimizer: torch.optim.Optimizer, name: str) -> str:
    """Let the optimiser go on from the state that it had at the checkpoint.

    Args:
        facts: of the new run.
        model: names the parameters.
        optimizer: fresh.
        name: which optimiser it is; another one than the old run's starts without state.

    Returns:
        A line for the user; empty where the run does not branch from a checkpoint.
    """
    branch = facts.get("branch")
    if not branch:
        return ""
    where = f"{branch['run']}, step {branch['step']}"
    if branch["optimizer"] != name:
        return f"branching from {where}: weights only, since it had {branch['optimizer']} and this run has {name}"
    put_state(load_file(Bundle.open(facts["start"]).path / OPTIMIZER), model, optimizer)
    return f"branching from {where}: weights and the state of {name}"
