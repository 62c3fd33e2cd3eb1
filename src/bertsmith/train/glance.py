"""A look at metrics.jsonl that does not read all of it: the end, the evaluations, and a sample for the speed."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bertsmith.core.events import METRICS

SAMPLE = 64  # lines, evenly over the file, whose median is the speed
EVALUATED = b'"eval/'

Line = Mapping[str, Any]
Mapped = mmap.mmap | bytes


@dataclass(frozen=True, slots=True)
class Glance:
    """What the figures of a run say at a glance.

    Attributes:
        last: the last whole line; empty when there is none.
        evaluation: the last line with held-out scores; empty when there is none.
        tokens_per_second: median over lines spread evenly over the run; None when no speed is logged.
        damaged: lines that were looked at and cannot be read; one cut short at the end does not count.
    """

    last: Line = field(default_factory=dict)
    evaluation: Line = field(default_factory=dict)
    tokens_per_second: float | None = None
    damaged: int = 0


def glance(run: Path) -> Glance:
    """Look at the figures of a run; the cost hardly grows with their number.

    Args:
        run: the run folder.
    """
    with _mapped(run) as data:
        end = data.rfind(b"\n")
        if end < 0:
            return Glance()
        damaged: set[int] = set()
        starts = {data.rfind(b"\n", 0, end * part // SAMPLE) + 1 for part in range(1, SAMPLE + 1)}
        sample = [line for start in sorted(starts) if (line := _line(data, start, damaged))]
        speeds = [speed for line in sample if (speed := figure(line, "tokens_per_second")) is not None]
        last = next(_backwards(data, end, b'"', damaged), {})
        evaluation = next(_backwards(data, end, EVALUATED, damaged), {})
        return Glance(last, evaluation, median(speeds) if speeds else None, len(damaged))


def evaluations(run: Path) -> list[Line]:
    """The lines of a run that hold held-out scores, in order; only these are parsed.

    Args:
        run: the run folder.
    """
    found: list[Line] = []
    with _mapped(run) as data:
        end = data.rfind(b"\n")
        at = data.find(EVALUATED, 0, max(0, end))
        while at >= 0:
            if line := _line(data, data.rfind(b"\n", 0, at) + 1, set()):
                found.append(line)
            at = data.find(EVALUATED, data.find(b"\n", at), end)
    return found


def figure(line: Line, name: str) -> float | None:
    """A number of a line; None where it is absent, null or something else.

    Args:
        line: as logged.
        name: its key.
    """
    value = line.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


@contextmanager
def _mapped(run: Path) -> Iterator[Mapped]:
    path = run / METRICS
    if not path.exists():
        yield b""
        return
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _line(data: Mapped, start: int, damaged: set[int]) -> Line:
    """The line that begins at `start`; empty, and noted in `damaged`, when it is none of ours."""
    try:
        line = json.loads(data[start : data.find(b"\n", start)])
    except (ValueError, RecursionError):
        line = None
    if isinstance(line, dict) and figure(line, "step") is not None:
        return line
    damaged.add(start)
    return {}


def _backwards(data: Mapped, end: int, holding: bytes, damaged: set[int]) -> Iterator[Line]:
    """The readable lines before `end` that hold something, from the last to the first."""
    at = data.rfind(holding, 0, end)
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        if line := _line(data, start, damaged):
            yield line
        at = data.rfind(holding, 0, start)
