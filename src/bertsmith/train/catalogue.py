"""What runs there are below a folder, how far each came and how good it is; nothing of them is changed."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from bertsmith.core.bundle import META
from bertsmith.core.errors import DataError
from bertsmith.core.events import METRICS, clock
from bertsmith.core.lock import is_held
from bertsmith.metrics.spread import deviation
from bertsmith.train.glance import Glance, figure, glance
from bertsmith.train.run import BUNDLE, CHECKPOINTS, CONFIG, FACTS, SCORES, flatten, fold_names

KINDS = ("pretrain", "finetune", "distil", "prune")
ASKED = ("inputs", "data", "dev", "test", "from", "vocab", "seeds", "folds")
INSIDE = {BUNDLE, CHECKPOINTS, "store", "vocab", "tensorboard", "wandb"}
PART = re.compile(r"(seed|fold)-(\d+)")
PRETRAINING = ("mlm_loss", "mlm_accuracy")
REPLACED = ("rtd_loss", "rtd_accuracy")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as one line of a list.

    Attributes:
        name: its path below the folder that was searched.
        path: its folder.
        kind: `pretrain`, `finetune`, `distil` or `prune`.
        task: that labelled rows are for; None for pretraining.
        state: `finished` when its bundle is there, `running` when a process holds its folder, else `stopped`.
        step: updates done, over all seeds.
        steps: updates to do, over all seeds; None before that is known.
        tokens: packed tokens learned from so far.
        seconds: training time so far.
        tokens_per_second: median of its steps.
        scores: held-out scores by name. Of a finished run those of the weights it kept, of another the latest.
        spread: standard deviation over the seeds or folds by name; empty for a run without.
        headline: the names of the scores that count, the first one most.
        written: when something was last written.
        asked: inputs, start and vocabulary, as JSON values.
        settings: `config.toml` by dotted key.
        seeds: the run of each seed, or of each fold, that was begun.
    """

    name: str
    path: Path
    kind: str
    task: str | None
    state: Literal["finished", "running", "stopped"]
    step: int
    steps: int | None
    tokens: int
    seconds: float
    tokens_per_second: float | None
    scores: Mapping[str, float]
    spread: Mapping[str, float]
    headline: Sequence[str]
    written: datetime
    asked: Mapping[str, Any]
    settings: Mapping[str, Any]
    seeds: Sequence[RunFacts] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON values: everything but the settings, the run of each seed and folders as objects."""
        left_out = ("path", "asked", "settings", "seeds", "headline", "written")
        values = {key: getattr(self, key) for key in self.__slots__ if key not in left_out}
        return values | {
            "headline": list(self.headline),
            "written": self.written.isoformat(timespec="seconds"),
            "seeds": self.asked.get("seeds") or [],
            "path": str(self.path),
        }

    def standing(self) -> str:
        """How far it came, for people: `finished`, `stopped at step 3 of 10`, `running, seed 2 of 3, at step 7`."""
        if self.state == "finished":
            return "finished"
        of = f" of {self.steps:,}" if self.steps is not None else ""
        wanted, what = len(parts_of(self.asked)), "fold" if self.asked.get("folds") else "seed"
        seed = f", {what} {min(wanted, len(self.seeds) or 1)} of {wanted}," if wanted else ""
        if self.step == 0:
            return f"{self.state}{seed} before the first step"
        return f"{self.state}{seed} at step {self.step:,}{of}"

    def score(self) -> str:
        """The scores that count, for people; empty when nothing was measured yet."""
        return ", ".join(self._scored(name) for name in self.headline if name in self.scores)

    def length(self) -> str:
        """Its training time, for people; empty when there was none yet."""
        return clock(self.seconds) if self.seconds else ""

    def _scored(self, name: str) -> str:
        value = self.scores[name]
        if self.task in (None, "pretraining"):
            return f"{value:.1%} right" if name.endswith("accuracy") else f"{name[:3].upper()} loss {value:.3f}"
        spread = f" ± {self.spread[name]:.4f}" if name in self.spread else ""
        return f"{name} {value:.4f}{spread}"


def catalogue(folder: Path, say: Callable[[str], None] = lambda text: None) -> list[RunFacts]:
    """Find all runs in a folder and below it, by name; the runs of seeds are part of the run that made them.

    Args:
        folder: where to search; a link inside is not followed.
        say: takes a line for each folder that looks like a run and is none, or cannot be read.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the one that holds your runs, or make a run with --out")
    runs = []
    for path in _folders(folder, say):
        name = str(path.relative_to(folder)) if path != folder else path.resolve().name
        try:
            runs.append(read_run(path, name, say))
        except DataError as error:
            say(f"not listed: {error}")
        except OSError as error:
            say(f"not listed: {path}: {error.strerror or error}; check who may read it")
    return sorted(runs, key=lambda run: run.name)


