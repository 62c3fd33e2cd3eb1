"""What waits in a batcher's queue: jobs, in lanes that take turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bertsmith.serve.refusal import Refusal

if TYPE_CHECKING:
    from bertsmith.serve.batcher import Answered, Item


@dataclass(slots=True)
class Request:
    """Whether it is computed in any case: it was let wait for room, or some of its items were begun."""

    stays: bool


@dataclass(slots=True)
class Job:
    """One item that waits: from when on, until when, of which request, and what its answer is put into."""

    item: Item
    since: float
    deadline: float
    request: Request
    done: asyncio.Future[Answered]


@dataclass(slots=True)
class Lane:
    """Jobs in the order in which they came, and the pieces that they have together."""

    jobs: deque[Job] = field(default_factory=deque)
    tokens: int = 0

    def add(self, jobs: Sequence[Job]) -> None:
        """Put jobs at the end.

        Args:
            jobs: in their order.
        """
        self.jobs += jobs
        self.tokens += sum(job.item.tokens for job in jobs)

    def pop(self) -> Job:
        """Take the first job out."""
        job = self.jobs.popleft()
        self.tokens -= job.item.tokens
        return job


def fail(job: Job, refusal: Refusal) -> None:
    """Answer a job with a refusal, if it is not answered yet.

    Args:
        job: any.
        refusal: why it has no answer.
    """
    if not job.done.done():
        job.done.set_exception(refusal)
        job.done.exception()  # whoever waits sees it; when nobody does, it is no error
