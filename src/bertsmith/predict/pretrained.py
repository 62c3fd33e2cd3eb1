"""What a pretrained BERT can answer by itself: which word is hidden, and whether one sentence follows another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding
from bertsmith.predict.engine import forward
from bertsmith.tasks.base import Answer
from bertsmith.tasks.joining import join_texts
from bertsmith.tokenizer.load import Tokenizer

MASK = "[MASK]"


def fill_masks(
    model: Model, tokenizer: Tokenizer, texts: Sequence[str], *, top_k: int, max_length: int, tally: Tally, **how: Any
) -> list[Answer]:
    """The most probable pieces at each [MASK].

    Returns:
        For each text `{"text", "filled", "masks"}`: `filled` has the best piece at each [MASK], and `masks` holds one
        list a [MASK] of `{"token", "score", "filled"}`, best first; a score is a probability.

    Raises:
        DataError: a text without [MASK].
    """
    import torch

    encodings = []
    for number, (text, pieces) in enumerate(
        zip(texts, tokenizer.encode(list(texts), specials=True), strict=True), start=1
    ):
        if MASK not in text:
            raise DataError(f"text {number} has no {MASK}: {text[:60]!r}; write {MASK} where a word is to be filled in")
        ids = _around_masks(pieces.ids, tokenizer.mask_id, max_length - 2)
        if len(ids) < len(pieces.ids):
            tally.add("cut_to_max_length", f"text {number}")
        if (ids == tokenizer.mask_id).sum() < text.count(MASK):
            raise DataError(f"text {number} is too long: its {MASK} do not fit into {max_length} pieces; shorten it")
        encodings.append(join_texts(tokenizer, ids, None, max_length)[0])
    top_k = min(top_k, tokenizer.vocab_size)
    found: list[list[list[tuple[int, float]]]] = [[] for _ in texts]
    for indices, batch, outputs in forward(model, encodings, mask_id=tokenizer.mask_id, **how):
        best = torch.softmax(outputs["mlm"].float(), dim=-1).topk(top_k, dim=-1)
        places = np.searchsorted(np.cumsum(batch.lengths), batch.targets["mlm_positions"].cpu().numpy(), side="right")
        for place, scores, ids in zip(places, best.values.tolist(), best.indices.tolist(), strict=True):
            found[indices[place]].append(list(zip(ids, scores, strict=True)))
    return [_filled(tokenizer, text, masks) for text, masks in zip(texts, found, strict=True)]


def follows(
    model: Model, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], *, max_length: int, tally: Tally, **how: Any
) -> list[Answer]:
    """How probable it is that the second text follows the first: `{"is_next": probability}` a pair."""
    import torch

    first = tokenizer.encode([a for a, _ in pairs])
    second = tokenizer.encode([b for _, b in pairs])
    encodings: list[Encoding] = []
    for number, (a, b) in enumerate(zip(first, second, strict=True), start=1):
        encoding, cut = join_texts(tokenizer, a.ids, b.ids, max_length)
        if cut:
            tally.add("cut_to_max_length", f"pair {number}")
        encodings.append(encoding)
    answers: list[Answer] = [{}] * len(pairs)
    for indices, _, outputs in forward(model, encodings, **how):
        for index, probability in zip(
            indices, torch.softmax(outputs["nsp"].float(), dim=-1)[:, 0].tolist(), strict=True
        ):
            answers[index] = {"is_next": probability}
    return answers


def _around_masks(ids: Any, mask_id: int, room: int) -> Any:
    """At most `room` pieces, with the masks in the middle."""
    if len(ids) <= room:
        return ids
    places = np.flatnonzero(ids == mask_id)
    middle = int(places[0] + places[-1] + 1) // 2 if len(places) else 0
    start = min(max(0, middle - room // 2), len(ids) - room)
    return ids[start : start + room]


def _filled(tokenizer: Tokenizer, text: str, masks: Sequence[Sequence[tuple[int, float]]]) -> Answer:
    best = [tokenizer.tokens[candidates[0][0]] for candidates in masks]
    answers = []
    for number, candidates in enumerate(masks):
        options = []
        for index, score in candidates:
            token = tokenizer.tokens[index]
            words = [*best[:number], token, *best[number + 1 :]]
            options.append({"token": token, "score": score, "filled": _put(text, words)})
        answers.append(options)
    return {"text": text, "filled": _put(text, best), "masks": answers}


def _put(text: str, tokens: Sequence[str]) -> str:
    """The text with its masks replaced in turn; a piece that continues a word joins the word before it."""
    parts = text.split(MASK)
    result = parts[0]
    for token, following in zip(tokens, parts[1:], strict=True):
        result = result.rstrip() + token.removeprefix("##") if token.startswith("##") else result + token
        result += following
    return result
