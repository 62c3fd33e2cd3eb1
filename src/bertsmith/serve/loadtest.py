"""Load on a service, and how long it lets its clients wait, as the clients see it.

Open loop: requests leave at a fixed rate, whether or not the ones before are answered, and a latency counts from when
its request should have left. Closed loop: each connection sends when it has been answered, so a service that stalls
also stops the questions; the latencies that would have been seen meanwhile are put in.

Source: Tene, "How NOT to measure latency" (2013), and HdrHistogram's correction by an expected interval.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bertsmith.core.config import Config, Count, Duration
from bertsmith.core.errors import ConfigError
from bertsmith.core.picture import line_chart

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
OK = 200


class LoadConfig(Config):
    """What is asked, how often, for how long."""

    duration: Duration = Field(10.0, gt=0, description="time of measuring")
    warm_up: Duration = Field(1.0, ge=0, description="time before that, of which nothing is counted")
    connections: Count = Field(16, ge=1, description="closed loop: clients; open loop: most requests at once")
    rate: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="open loop: requests a second; without it the loop is closed"
    )
    timeout: Duration = Field(30.0, gt=0, description="longest wait for an answer")
    seed: int = Field(0, description="of the choice of texts and of the times of an open loop")


@dataclass(frozen=True, slots=True)
class Shot:
    """One request.

    Attributes:
        due: when it should have left, in seconds from the start of measuring.
        seconds: from then to the end of its answer.
        status: of the answer; 0: there was none.
    """

    due: float
    seconds: float
    status: int


@dataclass
class Load:
    """What a load test found.

    Attributes:
        config: as it was run.
        shots: every request that was due while it was measured.
        seconds: that were measured.
        lost: reasons for which there was no answer.
    """

    config: LoadConfig
    shots: list[Shot] = field(default_factory=list)
    seconds: float = 0.0
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def statuses(self) -> dict[str, int]:
        """Answers by status; `none` where there was none."""
        found = Counter(str(shot.status) if shot.status else "none" for shot in self.shots)
        return dict(sorted(found.items()))

    def latencies(self, corrected: bool = True) -> NDArray[np.float64]:
        """Seconds of all requests that were answered 200, ascending.

        Args:
            corrected: of a closed loop, put in what a client that kept its pace would have seen in a stall.
        """
        found = np.sort(np.array([shot.seconds for shot in self.shots if shot.status == OK]))
        return corrected_for_omission(found) if corrected and self.config.rate is None else found

    def as_dict(self) -> dict[str, Any]:
        """Everything that was found, in numbers; latencies are milliseconds.

        `answered_per_second` counts answers that came while it was measured: what a queue gives later does not make a
        service faster.
        """
        answered = sum(shot.status == OK and shot.due + shot.seconds <= self.seconds for shot in self.shots)
        return {
            "loop": "closed" if self.config.rate is None else "open",
            "connections": self.config.connections,
            "rate": self.config.rate,
            "seconds": round(self.seconds, 3),
            "requests": len(self.shots),
            "answered_per_second": round(answered / self.seconds, 2) if self.seconds else 0.0,
            "statuses": self.statuses,
            "lost": dict(self.lost),
            "latency_ms": percentiles(self.latencies()),
            "latency_ms_uncorrected": percentiles(self.latencies(corrected=False)),
        }

    def picture(self) -> str:
        """Latency by percentile, as SVG: how long the slowest of so many requests took."""
        lines = {"corrected": self.latencies(), "as measured": self.latencies(corrected=False)}
        if self.config.rate is not None:
            lines = {"from when it was due": lines["corrected"]}
        series = {}
        for name, found in lines.items():
            if len(found):
                shares = np.unique(np.concatenate([np.linspace(0, 99, 100), np.linspace(99, 100, 101)]))
                values = np.percentile(found, shares, method="higher") * 1000
                series[name] = list(zip(shares.tolist(), values.tolist(), strict=True))
        how = f"{self.config.rate:g} requests/s" if self.config.rate else f"{self.config.connections} connections"
        return line_chart(
            series or {"answered": []},
            title=f"Latency, {how}",
            x_label="percentile of requests",
            y_label="ms",
            log_y=True,
        )


def corrected_for_omission(latencies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Latencies of a closed loop with those that a stall kept from being seen.

    A client that is answered every `m` seconds (the median) and once waits for `s` would in that time have asked at
    `m, 2m, …` too, and waited `s - m, s - 2m, …`.

    Args:
        latencies: `[N]` seconds, of clients that ask again as soon as they are answered.

    Returns:
        `[N + …]`, ascending.
    """
    if not len(latencies):
        return latencies
    step = float(np.median(latencies))
    if step <= 0:
        return np.sort(latencies)
    long = latencies[latencies >= 2 * step]
    put_in = [np.arange(one - step, step * 0.999999, -step) for one in long.tolist()]
    return np.sort(np.concatenate([latencies, *put_in]))


def percentiles(latencies: NDArray[np.float64]) -> dict[str, float]:
    """Milliseconds by percentile, and their mean; empty for no latencies.

    Args:
        latencies: `[N]` seconds.
    """
    if not len(latencies):
        return {}
    values = np.percentile(latencies, PERCENTILES, method="higher") * 1000
    found = {f"p{name:g}": round(value, 3) for name, value in zip(PERCENTILES, values.tolist(), strict=True)}
    return {"mean": round(float(latencies.mean()) * 1000, 3), **found}


