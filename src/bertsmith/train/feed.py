"""What each step reads: pure functions of (store, seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.corpus.store import Store
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.base import Member, collate
from bertsmith.tasks.pretraining import IGNORE, Objective, Pretraining
from bertsmith.tasks.windows import Passages, Windows, counter_rng
from bertsmith.train.distributed import ALONE, Ranks

NEIGHBOURHOOD = 32
"""Batches among which sequences of one length are gathered."""
EVAL_SEED = 20_181_011


class PretrainingFeed:
    """Batches of a token store by step; no state, so that any step can be asked for at once.

    Attributes:
        total: steps of the run, to be set before its first step when it was not known at first.
    """

    def __init__(
        self,
        task: Pretraining,
        store: Store,
        source: Passages,
        *,
        seed: int,
        batch_tokens: int,
        objective: Objective = "masked",
        predicted: float = 1.0,
        parts: int = 1,
        skip: int = 0,
        total: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Plan the first epoch.

        Args:
            task: plans, reads and masks.
            store: the tokens.
            source: passages to learn from.
            seed: of order, pairs and masks.
            batch_tokens: packed tokens of a step, all parts together.
            objective: predict what is hidden, or what comes next.
            predicted: the share of pieces that the causal objective predicts; the task says how many are hidden.
            parts: batches that a rank's share of a step is cut into.
            skip: batches that come before this feed's first one, because another run has seen them.
            total: steps of the run, on which the mask rate may depend; None where that is not known yet.
            ranks: the processes that share each step.

        Raises:
            DataError: pairs are asked for, and the text has no two sentences that stand together.
        """
        self.task, self.store, self.source = task, store, source
        self.seed, self.batch_tokens, self.parts, self.ranks = seed, batch_tokens, parts, ranks
        self.objective, self.predicted, self.skip, self.total = objective, predicted, skip, total
        self._epoch = lru_cache(maxsize=2)(self._plan_epoch)
        windows, batches = self._epoch(0)
        if task.config.pairs != "none" and not windows.length_b.any():
            raise DataError(
                f"{store.path}: no two sentences stand together in any sequence, so there is no pair to "
                f"learn {task.config.pairs.upper()} from; train without it: --set task.pairs=none"
            )
        self.steps_per_epoch = len(batches)
        self.tokens_per_step = float(windows.lengths.sum()) / len(batches)

    def __call__(self, step: int) -> list[Batch]:
        """This rank's batches of `step`, from 0."""
        return self.batches(step, progress(step, self.total))

    def batches(self, number: int, done: float) -> list[Batch]:
        """This rank's share of the text's batch `number`, from 0.

        Args:
            number: counted over the epochs; the step, where no other feed takes turns with this one.
            done: share of the run, 0 to 1, on which the mask rate may depend.
        """
        number += self.skip
        epoch, index = divmod(number, self.steps_per_epoch)
        windows, batches = self._epoch(epoch)
        chosen = windows.take(batches[index % len(batches)])
        parts = self.task.encode(
            self.store,
            chosen,
            self.seed,
            1,
            number,
            rate=self.predicted if self.objective == "causal" else self.task.config.rate(done),
            masking=self.task.config.masking,
            objective=self.objective,
            parts=self.parts * self.ranks.size,
        )
        first = self.parts * self.ranks.rank
        mine = parts[first : first + self.parts]
        # As many on every rank: of a model that is cut over them, none can be called by one rank alone.
        return [*mine, *[idle(parts[0])] * (min(self.parts, len(parts)) - len(mine))]

    def source_of(self, number: int) -> int:
        """Which of several corpora batch `number` is from; there is one, 0."""
        return 0

    def halve(self) -> None:
        """From now on cut each step into twice as many batches."""
        self.parts *= 2

    def _plan_epoch(self, epoch: int) -> tuple[Windows, list[NDArray[np.int64]]]:
        windows = self.task.plan(self.store, self.source, self.seed, 0, epoch)
        rng = counter_rng(self.seed, 2, epoch)
        return windows, group(windows.lengths, rng.permutation(len(windows)), self.batch_tokens, rng)


def idle(batch: Batch) -> Batch:
    """The same sequences with nothing to learn: what a rank does when a step has fewer sequences than ranks.

    Its gradients are zeros, and the others, who wait for them, go on.
    """
    targets = {name: value[:0] for name, value in batch.targets.items() if name.startswith("mlm")}
    if "nsp_labels" in batch.targets:
        labels, weight = batch.targets["nsp_labels"], batch.targets["nsp_weight"]
        targets |= {"nsp_labels": torch.full_like(labels, IGNORE), "nsp_weight": weight}
    if "rtd_weight" in batch.targets:
        targets["rtd_weight"] = torch.zeros_like(batch.targets["rtd_weight"])
    return replace(batch, targets=targets)


