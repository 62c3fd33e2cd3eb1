"""The one training loop: a generator that takes a step and hands it to its caller.

Whatever else a run does (evaluate, save, stop early) is a statement in the caller's `for` body, in the order in which
it happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, join
from bertsmith.tasks.base import Loss
from bertsmith.train.distributed import ALONE, Ranks, apart, spread
from bertsmith.train.optim import OptimConfig
from bertsmith.train.schedule import share
from bertsmith.train.shards import full, own

PATIENCE_NON_FINITE = 5
"""Steps in a row without a finite gradient, after which the loop gives up."""


class NotFiniteError(ConfigError):
    """The gradient stays infinite or NaN: the weights no longer learn.

    Attributes:
        since: updates done when it began, which gave the weights.
    """

    def __init__(self, message: str, since: int) -> None:
        """What to tell the user, and where it began."""
        super().__init__(message)
        self.since = since


Ask = Callable[[Batch], dict[str, Tensor]]
"""A forward pass in the run's precision."""


class Feed(Protocol):
    """Where the batches of each step come from."""

    def __call__(self, step: int) -> Sequence[Batch]:
        """The batches of `step` (from 0), a pure function of it; several are accumulated into one update."""
        ...

    def halve(self) -> None:
        """From now on cut each step into twice as many batches."""
        ...


class Learnable(Protocol):
    """What the loop asks of a task.

    A task whose loss compares the sequences of a step with each other says so by an attribute `joint` that is true. One
    that takes more than a forward and a backward pass has a method `backward(ask, batch)`, which takes them all, adds
    up gradients, and gives the loss; `ask` is the model's call. Several tasks of which each step learns one have a
    method `part(batch)`, which gives that one.
    """

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
        batches: what this rank read, so that a step that went wrong can be looked at.
        halved: how often memory ran out in this step, so that its batches, and those of later steps, became smaller.
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
    batches: Sequence[Batch]
    halved: int = 0


def smaller(step: Step) -> str:
    """What to tell somebody whose device ran out of memory in this step."""
    return (
        f"step {step.number}: the device ran out of memory, so updates are now computed in {len(step.batches)} parts; "
        "the result is the same"
    )


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
    ranks: Ranks = ALONE,
) -> Iterator[Step]:
    """Take steps `start` to `total`, yielding after each.

    The loss is the sum over all targets of the step divided by their number, so it depends neither on how the step is
    cut into batches nor on how many ranks share them. All chance (dropout) is drawn from (seed, step, rank).
    When the device runs out of memory, the step is taken again in batches half as large. While the caller holds a step,
    its gradients (clipped) are still there.

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
        ranks: the processes that take each step together; the feed gives each its own batches.

    Raises:
        torch.OutOfMemoryError: one sequence is too much for the device, or several ranks share the step.
        NotFiniteError: the gradient was not finite for 5 steps in a row; raised after the last of them was yielded.
    """
    device = next(model.parameters()).device
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    call = spread(model, ranks)
    broken = 0
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as reader:
        ready = reader.submit(feed, start) if start < total else None
        for k in range(start, total):
            began = time.perf_counter()
            assert ready is not None
            batches = ready.result()
            waited = time.perf_counter() - began
            ready = reader.submit(feed, k + 1) if k + 1 < total else None

            optimizer.zero_grad(set_to_none=True)
            model.train()
            ranks.beat(k)
            halved, losses = 0, list[Loss]()
            while not losses:
                torch.manual_seed(((seed * 1_000_003 + k) * ranks.size + ranks.rank) % 2**64)
                try:
                    losses = _backward(call, task, batches, device, dtype)
                except torch.OutOfMemoryError:
                    if ranks.size > 1 or all(batch.num_sequences == 1 for batch in batches):
                        raise
                    halved += 1
                if not losses:  # outside the except clause, whose traceback holds on to the activations
                    optimizer.zero_grad(set_to_none=True)
                    if device.type == "cuda":
                        torch.cuda.empty_cache()
                    if ready is not None:
                        ready.result()
                    feed.halve()
                    batches = feed(k)
                    ready = reader.submit(feed, k + 1) if k + 1 < total else None

            tokens = sum(batch.num_tokens for batch, loss in zip(batches, losses, strict=True) if counts(loss, ranks))
            count, total_loss, tokens, parts = _summed(losses, tokens, ranks, device)
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = _tame(gradients, float(count) / ranks.size, config.max_grad_norm)
            part = share(k, total, config)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * part
            skipped = not bool(torch.isfinite(norm))
            if not skipped:
                optimizer.step()
            broken = broken + 1 if skipped else 0
            yield Step(
                number=k + 1,
                loss=total_loss / count,
                parts=parts,
                lr=config.lr * part,
                grad_norm=norm,
                tokens=tokens,
                seconds=time.perf_counter() - began,
                waited=waited,
                skipped=skipped,
                batches=batches,
                halved=halved,
            )
            if broken >= PATIENCE_NON_FINITE:
                raise NotFiniteError(
                    f"step {k + 1}: the gradient has not been finite for {broken} steps, so the weights no longer "
                    f"learn; lower the learning rate (now {config.lr:g}) with --set, or look for damaged input",
                    since=k + 1 - broken,
                )
    optimizer.zero_grad(set_to_none=True)


