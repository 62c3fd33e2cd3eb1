"""`bertsmith corpus prepare`: text in, a clean token store out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.cli.options import ConfigFile, Debug, Quiet, Sets

THOROUGH = {"corpus": {"clean": {"mode": "filter"}, "dedup": {"mode": "near"}}}
"""Where the settings start from: text is made ready once, so everything that helps is done."""


def command(
    text: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT...", help="Files, folders, globs, URLs, hf:DATASET, - or pydoc:.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="STORE", help="The token store to make.")] = ...,  # type: ignore[assignment]
    vocab: Annotated[
        Path | None,
        typer.Option(metavar="DIR|vocab.txt", help="Use this vocabulary [default: trained].", show_default=False),
    ] = None,
    nproc: Annotated[
        int | None,
        typer.Option("--nproc", help="Ranks that share the work [default: one for each core].", show_default=False),
    ] = None,
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="What starts the ranks; ray: the cluster at RAY_ADDRESS.")
    ] = "local",
    config: ConfigFile = None,
    sets: Sets = None,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Turn text into a clean token store: mend it, filter it, leave out copies, cut it into pieces.

    A killed command goes on when it is run again. With RANK and WORLD_SIZE in the environment, it is one rank of
    several that somebody else starts on machines with a common file system.
    """
    from bertsmith.core.config import load
    from bertsmith.core.device import usable_cores
    from bertsmith.core.runner import crew
    from bertsmith.tasks.preparation import PrepareConfig, prepare
    from bertsmith.tokenizer.load import Tokenizer

    settings = load(PrepareConfig, preset=THOROUGH, file=config, sets=sets or [])
    ranks = crew(nproc, engine, usable_cores())

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr)

    tokenizer = Tokenizer.load(vocab) if vocab is not None else None
    screen = None
    if settings.corpus.clean.toxic:
        from bertsmith.predict.screening import screening

        screen = screening(settings.corpus.clean)
    store = prepare(text, tokenizer, out, say, settings.corpus, vocab=settings.vocab, crew=ranks, screen=screen)
    print(store.path)
