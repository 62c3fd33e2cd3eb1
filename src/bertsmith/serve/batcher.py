"""The queue before a worker: batches by pieces, longest-waiting first; what nobody waits for is not computed.

A queue that was once let grow stays long for as long as the load lasts, and all who are answered have waited in it. So
a wait of `queue_seconds`, which a burst of requests may well cause, is taken as a sign of more load than can be
computed: what has waited is refused, and while more comes than the worker's speed allows only such are taken as need to
wait no longer than `shed_seconds`.

Streams, and requests that are work for longer than `queue_seconds` by themselves, have a lane of their own: one batch
at a time, of about a quarter of a second, where nothing else waits, and every other batch once they have waited long,
so that they hold up others little and are not held up for ever.

Source: the idea is that of controlled delay (Nichols and Jacobson 2012), as Maurer 2015 (Fail at Scale) puts it before
    services. Differs: what tells overload is how much comes, not a queue that is never empty, for that of many patient
    clients never is.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import Field

from bertsmith.core.config import Config, Count, Duration
from bertsmith.serve.lane import Job, Lane, Request, fail
from bertsmith.serve.refusal import Refusal

Kind = Literal["answer", "embed", "fill"]
Outcome = tuple[Literal["ok", "invalid", "failed"], Any]
"""What became of one item: its answer, or why there is none."""


CALM = 1.0
"""Seconds after which it is asked again whether there is more load than can be computed."""
GAP = 0.25
"""Seconds that a batch of the long lane may take, where the worker's speed is known."""
TELLING = 512
"""Pieces from which a batch tells how fast a worker is; of smaller ones most of the time goes elsewhere."""


class BatchConfig(Config):
    """How requests are put together."""

    tokens: Count = Field(8192, ge=1, description="pieces a batch; a longer item goes alone")
    batch_items: Count = Field(512, ge=1, description="most items a batch")
    in_flight: int = Field(2, ge=1, description="batches given to a worker at once; the second waits while it computes")
    queue_items: Count = Field(4096, ge=1, description="items that may wait in each lane; more are answered 429")
    queue_tokens: Count = Field(500_000, ge=1, description="pieces that may wait in each lane; more are answered 429")
    queue_seconds: Duration = Field(
        1.0, gt=0, description="expected wait, by the worker's speed, from which requests are answered 429"
    )
    shed_seconds: Duration = Field(
        0.03, gt=0, description="the same, from when that was reached for as long as more comes than can be computed"
    )
    deadline: Duration = Field(
        30.0, gt=0, description="longest wait for an answer; what has not begun by then is answered 504, uncomputed"
    )


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to compute.

    Attributes:
        kind: what is asked of the model.
        payload: a text, or several that belong together.
        tokens: pieces that it has, [CLS] and [SEP] included.
        options: further arguments of the question by name, sorted; items of equal kind and options share a pass.
    """

    kind: Kind
    payload: str | tuple[str, ...]
    tokens: int
    options: tuple[tuple[str, Any], ...] = ()


class Reply(NamedTuple):
    """What a worker says to a batch: an outcome an item, and the seconds that they took together."""

    outcomes: list[Outcome]
    seconds: float


class Answered(NamedTuple):
    """One item's answer, with the seconds that it waited, those that its batch was computed in, and when that ended."""

    value: Any
    queued: float
    computed: float
    ended: float


class Asked(Protocol):
    """What computes batches."""

    async def ask(self, items: Sequence[Item]) -> Reply:
        """Compute a batch.

        Args:
            items: of any kinds.
        """
        ...


class Meter(Protocol):
    """Keeps figures of batches."""

    def batch(self, tokens: int, queued: Sequence[float], seconds: float) -> None:
        """Take down one batch.

        Args:
            tokens: pieces in it.
            queued: seconds that each item waited.
            seconds: that it took to compute.
        """
        ...


