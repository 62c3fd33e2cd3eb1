"""Running a service: its socket, its signals, and its end, at which no request that was taken is lost."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from bertsmith.core.errors import BertsmithError, ConfigError
from bertsmith.serve.app import build_app
from bertsmith.serve.guard import protocol
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.service import Service
from bertsmith.serve.surroundings import certificate_end

KEEP_ALIVE = 30
"""Seconds for which a connection without requests stays open."""

log = logging.getLogger("bertsmith.serve")


class Server(uvicorn.Server):
    """uvicorn's server, whose signals are ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take the connections that the kernel has taken already, then end as uvicorn does.

        Args:
            sockets: the listening ones; closing them would reset what waits there.
        """
        loop, config, taken = asyncio.get_running_loop(), self.config, []
        kind: Any = config.http_protocol_class
        state = {"server_state": self.server_state, "app_state": self.lifespan.state}
        made = partial(kind, config=config, _loop=loop, **state)
        for listener in sockets or []:
            with suppress(BlockingIOError):
                while True:
                    accepted, _ = listener.accept()
                    accepted.setblocking(False)
                    taken.append(loop.create_task(loop.connect_accepted_socket(made, accepted, ssl=config.ssl)))
        await super().shutdown(sockets)
        await asyncio.gather(*taken, return_exceptions=True)


def check_address(host: str, *, keys: bool, told: bool) -> None:
    """Refuse to let everybody in by mistake.

    Args:
        host: where the service listens.
        keys: whether there are API keys.
        told: whether the user said that there shall be none.

    Raises:
        ConfigError: the address can be reached from elsewhere, and there are no keys.
    """
    if not (is_loopback(host) or keys or told):
        raise ConfigError(
            f"--host {host}: others can reach this address, and there are no keys; make some with "
            "`bertsmith keys add NAME keys.toml` and give --keys keys.toml, or say --without-keys"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Args:
        host: an address or a name.
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Open the listening socket.

    Args:
        host: an address or a name.
        port: 0 takes a free one.

    Raises:
        ConfigError: it is taken, or there is no such address.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host} port {port} ({error.strerror}); choose another --port") from None
    # Accepted connections inherit it. asyncio sets it only on those of listeners whose protocol is named, unlike this
    # one's; without it the second of an answer's two writes waits for the client's delayed acknowledgement, 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def check_tls(cert: Path | None, key: Path | None) -> None:
    """Read a certificate and its key, to say now what is wrong with them.

    Raises:
        ConfigError: only one is given, or they cannot be used.
    """

    def encrypted() -> str:
        raise ConfigError(
            f"{key}: is encrypted; write it without its pass phrase: openssl pkey -in {key} -out plain.pem"
        )

    if (cert is None) != (key is None):
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    if cert is not None:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, encrypted)
        except (OSError, ssl.SSLError) as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"{cert}, {key}: not a certificate and its key in PEM form ({reason})") from None


async def serve(
    service: Service,
    listener: socket.socket,
    *,
    cert: Path | None = None,
    key: Path | None = None,
    started: Callable[[], None] = lambda: None,
) -> int:
    """Run a service until SIGTERM or Ctrl-C; SIGHUP reloads all bundles.

    Args:
        service: its parts; its workers are started and ended here.
        listener: the listening socket.
        cert: PEM file of the certificate; None: no TLS.
        key: PEM file of its key.
        started: called once requests are taken, to tell the user.

    Returns:
        The number of the signal that ended it; 0 when it ended otherwise.

    Raises:
        BundleError: a bundle cannot be served.
    """
    limits = service.config.limits
    if cert is not None:
        service.surroundings.certificate_end = certificate_end(cert)
    config = uvicorn.Config(
        build_app(service),
        http=protocol(limits),
        loop="asyncio",
        lifespan="off",
        log_config=None,
        ws="none",
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE,
        limit_concurrency=limits.connections,
        server_header=False,
        timeout_graceful_shutdown=int(service.config.drain) or 1,
        proxy_headers=False,
        ssl_certfile=None if cert is None else str(cert),
        ssl_keyfile=None if key is None else str(key),
    )
    server = Server(config)
    ended_by = 0
    tasks: set[asyncio.Task[None]] = set()

    async def end(number: int) -> None:
        nonlocal ended_by
        if service.draining:
            server.force_exit = server.should_exit = True
            return
        ended_by, service.draining = number, True
        log.info("ending", extra={"facts": {"signal": signal.Signals(number).name}})
        await asyncio.sleep(service.config.drain_delay if number == signal.SIGTERM else 0)
        server.should_exit = True

    async def reload() -> None:
        if not running.done():
            log.warning("not reloaded", extra={"facts": {"why": "the models are still being started"}})
            return
        for model in service.fleet.models.values():
            try:
                await model.reload(drain=service.config.drain)
            except (BertsmithError, Refusal) as error:
                log.error("bundle not taken", extra={"facts": {"model": model.name, "why": str(error)}})

    def start(work: asyncio.Task[None]) -> None:
        tasks.add(work)
        work.add_done_callback(tasks.discard)

    loop = asyncio.get_running_loop()
    running = loop.create_task(service.start())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda sent: start(loop.create_task(end(sent))), number)
    loop.add_signal_handler(signal.SIGHUP, lambda: start(loop.create_task(reload())))
    try:
        while not running.done() and not service.draining:
            await asyncio.wait({running}, timeout=0.1)
        if service.draining:
            running.cancel()
            await asyncio.wait({running})
        else:
            running.result()
            started()
            await server.serve(sockets=[listener])
    except Refusal as refusal:
        raise ConfigError(str(refusal.detail)) from None
    finally:
        listener.close()
        await service.stop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
    return ended_by
