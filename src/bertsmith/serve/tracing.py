"""Traces for OpenTelemetry: a span a request, and in it what was waited and computed for it. Never a text.

They are asked for by the environment variables of OpenTelemetry's specification, and cost nothing where they are not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from bertsmith import __version__
from bertsmith.core.errors import ConfigError
from bertsmith.core.extras import require
from bertsmith.serve.note import Note
from bertsmith.serve.telemetry import OTHER

SILENT = frozenset({"/", "/health", "/health/live", "/health/ready", "/metrics"})
"""Routes that are asked by machines all day long, and tell nothing."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
COUNTS = ("items", "characters", "tokens", "truncated", "masked")
PROTOCOL = "http/protobuf"


def traces_asked(environment: Mapping[str, str] | None = None) -> Traces | None:
    """What writes traces, if the environment asks for them: an OTLP endpoint, or OTEL_TRACES_EXPORTER.

    Args:
        environment: other than this process's; where spans go, how many and under which name is read from the
            process's own by OpenTelemetry itself.

    Returns:
        None where nobody asks, or OTEL_SDK_DISABLED is true.

    Raises:
        ConfigError: OpenTelemetry is not installed, or an exporter or protocol is asked for that is not here.
    """
    environment = os.environ if environment is None else environment

    def given(*names: str) -> str:
        return next((value for name in names if (value := environment.get(name, "").strip())), "")

    endpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    names = [name.strip() for name in given("OTEL_TRACES_EXPORTER").split(",") if name.strip()]
    names = names or (["otlp"] if given(*endpoint) else [])
    if given("OTEL_SDK_DISABLED").lower() == "true" or set(names) <= {"none"}:
        return None
    protocol = given("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOL
    for name in names:
        if name not in ("otlp", "console", "none"):
            raise ConfigError(f"OTEL_TRACES_EXPORTER={name}: traces are sent by otlp, or shown by console; or say none")
    if "otlp" in names and protocol != PROTOCOL:
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: traces are sent by {PROTOCOL}; collectors take it at port 4318"
        )
    require("opentelemetry.sdk", "writing traces, as OTEL_… in the environment asks for,")
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor

    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "bertsmith"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    if "otlp" in names:
        module = require("opentelemetry.exporter.otlp.proto.http.trace_exporter", "sending traces by otlp")
        provider.add_span_processor(BatchSpanProcessor(module.OTLPSpanExporter()))
    if "console" in names:
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    return Traces(provider)


class Traces:
    """Writes spans.

    Args:
        provider: an `opentelemetry.sdk.trace.TracerProvider`.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("bertsmith.serve", __version__)

    def request(self, scope: Scope, note: Note, route: str, status: int, reason: str | None) -> str:
        """Write the spans of a request that has just ended: as a child of the caller's, where traceparent names one.

        Args:
            scope: ASGI's.
            note: what was written down about it.
            route: as it is declared, or `other`.
            status: of the answer.
            reason: why there was none.

        Returns:
            The trace's id, as logs have it; empty for routes of which there are no spans.
        """
        if route in SILENT:
            return ""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        end, loop, clock = time.time_ns(), asyncio.get_running_loop().time(), time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        known = scope["method"] in METHODS
        method, verb = (scope["method"], scope["method"]) if known else ("_OTHER", "HTTP")
        span = self._tracer.start_span(
            verb if route == OTHER else f"{verb} {route}",
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes=_attributes(note, method, route, status, reason),
            start_time=end - _nanoseconds(clock - note.began),
        )
        within = set_span_in_context(span)

        def part(name: str, since: float, until: float) -> None:
            child = self._tracer.start_span(name, context=within, start_time=end - _nanoseconds(loop - since))
            child.end(end - _nanoseconds(loop - until))

        for (ended, computed), queued in note.batches.items():
            part("queue", ended - computed - queued, ended - computed)
            part("compute", ended - computed, ended)
        if reason == "deadline_passed" and note.submitted is not None:
            part("queue", note.submitted, loop)
        if status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(end)
        return f"{span.get_span_context().trace_id:032x}"

    async def close(self) -> None:
        """Send what has not been sent."""
        await asyncio.to_thread(self._provider.shutdown)


def _attributes(note: Note, method: str, route: str, status: int, reason: str | None) -> dict[str, Any]:
    """What a span says: counts, and names that the service gave itself; the caller's own stay out."""
    found: dict[str, Any] = {"http.request.method": method, "http.response.status_code": status}
    found["bertsmith.request_id"] = note.request_id
    if route != OTHER:
        found["http.route"] = route
    if reason is not None:
        found["error.type"] = reason
    if note.version:
        found |= {"bertsmith.model": note.model, "bertsmith.model.version": note.version}
        found |= {f"bertsmith.{name}": getattr(note, name) for name in COUNTS}
    return found


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