def progress(step: int, total: int | None) -> float:
    """Share of a run that is done at `step`, 0 to 1; a half while the length of the run is not known.

    Args:
        step: from 0.
        total: steps of the run.
    """
    return 0.5 if total is None else min(1.0, step / max(1, total - 1))


class Turns:
    """Whose turn each step is, so that each of several has its share of the steps.

    It is arithmetic on the step alone. After any number of steps each has had its share to within a step for each
    other, and no two turns of one are far apart.
    """

    def __init__(self, weights: Sequence[Fraction]) -> None:
        """Turn weights into shares.

        Args:
            weights: of the steps, each above 0; they are divided by their sum.
        """
        self.shares = [weight / sum(weights) for weight in weights]
        # The share of the first among itself and all after it: a step goes to it, or on to the rest.
        self._first = [weight / sum(weights[n:]) for n, weight in enumerate(weights)]

    def __call__(self, step: int) -> tuple[int, int]:
        """Whose turn `step` is, and how many it has had before."""
        for number, share in enumerate(self._first):
            before = int(step * share)
            if int((step + 1) * share) > before:
                return number, before
            step -= before
        raise AssertionError("the last one's share is 1")


class MixedFeed:
    """Whole batches of several feeds in turn, so that each gives its share of the tokens.

    Which feed gives step k, and which of its batches that is, follows from k alone (`Turns`). The mask rate follows
    the steps of the run, whose turn it may be.
    """

    tokens_per_step: float
    steps_per_epoch: int
    """Steps in which the first feed passes once over its text, or all of them over their common one."""

    def __init__(
        self,
        feeds: Sequence[PretrainingFeed | MixedFeed],
        shares: Sequence[float],
        *,
        same: bool = False,
        skip: int = 0,
    ) -> None:
        """Turn shares of tokens into shares of steps.

        Args:
            feeds: at least one.
            shares: of all tokens, one a feed, each above 0; they are divided by their sum.
            same: they read the same text, with other objectives.
            skip: batches that come before this feed's first one, because another run has seen them.
        """
        self.feeds, self.skip = list(feeds), skip
        self.turn = Turns([Fraction(share / feed.tokens_per_step) for feed, share in zip(feeds, shares, strict=True)])
        self.shares = self.turn.shares
        self.tokens_per_step = sum(
            float(share) * feed.tokens_per_step for share, feed in zip(self.shares, feeds, strict=True)
        )
        self.steps_per_epoch = max(1, round(feeds[0].steps_per_epoch / (1 if same else self.shares[0])))

    @property
    def total(self) -> int | None:
        """Steps of the run, to be set before its first step when it was not known at first."""
        return self.feeds[0].total

    @total.setter
    def total(self, steps: int) -> None:
        for feed in self.feeds:
            feed.total = steps

    def __call__(self, step: int) -> list[Batch]:
        """This rank's batches of `step`, from 0."""
        return self.batches(step, progress(step, self.total))

    def batches(self, number: int, done: float) -> list[Batch]:
        """This rank's share of batch `number`, from 0, of all feeds together.

        Args:
            number: counted over the epochs.
            done: share of the run, 0 to 1, on which the mask rate may depend.
        """
        feed, own = self.turn(number + self.skip)
        return self.feeds[feed].batches(own, done)

    def source_of(self, number: int) -> int:
        """Which of the feeds gives batch `number`."""
        return self.turn(number + self.skip)[0]

    def halve(self) -> None:
        """From now on cut each step into twice as many batches."""
        for feed in self.feeds:
            feed.halve()


