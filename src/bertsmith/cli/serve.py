"""`bertsmith serve`: models as a service."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.cli.options import ConfigFile, Debug, Device, Quiet, Sets, Threads
from bertsmith.core.extras import require


def command(
    bundles: Annotated[
        list[str], typer.Argument(metavar="[NAME=]BUNDLE...", help="Bundle, run or Hugging Face folders, or hub names.")
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", help="API keys, made by bertsmith keys.", show_default=False),
    ] = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Listen at a public address although there are no keys.")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="Certificate, PEM.", show_default=False)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, PEM.", show_default=False)
    ] = None,
    audit: Annotated[
        str | None,
        typer.Option("--audit", metavar="FILE", help="Write down who asked what, without texts.", show_default=False),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16 or fp32.")] = "auto",
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve models: /predict /embed /rerank /ner /qa /fill-mask /similarity, /v1/embeddings, /metrics, /openapi.json.

    SIGHUP takes bundles as they are now on disk; SIGTERM ends the service when all requests are answered.
    """
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        require(module, "serving")
    from bertsmith.core.config import load
    from bertsmith.serve.fleet import named_bundle
    from bertsmith.serve.journal import log_to_stderr
    from bertsmith.serve.server import bind, check_address, check_tls, is_loopback, serve
    from bertsmith.serve.service import ServeConfig, Service

    check_address(host, keys=keys is not None, told=without_keys)
    check_tls(tls_cert, tls_key)
    settings = load(ServeConfig, file=config, sets=sets or (), options={"audit.file": audit})
    service = Service(
        [named_bundle(bundle) for bundle in bundles],
        settings,
        keys=None if keys is None else str(keys),
        device=device,
        precision=precision,
        threads=threads,
    )
    listener = bind(host, port)
    scheme = "http" if tls_cert is None else "https"
    shown = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{shown}:{listener.getsockname()[1]}"

    def started() -> None:
        if quiet:
            return
        for model in service.fleet.models.values():
            facts = model.facts
            print(f"{model.name}: {facts['task']}, version {facts['version']}, {facts['precision']}", file=sys.stderr)
        if not is_loopback(host) and tls_cert is None:
            print("keys and texts cross the network unencrypted; give --tls-cert and --tls-key", file=sys.stderr)
        print(f"serving at {url} (Ctrl-C ends it)", file=sys.stderr, flush=True)

    log_to_stderr(quiet)
    if asyncio.run(serve(service, listener, cert=tls_cert, key=tls_key, started=started)) == signal.SIGINT:
        raise KeyboardInterrupt
