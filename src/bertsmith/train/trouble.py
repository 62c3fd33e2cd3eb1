"""What a run does about gradients that are not finite: keep the evidence, go back, learn more slowly, at last stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bertsmith.core.bundle import atomic_write
from bertsmith.core.events import Events
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.checkpoint import discard
from bertsmith.train.loop import NotFiniteError, Step
from bertsmith.train.optim import OptimConfig

TROUBLE = "trouble"
SHARE = "lr_share"
LOWER = 0.5
RETURNS = 3
"""How often a run goes back to its last checkpoint before it stops."""


def record(out: Path, step: Step, tokenizer: Tokenizer, rank: int = 0) -> Path:
    """Write down a step whose gradient was not finite: figures, and the sequences as the model saw them.

    Args:
        out: the run folder; the file is `trouble/step-N.json`, for ranks above 0 `trouble/step-N-rank-R.json`.
        step: the step.
        tokenizer: writes the text.
        rank: the process that read it.

    Returns:
        The file.
    """
    sequences = [ids for batch in step.batches for ids in torch.split(batch.input_ids.cpu(), list(batch.lengths))]
    found = {
        "step": step.number,
        "loss": str(float(step.loss)),
        "grad_norm": str(float(step.grad_norm)),
        "lr": step.lr,
        "sequences": [{"input_ids": ids.tolist(), "text": tokenizer.decode(ids.tolist())} for ids in sequences],
    }
    name = f"step-{step.number}.json" if rank == 0 else f"step-{step.number}-rank-{rank}.json"
    path = out / TROUBLE / name
    atomic_write(path, (json.dumps(found, ensure_ascii=False, indent=1) + "\n").encode())
    return path


def go_back(out: Path, facts: dict[str, Any], trouble: NotFiniteError, screen: Events) -> None:
    """Halve the learning rate of a run that is about to go on from its last checkpoint before the trouble.

    A checkpoint after which no update was made is removed: whatever the rate, none would be made again.

    Args:
        out: the run folder.
        facts: of the run; `lr_share`, by which its rates are multiplied, is lowered.
        trouble: what happened.
        screen: tells the user.

    Raises:
        NotFiniteError: it has gone back three times already; says where the evidence is.
    """
    share = facts.get(SHARE, 1.0) * LOWER
    if share < LOWER**RETURNS:
        raise NotFiniteError(
            f"{trouble}. The run went back to its last checkpoint {RETURNS} times, each time at half the rate, in "
            f"vain; the batches at which it broke are in {out / TROUBLE}",
            trouble.since,
        ) from None
    facts[SHARE] = share
    discard(out, trouble.since)
    screen.say(f"{trouble}; going back to the last checkpoint with {share:g} of the learning rate")


def slowed(config: OptimConfig, facts: dict[str, Any]) -> Any:
    """The settings with their learning rates as the trouble so far has left them."""
    share = facts.get(SHARE, 1.0)
    muon = None if config.muon_lr is None else config.muon_lr * share
    return config.model_copy(update={"lr": config.lr * share, "muon_lr": muon})
