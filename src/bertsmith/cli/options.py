"""The options that every command shares, spelt once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings from a TOML file.", show_default=False)
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as train.lr=2e-3; may be given again."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Where all random choices start from.", show_default=False)]
Threads = Annotated[
    int | None, typer.Option("--threads", help="Processor threads [default: one for each core].", show_default=False)
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps [default: chosen].", show_default=False)
]
EngineName = Annotated[str, typer.Option("--engine", help="auto (as `bench` found), torch or onnx.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print no progress, only errors and the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Dev = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Rows to choose the best weights by [default: a tenth of TRAIN].", show_default=False
    ),
]
Test = Annotated[Path | None, typer.Option(metavar="FILE", help="Rows to score once, at the end.", show_default=False)]
Epochs = Annotated[float | None, typer.Option(metavar="N", help="Train for so many passes.", show_default=False)]
Steps = Annotated[str | None, typer.Option(metavar="N", help="Train for so many updates.", show_default=False)]
Budget = Annotated[str | None, typer.Option(metavar="10m", help="Train for about this long.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
Every = Annotated[
    str | None, typer.Option(metavar="10m|500steps", help="How often the run is saved.", show_default=False)
]
# Taken out of the arguments before a command sees them (see main); declared by commands so that --help lists it.
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
