"""`bertsmith vocab`: a vocabulary of your own, of a size that pays, or a published one with the words of a field."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bertsmith.cli.options import AsJson, ConfigFile, Debug, Quiet, Sets
from bertsmith.core.program import typed

AUTO = "auto"
TERMS = 1000


def command(
    text: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT|STORE...", help="Files, folders, globs, URLs, hf:DATASET, pydoc:, or a token store."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make; pretrain --vocab takes it.")],
    size: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="Number of pieces; auto chooses [default: 30000].", show_default=False),
    ] = None,
    cased: Annotated[
        bool | None, typer.Option("--cased/--uncased", help="Keep case [default: uncased].", show_default=False)
    ] = None,
    cover: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Measure on this text, too; may be given again.", show_default=False),
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(metavar="DIR|vocab.txt", help="Add words of TEXT to this vocabulary.", show_default=False),
    ] = None,
    terms: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help=f"With --extend: so many at most [default: {TERMS}].", show_default=False
        ),
    ] = None,
    vocab: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The vocabulary of STORE [default: in or beside it].", show_default=False),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Processor threads; the result is the same.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a vocabulary, or extend one, and say how good it is; the page is DIR/report.html."""
    if threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(threads)  # read once, when the library first uses more than one
    from bertsmith.core.config import load
    from bertsmith.core.errors import ConfigError
    from bertsmith.tasks.vocabulary import extend_vocabulary, train_vocabulary
    from bertsmith.tokenizer.train import VocabConfig

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr)

    asked = typed()
    if extend is not None:
        fixed = {"--size": size, "--cased/--uncased": cased, "--config": config, "--set": sets}
        if given := [name for name, value in fixed.items() if value is not None]:
            raise ConfigError(f"{given[0]}: a vocabulary that is extended keeps its pieces and settings; leave it out")
        made = extend_vocabulary(
            text, out, extend, terms or TERMS, cover=cover or (), vocab=vocab, say=say, command=asked
        )
    else:
        if terms is not None:
            raise ConfigError("--terms: says how many words to add with --extend; for a new vocabulary give --size")
        options = {"size": None if size == AUTO else size, "lowercase": None if cased is None else not cased}
        settings = load(VocabConfig, file=config, sets=sets or [], options=options)
        made = train_vocabulary(
            text, out, settings, auto=size == AUTO, cover=cover or (), vocab=vocab, say=say, command=asked
        )
    if as_json:
        print(json.dumps({"path": str(made.path), **made.facts}, ensure_ascii=False))
    else:
        _show(made.facts)
    say(f"{made.path}: {made.facts['pieces']:,} pieces; the page is {made.path / 'report.html'}")


def _show(facts: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if facts["how"] == "trained":
        table = Table("pieces", "pieces per word", r"\[UNK]", "seen 100 times", "", box=None, pad_edge=False)
        for row in facts["sizes"]:
            marks = [
                name for name, size in (("advised", facts["advised"]), ("made", facts["pieces"])) if size == row["size"]
            ]
            table.add_row(
                f"{row['size']:,}",
                f"{row['fertility']:.4f}",
                f"{row['unknown_rate']:.4%}",
                f"{row['learnable']:.1%}",
                ", ".join(marks),
            )
        console.print(table)
    for name, one in facts["measured"].items():
        table = Table(
            "script", "words", "pieces per word", r"\[UNK]", title=name, title_justify="left", box=None, pad_edge=False
        )
        for script, row in [*one["scripts"].items(), ("all", one["all"])]:
            before = facts.get("before", {}).get(name)
            fertility = f"{row['fertility']:.4f}"
            if before and script == "all":
                fertility += f" (before {before['all']['fertility']:.4f})"
            table.add_row(script, f"{row['words']:,}", fertility, f"{row['unknown_rate']:.4%}")
        console.print(table)
