"""A request whose body is read under limits, and what routes need of it besides."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from bertsmith.serve.limits import parse_json, read_body
from bertsmith.serve.note import Note
from bertsmith.serve.refusal import Refusal, route_path
from bertsmith.serve.service import Service

NDJSON = "application/x-ndjson"
STREAMS = frozenset(("/predict", "/embed", "/fill-mask", "/ner"))
"""Routes that answer in lines where the client wants it."""


def streams(path: str, accept: str) -> bool:
    """Whether an answer goes in lines.

    Args:
        path: of the route.
        accept: the header of the request.
    """
    return path in STREAMS and NDJSON in accept


class Incoming(Request):
    """Reads its body under the service's limits, as strict JSON."""

    @property
    def service(self) -> Service:
        """The service that was asked."""
        found: Service = self.app.state.service
        return found

    @property
    def note(self) -> Note:
        """What is written down about this request."""
        found: Note = self.scope["state"]["note"]
        return found

    @property
    def streamed(self) -> bool:
        """Whether the client wants a line an item."""
        return streams(route_path(self.scope), self.headers.get("accept", ""))

    @property
    def deadline(self) -> float | None:
        """Seconds that the client is willing to wait, by the header x-request-timeout.

        Raises:
            Refusal: 400, it is no such number.
        """
        given = self.headers.get("x-request-timeout")
        if given is None:
            return None
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise Refusal(400, "x-request-timeout is not a number of seconds above 0")
        return seconds

    async def body(self) -> bytes:
        """The whole body, decompressed.

        Raises:
            Refusal: 400, 408, 413 or 415.
        """
        if not hasattr(self, "_body"):
            kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
            if self.method == "POST" and kind != "application/json" and self.headers.get("content-length") != "0":
                raise Refusal(415, "send JSON, with the header content-type: application/json")
            self._body = await read_body(self.receive, self.headers, self.service.config.limits)
        return self._body

    async def json(self) -> Any:
        """The body as a document.

        Raises:
            Refusal: 400 or 413.
        """
        if not hasattr(self, "_json"):
            limits = self.service.config.limits
            data = await self.body()
            # Reading a long document takes a while, in which others are to be answered.
            parse = asyncio.to_thread(parse_json, data, limits, streamed=self.streamed) if len(data) > 1 << 18 else None
            self._json = parse_json(data, limits, streamed=self.streamed) if parse is None else await parse
        return self._json

    async def gone(self) -> None:
        """Return when the client has left; only after the body was read."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


class Route(APIRoute):
    """A route whose requests are `Incoming`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, as FastAPI wants it."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            return await handle(Incoming(request.scope, request.receive))

        return handler
