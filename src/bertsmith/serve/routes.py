"""The routes that answer: TEI's shapes and Hugging Face's. Requests become items, and answers get their shape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from bertsmith.serve import schemas as s
from bertsmith.serve.batcher import Kind
from bertsmith.serve.encoding import numbers, to_json
from bertsmith.serve.fleet import LONG, Generation
from bertsmith.serve.incoming import NDJSON, Incoming, Route
from bertsmith.serve.masking import Masked, mask, privacy_of
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.service import Payload, Takes, without_personal_data
from bertsmith.serve.shapes import entities, predict_payloads, predicted, stretch, tokens
from bertsmith.serve.worker import POOLING

MASK = "[MASK]"
MOST_CUT = 50_000
"""Characters that /tokenize takes: its answer is dozens of times as long."""
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": s.ErrorBody, "description": text}
    for status, text in {
        400: "The body is not the JSON that it should be.",
        401: "No valid key.",
        403: "The key may not do this.",
        404: "No such model.",
        408: "The request came too slowly.",
        413: "Too much at once.",
        415: "Not JSON, or compressed in an unknown way.",
        422: "A field is wrong, or the model cannot answer this.",
        429: "Too many requests; see Retry-After.",
        500: "The model failed.",
        503: "The model's worker is being replaced; see Retry-After.",
        504: "The deadline passed before anything was computed.",
    }.items()
}
Shape = Callable[[Any, Masked, Generation], Any]

router = APIRouter(route_class=Route, responses=ERRORS)


def anything(facts: Mapping[str, Any]) -> str:
    """What a model lacks for /predict: nothing."""
    return ""


def vectors(facts: Mapping[str, Any]) -> str:
    """What a model lacks to give vectors as it was made to."""
    if facts["mode"] == "bi":
        return ""
    return f"this model was not made to give vectors of texts; /embed makes them if asked how, by pooling: {POOLING}"


def scores_of_pairs(facts: Mapping[str, Any]) -> str:
    """What a model lacks to say how well two texts go together."""
    cross = facts["pairs"] is not False and facts["task"] in ("match", "classify")
    fits = facts["mode"] == "bi" or (cross and (facts["numbers"] or len(facts["labels"]) in (1, 2)))
    return "" if fits else "this model does not say how well two texts go together"


def fills(facts: Mapping[str, Any]) -> str:
    """What a model lacks to fill masks."""
    return "" if facts["mlm"] else "this model does not fill masks"


def of_task(task: str, what: str) -> Takes:
    """Says whether a model is for a task.

    Args:
        task: its name.
        what: what models for it do.
    """
    return lambda facts: "" if facts["task"] == task else f"this model does not {what}"


async def collect(
    request: Incoming,
    body: Any,
    takes: Takes,
    kind: Kind,
    payloads: Sequence[Payload] | Callable[[Mapping[str, Any]], Sequence[Payload]],
    **options: Any,
) -> tuple[Generation, list[Masked], list[Any]]:
    """Answers to a request's payloads.

    Args:
        request: whose they are.
        body: with `model`, and perhaps `privacy` and `truncate`.
        takes: what a model lacks to answer.
        kind: what it is asked.
        payloads: texts or pairs, or what makes them once the model is known.
        options: of the question.

    Returns:
        What answered, what it saw, and its answers.

    Raises:
        Refusal: any.
    """
    service, note = request.service, request.note
    _, generation = service.choose(note, body.model, takes)
    chosen = payloads(generation.facts) if callable(payloads) else payloads
    note.texts = service.audit.hash(chosen)
    gone = asyncio.create_task(request.gone())
    try:
        masked, items = await service.prepare(
            note,
            generation,
            chosen,
            kind=kind,
            options=options,
            privacy=getattr(body, "privacy", None),
            truncate=getattr(body, "truncate", None),
        )
        return generation, masked, await service.answer(note, generation, items, gone, request.deadline)
    except Refusal as refusal:
        raise without_personal_data(refusal) from None
    finally:
        gone.cancel()


def respond(request: Incoming, content: Any) -> Response:
    """An answer with what it says of itself.

    Args:
        request: that is answered.
        content: plain values.
    """
    return Response(to_json(content), media_type="application/json", headers=request.note.headers())


async def each(
    request: Incoming,
    body: Any,
    takes: Takes,
    kind: Kind,
    inputs: str | Sequence[str],
    shape: Shape,
    **options: Any,
) -> Response:
    """Answer a text with one answer and a list with a list; a client that wants lines gets a line an item.

    Args:
        request: that is answered.
        body: of it.
        takes: what a model lacks.
        kind: what it is asked.
        inputs: a text, or several.
        shape: makes of one answer what the client gets.
        options: of the question.
    """
    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    if request.streamed:
        return stream(request, body, takes, kind, texts, shape, **options)
    generation, masked, values = await collect(request, body, takes, kind, texts, **options)
    answers = [shape(value, one, generation) for value, one in zip(values, masked, strict=True)]
    return respond(request, answers[0] if isinstance(inputs, str) else answers)


def stream(
    request: Incoming, body: Any, takes: Takes, kind: Kind, payloads: Sequence[Payload], shape: Shape, **options: Any
) -> Response:
    """Answer in lines: `{"index", "answer"}` or `{"index", "error", "error_type"}` each, and a last one with counts.

    Args:
        request: that is answered.
        body: of it.
        takes: what a model lacks.
        kind: what it is asked.
        payloads: texts or pairs.
        shape: makes of one answer what the client gets.
        options: of the question.
    """
    service, note = request.service, request.note
    _, generation = service.choose(note, body.model, takes)
    note.texts, deadline = service.audit.hash(payloads), request.deadline

    async def lines() -> AsyncIterator[bytes]:
        failed = done = 0
        answers = service.stream(
            note,
            generation,
            payloads,
            deadline,
            kind=kind,
            options=options,
            privacy=body.privacy,
            truncate=getattr(body, "truncate", None),
        )
        try:
            async for number, one, value in answers:
                done += 1
                if isinstance(value, Refusal):
                    failed += 1
                    refusal = without_personal_data(value)
                    line = {"index": number, "error": refusal.detail, "error_type": refusal.reason}
                else:
                    line = {"index": number, "answer": shape(value, one, generation)}
                yield to_json(line) + b"\n"
        except Refusal as refusal:
            note.reason = refusal.reason
            yield to_json({"error": without_personal_data(refusal).detail, "error_type": refusal.reason}) + b"\n"
            return
        finally:
            await answers.aclose()  # type: ignore[attr-defined]
        counts = {"items": done, "failed": failed, "tokens": note.tokens, "truncated": note.truncated}
        yield to_json({"done": True, **counts, "model": note.model, "version": note.version}) + b"\n"

    return StreamingResponse(lines(), media_type=NDJSON, headers=note.named)


@router.post("/predict", summary="Classes, numbers, spans: what the model is for")
async def predict(request: Request, body: s.PredictRequest) -> Response:
    """The classes with their probabilities, best first; of other models what they give."""
    incoming = cast(Incoming, request)
    _, generation = incoming.service.choose(incoming.note, body.model, anything)
    payloads, several = predict_payloads(body.inputs, generation.facts)
    top_k = body.parameters.top_k

    def shape(value: Any, one: Masked, generation: Generation) -> Any:
        return predicted(value, one, top_k)

    if incoming.streamed:
        return stream(incoming, body, anything, "answer", payloads, shape)
    generation, masked, values = await collect(incoming, body, anything, "answer", payloads)
    answers = [shape(value, one, generation) for value, one in zip(values, masked, strict=True)]
    return respond(incoming, answers if several else answers[0])


@router.post("/embed", summary="Vectors of texts", responses={200: {"model": list[list[float]]}})
async def embed(request: Request, body: s.EmbedRequest) -> Response:
    """One vector a text."""
    incoming = cast(Incoming, request)
    takes = vectors if body.pooling is None else anything
    options = {"normalize": body.normalize, "pooling": body.pooling}
    if incoming.streamed:
        return await each(incoming, body, takes, "embed", body.inputs, lambda row, *_: numbers(row[None])[0], **options)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    _, _, rows = await collect(incoming, body, takes, "embed", texts, **options)
    return respond(incoming, numbers(np.stack(rows)) if rows else [])


@router.post(
    "/rerank", summary="Texts in the order in which they go with a query", responses={200: {"model": list[s.Ranked]}}
)
async def rerank(request: Request, body: s.RerankRequest) -> Response:
    """Best first, each with its place in the request."""
    incoming = cast(Incoming, request)
    scores = await compare(incoming, body, body.query, body.texts)
    order = np.argsort(-scores, kind="stable")[: body.top_n].tolist()
    found = [{"index": i, "score": float(scores[i])} for i in order]
    return respond(incoming, [one | {"text": body.texts[one["index"]]} if body.return_text else one for one in found])


@router.post("/similarity", summary="How well texts go with one", responses={200: {"model": list[float]}})
async def similarity(request: Request, body: s.SimilarityRequest) -> Response:
    """One number a sentence, in their order."""
    incoming = cast(Incoming, request)
    scores = await compare(incoming, body, body.inputs.source_sentence, body.inputs.sentences)
    return respond(incoming, [float(score) for score in scores])


async def compare(request: Incoming, body: Any, query: str, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """How well each text goes with a query: cosines, or what a cross-encoder says of each pair.

    Args:
        request: that is answered.
        body: of it.
        query: one text.
        texts: N others.

    Returns:
        `[N]`.
    """

    def payloads(facts: Mapping[str, Any]) -> list[Payload]:
        return [query, *texts] if facts["mode"] == "bi" else [(query, text) for text in texts]

    def asks(facts: Mapping[str, Any]) -> Kind:
        return "embed" if facts["mode"] == "bi" else "answer"

    model, _ = request.service.choose(request.note, body.model, scores_of_pairs)
    generation, _, values = await collect(
        request,
        body,
        scores_of_pairs,
        asks(model.facts),
        payloads,
        normalize=True if asks(model.facts) == "embed" else None,
    )
    if asks(generation.facts) == "embed":
        rows = np.stack(values)
        return np.asarray(rows[1:] @ rows[0])
    label = generation.facts["positive"]
    return np.array([one["value"] if "value" in one else one["probabilities"][label] for one in values])


@router.post(
    "/fill-mask", summary="Words behind [MASK]", responses={200: {"model": list[s.Filled] | list[list[s.Filled]]}}
)
async def fill_mask(request: Request, body: s.FillMaskRequest) -> Response:
    """For one [MASK] a list of words, for several a list of lists."""
    incoming = cast(Incoming, request)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not incoming.streamed:
        for number, text in enumerate(texts):
            if MASK not in text:
                raise Refusal(422, f"inputs[{number}] has no {MASK}; write {MASK} where a word is to be filled in")

    def shape(value: Any, one: Masked, generation: Generation) -> Any:
        found = [
            [
                {
                    "score": option["score"],
                    "token": generation.vocabulary[option["token"]],
                    "token_str": option["token"],
                    "sequence": option["filled"],
                }
                for option in options
            ]
            for options in value["masks"]
        ]
        return found[0] if len(found) == 1 else found

    return await each(incoming, body, fills, "fill", body.inputs, shape, top_k=body.parameters.top_k)


@router.post(
    "/ner",
    summary="Names and other stretches of texts",
    responses={200: {"model": list[s.Entity] | list[list[s.Entity]]}},
)
async def ner(request: Request, body: s.NerRequest) -> Response:
    """Entities with their places, which count characters of the text as it was asked."""
    takes = of_task("tag", "find stretches of texts")
    return await each(
        cast(Incoming, request), body, takes, "answer", body.inputs, lambda value, one, _: entities(value, one)
    )


@router.post("/tokenize", summary="The pieces of texts", responses={200: {"model": list[list[s.Token]]}})
async def tokenize(request: Request, body: s.TokenizeRequest) -> Response:
    """For each text its pieces, up to its end: without personal data, where that is masked before the model.

    A model that fills masks reads [MASK] as one; to all others it is text.
    """
    incoming = cast(Incoming, request)
    service = incoming.service
    _, generation = service.choose(incoming.note, body.model, anything)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    config = privacy_of(generation.facts, body.privacy, service.config.privacy)
    characters = sum(map(len, texts))
    if characters > MOST_CUT:
        raise Refusal(
            413, f"the texts have {characters:,} characters; at most {MOST_CUT:,} are cut into pieces at once"
        )
    note = incoming.note
    note.items, note.characters, note.texts = len(texts), characters, service.audit.hash(texts)
    masked = [mask(text, config) for text in texts]
    service.count_masked(note, masked)

    def work() -> bytes:
        encoded = generation.tokenizer.encode([str(one.payload) for one in masked], specials=generation.facts["mlm"])
        return to_json(
            [
                tokens(pieces, one, generation.vocabulary, specials=body.add_special_tokens)
                for pieces, one in zip(encoded, masked, strict=True)
            ]
        )

    content = work() if characters < LONG else await asyncio.to_thread(work)
    return Response(content, media_type="application/json", headers=note.headers())


@router.post(
    "/qa", summary="The answer to a question in a text", responses={200: {"model": s.Stretch | list[s.Stretch]}}
)
async def qa(request: Request, body: s.QaRequest) -> Response:
    """One answer, or with top_k several."""
    incoming = cast(Incoming, request)
    asked = body.inputs
    question, context = (body.question, body.context) if asked is None else (asked.question, asked.context)
    if question is None or context is None:
        raise Refusal(422, "body.question and body.context are both needed, or body.inputs with both")
    takes = of_task("answer", "answer questions about texts")
    _, masked, values = await collect(incoming, body, takes, "answer", [(question, context)])
    top_k = body.parameters.top_k
    best = values[0]
    if top_k == 1:
        return respond(incoming, stretch(best, masked[0]))
    return respond(incoming, [stretch(one, masked[0]) for one in best["n_best"][:top_k]])