def _backward(
    call: Any, task: Learnable, batches: Sequence[Batch], device: torch.device, dtype: torch.dtype
) -> list[Loss]:
    """Forward and backward pass of each batch of a step; gradients add up."""

    def ask(batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            outputs: dict[str, Tensor] = call(batch)
        return outputs

    if (part := getattr(task, "part", None)) is not None:
        task = part(batches[0])
    backward = getattr(task, "backward", None)
    if len(batches) > 1 and getattr(task, "joint", False):
        if backward is not None:  # several passes and one at a time do not go together
            return _and_nothing(backward(ask, join([batch.to(device) for batch in batches])), len(batches))
        return _jointly(ask, task, [batch.to(device) for batch in batches], device)
    losses = []
    for number, batch in enumerate(batches, 1):
        batch = batch.to(device)
        # Gradients meet once, in the last batch's backward pass.
        with nullcontext() if number == len(batches) else apart(call):
            if backward is not None:
                loss = backward(ask, batch)
            else:
                loss = task.loss(ask(batch), batch)
                loss.total.backward()
        losses.append(loss)
    return losses


def _tame(gradients: list[Tensor], count: float, most: float) -> Tensor:
    """Divide sums by their count and scale what is longer than `most` down, in one pass; the norm before that."""
    norm = full(torch.nn.utils.get_total_norm(gradients)) / count
    torch._foreach_mul_(own(gradients), (most / (norm + 1e-6)).clamp(max=1.0) / count)
    return norm


def _jointly(ask: Ask, task: Learnable, batches: Sequence[Batch], device: torch.device) -> list[Loss]:
    """The same for a loss over all sequences of a step, holding the activations of one batch at a time.

    Every batch is computed twice with the same dropout: first for its outputs alone, on all of which the loss and its
    gradient are taken; then with the activations through which that gradient flows back.

    Source: Gao et al. 2021, section 3 (GradCache, arXiv:2101.06983).
    """
    chance, found = [], []
    for batch in batches:
        chance.append(_chance(device))
        with torch.no_grad():
            found.append(ask(batch))
    outputs = {name: torch.cat([one[name] for one in found]).requires_grad_() for name in found[0]}
    loss = task.loss(outputs, join(batches))
    loss.total.backward()  # to the outputs, and to weights that the loss asks about by itself
    cut = {
        name: out.grad.split([len(one[name]) for one in found]) for name, out in outputs.items() if out.grad is not None
    }
    for number, (batch, state) in enumerate(zip(batches, chance, strict=True)):
        _resume_chance(state, device)
        again = ask(batch)
        torch.autograd.backward([again[name] for name in cut], [cut[name][number] for name in cut])
    return _and_nothing(loss, len(batches))


def _and_nothing(loss: Loss, count: int) -> list[Loss]:
    """The loss of a step that was taken as a whole, as those of so many batches."""
    rest = Loss(loss.total.new_zeros(()), 0, {name: (0 * total, 0) for name, (total, _) in loss.parts.items()})
    return [loss, *[rest] * (count - 1)]


def _chance(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _resume_chance(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def counts(loss: Loss, ranks: Ranks) -> bool:
    """Whether a batch is more than something to do for a rank for which the step had too few sequences."""
    return ranks.size == 1 or bool(loss.count)


def _summed(
    losses: Sequence[Loss], tokens: int, ranks: Ranks, device: torch.device
) -> tuple[Tensor | int, Tensor, int, dict[str, Tensor]]:
    """Targets, loss, tokens and the parts' means of a whole step, over all its batches and ranks."""
    count: Tensor | int = sum(loss.count for loss in losses)
    total: Tensor = sum(loss.total.detach() for loss in losses)  # type: ignore[assignment]
    names = list(losses[0].parts)
    sums: list[Tensor | int] = [sum(loss.parts[name][0] for loss in losses) for name in names]
    numbers: list[Tensor | int] = [sum(loss.parts[name][1] for loss in losses) for name in names]
    if ranks.size > 1:
        count, total, everything, *rest = ranks.total([count, total, float(tokens), *sums, *numbers], device)
        tokens, sums, numbers = int(everything), [*rest[: len(names)]], [*rest[len(names) :]]
    means = {
        name: part / torch.as_tensor(number).clamp_min(1)
        for name, part, number in zip(names, sums, numbers, strict=True)
    }
    return count, total, tokens, means
