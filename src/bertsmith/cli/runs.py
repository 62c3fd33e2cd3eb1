"""`bertsmith runs`: what runs there are, how far each came, and several of them side by side."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bertsmith.cli.options import AsJson, Debug
from bertsmith.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bertsmith.train.catalogue import RunFacts

RUNS, PAGE = "runs", "runs-compare.html"
COLUMNS = ("name", "kind", "state", "steps", "tokens", "time", "speed", "score", "written")
NUMBERS = ("steps", "tokens", "time", "speed")
TITLES = {"name": "run", "speed": "tokens/s", "score": "held out", "written": "last written"}
WIDE = 10_000  # columns of a terminal that never cuts a line


def command(
    where: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIR|RUN...", help="Folder of runs [default: runs]; then runs to compare.", show_default=False
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Put the named runs side by side; without names, all of DIR.")
    ] = False,
    sort: Annotated[
        str, typer.Option("--sort", metavar="NAME", help=f"{', '.join(COLUMNS)}: best, most or newest first.")
    ] = "name",
    x: Annotated[str, typer.Option("--x", metavar="AXIS", help="Of the picture: tokens, steps or seconds.")] = "tokens",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.html|.svg", help=f"Page or picture to write [default: {PAGE}].", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the runs in a folder; or compare some: `bertsmith runs runs/a runs/b`."""
    from bertsmith.train.catalogue import catalogue

    if sort not in COLUMNS:
        raise ConfigError(f"--sort {sort}: choose one of {', '.join(COLUMNS)}")
    problems: list[str] = []
    if compare or len(where or []) > 1:
        _compare(_chosen(where or [], problems.append), out or Path(PAGE), x, as_json)
        _tell(problems)
        return
    if out is not None:
        raise ConfigError("--out is for a comparison; name two runs, or add --compare to compare all in the folder")
    folder = Path((where or [RUNS])[0])
    found = _ordered(catalogue(folder, problems.append), sort)
    _tell(problems)
    if not found:
        raise DataError(_none(folder, problems))
    if as_json:
        for run in found:
            print(json.dumps(run.as_dict(), ensure_ascii=False))
        return
    _list(found)


def _chosen(where: Sequence[str], say: Callable[[str], None]) -> list[RunFacts]:
    """The runs to compare: by name below a folder that is named first, below `runs`, or by their own path."""
    from bertsmith.train.catalogue import catalogue, read_run
    from bertsmith.train.run import FACTS

    folder, names = Path(RUNS), list(where)
    if names and Path(names[0]).is_dir() and not any((place / FACTS).exists() for place in _places(folder, names[0])):
        folder, names = Path(names[0]), names[1:]
    if names:
        runs = []
        for name in dict.fromkeys(name.rstrip("/") or name for name in names):
            place = next((place for place in _places(folder, name) if (place / FACTS).exists()), None)
            if place is None:
                raise DataError(f"{name}: no run here or in {folder}; `bertsmith runs {folder}` lists what there is")
            runs.append(read_run(place, name, say))
    else:
        runs = catalogue(folder, say)
        if not runs:
            raise DataError(_none(folder, []))
    if len(runs) < 2:
        raise ConfigError(f"{runs[0].name}: one run alone cannot be compared; name two or more")
    return runs


def _places(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / name, Path(name)


def _compare(runs: Sequence[RunFacts], out: Path, x: str, as_json: bool) -> None:
    from bertsmith.train.comparison import AXES, comparison, differences, warning, write

    if x not in AXES:
        raise ConfigError(f"--x {x}: the axes are {', '.join(AXES)}")
    different = differences(runs)
    pictures = write(runs, out, x)  # type: ignore[arg-type]
    if as_json:
        names = [run.name for run in runs]
        document: dict[str, Any] = {
            "runs": [run.as_dict() for run in runs],
            "differences": {key: dict(zip(names, values, strict=True)) for key, values in different.items()},
            "written": str(out),
        }
        print(json.dumps(document, ensure_ascii=False))
    else:
        table = _table()
        for name in ("", *(run.name for run in runs)):
            table.add_column(Text(name), no_wrap=True)
        for row in comparison(runs):
            table.add_row(*map(Text, row))
        Console(width=WIDE, highlight=False).print(table)
    _tell([text for text in (warning(different),) if text])
    drawn = ", ".join(picture.title for picture in pictures) or "no held-out score to draw yet"
    print(f"{out}: {drawn}", file=sys.stderr)


def _list(runs: Sequence[RunFacts]) -> None:
    table = _table()
    for column in COLUMNS:
        table.add_column(TITLES.get(column, column), justify="right" if column in NUMBERS else "left", no_wrap=True)
    for run in runs:
        table.add_row(*map(Text, _cells(run)))
    Console(width=WIDE, highlight=False).print(table)


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _cells(run: RunFacts) -> list[str]:
    from bertsmith.train.comparison import what

    speed = f"{run.tokens_per_second:,.0f}" if run.tokens_per_second else ""
    tokens = _rounded(run.tokens)
    written = f"{run.written:%Y-%m-%d %H:%M}"
    return [
        run.name, what(run), run.standing(), f"{run.step:,}", tokens, run.length(), speed, run.score(), written
    ]  # fmt: skip


def _rounded(count: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _ordered(runs: list[RunFacts], sort: str) -> list[RunFacts]:
    if sort == "score":
        return _ranked(runs)
    keys: dict[str, Callable[[RunFacts], Any]] = {
        "name": lambda run: run.name,
        "kind": lambda run: (run.kind, run.task or ""),
        "state": lambda run: run.state,
        "steps": lambda run: -run.step,
        "tokens": lambda run: -run.tokens,
        "time": lambda run: -run.seconds,
        "speed": lambda run: -(run.tokens_per_second or 0.0),
        "written": lambda run: -run.written.timestamp(),
    }
    return sorted(runs, key=keys[sort])


def _ranked(runs: list[RunFacts]) -> list[RunFacts]:
    """The best first among runs that are measured by the same score; those without one last."""
    from bertsmith.train.best import rank

    def place(run: RunFacts) -> tuple[bool, str, str, str, float]:
        name = next(iter(run.headline), "")
        known = name in run.scores
        return not known, run.kind, run.task or "", name, -rank(name, run.scores) if known else 0.0

    return sorted(runs, key=place)


def _none(folder: Path, problems: Sequence[str]) -> str:
    where = f"{folder}: no run here" + (" that can be listed" if problems else "")
    return f"{where}; make one with `bertsmith pretrain TEXT --out {folder / 'first'}`, or name another folder"


def _tell(problems: Sequence[str]) -> None:
    for line in problems:
        print(line, file=sys.stderr)
    left_out = sum(line.startswith("not listed") for line in problems)
    if left_out:
        print(f"{left_out} {'folder' if left_out == 1 else 'folders'} not listed", file=sys.stderr)
