"""The gate before all routes: request ids, keys, one log line and figures for each request, errors in one shape."""

from __future__ import annotations

import logging
import re
import secrets
import time
import traceback
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bertsmith.serve.auth import ANSWERS, QUESTIONS
from bertsmith.serve.incoming import streams
from bertsmith.serve.note import Note
from bertsmith.serve.refusal import REASONS, Refusal, refusal_response, route_path
from bertsmith.serve.service import Service
from bertsmith.serve.telemetry import OTHER

OPEN = {"/", "/health/live"}
"""Routes that need no key."""
SCOPES_OF = {path: (scope,) for path, scope in QUESTIONS.items()} | {"/metrics": ("metrics",), "/tokenize": ANSWERS}
"""Scopes one of which a route needs."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

log = logging.getLogger("bertsmith.serve.requests")


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: what is behind the gate.
        service: whose keys and figures count.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here.

        Args:
            scope: ASGI's.
            receive: ASGI's.
            send: ASGI's.
        """
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        note = Note(given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12))
        scope.setdefault("state", {})["note"] = note
        status = 0
        # A HEAD is answered as GET; the server leaves out the body.
        behind: Scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *self._headers(note)]
            await send(message)

        telemetry = self.service.telemetry
        telemetry.in_progress.inc()
        try:
            self._admit(route_path(scope), headers, note)
            await self.app(behind, receive, sent)
        except Refusal as refusal:
            note.reason = refusal.reason
            await refusal_response(refusal, route_path(scope), note.request_id)(scope, receive, sent)
        except Exception:
            note.reason = REASONS[500]
            log.error("failed", extra={"facts": {"request_id": note.request_id, "traceback": traceback.format_exc()}})
            if not status:
                failed = Refusal(500, "something failed here; the log knows it by request_id")
                await refusal_response(failed, route_path(scope), note.request_id)(scope, receive, sent)
        finally:
            telemetry.in_progress.dec()
            self._write_down({**behind, "method": scope["method"]}, note, status)

    def _admit(self, path: str, headers: dict[str, str], note: Note) -> None:
        if not path.isprintable():  # routes would overlook a line end behind a path, and scopes go by the whole of it
            raise Refusal(404, "there is no such route")
        if self.service.keys is not None and path not in OPEN:
            note.caller = self.service.keys.caller(headers)
            admin = path.startswith("/models/") and path.endswith("/reload")
            note.caller.allow(*(("admin",) if admin else SCOPES_OF.get(path, ())))
        if path in QUESTIONS and not streams(path, headers.get("accept", "")):
            refusal = self.service.fleet.overloaded()
            if refusal is not None:  # the body is not even read: a refusal must cost next to nothing
                raise refusal

    def _headers(self, note: Note) -> list[tuple[bytes, bytes]]:
        found = [
            (b"x-request-id", note.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
        ]
        return [*found, (b"connection", b"close")] if self.service.draining else found

    def _write_down(self, scope: Scope, note: Note, status: int) -> None:
        seconds = time.perf_counter() - note.began
        path = route_path(scope)
        route = getattr(scope.get("route"), "path", path if path in SCOPES_OF else OTHER)
        reason = note.reason or (REASONS.get(status) if status >= 400 else None)
        status = status or 499
        self.service.telemetry.finished(route, note.model, status, reason, seconds)
        if note.tokens:
            self.service.telemetry.tokens.labels(note.model).inc(note.tokens)
        caller = note.caller
        if caller is not None and (status < 400 or note.computed):
            caller.charge(note.tokens)
        facts: dict[str, Any] = {
            "request_id": note.request_id,
            "method": scope["method"][:10],
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
        }
        if caller is not None:
            facts |= {"key": caller.number, "caller": caller.key.name}
        if note.model:
            counts = ("model", "version", "items", "characters", "tokens", "truncated", "masked")
            facts |= {name: getattr(note, name) for name in counts}
            facts |= {"queued": round(note.queued, 4), "computed": round(note.computed, 4)}
        if reason is not None:
            facts["reason"] = reason
        traces = self.service.traces
        if traces is not None and (trace := traces.request(scope, note, route, status, reason)):
            facts["trace_id"] = trace
        log.info("request", extra={"facts": facts})
        if self.service.audit.wanted and (note.model or caller is not None or reason == "unauthorized"):
            client = scope.get("client")
            self.service.audit.write({**facts, "client": client[0] if client else None, "texts": note.texts})
