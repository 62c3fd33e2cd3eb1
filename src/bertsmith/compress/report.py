"""What a compressed model costs and gives beside the model that it was made from: one measurement, one page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bertsmith.core.device import environment
from bertsmith.core.files import as_json, atomic_write
from bertsmith.core.report import Page
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Answer, Example, Task

BATCHES = (1, 32)
ROUNDS = 20
SECONDS = 3.0
"""Most rounds, and after how many seconds a model no further round is begun."""


@dataclass(frozen=True, slots=True)
class Side:
    """One model on the page.

    Attributes:
        name: what it is called there.
        bytes: of the file that its engine reads.
        parameters: how many numbers its weights are.
        engine: what ran it.
        milliseconds: median time of a batch, by how many examples it has.
        headline: which of the scores counts; empty where nothing was scored.
        scores: by name, 0 to 1 (correlations -1 to 1).
    """

    name: str
    bytes: int
    parameters: int
    engine: str
    milliseconds: Mapping[int, float] = field(default_factory=dict)
    headline: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """The score that counts; None where nothing was scored."""
        return self.scores.get(self.headline)


def measure(
    models: Mapping[str, Predictor],
    examples: Sequence[Example],
    *,
    score: bool = True,
    sizes: Mapping[str, int] | None = None,
) -> list[Side]:
    """Time models at batch 1 and 32, in turns so that other work on the machine slows all of them, and score them.

    Args:
        models: opened bundles by the name on the page; the task of one read the examples.
        examples: labelled; batches are drawn from them, the same ones for every model.
        score: compare all answers with the labels too.
        sizes: bytes of the file that the engine reads, by name, where it is not the bundle's.
    """
    milliseconds: dict[str, dict[int, float]] = {name: {} for name in models}
    for batch in BATCHES:
        draw = np.random.default_rng(0)
        for predictor in models.values():
            predictor.examples(examples[:batch])
        took: list[list[float]] = []
        until = time.perf_counter() + SECONDS * len(models)
        while len(took) < ROUNDS and (len(took) < 3 or time.perf_counter() < until):
            chosen = [examples[i] for i in draw.integers(0, len(examples), batch)]
            took.append([_milliseconds(predictor, chosen) for predictor in models.values()])
        for name, times in zip(models, zip(*took, strict=True), strict=True):
            milliseconds[name][batch] = median(times)
    return [
        Side(
            name=name,
            bytes=(sizes or {}).get(name) or predictor.weights_bytes,
            parameters=sum(parameter.numel() for parameter in predictor.model.parameters()),
            engine=predictor.engine.name,
            milliseconds=milliseconds[name],
            **(scored(predictor, predictor.examples(examples), examples) if score else {}),
        )
        for name, predictor in models.items()
    ]


def _milliseconds(predictor: Predictor, examples: Sequence[Example]) -> float:
    start = time.perf_counter()
    predictor.examples(examples)
    return 1000 * (time.perf_counter() - start)


def knowing(predictor: Predictor, task: Task) -> Predictor:
    """The predictor of a bundle that was trained without labels, with what a task learned of them from labelled rows.

    Args:
        predictor: of the same kind of task; changed in place.
        task: that read the rows.
    """
    assert predictor.task is not None
    own = predictor.task.config
    names = [name for name in ("labels", "positive", "regression") if hasattr(own, name)]
    if "labels" in names and not own.labels:
        predictor.task.config = own.model_copy(update={name: getattr(task.config, name) for name in names})
    return predictor


def scored(predictor: Predictor, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, Any]:
    """`headline` and `scores` of answers, as `Side` takes them."""
    task = predictor.task
    assert task is not None
    scores = task.score(answers, examples)
    return {"headline": task.headline if task.headline in scores else next(iter(scores)), "scores": scores}


def drop(parent: Side, child: Side) -> float | None:
    """How many points (hundredths) of the score that counts were lost; None where one of the two has none."""
    if parent.score is None or child.score is None:
        return None
    return 100 * (parent.score - child.score)


def write(
    folder: Path,
    parent: Side,
    child: Side,
    *,
    title: str,
    settings: Mapping[str, object],
    notes: str = "",
    tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[object]]]] | None = None,
    between: Sequence[Side] = (),
) -> dict[str, Any]:
    """Write `report.html` and `scores.json` of a run that compressed a model.

    Args:
        folder: the run's.
        parent: the model that it was made from.
        child: what was made.
        title: the heading.
        settings: what was asked for, by name.
        notes: what a reader must know; a blank line starts a new paragraph.
        tables: more to show, headers and rows by heading.
        between: further models to set beside both, such as the parent on another engine.

    Returns:
        What stands in `scores.json`: both sides, `smaller`, `faster` by batch, and `drop` in points; `between` holds
        the further ones by name, with how much faster than each the child is.
    """
    lost = drop(parent, child)
    result: dict[str, Any] = {
        "parent": asdict(parent),
        "child": asdict(child),
        "smaller": parent.bytes / child.bytes,
        "faster": _ratios(parent, child),
        "drop": lost,
    }
    if between:
        result["between"] = {side.name: asdict(side) | {"faster": _ratios(side, child)} for side in between}
    facts = {"times smaller": f"{result['smaller']:.2f}"}
    facts |= {f"times faster, batch {n}": f"{ratio:.2f}" for n, ratio in result["faster"].items()}
    for side in between:
        ratios = _ratios(side, child).items()
        facts |= {f"times faster than {side.name}, batch {n}": f"{ratio:.2f}" for n, ratio in ratios}
    if lost is not None:
        facts[f"points of {child.headline} lost"] = f"{lost:.2f}"
    page = Page(title, f"{child.name}, made from {parent.name}").facts(facts)
    sides = (parent, *between, child)
    rows: list[list[object]] = [
        ["engine", *(side.engine for side in sides)],
        ["file", *(f"{side.bytes / 1e6:.1f} MB" for side in sides)],
        ["parameters", *(f"{side.parameters:,}" for side in sides)],
    ]
    for n in child.milliseconds:
        each = [f"{side.milliseconds[n]:.1f} ms" if n in side.milliseconds else "" for side in sides]
        rows.append([f"batch of {n}, median", *each])
    for name in child.scores:
        rows.append([name, *(f"{100 * side.scores[name]:.2f}" if name in side.scores else "" for side in sides)])
    page.section("Side by side", notes).table("", ["", *(side.name for side in sides)], rows)
    for heading, (headers, more) in (tables or {}).items():
        page.section(heading).table("", headers, more)
    given = [[key, str(value)] for key, value in settings.items() if value is not None]
    page.section("How").table("", ["setting", "value"], given)
    page.table("Measured on", ["", ""], [[key, value] for key, value in environment().items()])
    page.write(folder / "report.html")
    atomic_write(folder / "scores.json", as_json(result))
    return result


def _ratios(before: Side, after: Side) -> dict[int, float]:
    """How much faster `after` is, by batch."""
    return {n: before.milliseconds[n] / ms for n, ms in after.milliseconds.items() if n in before.milliseconds}
