"""The run folder: what a run was asked, where it stands, and how it ends when somebody stops it."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import torch

from bertsmith.core.bundle import atomic_write, sha256_file
from bertsmith.core.config import Config, layered, load, to_toml
from bertsmith.core.device import Precision, choose_device, choose_precision, set_threads
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.events import METRICS, Events, read_metrics
from bertsmith.core.lock import run_lock
from bertsmith.core.program import program
from bertsmith.tasks.base import say_on_stderr

C = TypeVar("C", bound=Config)
R = TypeVar("R")

CONFIG, FACTS, SCORES, BUNDLE = "config.toml", "run.json", "scores.json", "bundle"
CHECKPOINTS = "checkpoints"
MADE = ("vocab", "store", "others", "start")
"""Folders that a run makes for itself before its first step."""
SUMS = "sha256"
_HANG_UP = getattr(signal, "SIGHUP", None)
_ENDING = (signal.SIGTERM, *([_HANG_UP] if _HANG_UP is not None else []))


def begin(run: Path, config: Config, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write down what a new run was asked to do.

    Args:
        run: the run folder.
        config: its settings.
        facts: its inputs and the command that started it; JSON values.

    Returns:
        The facts.

    A run that ended before it saved a step, such as one whose text was not there, is begun anew; where steps are lost,
    that is said.

    Raises:
        ConfigError: the folder holds a run already, or what this run is to read.
    """
    if (run / FACTS).exists():
        if any(next(run.glob(name), None) for name in (BUNDLE, CHECKPOINTS, "seed-*", "fold-*")):
            raise ConfigError(
                f"{run}: holds a run already; go on with it by --resume, or choose another folder with --out"
            )
        _refuse_to_eat(run, facts)
        if lost := max((int(line["step"]) for line in read_metrics(run)), default=0):
            say_on_stderr(f"{run}: the run that was here took {lost} steps and saved none; it is begun anew")
        for name in MADE:
            shutil.rmtree(run / name, ignore_errors=True)
        (run / METRICS).unlink(missing_ok=True)
    facts = dict(facts)
    atomic_write(run / CONFIG, to_toml(config).encode())
    remember(run, facts)
    return facts


def _refuse_to_eat(run: Path, facts: Mapping[str, Any]) -> None:
    """Refuse to begin anew in a folder of which something is to be read: it would be removed first."""
    values = [one for value in facts.values() for one in (value if isinstance(value, list) else [value])]
    made = [(run / name).resolve() for name in MADE]
    for value in values:
        if not isinstance(value, str) or not value:
            continue
        path = Path(value).resolve()
        if any(path.is_relative_to(one) for one in made if one.exists()):
            raise ConfigError(
                f"{value}: is to be read, and lies in {run}, where a run began that saved no step and which is emptied "
                "before it begins anew; move it to another place, or choose another folder with --out"
            )


@dataclass(frozen=True, slots=True)
class Going:
    """A run that is under way.

    Attributes:
        facts: of `run.json`.
        place: where it computes.
        precision: of matrix products.
        quiet: print no progress.
        say: takes lines for the user.
    """

    facts: dict[str, Any]
    place: torch.device
    precision: Precision
    quiet: bool
    say: Callable[[str], None]


def conducted(
    kind: str,
    out: Path,
    config: Any,
    asked: Mapping[str, Any],
    work: Callable[[Going], R],
    *,
    finished: Callable[[Path], R],
    again: Sequence[str | Path],
    command: str,
    resume: bool,
    device: str | None,
    threads: int | None,
    quiet: bool,
    last: str = BUNDLE,
) -> R:
    """Do a run's work in its folder, which no other process may use meanwhile; a finished run is not done again.

    Args:
        kind: of run, such as `finetune`.
        out: the run folder.
        config: its settings, with `train.precision`.
        asked: its inputs.
        work: takes it to its end.
        finished: opens the result of a run that is at its end.
        again: the words of the command that goes on with it, without `bertsmith` and `--resume`.
        command: what a person would type to repeat this; for the report.
        resume: go on with the run in `out`.
        device: where to compute; None chooses.
        threads: processor threads; None takes one for each core.
        quiet: print no progress.
        last: what the run writes last, below its folder; it is finished when that is there.

    Raises:
        ConfigError: the folder holds a run already, or one that was asked for something else.
        KeyboardInterrupt: stopped on request, after saving.
    """
    with run_lock(out), Events(None, quiet=quiet) as screen, terminable():
        if resume:
            facts = resumed(out, config, asked)
        else:
            facts = begin(out, config, {"kind": kind, "command": command, **asked})
        if (out / last).exists():
            screen.say(f"{out}: this run is finished")
            return finished(out)
        try:
            place = choose_device(device)
            precision = choose_precision(place, config.train.precision)
            facts["threads"] = set_threads(threads if threads is not None else facts.get("threads"))
            remember(out, facts)
            screen.say(f"{place}, {facts['threads']} threads, {precision.reason}")
            return work(Going(facts, place, precision, quiet, screen.say))
        except KeyboardInterrupt:
            screen.say(go_on(*again))
            raise


