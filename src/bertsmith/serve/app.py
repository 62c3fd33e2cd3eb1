"""The application: all routes behind the gate, what the service says of itself, and errors in one shape."""

from __future__ import annotations

from typing import Any, cast

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from bertsmith import __version__
from bertsmith.core.errors import BertsmithError
from bertsmith.corpus.privacy import redact
from bertsmith.serve import openai, routes
from bertsmith.serve.fleet import Served
from bertsmith.serve.gate import Gate
from bertsmith.serve.incoming import Incoming, Route
from bertsmith.serve.note import Note
from bertsmith.serve.page import page
from bertsmith.serve.refusal import Refusal, refusal_response, route_path
from bertsmith.serve.routes import ERRORS
from bertsmith.serve.service import Service

DESCRIPTION = """Models of bertsmith, answering.

Shapes are those of Text Embeddings Inference and of Hugging Face's inference API where they have the route, and
those of OpenAI below /v1. Answers say in headers which model and version gave them (x-model, x-model-version), how many
pieces were read (x-compute-tokens) and cut (x-truncated), and the milliseconds in the queue and in the model
(x-queue-time, x-inference-time). With `accept: application/x-ndjson`, /predict, /embed, /fill-mask and /ner answer in
lines, an item each, as they are done. The header x-request-timeout gives the seconds that a client is willing to wait.
"""

system = APIRouter(route_class=Route, responses={status: ERRORS[status] for status in (401, 403, 429)})


def build_app(service: Service) -> ASGIApp:
    """The application of a service; its workers are started by `service.start`, not here.

    Args:
        service: its parts.
    """
    app = FastAPI(
        title="bertsmith",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        # FastAPI's own spans and records hold addresses, paths as they were asked, and what is wrong with a body.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = service
    for router in (routes.router, openai.router, system):
        app.include_router(router)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(Exception, _failed)
    gated: ASGIApp = Gate(app, service)
    if service.config.cors:
        names = [*Note("").headers(), "x-request-id", "retry-after"]
        gated = CORSMiddleware(
            gated,
            allow_origins=service.config.cors,
            allow_methods=["GET", "POST"],
            expose_headers=names,
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id", "x-request-timeout"],
        )
    return gated


async def _refused(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, Refusal) else None
    if refusal is None:
        plain = cast(HTTPException, error)
        texts = {404: "there is no such route", 405: "this route takes another method"}
        refusal = Refusal(plain.status_code, texts.get(plain.status_code, str(plain.detail)), headers=plain.headers)
    note: Note = request.scope["state"]["note"]
    note.reason = refusal.reason
    return refusal_response(refusal, route_path(request.scope), note.request_id)


async def _failed(request: Request, error: Exception) -> Response:
    """What nobody foresaw; it is raised again behind this, and the gate writes it down."""
    return await _refused(request, Refusal(500, "something failed here; the log knows it by request_id"))


async def _not_valid(request: Request, error: Exception) -> Response:
    """Say which fields are wrong, without what was in them."""
    issues = cast(RequestValidationError, error).errors()
    told = [f"{'.'.join(str(part) for part in issue['loc'])}: {issue['msg']}" for issue in issues[:8]]
    more = f"; and {len(issues) - 8} more" if len(issues) > 8 else ""
    # A key of the body may hold anything, so what is told is masked and cut.
    message = redact("; ".join(text[:300] for text in told)).text + more
    return await _refused(request, Refusal(422, message))


def _about(model: Served) -> dict[str, Any]:
    facts = model.facts
    alive = model.generation is not None and not model.generation.worker.lost.done()
    names = (
        "task",
        "version",
        "sha",
        "labels",
        "mode",
        "pairs",
        "chooses",
        "mlm",
        "max_length",
        "dimensions",
        "precision",
        "created",
    )
    return {"name": model.name, "ready": alive, **{name: facts.get(name) for name in names}}


@system.get("/", include_in_schema=False)
async def look() -> Response:
    """A page on which models are tried by hand. Holds nothing of this service, so it needs no key; it asks for one."""
    return page()


@system.get("/models", summary="The models, their tasks and versions")
async def models(request: Request) -> list[dict[str, Any]]:
    """A line a model, in the order in which they were given; the first that can answer a request does."""
    return [_about(model) for model in cast(Incoming, request).service.fleet.models.values()]


@system.post(
    "/models/{name}/reload",
    summary="Take a bundle as it is now on disk",
    responses={status: ERRORS[status] for status in (404, 422, 503)},
)
async def reload(request: Request, name: str) -> dict[str, Any]:
    """The old model answers until the new one has; a new one that fails is not taken. Needs the scope admin."""
    service = cast(Incoming, request).service
    service.fleet.find(name, routes.anything)
    if service.keys is None and not _is_local(request):
        raise Refusal(403, "without keys, models are reloaded from this machine only")
    try:
        return {"name": name, "version": await service.reload(name)}
    except BertsmithError as error:
        raise Refusal(422, f"the new bundle was not taken: {error}; the old one goes on") from None


def _is_local(request: Request) -> bool:
    return request.client is not None and request.client.host in ("127.0.0.1", "::1", "testclient")


@system.get("/info", summary="What the first model is, as TEI says it")
async def info(request: Request) -> dict[str, Any]:
    """Text Embeddings Inference's words for the first model and for the limits."""
    service = cast(Incoming, request).service
    model = next(iter(service.fleet.models.values()))
    facts, config = model.facts, service.config
    kind: dict[str, Any] = {"classifier": {"id2label": {str(i): label for i, label in enumerate(facts["labels"])}}}
    if facts["mode"] == "bi":
        kind = {"embedding": {"pooling": facts["pooling"]}}
    elif facts["mode"] == "cross":
        kind = {"reranker": kind["classifier"]}
    return {
        "model_id": model.name,
        "model_sha": facts["sha"],
        "model_dtype": facts["precision"].partition(" ")[0],
        "model_type": kind,
        "task": facts["task"],
        "max_concurrent_requests": config.limits.connections,
        "max_input_length": facts["max_length"],
        "max_batch_tokens": config.batch.tokens,
        "max_batch_requests": config.batch.batch_items,
        "max_client_batch_size": config.limits.items,
        "auto_truncate": True,
        "version": __version__,
    }


@system.get("/health/live", summary="Whether models compute: each answers a question now", responses={503: ERRORS[503]})
async def live(request: Request) -> dict[str, Any]:
    """A real pass through each model, before all that waits; at most one a second, however many ask. Needs no key."""
    return {"status": "alive", "seconds": await cast(Incoming, request).service.fleet.probe()}


@system.get("/health/ready", summary="Whether requests should be sent here", responses={503: ERRORS[503]})
@system.get("/health", summary="The same, where TEI has it", responses={503: ERRORS[503]})
async def ready(request: Request) -> dict[str, Any]:
    """Every model has a worker, and the service is not about to end."""
    service = cast(Incoming, request).service
    if service.draining:
        raise Refusal(503, "the service is about to end")
    for model in service.fleet.models.values():
        model.current()
    return {"status": "ready"}


@system.get("/metrics", summary="Figures for Prometheus", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format. Needs the scope metrics when there are keys."""
    return Response(await cast(Incoming, request).service.page(), media_type=CONTENT_TYPE_LATEST)
