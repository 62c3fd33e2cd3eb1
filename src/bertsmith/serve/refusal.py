"""Every way in which the service says no, as one type: a status, a reason that metrics count, a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from bertsmith.serve.encoding import to_json

REASONS = {
    400: "malformed",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "media_type",
    422: "invalid",
    429: "overloaded",
    431: "header_too_large",
    499: "client_gone",
    500: "failed",
    503: "unavailable",
    504: "deadline_passed",
}
"""What a status is called in `error_type` and in the metrics."""


class Refusal(HTTPException):
    """An answer that is no result.

    Args:
        status: the HTTP status, a key of `REASONS`.
        message: what is wrong, where, and what to do; holds no personal data, because nothing of the request.
        headers: to send along, such as Retry-After.
        reason: for metrics and `error_type`; None: what the status is called.
    """

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, reason: str | None = None
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.reason = reason or REASONS.get(status, "failed")


def refusal_response(refusal: Refusal, path: str, request_id: str) -> Response:
    """The answer that a client gets: TEI's shape, and below /v1 that of OpenAI.

    Args:
        refusal: what is wrong.
        path: of the request, as `route_path` gives it.
        request_id: by which the logs know the request.
    """
    content: dict[str, Any] = {"error": refusal.detail, "error_type": refusal.reason, "request_id": request_id}
    if path.startswith("/v1/"):
        kind = "server_error" if refusal.status_code >= 500 else "invalid_request_error"
        inner = {"message": refusal.detail, "type": kind, "param": None, "code": refusal.reason}
        content = {"error": inner, "request_id": request_id}
    return Response(to_json(content), refusal.status_code, refusal.headers, "application/json")


def route_path(scope: Scope) -> str:
    """The path that routes are matched with: without the prefix below which the application is mounted.

    Args:
        scope: ASGI's.
    """
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path
