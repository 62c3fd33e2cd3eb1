"""`bertsmith compress`: a smaller and faster model from one that there is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.cli.options import AsJson, ConfigFile, Debug, Quiet, Sets, Threads


def quantize(
    bundle: Annotated[str, typer.Argument(help="Bundle or run folder of a model with a task.")],
    data: Annotated[Path, typer.Option("--data", metavar="DEV", help="Labelled rows that keep watch on the score.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Largest drop allowed, in points [default: 0.5].", show_default=False),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    as_json: AsJson = False,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a model int8 for ONNX Runtime; layers stay in fp32 where the score on DEV would drop too far."""
    from bertsmith.compress.quantize import QuantizeConfig
    from bertsmith.compress.quantize import quantize as run
    from bertsmith.core.bundle import Bundle
    from bertsmith.core.config import load
    from bertsmith.core.device import set_threads

    set_threads(threads)
    options = {} if max_drop is None else {"max_drop": max_drop}
    settings = load(QuantizeConfig, file=config, sets=sets or (), options=options)
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))
    made = run(Bundle.open(bundle), data, out, settings, say=say)
    figures = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(figures, ensure_ascii=False))
        return
    faster = ", ".join(f"{ratio:.2f} at batch {n}" for n, ratio in figures["faster"].items())
    say(f"{figures['smaller']:.2f} times smaller; times faster than torch fp32: {faster}")
    say(f"{figures['drop']:.2f} points of {figures['child']['headline']} lost")
    print(made.path)