def read_run(path: Path, name: str, say: Callable[[str], None] = lambda text: None) -> RunFacts:
    """Read what a list shows of one run; of its figures only the end and a sample.

    Args:
        path: the run folder.
        name: what to call it.
        say: takes a line for what is damaged but not needed.

    Raises:
        DataError: it is no run of this program, or one whose description is damaged.
    """
    facts = _facts(path)
    settings = _settings(path)
    seeds = [
        replace(read_run(inner, inner.name, say), asked={})
        for part in parts_of(facts)
        if (inner := path / part) and (inner / FACTS).exists()
    ]
    seen = glance(path)
    if seen.damaged:
        say(f"{path / METRICS}: {seen.damaged} of the lines looked at cannot be read; they are left out")
    finished = (path / BUNDLE).is_dir()
    one = RunFacts(
        name=name,
        path=path,
        kind=facts["kind"],
        task=facts.get("task"),
        state="finished" if finished else "running" if is_held(path) else "stopped",
        step=int(figure(seen.last, "step") or 0),
        steps=facts["steps"] if isinstance(facts.get("steps"), int) else None,
        tokens=int(figure(seen.last, "tokens") or 0),
        seconds=float(figure(seen.last, "seconds") or 0.0),
        tokens_per_second=seen.tokens_per_second,
        scores={},
        spread={},
        headline=PRETRAINING,
        written=_written(path),
        asked={key: facts[key] for key in ASKED if facts.get(key)},
        settings=settings,
    )
    one = _with_scores(one, seen, finished, say)
    if one.task in (None, "pretraining") and REPLACED[0] in one.scores:  # the MLM loss is that of the generator alone
        one = replace(one, headline=REPLACED)
    if one.task not in (None, "pretraining"):
        chosen = settings.get("train.metric") or facts.get("headline") or _meta(path).get("headline")
        chosen = chosen or next((inner.headline[0] for inner in seeds if inner.headline), None)
        one = replace(one, headline=(chosen,) if chosen else tuple(one.scores)[:1])
    return _folded(one, seeds) if seeds else one


def parts_of(facts: Mapping[str, Any]) -> list[str]:
    """The folders of the runs that a run of several seeds or folds is made of."""
    if "fold" in facts:
        return []
    return [*(f"seed-{seed}" for seed in facts.get("seeds") or []), *fold_names(facts.get("folds") or 0)]


def _folders(top: Path, say: Callable[[str], None]) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        say(f"not searched: {error.filename}: {error.strerror}")

    for here, names, files in os.walk(top, onerror=refused):
        names[:] = [name for name in names if not name.startswith(".")]
        if FACTS in files:
            yield Path(here)
            names[:] = [name for name in names if name not in INSIDE and not PART.fullmatch(name)]


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path / FACTS}: not JSON ({error}); bring it back from a copy, or remove the run") from None
    kind = facts.get("kind") if isinstance(facts, dict) else None
    if kind not in KINDS:
        raise DataError(f"{path / FACTS}: not of a run that bertsmith made: no kind {' or '.join(KINDS)} in it")
    if not isinstance(facts.get("seeds") or [], list):
        raise DataError(f"{path / FACTS}: seeds is not a list; bring it back from a copy, or remove the run")
    return dict(facts)


def _settings(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        return flatten(tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{file}: absent; bring it back from a copy, or remove the run") from None
    except ValueError as error:
        raise DataError(f"{file}: not TOML ({error}); bring it back from a copy, or remove the run") from None


def _with_scores(one: RunFacts, seen: Glance, finished: bool, say: Callable[[str], None]) -> RunFacts:
    """Scores of the weights that were kept where they are written down, else of the latest evaluation."""
    split = "held_out" if one.task in (None, "pretraining") else "dev"
    latest = {key.removeprefix("eval/"): figure(seen.evaluation, key) for key in seen.evaluation if "eval/" in key}
    scores: dict[str, Any] = latest
    if finished and (one.path / SCORES).exists():
        try:
            scores = dict(json.loads((one.path / SCORES).read_text(encoding="utf-8"))[split])
        except (ValueError, KeyError, TypeError, RecursionError):
            say(f"{one.path / SCORES}: cannot be read; the scores shown are those of the last evaluation")
    overall = {name: value for name, value in scores.items() if "/" not in name}
    whole = {name: value for name, value in overall.items() if isinstance(value, dict)}
    means = overall | {name: figure(value, "mean") for name, value in whole.items()}
    spread = {name: sd for name, value in whole.items() if (sd := figure(value, "sd")) is not None}
    numbers = {name: float(value) for name, value in means.items() if isinstance(value, int | float)}
    return replace(one, scores=numbers, spread=spread)


def _folded(one: RunFacts, seeds: Sequence[RunFacts]) -> RunFacts:
    """A run of several seeds or folds: what they took together, and their mean scores."""
    speeds = [inner.tokens_per_second for inner in seeds if inner.tokens_per_second is not None]
    begun = [inner.steps for inner in seeds if inner.steps is not None]
    scores, spread = dict(one.scores), dict(one.spread)
    if not scores:
        names = dict.fromkeys(name for inner in seeds for name in inner.scores)
        each = {name: [inner.scores[name] for inner in seeds if name in inner.scores] for name in names}
        scores = {name: fmean(values) for name, values in each.items()}
        spread = {name: deviation(values) for name, values in each.items() if len(values) > 1}
    return replace(
        one,
        step=sum(inner.step for inner in seeds),
        steps=sum(begun) if len(begun) == len(parts_of(one.asked)) else None,
        tokens=sum(inner.tokens for inner in seeds),
        seconds=sum(inner.seconds for inner in seeds),
        tokens_per_second=median(speeds) if speeds else None,
        scores=scores,
        spread=spread,
        headline=one.headline or seeds[0].headline,
        written=max(one.written, *(inner.written for inner in seeds)),
        seeds=tuple(seeds),
    )


def _meta(path: Path) -> Mapping[str, Any]:
    try:
        meta = json.loads((path / BUNDLE / META).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _written(path: Path) -> datetime:
    files = [path / name for name in (FACTS, CONFIG, METRICS, SCORES, BUNDLE)]
    latest = max(file.stat().st_mtime for file in files if file.exists())
    return datetime.fromtimestamp(latest).astimezone()
