"""The best text to write: greedily, or by keeping several beginnings at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from bertsmith.model.decoder import Writing


class Search(NamedTuple):
    """How a text is looked for. Names are those of Hugging Face's generation where it has one.

    Attributes:
        start: the piece before every text.
        stop: the piece that ends one.
        banned: pieces that are never written.
        num_beams: beginnings kept of each text; 1 is greedy.
        max_length: pieces of a text at most, `stop` included.
        min_length: pieces before `stop` may come.
        length_penalty: a text's log probability is divided by its length to this power; above 0 favours longer ones.
        no_repeat_ngram_size: so many pieces in a row are never written twice; 0 allows it.
    """

    start: int
    stop: int
    banned: tuple[int, ...] = ()
    num_beams: int = 1
    max_length: int = 64
    min_length: int = 1
    length_penalty: float = 1.0
    no_repeat_ngram_size: int = 0


class Found(NamedTuple):
    """A text that was written.

    Attributes:
        ids: its pieces, `start` and `stop` left out.
        score: log probability by length to the power of the length penalty.
        log_probability: of all its pieces, and of `stop` where it came.
        mean: log probability of one of these on average.
    """

    ids: list[int]
    score: float
    log_probability: float
    mean: float


@dataclass(slots=True)
class _Text:
    """One sequence's text in the making: rows that go on, best first, and those that ended."""

    number: int
    rows: list[list[int]]
    done: list[Found] = field(default_factory=list)


def write(writing: Writing, how: Search) -> list[Found]:
    """Write a text for each source.

    A text is settled when as many as there are beams have ended and what goes on has no better score than the worst of
    them (the default of Hugging Face's beam search), or at `max_length`, where what has not ended counts as it is.

    Args:
        writing: the sources, read.
        how: settings of the search.
    """
    beams, device = how.num_beams, writing.device
    writing.prepare(beams, how.max_length)
    texts = [_Text(number, [[] for _ in range(beams)]) for number in range(len(writing.lengths))]
    found: list[Found | None] = [None] * len(texts)
    # All rows are equal at first: only one of them may give continuations.
    standing = torch.full((len(texts), beams), -torch.inf, device=device)
    standing[:, 0] = 0.0
    last = torch.full((len(texts), beams), how.start, device=device)
    for length in range(1, how.max_length + 1):
        scores = _allowed(torch.log_softmax(writing.step(last).float(), dim=-1), texts, how, length)
        vocabulary = scores.shape[-1]
        totals = (standing[:, :, None] + scores).flatten(1)
        best, places = totals.topk(min(2 * beams, totals.shape[1]))
        chosen = [
            _advance(text, totals_, [divmod(place, vocabulary) for place in places_], how, length)
            for text, totals_, places_ in zip(texts, best.tolist(), places.tolist(), strict=True)
        ]
        going = [index for index, rows in enumerate(chosen) if rows]
        for text, going_on in zip(texts, chosen, strict=True):
            if not going_on:
                found[text.number] = max(text.done, key=lambda one: one.score)
        if not going:
            break
        texts = [texts[index] for index in going]
        rows = torch.tensor([[row for row, _, _ in chosen[index]] for index in going], device=device)
        last = torch.tensor([[piece for _, piece, _ in chosen[index]] for index in going], device=device)
        standing = torch.tensor([[total for _, _, total in chosen[index]] for index in going], device=device)
        writing.keep(torch.tensor(going, device=device), rows)
    return [one if one is not None else Found([], 0.0, 0.0, 0.0) for one in found]


def _advance(
    text: _Text, totals: Sequence[float], continuations: Sequence[tuple[int, int]], how: Search, length: int
) -> list[tuple[int, int, float]]:
    """Take the best continuations of one text.

    Returns:
        The rows that go on, each as row, piece and total; none where the text is settled.
    """
    going: list[tuple[int, int, float]] = []
    worth = length**how.length_penalty
    for rank, (total, (row, piece)) in enumerate(zip(totals, continuations, strict=True)):
        if total == -torch.inf or len(going) == how.num_beams:
            continue
        if piece != how.stop:
            going.append((row, piece, total))
        elif rank < how.num_beams:
            text.done.append(Found(text.rows[row], total / worth, total, total / length))
    text.done = sorted(text.done, key=lambda one: -one.score)[: how.num_beams]
    enough = len(text.done) == how.num_beams
    settled = enough and (how.num_beams == 1 or not going or going[0][2] / worth <= text.done[-1].score)
    if length == how.max_length or not going or settled:
        if not settled:
            text.done += [
                Found([*text.rows[row], piece], total / worth, total, total / length) for row, piece, total in going
            ]
        text.done = text.done or [Found([], -torch.inf, -torch.inf, -torch.inf)]
        return []
    text.rows = [[*text.rows[row], piece] for row, piece, _ in going]
    while len(going) < how.num_beams:  # fewer continuations than rows: a vocabulary of a few pieces
        going.append((going[-1][0], going[-1][1], -torch.inf))
        text.rows.append(text.rows[-1])
    return going


def _allowed(scores: Tensor, texts: Sequence[_Text], how: Search, length: int) -> Tensor:
    """Log probabilities `[S, R, V]` without the pieces that may not come."""
    banned = [*how.banned, *([how.stop] if length < how.min_length else [])]
    scores[:, :, banned] = -torch.inf
    size = how.no_repeat_ngram_size
    if size and length >= size:
        for index, text in enumerate(texts):
            for row, ids in enumerate(text.rows):
                begin = ids[len(ids) - size + 1 :]
                again = [ids[at + size - 1] for at in range(len(ids) - size + 1) if ids[at : at + size - 1] == begin]
                scores[index, row, again] = -torch.inf
    return scores
