"""What uvicorn does not watch: heads that are too long or too slow, and answers that nobody takes."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from bertsmith.core.extras import present
from bertsmith.serve.limits import LINGER, LimitsConfig
from bertsmith.serve.refusal import REASONS

END = b"\r\n\r\n"


def protocol(limits: LimitsConfig) -> type[asyncio.Protocol]:
    """The protocol of uvicorn for one connection (the faster one where httptools is installed), under guard.

    Args:
        limits: of a request's head and of the time that a client has.
    """
    base: Any = H11Protocol
    if present("httptools"):
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        base = HttpToolsProtocol

    class Guarded(base):  # type: ignore[misc]
        """A connection that ends with 408 or 431 when a head is too slow or too long."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._head = bytearray()
            self._timer: asyncio.TimerHandle | None = None
            self._stalled: asyncio.TimerHandle | None = None
            self._refused = False
            self._ahead = 0  # bytes of requests to come, while one is under way

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            if self._refused:
                return
            if self._between_requests():
                self._ahead = 0
                if self._timer is None:
                    self._wait_for_head()
                if not self._head_fits(data):
                    self._refuse(431)
                    return
                data = _without_upgrade(data)
            elif not self.cycle.more_body:
                self._ahead += len(data)
                if self._ahead > limits.header_bytes:
                    self.flow.pause_reading()  # until this request is answered
            super().data_received(data)
            if not self._between_requests():
                self._head.clear()
                self._cancel()

        def shutdown(self) -> None:
            if self.cycle is None and not self._refused:  # it has just come, and its request may be on its way
                self.loop.call_later(LINGER, self._shut_down)
            else:
                super().shutdown()

        def connection_lost(self, exc: Exception | None) -> None:
            self._cancel()
            self.resume_writing()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stalled = self.loop.call_later(limits.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._stalled is not None:
                self._stalled.cancel()
                self._stalled = None
            super().resume_writing()

        def _shut_down(self) -> None:
            if not self.transport.is_closing():
                super().shutdown()

        def _between_requests(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _head_fits(self, data: bytes) -> bool:
            """Whether the head is within its limits, as far as it is known."""
            self._head += data[: limits.header_bytes + len(END)]
            end = self._head.find(END)
            size = len(self._head) if end < 0 else end
            return size <= limits.header_bytes and self._head.count(b"\n", 0, size) <= limits.headers

        def _wait_for_head(self) -> None:
            self._timer = self.loop.call_later(limits.header_seconds, self._too_slow)

        def _cancel(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            if self._head:
                self._refuse(408)
            else:
                self.transport.close()

        def _refuse(self, status: int) -> None:
            """Answer, then let the client read it before the connection goes."""
            self._refused = True
            self._cancel()
            if self.transport.is_closing():
                return
            body = f'{{"error":"{_MESSAGES[status]}","error_type":"{REASONS[status]}"}}'
            phrase = HTTPStatus(status).phrase
            head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n{body}".encode())
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.loop.call_later(LINGER, self.transport.close)

    return Guarded


def _without_upgrade(data: bytes) -> bytes:
    """What begins with a head, with no wish for another protocol in it: the parser would drop the body for it.

    A client that speaks HTTP/2 offers that, and takes it that nobody answers the offer.
    """
    head, end, rest = data.partition(END)
    return _UPGRADE.sub(b"x", head) + end + rest


_UPGRADE = re.compile(rb"(?<=\n)[Uu](?=(?i:pgrade)[ \t]*:)")
_MESSAGES = {
    408: "the head of the request did not arrive in time",
    431: "the head of the request is too long or has too many headers",
}
