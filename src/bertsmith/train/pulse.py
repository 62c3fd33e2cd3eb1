"""Whether the other ranks of a run still live: a sum that waits for a dead one would wait without a word."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

SILENCE = 40.0
"""Seconds without a sign of life after which a rank is given up; less than a step's sums wait for it."""
EVERY = 1.0
KEY = "bertsmith/pulse/{}"


class Pulse:
    """Says once a second that this process lives and at which step it is, and hears the same of the others.

    Python threads go on while the main one waits in a sum or a barrier, so silence means a process that is stopped,
    swapped out, or on a machine that is gone. A rank that is only slow is not silent.

    Args:
        rank: of this process.
        size: how many there are.
        store: where they meet; rank 0 keeps it, so whoever gets no answer from it misses rank 0.
    """

    def __init__(self, rank: int, size: int, store: Any) -> None:
        self.rank = rank
        self.step = -1
        self.steps = {other: -1 for other in range(size) if other != rank}
        self._store = store
        self._heard = dict.fromkeys(self.steps, 0.0)
        self._answered = 0.0
        self._ended = threading.Event()

    def beat(self, step: int) -> None:
        """This rank has come to `step`; the first call begins the watch."""
        if self.step < 0:
            self._answered = time.monotonic()
            self._heard = dict.fromkeys(self.steps, self._answered)
            for work in (self._talk, self._judge):
                threading.Thread(target=work, name=f"pulse{work.__name__}", daemon=True).start()
        self.step = step

    def end(self) -> None:
        """No longer watch."""
        self._ended.set()

    def missing(self, silence: float = 3 * EVERY) -> str:
        """Which ranks are silent or behind, in words; empty when there is none.

        Args:
            silence: seconds without a sign of life that count.
        """
        now = time.monotonic()
        if self.rank and now - self._answered > silence:
            culprits = [0]
        else:
            culprits = [rank for rank, heard in self._heard.items() if now - heard > silence]
            culprits = culprits or [rank for rank, step in self.steps.items() if step < self.step]
        return ", ".join(f"rank {rank} (last seen at step {self.steps[rank]})" for rank in culprits)

    def _talk(self) -> None:
        before, count = dict.fromkeys(self.steps, b""), 0
        while not self._ended.wait(EVERY):
            count += 1
            try:
                self._store.set(KEY.format(self.rank), f"{self.step} {count}")
                for other in self.steps:
                    said = self._store.get(KEY.format(other)) if self._store.check([KEY.format(other)]) else b""
                    if said != before[other]:
                        before[other], self._heard[other] = said, time.monotonic()
                        self.steps[other] = int(said.split()[0])
            except RuntimeError:  # rank 0 has gone, and the store with it
                continue
            self._answered = time.monotonic()

    def _judge(self) -> None:
        while not self._ended.wait(EVERY):
            now = time.monotonic()
            silent = max([now - heard for heard in self._heard.values()] + [now - self._answered])
            if silent > SILENCE:
                # The main thread waits inside a sum and cannot be told.
                sys.stderr.write(
                    f"error: rank {self.rank}: {self.missing(SILENCE - EVERY)} has given no sign of life for "
                    f"{SILENCE:.0f} s; look at that process and its machine, then go on with --resume\n"
                )
                sys.stderr.flush()
                os._exit(2)