@dataclass
class Batcher:
    """Items wait here for a worker; at most so many, and none in vain.

    Attributes:
        worker: computes batches.
        config: sizes and times.
        meter: is told what a batch was like.
        speed: pieces a second that the worker computes when there are enough of them; 0: not known.
        dropped: items that were not computed, by reason.
        shedding: whether only what need not wait is taken.
    """

    worker: Asked
    config: BatchConfig
    meter: Meter | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    speed: float = 0.0
    shedding: bool = False
    _taken: int = 0
    _mean_tokens: float = 0.0
    _refused: int = 0
    _counted_from: float = 0.0
    _quick: Lane = field(default_factory=Lane)
    _long: Lane = field(default_factory=Lane)
    _long_before: bool = False
    _long_under_way: bool = False
    _computing_tokens: int = 0
    _closed: Refusal | None = None
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._quick.jobs) + len(self._long.jobs)

    @property
    def busy(self) -> bool:
        """Whether anything waits or is computed."""
        return bool(self.waiting or self._under_way)

    def room(self, items: Sequence[Item], *, patient: bool = False) -> bool:
        """Whether `items` fit into the queue now; into an empty one, anything does.

        Args:
            items: of one request.
            patient: as for `submit`.
        """
        tokens = sum(item.tokens for item in items)
        lane = self._lane(tokens, patient)
        return not lane.jobs or (
            len(lane.jobs) + len(items) <= self.config.queue_items
            and lane.tokens + tokens <= self.config.queue_tokens
            and not (self.late if lane is self._quick else self._long_late)
        )

    @property
    def late(self) -> bool:
        """Whether a request of ordinary size that came now would wait too long."""
        return bool(self._quick.jobs) and self._wait() > self._longest_wait

    def refuse(self) -> Refusal:
        """The answer to a request that does not fit; too many of them, and `shedding` begins."""
        refusal = self._too_many()
        self._watch()
        self._refused += 1
        if not self.shedding and self._wait() > self.config.queue_seconds:
            self.shedding = True
            self._taken = self._refused = 0
            self._counted_from = asyncio.get_running_loop().time()
            self._shed()
        return refusal

    def submit(
        self, items: Sequence[Item], seconds: float | None = None, *, patient: bool = False
    ) -> list[asyncio.Future[Answered]]:
        """Put items into the queue, all or none.

        Args:
            items: of one request.
            seconds: from now to the deadline; None, or more than is configured: as configured.
            patient: they were let wait for room, and are not refused any more.

        Returns:
            One future an item; cancelling it takes the item out of the queue.

        Raises:
            Refusal: 429 with Retry-After when the queue is full, 503 when the worker is gone.
        """
        if self._closed is not None:
            raise self._closed
        if not self.room(items, patient=patient):
            raise self.refuse()
        self._watch()
        loop = asyncio.get_running_loop()
        now = loop.time()
        limit = now + min(self.config.deadline, self.config.deadline if seconds is None else seconds)
        request = Request(stays=patient)
        jobs = [Job(item, now, limit, request, loop.create_future()) for item in items]
        tokens = sum(item.tokens for item in items)
        lane = self._lane(tokens, patient)
        lane.add(jobs)
        if lane is self._quick:
            self._taken += 1
            self._mean_tokens += (tokens - self._mean_tokens) * (0.05 if self._mean_tokens else 1.0)
        self._start()
        return [job.done for job in jobs]

    def retry_after(self) -> int:
        """Seconds after which the queue is probably empty; 1 to 60."""
        return max(1, min(60, math.ceil(self._wait())))

    def close(self, refusal: Refusal) -> None:
        """Answer everything that waits, and all that comes, with `refusal`."""
        self._closed = refusal
        for lane in (self._quick, self._long):
            while lane.jobs:
                fail(lane.pop(), refusal)

    def _lane(self, tokens: int, patient: bool) -> Lane:
        """Where a request of so many pieces waits."""
        most = max(TELLING, self.config.queue_seconds * self.speed)
        return self._long if patient or (self.speed and tokens > most) else self._quick

    @property
    def _long_late(self) -> bool:
        wait = self._wait() + (self._long.tokens / self.speed if self.speed else 0.0)
        return bool(self._long.jobs) and wait > self.config.queue_seconds

    @property
    def _longest_wait(self) -> float:
        config = self.config
        return min(config.shed_seconds, config.queue_seconds) if self.shedding else config.queue_seconds

    def _too_many(self) -> Refusal:
        headers = {"Retry-After": str(self.retry_after())}
        return Refusal(429, "too many requests are waiting; try again later", headers=headers)

    def _watch(self) -> None:
        """End `shedding` when what came lately, refused requests of the same mean size included, could be computed."""
        now = asyncio.get_running_loop().time()
        seconds = now - self._counted_from
        if seconds > CALM:
            if self._mean_tokens * (self._taken + self._refused) <= self.speed * seconds:
                self.shedding = False
            self._taken = self._refused = 0
            self._counted_from = now

    def _shed(self) -> None:
        """Refuse what has waited for long: it would be answered late, and make all others late."""
        limit = asyncio.get_running_loop().time() - self._longest_wait
        refusal = self._too_many()
        kept = []
        for job in self._quick.jobs:
            if job.request.stays or job.since > limit or job.done.done():
                kept.append(job)
            else:
                fail(job, refusal)
                self.dropped["overload"] += 1
        self._quick = Lane()
        self._quick.add(kept)

    def _wait(self) -> float:
        """Seconds that what is in the quick lane, and of it with the worker, will take, at most."""
        return (self._quick.tokens + self._computing_tokens) / self.speed if self.speed else 0.0

    def _start(self) -> None:
        in_flight = 1 if self.shedding else self.config.in_flight
        while len(self._under_way) < in_flight:
            lane, batch = self._take()
            if not batch:
                return
            long = lane is self._long
            if long:
                self._long_under_way = True
            else:
                self._computing_tokens += sum(job.item.tokens for job in batch)
            task = asyncio.get_running_loop().create_task(self._compute(batch, long=long))
            self._under_way.add(task)

    def _take(self) -> tuple[Lane, list[Job]]:
        """The lane whose turn it is, and those of its jobs that have waited longest, as many as fit into a batch."""
        now = asyncio.get_running_loop().time()
        lane = self._next(now)
        if not (batch := self._batch(lane, now)):  # nobody waits any more for what there was in it
            lane = self._next(now)
            batch = self._batch(lane, now)
        if batch:
            self._long_before = lane is self._long
        return lane, batch

    def _next(self, now: float) -> Lane:
        if not self._long.jobs or self._long_under_way:
            return self._quick
        return self._quick if self._quick.jobs and (self._long_before or not self._due(now)) else self._long

    def _due(self, now: float) -> bool:
        """Whether the long lane has waited for long, or for half of the time that it has."""
        if not self._long.jobs:
            return False
        first = self._long.jobs[0]
        return now - first.since > min(self.config.queue_seconds, (first.deadline - first.since) / 2)

    def _batch(self, lane: Lane, now: float) -> list[Job]:
        room = self.config.tokens
        if self.speed and (lane is self._long or self._due(now)):  # lanes that take turns take short ones
            room = min(room, max(TELLING, round(GAP * self.speed)))
        batch: list[Job] = []
        while lane.jobs and len(batch) < self.config.batch_items:
            job = lane.jobs[0]
            alive = not job.done.done()
            if alive and now < job.deadline and batch and job.item.tokens > room:
                break
            lane.pop()
            if not alive:
                self.dropped["client_gone"] += 1
            elif now >= job.deadline:
                self.dropped["deadline_passed"] += 1
                waited = now - job.since
                fail(job, Refusal(504, f"after {waited:.1f} s in the queue the deadline had passed; nothing was done"))
            else:
                job.request.stays = True
                batch.append(job)
                room -= job.item.tokens
        return batch

    async def _compute(self, batch: list[Job], *, long: bool) -> None:
        loop = asyncio.get_running_loop()
        tokens = sum(job.item.tokens for job in batch)
        try:
            reply = await self.worker.ask([job.item for job in batch])
        except Refusal as refusal:
            for job in batch:
                fail(job, refusal)
        else:
            now = loop.time()
            if tokens >= TELLING:
                speed = tokens / max(reply.seconds, 1e-6)
                self.speed = speed if not self.speed else 0.8 * self.speed + 0.2 * speed
            if self.meter is not None:
                self.meter.batch(tokens, [now - job.since - reply.seconds for job in batch], reply.seconds)
            for job, (state, value) in zip(batch, reply.outcomes, strict=True):
                if state == "ok":
                    if not job.done.done():
                        waited = max(0.0, now - job.since - reply.seconds)
                        job.done.set_result(Answered(value, waited, reply.seconds, now))
                else:
                    fail(job, Refusal(422 if state == "invalid" else 500, value))
        finally:
            if long:
                self._long_under_way = False
            else:
                self._computing_tokens -= tokens
            self._under_way -= {asyncio.current_task()}
            if self._closed is None:
                self._start()
