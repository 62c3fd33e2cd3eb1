"""A vocabulary cut to what the rows of a task need, and a model whose embeddings are cut alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding
from bertsmith.model.shrink import Kept, cut, size
from bertsmith.tasks.vocabulary import save_vocabulary
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.shrink import keep_pieces, needed_pieces

VOCAB = "vocab"
"""Folder, in a run's, of the vocabulary that it works with where that is not its bundle's."""


def pieces_used(encodings: Iterable[Encoding]) -> set[int]:
    """Pieces that occur in what is read and in what is to be written.

    Args:
        encodings: of rows to learn from, with targets.
    """
    found: set[int] = set()
    for one in encodings:
        found.update(one.input_ids.tolist())
        found.update(np.ravel(one.targets.get("target_ids", ())).astype(int).tolist())
    return found


def cut_to(model: Model, whole: Tokenizer, tokenizer: Tokenizer, say: Callable[[str], None]) -> None:
    """Take out of a model, in place, the pieces that a smaller vocabulary lacks.

    Args:
        model: of the whole vocabulary.
        whole: that vocabulary.
        tokenizer: some of its pieces.
        say: takes a line for the user.
    """
    before = size(model.config, model.heads)
    place = {token: number for number, token in enumerate(whole.tokens)}
    cut(model, Kept(pieces=[place[token] for token in tokenizer.tokens]))
    model.config = model.config.model_copy(update={"pad_token_id": tokenizer.pad_id})
    say(
        f"vocabulary: {tokenizer.vocab_size:,} of {whole.vocab_size:,} pieces stay; "
        f"{size(model.config, model.heads):,} parameters instead of {before:,}"
    )


def cut_vocabulary(out: Path, whole: Tokenizer, encodings: Iterable[Encoding]) -> Tokenizer:
    """The vocabulary that a run works with: pieces of the rows to learn from, special tokens, single characters.

    The pieces keep their order. One that the run has written already, in `out/vocab`, is taken as it is.

    Args:
        out: the run folder.
        whole: the vocabulary to cut.
        encodings: of the rows to learn from, by the whole vocabulary.

    Raises:
        ConfigError: not a WordPiece vocabulary.
    """
    if not (out / VOCAB).exists():
        save_vocabulary(keep_pieces(whole, needed_pieces(whole, pieces_used(encodings))), out / VOCAB)
    return Tokenizer.load(out / VOCAB)


def told(whole: Sequence[Encoding], before: Tokenizer, cut: Sequence[Encoding], after: Tokenizer) -> str:
    """What a smaller vocabulary means for rows that it was not made of, as a line; empty without rows.

    Args:
        whole: the rows, by the vocabulary as it was.
        before: that vocabulary.
        cut: the same rows, by the smaller one.
        after: the smaller one.
    """
    if not whole:
        return ""

    def counted(rows: Sequence[Encoding], tokenizer: Tokenizer) -> tuple[int, int]:
        ids = np.concatenate([one.input_ids for one in rows])
        return len(ids), int((ids == tokenizer.unk_id).sum())

    (pieces, unknown), (now, unknown_now) = counted(whole, before), counted(cut, after)
    return (
        f"dev rows by the smaller vocabulary: {now:,} pieces instead of {pieces:,} ({now / pieces - 1:+.1%}), of which "
        f"unknown {unknown_now:,} ({unknown_now / now:.2%}) instead of {unknown:,} ({unknown / pieces:.2%})"
    )
