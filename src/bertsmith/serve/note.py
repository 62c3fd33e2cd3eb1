"""What is written down about one request: for its answer's headers, the log, the figures and the trace."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

from bertsmith.serve.auth import Caller
from bertsmith.serve.batcher import Answered

BATCHES = 64
"""Batches of a request that a trace shows; a stream may have thousands."""


@dataclass
class Note:
    """What is written down about one request.

    Attributes:
        request_id: by which it is known, also to the client.
        began: when, in seconds of `time.perf_counter`.
        submitted: when it was queued, in seconds of the loop's clock; kept where there are traces.
        batches: seconds that it waited for each batch, by the end of its computation, on that clock, and the seconds
            that this took; kept where there are traces.
    """

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    caller: Caller | None = None
    model: str = ""
    version: str = ""
    items: int = 0
    characters: int = 0
    tokens: int = 0
    truncated: int = 0
    masked: int = 0
    counted: float = 0.0
    queued: float = 0.0
    computed: float = 0.0
    texts: str = ""
    reason: str | None = None
    submitted: float | None = None
    batches: dict[tuple[float, float], float] = field(default_factory=dict)

    def took(self, answered: Iterable[Answered]) -> None:
        """Take down, for a trace, when answers were computed.

        Args:
            answered: of this request, in any order.
        """
        for one in answered:
            batch = one.ended, one.computed
            if batch in self.batches or len(self.batches) < BATCHES:
                self.batches[batch] = max(one.queued, self.batches.get(batch, 0.0))

    @property
    def named(self) -> dict[str, str]:
        """The model and its version as headers, which are Latin-1; other names are percent-encoded."""
        return {
            "x-model": self.model if self.model.isascii() else quote(self.model),
            "x-model-version": self.version,
        }

    def headers(self) -> dict[str, str]:
        """What an answer says of itself, under TEI's names; times are milliseconds."""
        total = time.perf_counter() - self.began
        return {
            **self.named,
            "x-compute-tokens": str(self.tokens),
            "x-compute-characters": str(self.characters),
            "x-truncated": str(self.truncated),
            "x-total-time": _milliseconds(total),
            "x-tokenization-time": _milliseconds(self.counted),
            "x-queue-time": _milliseconds(self.queued),
            "x-inference-time": _milliseconds(self.computed),
        }


def _milliseconds(seconds: float) -> str:
    return f"{max(0.0, seconds) * 1000:.1f}"
