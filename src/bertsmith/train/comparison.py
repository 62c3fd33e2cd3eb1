"""Runs side by side: the settings in which they differ, their scores, and their held-out curves in one picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from bertsmith.core.errors import ConfigError
from bertsmith.core.files import atomic_write
from bertsmith.core.picture import line_chart
from bertsmith.core.report import Page
from bertsmith.train.catalogue import RunFacts
from bertsmith.train.glance import evaluations, figure

AXES = {"tokens": "tokens", "steps": "step", "seconds": "seconds"}
Axis = Literal["tokens", "steps", "seconds"]
CURVES = {
    "mlm_loss": ("Held-out MLM loss", "loss (nats)"),
    "mlm_accuracy": ("Masked words right", "share right"),
    "rtd_loss": ("Held-out replaced-token loss", "loss (nats)"),
    "rtd_accuracy": ("Replaced or not, right", "share right"),
}
# What decides which text is held out, in which pieces it is read, and what is asked about it
MEASURED_ON = (
    *("inputs", "data", "dev", "vocab", "vocab.", "task.max_length", "task.eval_", "kind", "task"),
    *("task.objective", "task.generator_size"),
)
# In a run of fresh weights these are mere defaults: the vocabulary decides
UNTOLD = {"model.vocab_size", "model.pad_token_id"}
LABEL = 48  # characters of a run's name in a picture
WIDTH, HEIGHT = 900, 380

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Overlay:
    """One score of several runs in one picture.

    Attributes:
        title: what is drawn.
        svg: the picture.
        runs: the names of the runs in it.
    """

    title: str
    svg: str
    runs: Sequence[str]


def differences(runs: Sequence[RunFacts]) -> dict[str, list[Any]]:
    """What the runs were asked differently.

    Args:
        runs: at least two, as `catalogue` gives them.

    Returns:
        By key of `config.toml` or `run.json`, a value for each run; None where it has no such setting.
    """
    asked = [
        {"kind": run.kind} | ({"task": run.task} if run.task else {}) | dict(run.asked) | dict(run.settings)
        for run in runs
    ]
    rows = {
        key: [one.get(key) for one in asked]
        for key in dict.fromkeys(key for one in asked for key in one)
        if key not in UNTOLD
    }
    return {key: values for key, values in rows.items() if any(value != values[0] for value in values)}


def warning(different: Mapping[str, Sequence[Any]]) -> str:
    """What to bear in mind when scores are compared; empty when the runs were measured on the same.

    Args:
        different: as `differences` gives it.
    """
    prefixes = tuple(key for key in MEASURED_ON if key.endswith((".", "_")))
    keys = [key for key in different if key in MEASURED_ON or key.startswith(prefixes)]
    if not keys:
        return ""
    return (
        f"These runs differ in {', '.join(keys)}: scores compare only where the held-out text, its pieces and what is "
        "asked about them are the same, and here they may not be."
    )


def overlay(runs: Sequence[RunFacts], x: Axis = "tokens") -> list[Overlay]:
    """Draw the held-out scores that count, a picture for each, a line for each run; the mean where there are seeds.

    Args:
        runs: as `catalogue` gives them; one without an evaluation is left out.
        x: what the horizontal axis counts.

    Returns:
        The pictures, those with the most runs first.

    Raises:
        ConfigError: no such axis.
    """
    if x not in AXES:
        raise ConfigError(f"--x {x}: the axes are {', '.join(AXES)}")
    made = []
    for score in dict.fromkeys(name for run in runs for name in run.headline):
        lines = {run.name: line for run in runs if score in run.headline and (line := curve(run, score, x))}
        if lines:
            title, unit = CURVES.get(score, (f"Dev {score}", score))
            short = {_shortened(name): line for name, line in lines.items()}
            named = short if len(short) == len(lines) else lines
            svg = line_chart(named, title=title, x_label=AXES[x], y_label=unit, width=WIDTH, height=HEIGHT)
            made.append(Overlay(title, svg, list(lines)))
    return sorted(made, key=lambda one: -len(one.runs))


def curve(run: RunFacts, score: str, x: Axis = "tokens") -> Points:
    """A held-out score over a run, evaluation by evaluation; the mean over seeds as far as all of them came.

    Args:
        run: as `catalogue` gives it.
        score: its name, without `eval/`.
        x: what to give first in each point.
    """
    if run.seeds:
        each = zip(*(curve(inner, score, x) for inner in run.seeds), strict=False)
        return [(fmean(x for x, _ in points), fmean(y for _, y in points)) for points in each]
    key = AXES[x]
    pairs = ((figure(line, key), figure(line, f"eval/{score}")) for line in evaluations(run.path))
    return [(at, value) for at, value in pairs if at is not None and value is not None]


def comparison(runs: Sequence[RunFacts]) -> list[list[str]]:
    """The runs in columns: first what they were asked differently, then what became of it.

    Args:
        runs: at least two, as `catalogue` gives them.

    Returns:
        Rows of text, the name of each in front.
    """
    rows = [[key, *map(shown, values)] for key, values in differences(runs).items()]
    rows += [
        ["state", *(run.standing() for run in runs)],
        ["steps", *(f"{run.step:,}" for run in runs)],
        ["tokens", *(f"{run.tokens:,}" for run in runs)],
        ["time", *(run.length() for run in runs)],
        ["tokens/s", *(f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else "" for run in runs)],
    ]
    return rows + list(_scores(runs))


def write(runs: Sequence[RunFacts], out: Path, x: Axis = "tokens") -> list[Overlay]:
    """Write a comparison as a page, or the picture alone.

    Args:
        runs: at least two, as `catalogue` gives them.
        out: `.html` for a self-contained page, `.svg` for the picture with the most runs.
        x: what the horizontal axis counts.

    Returns:
        The pictures that were drawn; for `.svg` the one that was written.

    Raises:
        ConfigError: another ending, or nothing to draw in a picture.
        BundleError: the disk is full, or writing is not allowed.
    """
    if out.suffix not in (".html", ".svg"):
        raise ConfigError(f"--out {out}: give a name that ends in .html (a page) or .svg (the picture alone)")
    pictures = overlay(runs, x)
    if out.suffix == ".svg":
        if not pictures:
            raise ConfigError("none of these runs has a held-out score yet, so there is nothing to draw; wait for one")
        atomic_write(out, pictures[0].svg.encode())
        return pictures[:1]
    page = Page("Runs compared", " · ".join(run.name for run in runs))
    table = comparison(runs)
    page.section("Scores", warning(differences(runs)))
    page.table("", ["run", *(run.name for run in runs)], [row for row in table if row[0] not in differences(runs)])
    page.section("Held-out curves")
    for picture in pictures:
        page.figure("", picture.svg)
    if left := [run.name for run in runs if not any(run.name in picture.runs for picture in pictures)]:
        page.text(f"No held-out score yet: {', '.join(left)}.")
    page.section("Settings that differ", "" if differences(runs) else "None: the runs were asked the same.")
    if differences(runs):
        page.table("", ["setting", *(run.name for run in runs)], [row for row in table if row[0] in differences(runs)])
    page.section("The runs").table(
        "", ["run", "what", "folder", "last written"],
        [[run.name, what(run), str(run.path), f"{run.written:%Y-%m-%d %H:%M}"] for run in runs],
    )  # fmt: skip
    page.write(out)
    return pictures


def what(run: RunFacts) -> str:
    """What kind of run it is, for people.

    Args:
        run: as `catalogue` gives it.
    """
    return f"{run.kind} {run.task}" if run.task else run.kind


def shown(value: Any) -> str:
    """A setting as people read it; a dash where a run has none.

    Args:
        value: as in `config.toml` or `run.json`.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(shown, value)) if isinstance(value, list) else str(value)


def _scores(runs: Sequence[RunFacts]) -> Iterator[list[str]]:
    for name in dict.fromkeys(name for run in runs for name in (*run.headline, *run.scores)):
        spread = [f" ± {run.spread[name]:.4f}" if name in run.spread else "" for run in runs]
        values = [
            f"{run.scores[name]:.4f}{sd}" if name in run.scores else "" for run, sd in zip(runs, spread, strict=True)
        ]
        if any(values):
            yield [f"held-out {name}", *values]


def _shortened(name: str) -> str:
    return name if len(name) <= LABEL else "…" + name[1 - LABEL :]
