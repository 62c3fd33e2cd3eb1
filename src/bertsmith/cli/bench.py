"""`bertsmith bench`: find the faster engine for a model on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from bertsmith.cli.options import AsJson, Debug, Threads
from bertsmith.cli.tables import folding


def command(
    bundle: Annotated[str, typer.Argument(help="Bundle or run folder.")],
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Times that each engine answers.")] = 7,
    as_json: AsJson = False,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Time torch and ONNX Runtime on short and long texts; the bundle keeps the faster, for predict and evaluate."""
    from rich.console import Console
    from rich.table import Table

    from bertsmith.core.bundle import Bundle
    from bertsmith.core.device import set_threads
    from bertsmith.predict.bench import bench

    set_threads(threads)
    found = bench(Bundle.open(bundle), rounds=rounds)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    table = Table()
    for name in ("texts", "engine", "tokens/s", "ms, one text", ""):
        table.add_column(name, justify="right" if "s," in name or "/" in name else "left")
    for size, figures in found["figures"].items():
        for name, figure in figures.items():
            chosen = "chosen" if found[size] == name else ""
            speed, wait = f"{figure['tokens_per_second']:,.0f}", f"{figure['milliseconds']:.2f}"
            table.add_row(size, found["engines"][name], speed, wait, chosen)
    Console().print(folding(table))
