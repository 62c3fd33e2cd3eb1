"""`bertsmith loadtest`: how much a service can take, and how long its clients wait."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bertsmith.cli.options import AsJson, Debug, Quiet, Sets
from bertsmith.cli.tables import folding
from bertsmith.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bertsmith.serve.loadtest import Load

TEXTS = ("The film was good.", "Where is the station? It should be near the old bridge.", "发货很快，包装也很好。")


def command(
    url: Annotated[str, typer.Argument(help="Of a route, such as http://127.0.0.1:8000/embed.")],
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Texts to send, one a line [default: three short ones].", show_default=False),
    ] = None,
    body: Annotated[
        str,
        typer.Option("--body", metavar="JSON", help='What is posted; the text takes the place of "$TEXT".'),
    ] = '{"inputs": "$TEXT"}',
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Open loop: requests a second [default: closed loop].", show_default=False),
    ] = None,
    connections: Annotated[int, typer.Option("--connections", min=1, help="Clients at once.")] = 16,
    duration: Annotated[str, typer.Option("--duration", help="Time of measuring.")] = "10s",
    key: Annotated[
        str | None,
        typer.Option("--key", envvar="BERTSMITH_API_KEY", help="An API key.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write loadtest.json and loadtest.svg there.", show_default=False),
    ] = None,
    sets: Sets = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask a service as fast as it answers, or at a fixed rate; latencies are corrected for coordinated omission."""
    from bertsmith.core.config import load
    from bertsmith.serve.loadtest import LoadConfig, load_test

    options = {"rate": rate, "connections": connections, "duration": duration}
    config = load(LoadConfig, sets=sets or (), options=options)
    bodies = _bodies(body, _texts(file))
    if not quiet:
        how = f"{config.rate:g} requests a second" if config.rate else f"{config.connections} connections"
        print(f"{url}: {how} for {config.duration:g} s, after {config.warm_up:g} s to warm up", file=sys.stderr)
    found = asyncio.run(load_test(url, bodies, config, key))
    result = {"url": url, **found.as_dict()}
    if out is not None:
        _write(out, result, found)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)
    if "200" not in result["statuses"]:
        raise DataError(f"{url}: not one request was answered 200; see the statuses above")


def _texts(file: Path | None) -> list[str]:
    if file is None:
        return list(TEXTS)
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    texts = [line for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    if not texts:
        raise DataError(f"{file}: there are no texts in it; put one on each line")
    return texts


def _bodies(body: str, texts: list[str]) -> list[Any]:
    try:
        form = json.loads(body)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--body {body}: not JSON ({error.msg} at column {error.colno})") from None
    return [_with_text(form, text) for text in texts]


def _with_text(form: Any, text: str) -> Any:
    if isinstance(form, str):
        return form.replace("$TEXT", text)
    if isinstance(form, list):
        return [_with_text(item, text) for item in form]
    return {key: _with_text(item, text) for key, item in form.items()} if isinstance(form, dict) else form


def _write(out: Path, result: dict[str, Any], found: Load) -> None:
    from bertsmith.core.files import atomic_write

    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "loadtest.json", json.dumps(result, indent=2).encode() + b"\n")
    atomic_write(out / "loadtest.svg", found.picture().encode())
    print(f"written to {out}", file=sys.stderr)


def _show(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['requests']:,} requests, {result['answered_per_second']:,} answered a second")
    table.add_column("latency, ms")
    table.add_column("corrected" if result["loop"] == "closed" else "from when it was due", justify="right")
    table.add_column("as measured", justify="right")
    for name, value in result["latency_ms"].items():
        table.add_row(name, f"{value:,.1f}", f"{result['latency_ms_uncorrected'][name]:,.1f}")
    console = Console()
    console.print(folding(table))
    told = [f"{status}: {count:,}" for status, count in {**result["statuses"], **result["lost"]}.items()]
    console.print("answers by status: " + ", ".join(told), highlight=False)
