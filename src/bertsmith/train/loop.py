"""The one training loop: a generator that takes a step and hands it to its caller.

Whatever else a run does (evaluate, save, stop early) is a statement in the caller's `for` body, in the order in which
it happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.tasks.base import Loss
from bertsmith.train.optim import OptimConfig
from bertsmith.train.schedule import share

Feed = Callable[[int], Sequence[Batch]]
"""The batches of step k (from 0), a pure function of k; several are accumulated into one update."""

PATIENCE_NON_FINITE = 20


class Learnable(Protocol):
    """What the loop asks of a task."""

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """See `tasks.base.Task.loss`."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One update.

    Attributes:
        number: updates done, this one included.
        loss: mean over the step's targets; a tensor, so that reading it is the caller's choice.
        parts: the task's figures, each a mean over its targets.
        lr: learning rate of this update, before what a layer or Muon makes of it.
        grad_norm: before clipping.
        tokens: packed tokens.
        seconds: from the end of the step before, the caller's own work not counted.
        waited: seconds of those in which the loop waited for data.
        skipped: the gradient was not finite, so the weights did not move.
    """

    number: int
    loss: Tensor
    parts: dict[str, Tensor]
    lr: float
    grad_norm: Tensor
    tokens: int
    seconds: float
    waited: float
    skipped: bool


def steps(
    model: Model,
    task: Learnable,
    feed: Feed,
    optimizer: torch.optim.Optimizer,
    config: OptimConfig,
    *,
    total: int,
    start: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Iterator[Step]:
    """Take steps `start` to `total`, yielding after each.

    The loss is the sum over all targets of the step divided by their number, so it does not depend on how the step is
    cut into batches. All chance (dropout) is drawn from (seed, step).

    Args:
        model: in training mode whenever a step is taken; the caller may switch it in between.
        task: gives the loss.
        feed: gives the batches of a step; the next step's are made ready in the background.
        optimizer: made by `build_optimizer`; the learning rate of each group is set here.
        config: schedule and clipping.
        total: steps in all, of which the schedule is a function.
        start: steps already done.
        dtype: of matrix products; bf16 runs under autocast.
        seed: of dropout.

    Raises:
        ConfigError: the gradient was not finite for 20 steps in a row.
    """
    device = next(model.parameters()).device
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    broken = 0
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as reader:
        ready = reader.submit(feed, start) if start < total else None
        for k in range(start, total):
            began = time.perf_counter()
            assert ready is not None
            batches = ready.result()
            waited = time.perf_counter() - began
            ready = reader.submit(feed, k + 1) if k + 1 < total else None

            model.train()
            torch.manual_seed(seed * 1_000_003 + k)
            losses = []
            for batch in batches:
                batch = batch.to(device)
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    outputs = model(batch)
                loss = task.loss(outputs, batch)
                loss.total.backward()
                losses.append(loss)

            count = sum(loss.count for loss in losses)
            gradients = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_div_(gradients, float(count))
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            part = share(k, total, config)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * part
            skipped = not bool(torch.isfinite(norm))
            if not skipped:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            broken = broken + 1 if skipped else 0
            if broken >= PATIENCE_NON_FINITE:
                raise ConfigError(
                    f"step {k + 1}: the gradient has not been finite for {broken} steps, so the weights no longer "
                    f"learn; lower the learning rate (now {config.lr:g}) with --set, or look for damaged input"
                )
            yield Step(
                number=k + 1,
                loss=sum(loss.total.detach() for loss in losses) / count,  # type: ignore[arg-type]
                parts=_means(losses),
                lr=config.lr * part,
                grad_norm=norm,
                tokens=sum(batch.num_tokens for batch in batches),
                seconds=time.perf_counter() - began,
                waited=waited,
                skipped=skipped,
            )


def _means(losses: Sequence[Loss]) -> dict[str, Tensor]:
    means = {}
    for name in losses[0].parts:
        total = sum(loss.parts[name][0] for loss in losses)
        count = sum(loss.parts[name][1] for loss in losses)
        means[name] = total / torch.as_tensor(count).clamp_min(1)
    return means
