"""OpenAI's routes for vectors, as its clients call them."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response

from bertsmith.serve import schemas as s
from bertsmith.serve.encoding import numbers
from bertsmith.serve.fleet import Served
from bertsmith.serve.incoming import Incoming, Route
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.routes import ERRORS, collect, respond, vectors

router = APIRouter(prefix="/v1", route_class=Route, responses=ERRORS)


@router.post(
    "/embeddings", summary="Vectors of texts, for OpenAI's clients", responses={200: {"model": s.OpenAIEmbeddings}}
)
async def embeddings(request: Request, body: s.OpenAIEmbeddingRequest) -> Response:
    """One vector a text, with the pieces that were used."""
    incoming = cast(Incoming, request)
    texts = [body.input] if isinstance(body.input, str) else body.input
    generation, _, rows = await collect(incoming, body, vectors, "embed", texts)
    size = generation.facts["dimensions"]
    if body.dimensions not in (None, size):
        raise Refusal(422, f"body.dimensions: this model's vectors have {size} numbers")
    found: list[Any] = []
    if rows:
        found = numbers(np.stack(rows))
        if body.encoding_format == "base64":
            found = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(found)]
    tokens = incoming.note.tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return respond(incoming, {"object": "list", "data": data, "model": incoming.note.model, "usage": usage})


@router.get("/models", summary="The models, for OpenAI's clients")
async def models(request: Request) -> dict[str, Any]:
    """All models that are served."""
    fleet = cast(Incoming, request).service.fleet
    return {"object": "list", "data": [_entry(model) for model in fleet.models.values()]}


@router.get("/models/{name}", summary="One model, for OpenAI's clients")
async def model(request: Request, name: str) -> dict[str, Any]:
    """What is known of a model."""
    fleet = cast(Incoming, request).service.fleet
    return _entry(fleet.find(name, lambda facts: ""))


def _entry(model: Served) -> dict[str, Any]:
    made = model.facts.get("created")
    created = int(datetime.fromisoformat(made).timestamp()) if made else 0
    return {"id": model.name, "object": "model", "created": created, "owned_by": "bertsmith"}