def saved_config(run: Path, kind: type[C]) -> C:
    """The settings of a run that was begun before.

    Raises:
        ConfigError: there is no run in the folder.
    """
    saved_values(run)
    return load(kind, file=run / CONFIG)


def saved_values(run: Path) -> dict[str, Any]:
    """The settings of a run that was begun before, not validated.

    Raises:
        ConfigError: there is no run in the folder.
    """
    if not (run / FACTS).exists():
        raise ConfigError(f"{run}: no run to resume here; leave --resume out to start one")
    return layered(file=run / CONFIG)


def resumed(run: Path, config: Config, asked: Mapping[str, Any], needed: Collection[str] = ()) -> dict[str, Any]:
    """The facts of a run that goes on, after a check that it is asked for the same as before.

    Args:
        run: the run folder.
        config: the settings now; they must be those saved.
        asked: facts given now; those that are empty are not compared.
        needed: facts without which it cannot go on.

    Raises:
        ConfigError: something differs; lists what.
        DataError: the facts are damaged.
    """
    saved = saved_config(run, type(config))
    facts = facts_of(run, needed)
    given = {key: value for key, value in asked.items() if value and key != SUMS}
    then, now = (flatten(values.get(SUMS, {})) for values in (facts, asked))
    refuse_differences(
        run,
        {
            "config": saved.model_dump(mode="json"),
            SUMS: {key: then[key] for key in then.keys() & now.keys()},
            **{key: facts.get(key) for key in given},
        },
        {
            "config": config.model_dump(mode="json"),
            SUMS: {key: now[key] for key in then.keys() & now.keys()},
            **given,
        },
        "leave them out, or start a new run in another folder",
    )
    return facts


def refuse_differences(run: Path, before: Mapping[str, Any], now: Mapping[str, Any], advice: str) -> None:
    """Compare what a run stands on with what it stood on before.

    Args:
        run: the run folder.
        before: nested values then.
        now: nested values now; only what both have is compared.
        advice: what to do.

    Raises:
        ConfigError: something differs; lists what.
    """
    both = before.keys() & now.keys()
    old, new = (flatten({key: values[key] for key in both}) for values in (before, now))
    lines = [
        f"  {key.removeprefix('config.')}: {old.get(key)} before, {new.get(key)} now"
        for key in sorted(old | new)
        if old.get(key) != new.get(key)
    ]
    if lines:
        raise ConfigError(
            f"{run}: a run goes on as it was begun, but these differ:\n" + "\n".join(lines) + f"\n{advice}"
        )


def facts_of(run: Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """What a run was asked and found out, as `remember` wrote it.

    Args:
        run: the run folder.
        needed: facts that must be among them.

    Raises:
        DataError: the file is damaged.
    """
    try:
        facts = json.loads((run / FACTS).read_text(encoding="utf-8"))
        wrong = "" if isinstance(facts, dict) else "no JSON object"
    except (OSError, ValueError) as error:
        facts, wrong = {}, str(error)
    if missing := [name for name in needed if not wrong and name not in facts]:
        wrong = f"without {', '.join(missing)}"
    if wrong:
        raise DataError(f"{run / FACTS}: damaged ({wrong}); bring it back from a copy, or start a new run")
    return dict(facts)


def sums_of(files: Mapping[str, str | Path | None]) -> dict[str, str]:
    """The sha256 sums of files, kept with what a run was asked: what it goes on with must be what it began with.

    Args:
        files: by name; what is no file (None, a data set, a pipe, one that is gone) is left out.
    """
    return {name: sha256_file(path) for name, path in files.items() if path is not None and Path(path).is_file()}


def fold_names(count: int) -> list[str]:
    """The folders of the runs of so many folds."""
    return [f"fold-{number}" for number in range(1, count + 1)]


def remember(run: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a run, whole or not at all."""
    atomic_write(run / FACTS, (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode())


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def go_on(*arguments: str | Path) -> str:
    """What to tell somebody who stopped a run: the command that goes on with it, to be pasted into a shell."""
    return f"stopped; go on with: {program()} " + shlex.join([*map(str, arguments), "--resume"])


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, end a run as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with handled(end, *_ENDING):
        yield


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], *signals: signal.Signals) -> Iterator[None]:
    """Handle signals for a while; outside the main thread, where they cannot be caught, nothing changes.

    A hang-up that is ignored, as nohup has it, stays ignored.
    """
    try:
        wanted = [one for one in signals if one != _HANG_UP or signal.getsignal(one) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handler) for number in wanted}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class Stop:
    """Whether somebody asked the run to stop."""

    asked = False


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Let Ctrl-C, SIGTERM and a closed terminal ask for a stop at the end of the step; a second one stops at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    with handled(ask, signal.SIGINT, *_ENDING):
        yield stop
