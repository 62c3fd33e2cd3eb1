"""What a request may be, checked before any work: bytes while they arrive, JSON by its letter, items, characters.

Nothing here needs memory beyond the limits, whatever is sent.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from starlette.types import Receive

from bertsmith.core.config import Config, Count, Duration
from bertsmith.serve.refusal import Refusal
from bertsmith.tokenizer.load import well_formed

LINGER = 1.0
"""Seconds for which a body that is too long is read and forgotten, so that the client gets to see the answer."""
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_CODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content codings, and zlib's name for their containers."""


class LimitsConfig(Config):
    """How much one request may bring, and how long it may take to bring it."""

    body_bytes: Count = Field(8_000_000, ge=1, description="longest body as it is sent, compressed or not")
    plain_bytes: Count = Field(16_000_000, ge=1, description="longest body when it is decompressed")
    depth: int = Field(32, ge=4, description="deepest nesting of lists and objects")
    items: Count = Field(1024, ge=1, description="longest list in a request")
    stream_items: Count = Field(100_000, ge=1, description="longest list in a request whose answer is streamed")
    characters: Count = Field(2_000_000, ge=1, description="characters in a request")
    tokens: Count = Field(500_000, ge=1, description="pieces in a request that is not streamed")
    header_bytes: Count = Field(32_768, ge=1024, description="longest head of a request: its line and its headers")
    headers: int = Field(100, ge=1, description="most headers")
    header_seconds: Duration = Field(10.0, gt=0, description="longest time from the first byte to the end of the head")
    receive_seconds: Duration = Field(30.0, gt=0, description="longest time for a body to arrive")
    write_seconds: Duration = Field(30.0, gt=0, description="longest time for which a client may not take its answer")
    connections: Count = Field(1000, ge=1, description="open connections; one more is answered 503")


async def read_body(receive: Receive, headers: Mapping[str, str], limits: LimitsConfig) -> bytes:
    """Read a request's body, decompressed, keeping no more of it than is allowed.

    Args:
        receive: ASGI's.
        headers: of the request, by lower-case name.
        limits: bytes and seconds.

    Raises:
        Refusal: 400 for a damaged one, 408 for one that comes too slowly, 413 for one that is too long before or
            after decompression, 415 for a coding that is not known.
    """
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "", *_CODINGS):
        raise Refusal(415, f"content-encoding {coding[:40]!a} is not known; send the body plain or as gzip or deflate")
    unpack = zlib.decompressobj(_CODINGS[coding]) if coding in _CODINGS else None
    announced = headers.get("content-length", "")
    too_long = Refusal(413, f"the body has more than {limits.body_bytes:,} bytes; send less at once")
    parts: list[bytes] = []
    sent = length = 0
    try:
        async with asyncio.timeout(limits.receive_seconds):
            if announced.isdigit() and int(announced) > limits.body_bytes:
                # A client that waits for leave to send has sent nothing, and must not be given it.
                if headers.get("expect", "").lower() != "100-continue":
                    await _linger(receive)
                raise too_long
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(499, "the client left before its request was there")
                data, more = message.get("body", b""), message.get("more_body", False)
                sent += len(data)
                if sent > limits.body_bytes:
                    await _linger(receive if more else None)
                    raise too_long
                if unpack is not None:
                    data = _unpacked(unpack, data, limits.plain_bytes + 1 - length)
                length += len(data)
                if length > limits.plain_bytes:
                    await _linger(receive if more else None)
                    raise Refusal(413, f"decompressed, the body has more than {limits.plain_bytes:,} bytes; send less")
                parts.append(data)
    except TimeoutError:
        raise Refusal(
            408,
            f"the body did not arrive within {limits.receive_seconds:g} s; send it faster, or less of it",
            headers={"Connection": "close"},
        ) from None
    if unpack is not None and sent and not unpack.eof:
        raise Refusal(400, f"the {coding} body ends too early; send it whole")
    return b"".join(parts)


def _unpacked(unpack: Any, data: bytes, room: int) -> bytes:
    """At most `room` bytes of what the compressed data holds."""
    try:
        plain: bytes = unpack.decompress(data, room)
    except zlib.error:
        raise Refusal(400, "the body is not what its content-encoding says; check how it is compressed") from None
    if unpack.unused_data:
        raise Refusal(400, "something follows the compressed body; send one compressed stream")
    return plain


async def _linger(receive: Receive | None) -> None:
    """Read and forget for a while: an answer sent to a client that is still sending would be lost with the reset."""
    try:
        async with asyncio.timeout(LINGER):
            while receive is not None and (message := await receive())["type"] == "http.request":
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def parse_json(data: bytes, limits: LimitsConfig, *, streamed: bool = False) -> Any:
    """Read JSON strictly, and measure it.

    Args:
        data: the body.
        limits: depth, items and characters.
        streamed: whether the answer is, so that much is read at no time; only the body's length then limits characters.

    Returns:
        The document; lone surrogates in its texts are U+FFFD.

    Raises:
        Refusal: 400 for what is no JSON (also NaN, keys given twice, nesting that is too deep), 413 for too much.
    """
    try:
        document = json.loads(
            data.decode(), object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite, parse_int=_whole
        )
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8 at byte {error.start}; send JSON as UTF-8") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(400, f"the body is not JSON at {where}: {error.msg}; send one JSON document") from None
    except RecursionError:
        raise Refusal(400, f"the body is nested deeper than {limits.depth} levels") from None
    if streamed:
        limits = limits.model_copy(update={"items": limits.stream_items, "characters": limits.plain_bytes})
    _measure(document, limits)
    return _clean(document) if _ESCAPED_SURROGATE.search(data) else document


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refusal(400, "the body has an object in which a key occurs twice; give each key once")
    return found


def _constant(name: str) -> Any:
    raise Refusal(400, f"the body holds {name}, which is not JSON; send a number or null")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Refusal(400, "the body holds a number that is too large")
    return number


def _whole(text: str) -> int:
    if len(text) > 19:
        raise Refusal(400, "the body holds a number that is too large")
    return int(text)


def _measure(document: Any, limits: LimitsConfig) -> None:
    characters = 0
    level = [document]
    for _ in range(limits.depth + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, str):
                characters += len(value)
            elif isinstance(value, list):
                if len(value) > limits.items:
                    raise Refusal(413, f"a list has {len(value):,} items; at most {limits.items:,} are taken at once")
                below += value
            elif isinstance(value, dict):
                characters += sum(map(len, value))
                below += value.values()
        if characters > limits.characters:
            raise Refusal(413, f"the request has more than {limits.characters:,} characters; send less at once")
        if not below:
            return
        level = below
    raise Refusal(400, f"the body is nested deeper than {limits.depth} levels")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return {well_formed(key): _clean(item) for key, item in value.items()} if isinstance(value, dict) else value
