"""`bertsmith keys`: API keys for a service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bertsmith.cli.options import AsJson, Debug
from bertsmith.cli.tables import folding
from bertsmith.core.extras import require

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file of keys, such as keys.toml.")]


def add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: File,
    scopes: Annotated[
        list[str] | None, typer.Option("--scope", help="What it may do [default: all answers]; may be given again.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A model that it may ask [default: all]; may be given again.")
    ] = None,
    per_minute: Annotated[
        int | None, typer.Option("--per-minute", min=1, help="Requests a minute.", show_default=False)
    ] = None,
    tokens_per_day: Annotated[
        str | None, typer.Option("--tokens-per-day", help="Pieces a day, such as 1M.", show_default=False)
    ] = None,
    days: Annotated[
        float | None,
        typer.Option("--days", min=0, help="For how long it is valid [default: ever].", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Make a key and print it, once; the file holds its salted hash. A running service takes it within seconds."""
    require("fastapi", "making keys")
    from bertsmith.serve.auth import add_key, expiry

    key = add_key(
        file,
        name,
        scopes=tuple(scopes) if scopes else None,
        models=tuple(models) if models else None,
        requests_per_minute=per_minute,
        tokens_per_day=tokens_per_day,
        expires=expiry(days),
    )
    print(f"written to {file}; this is the only time that the key is shown:", file=sys.stderr)
    print(key)


def show(file: File, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the keys of a file, without what is secret."""
    require("fastapi", "listing keys")
    from bertsmith.serve.auth import read_keys

    keys = read_keys(file).keys
    if as_json:
        entries = [{"key": number, **key.model_dump(exclude={"salt", "hash"})} for number, key in keys.items()]
        print(json.dumps(entries, ensure_ascii=False))
        return
    table = Table("key", "name", "scopes", "models", "a minute", "pieces a day", "expires")
    for number, key in keys.items():
        limits = (key.requests_per_minute, key.tokens_per_day)
        shown = (f"{limit:,}" if limit else "" for limit in limits)
        table.add_row(number, key.name, " ".join(key.scopes), " ".join(key.models), *shown, key.expires or "")
    Console().print(folding(table))


def revoke(
    number: Annotated[str, typer.Argument(metavar="KEY", help="The part that is no secret, as `keys list` shows it.")],
    file: File,
    debug: Debug = False,
) -> None:
    """Take a key out of the file; a running service refuses it within seconds."""
    require("fastapi", "revoking keys")
    from bertsmith.serve.auth import revoke_key

    print(f"the key of {revoke_key(file, number).name} is refused from now on", file=sys.stderr)