def group(
    lengths: NDArray[np.int64], order: NDArray[np.int64], batch_tokens: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Batches of at most `batch_tokens` tokens in which neighbours are of equal length, longest first.

    Sequences are sorted by length within stretches of 32 batches of the random order, cut into batches, and the batches
    shuffled: attention then runs over few distinct lengths, and the order stays random.

    Args:
        lengths: of all sequences, `[W]`.
        order: a permutation, `[W]`.
        batch_tokens: the budget; a longer sequence goes alone.
        rng: shuffles the batches.

    Returns:
        For each batch the indices of its sequences.
    """
    stretch = (np.cumsum(lengths[order]) - lengths[order]) // (batch_tokens * NEIGHBOURHOOD)
    order = order[np.lexsort((-lengths[order], stretch))]
    batches: list[NDArray[np.int64]] = []
    ends = np.cumsum(lengths[order])
    first = 0
    while first < len(order):
        before = int(ends[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + batch_tokens, side="right")))
        batches.append(order[first:stop])
        first = stop
    return [batches[i] for i in rng.permutation(len(batches))]


def evaluation_batches(task: Pretraining, store: Store, held_out: Passages, batch_tokens: int) -> list[Batch]:
    """The held-out text, always cut, paired and masked the same way, at 15 %."""
    windows = task.plan(store, held_out, EVAL_SEED)
    order = np.argsort(-windows.lengths, kind="stable")
    rng = counter_rng(EVAL_SEED, 1)
    return [
        batch
        for number, index in enumerate(group(windows.lengths, order, batch_tokens, rng))
        for batch in task.encode(store, windows.take(index), EVAL_SEED, 2, number)
    ]


class ExampleFeed:
    """Batches of a task's sequences by step: each epoch a new order, a pure function of (seed, step).

    Sequences that the loss needs together (`tasks.base.Member`) are drawn together, and count as one.
    """

    def __init__(
        self, encodings: Sequence[Encoding], *, seed: int, batch_size: int, parts: int = 1, heads: str = ""
    ) -> None:
        """Hold the sequences.

        Args:
            encodings: what the task made of its examples, with targets.
            seed: of the order.
            batch_size: sequences of a step, or groups of them that belong together.
            parts: batches that a step is cut into.
            heads: whose heads read the batches, where a model has those of several tasks.
        """
        self.encodings, self.seed, self.batch_size, self.parts = encodings, seed, batch_size, parts
        self.heads = heads
        self.groups: list[list[Encoding]] = []
        for encoding in encodings:
            last = self.groups[-1][-1] if self.groups else None
            if isinstance(encoding, Member) and isinstance(last, Member) and encoding.example == last.example:
                self.groups[-1].append(encoding)
            else:
                self.groups.append([encoding])
        self.steps_per_epoch = -(-len(self.groups) // batch_size)
        self._order = lru_cache(maxsize=2)(lambda epoch: counter_rng(self.seed, 3, epoch).permutation(len(self.groups)))

    @property
    def tokens_per_step(self) -> float:
        """Packed tokens of an average step."""
        return sum(map(len, self.encodings)) / self.steps_per_epoch

    def __call__(self, step: int) -> list[Batch]:
        """The batches of `step`, from 0; sequences of one length stand together."""
        ordered = sorted((encoding for i in self.chosen(step) for encoding in self.groups[i]), key=len)
        parts = min(self.parts, len(ordered))
        bounds = [len(ordered) * part // parts for part in range(parts + 1)]
        return [replace(collate(ordered[a:b]), heads=self.heads) for a, b in pairwise(bounds) if b > a]

    def chosen(self, step: int) -> Sequence[int]:
        """The groups of `step`, from 0, by number."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order: list[int] = self._order(epoch)[index * self.batch_size : (index + 1) * self.batch_size].tolist()
        return order

    def halve(self) -> None:
        """From now on cut each step into twice as many batches."""
        self.parts *= 2


class TaskFeed:
    """Steps of several tasks in turn: each step reads rows of one task.

    A task of n rows has n^(1/temperature) of the steps, divided by the sum over the tasks; within its own steps it
    goes over its rows as if it were alone. Which step is whose follows from its number alone (`Turns`).

    Source: Liu et al. 2019 (MT-DNN, arXiv:1901.11504), algorithm 1, for one task a step; Raffel et al. 2020
    (arXiv:1910.10683), section 3.5.2, for the temperature. Differs: turns are dealt evenly, not drawn.
    """

    def __init__(self, feeds: Sequence[ExampleFeed], temperature: float) -> None:
        """Deal the turns.

        Args:
            feeds: one a task.
            temperature: above 0; 1 keeps the proportions of the rows, and the higher it is, the more alike are the
                tasks' shares.
        """
        self.feeds = list(feeds)
        # In proportion to the largest, so that no power of a number of rows is too large or too small for a float.
        most = max(len(feed.groups) for feed in feeds)
        self.turn = Turns([Fraction((len(feed.groups) / most) ** (1 / temperature)) for feed in feeds])
        self.shares = [float(share) for share in self.turn.shares]
        self.tokens_per_step = sum(share * feed.tokens_per_step for share, feed in zip(self.shares, feeds, strict=True))
        self.steps_per_epoch = sum(feed.steps_per_epoch for feed in feeds)
        """As many steps as it takes to read all rows of all tasks once."""

    def __call__(self, step: int) -> list[Batch]:
        """The batches of `step`, from 0: all of one task."""
        feed, own = self.turn(step)
        return self.feeds[feed](own)

    def halve(self) -> None:
        """From now on cut each step into twice as many batches."""
        for feed in self.feeds:
            feed.halve()