async def load_test(url: str, bodies: Sequence[Any], config: LoadConfig, key: str | None = None) -> Load:
    """Ask a service again and again.

    Args:
        url: of a route, such as `http://127.0.0.1:8000/embed`.
        bodies: what is posted, chosen at random.
        config: how.
        key: an API key.

    Returns:
        What came of it.

    Raises:
        ConfigError: the address is none, or nothing listens there.
    """
    target = Target.of(url, bodies, key)
    try:
        first = await Connection.open(target)
        first.close()
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or error
        raise ConfigError(f"{url}: nothing answers there ({told}); is the service running?") from None
    load, draw = Load(config), random.Random(config.seed)
    begin = time.perf_counter() + config.warm_up
    runner = _open_loop if config.rate is not None else _closed_loop
    await runner(target, load, draw, begin)
    load.seconds = config.duration
    return load


async def _closed_loop(target: Target, load: Load, draw: random.Random, begin: float) -> None:
    async def client() -> None:
        connection: Connection | None = None
        while (now := time.perf_counter()) < begin + load.config.duration:
            connection = await _shoot(target, load, draw, begin, now, connection)
        if connection is not None:
            connection.close()

    await asyncio.gather(*(client() for _ in range(load.config.connections)))


async def _open_loop(target: Target, load: Load, draw: random.Random, begin: float) -> None:
    """Requests at random times of a fixed mean rate; when all connections are in use, those due wait, and it counts."""
    idle: list[Connection | None] = [None] * load.config.connections
    free = asyncio.Semaphore(load.config.connections)
    under_way: set[asyncio.Task[None]] = set()
    due = begin - load.config.warm_up
    assert load.config.rate is not None

    async def send(due: float) -> None:
        async with free:
            idle.append(await _shoot(target, load, draw, begin, due, idle.pop()))

    while (due := due + draw.expovariate(load.config.rate)) < begin + load.config.duration:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.get_running_loop().create_task(send(due))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    for connection in idle:
        if connection is not None:
            connection.close()


async def _shoot(
    target: Target, load: Load, draw: random.Random, begin: float, due: float, connection: Connection | None
) -> Connection | None:
    """Send one request and take it down; gives back the connection if it can be used again."""
    status = 0
    if connection is not None and connection.ended:
        connection.close()
        connection = None
    try:
        async with asyncio.timeout(load.config.timeout):
            if connection is None:
                connection = await Connection.open(target)
            status = await connection.ask(draw.choice(target.requests))
    except TimeoutError:
        load.lost["timeout"] += due >= begin
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        load.lost[type(error).__name__] += due >= begin
        await asyncio.sleep(0.01)  # a service that is gone is not asked in a tight circle
    if due >= begin:
        load.shots.append(Shot(due - begin, time.perf_counter() - due, status))
    if connection is not None and (not status or not connection.open_):
        connection.close()
        connection = None
    return connection


@dataclass(frozen=True)
class Target:
    """Where requests go, and their bytes."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    requests: tuple[bytes, ...]

    @classmethod
    def of(cls, url: str, bodies: Sequence[Any], key: str | None) -> Target:
        """Read an address and write the requests once.

        Args:
            url: of a route.
            bodies: what is posted; at least one.
            key: an API key.

        Raises:
            ConfigError: the address is none.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url}: not an address of a route ({error})") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url}: not an address of a route, such as http://127.0.0.1:8000/embed")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        head += f"authorization: Bearer {key}\r\n" if key else ""
        requests = []
        for body in bodies:
            data = json.dumps(body, ensure_ascii=False).encode()
            requests.append(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        return cls(parts.hostname, port or (443 if tls else 80), tls, tuple(requests))


class Connection:
    """One connection of a client that costs as little as it can; a whole library's client would be what is measured.

    Attributes:
        open_: whether the service keeps it open.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self.open_ = reader, writer, True

    @classmethod
    async def open(cls, target: Target) -> Connection:
        """Connect.

        Args:
            target: where.
        """
        return cls(*await asyncio.open_connection(target.host, target.port, ssl=target.tls))

    async def ask(self, request: bytes) -> int:
        """Send a request and read all of its answer.

        Args:
            request: its bytes.

        Returns:
            The status.
        """
        self._writer.write(request)
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        self.open_ = b"\r\nconnection: close" not in head
        length = head.find(b"\r\ncontent-length:")
        if length >= 0:
            await self._reader.readexactly(int(head[length + 17 : head.index(b"\r\n", length + 2)]))
        elif b"\r\ntransfer-encoding: chunked" in head:
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                await self._reader.readexactly(size + 2)
            await self._reader.readuntil(b"\r\n")
        else:
            await self._reader.read()
            self.open_ = False
        return int(head.split(b" ", 2)[1])

    @property
    def ended(self) -> bool:
        """Whether the service has closed it meanwhile, as services do with what was idle for long."""
        return self._reader.at_eof() or self._reader.exception() is not None

    def close(self) -> None:
        """Close it."""
        with suppress(OSError):
            self._writer.close()
