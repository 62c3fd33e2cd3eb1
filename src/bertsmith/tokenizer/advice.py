"""How good a vocabulary is for a text, and how many pieces are worth having."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bertsmith.tokenizer.load import CONTINUATION, SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.train import script

SIZES = (2_000, 4_000, 8_000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000)
"""Sizes that are compared; all ids of the largest fit 16 bits."""

STEPS = (500, 1_000, 2_000, 4_000)
"""Beside them, sizes that hold the alphabet and about so many pieces more: it may fill most of one of `SIZES`."""

OFTEN = 100
"""A piece that occurs so often in the text can be learned."""

LEARNABLE = 0.8
"""Share of the learned pieces that must occur `OFTEN` times."""

GAIN = 0.01
"""A larger size is worth it while it makes the text shorter by this share."""

EXAMPLES = 20


@dataclass(frozen=True)
class Coverage:
    """How a vocabulary writes some words.

    Attributes:
        words: how many, each as often as it occurs; a punctuation mark and a Han character are words.
        pieces: how many pieces they take; an unknown word is one, [UNK].
        unknown: how many of the words are [UNK].
    """

    words: int = 0
    pieces: int = 0
    unknown: int = 0

    @property
    def fertility(self) -> float:
        """Pieces per word, 1 or more; 0 without words."""
        return self.pieces / self.words if self.words else 0.0

    @property
    def unknown_rate(self) -> float:
        """Share of the words that are [UNK]."""
        return self.unknown / self.words if self.words else 0.0


@dataclass(frozen=True)
class Measured:
    """What a vocabulary makes of a text.

    Attributes:
        whole: all its words.
        scripts: the words of each script, that of their first character; the most frequent script first.
        occurrences: how often each piece occurs `[V]`.
        unknown: the most frequent unknown words, with their counts.
        cut: the most frequent words in three pieces or more, with their counts.
    """

    whole: Coverage
    scripts: Mapping[str, Coverage]
    occurrences: NDArray[np.int64]
    unknown: Mapping[str, int] = field(default_factory=dict)
    cut: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A size and what it would mean.

    Attributes:
        size: number of pieces.
        coverage: of the words of the text.
        learnable: share of the pieces longer than a character that occur `OFTEN` times; 1 without any.
        whole_alphabet: whether all characters of the text have pieces; else the rarest are left out.
    """

    size: int
    coverage: Coverage
    learnable: float
    whole_alphabet: bool = True


def measure(tokenizer: Tokenizer, words: Mapping[str, int]) -> Measured:
    """Cut counted words into pieces.

    Args:
        tokenizer: the vocabulary.
        words: normalised words and how often each occurs, as `count_words` gives them.
    """
    names = list(words)
    times = np.fromiter(words.values(), np.int64, len(names))
    ids, lengths, unknown = _cut(tokenizer, names)
    occurrences = np.zeros(tokenizer.vocab_size, np.int64)
    np.add.at(occurrences, ids, np.repeat(times, lengths))
    kinds, kind_of = np.unique(np.array([script(name[0]) for name in names], dtype=object), return_inverse=True)
    scripts = {
        str(kind): _coverage(times[mine], lengths[mine], unknown[mine])
        for number, kind in enumerate(kinds.tolist())
        for mine in (kind_of == number,)
    }
    order = np.argsort(-times, kind="stable")
    return Measured(
        _coverage(times, lengths, unknown),
        dict(sorted(scripts.items(), key=lambda item: (-item[1].words, item[0]))),
        occurrences,
        {names[at]: int(times[at]) for at in order[unknown[order]][:EXAMPLES].tolist()},
        {names[at]: int(times[at]) for at in order[lengths[order] >= 3][:EXAMPLES].tolist()},
    )


def _cut(tokenizer: Tokenizer, names: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
    """All ids, the number of pieces of each word, and which words are unknown."""
    encoded = [ids for ids, _ in tokenizer.encode_ids(names)]
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    ids = np.concatenate([np.empty(0, np.int32), *encoded])
    unknown = np.zeros(len(names), np.bool_)
    unknown[np.repeat(np.arange(len(names)), lengths)[ids == tokenizer.unk_id]] = True
    return ids, lengths, unknown


def _coverage(times: NDArray[np.int64], lengths: NDArray[np.int64], unknown: NDArray[np.bool_]) -> Coverage:
    return Coverage(int(times.sum()), int((times * lengths).sum()), int(times[unknown].sum()))


def smaller(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """The vocabulary that training with a smaller size would have given.

    Pieces are learned one after another and none depends on how many follow, so it is the beginning of the larger one.

    Args:
        tokenizer: as `train_wordpiece` makes it.
        size: number of pieces, at least `alphabet_size`.
    """
    normalizer = tokenizer.settings["normalizer"]
    return Tokenizer.from_tokens(
        tokenizer.tokens[:size],
        lowercase=normalizer["lowercase"],
        strip_accents=normalizer["strip_accents"],
        origin="vocabulary",
    )


def alphabet_size(tokenizer: Tokenizer) -> int:
    """How many of the first pieces are special tokens and single characters, which every size needs.

    Args:
        tokenizer: as `train_wordpiece` makes it.
    """
    first = (number for number, token in enumerate(tokenizer.tokens) if _is_learned(token))
    return next(first, tokenizer.vocab_size)


def _is_learned(token: str) -> bool:
    return token not in SPECIAL_TOKENS and len(token.removeprefix(CONTINUATION)) > 1


def choices(tokenizer: Tokenizer, words: Mapping[str, int], scale: float = 1.0) -> list[Choice]:
    """Fertility, unknown words and rare pieces against size.

    Args:
        tokenizer: the largest vocabulary in question, as `train_wordpiece` makes it.
        words: of the text, as `count_words` gives them.
        scale: how many times more text there is than `words` was counted in.

    Returns:
        By ascending size: those of `SIZES` and above the alphabet that are smaller, and the vocabulary's own.
    """
    first = alphabet_size(tokenizer)
    found = _without_rare(tokenizer, words, first)
    near = {-(-(first + more) // STEPS[0]) * STEPS[0] for more in STEPS}
    sizes = [size for size in sorted({*SIZES, *near}) if first <= size < tokenizer.vocab_size]
    for size in [*sizes, tokenizer.vocab_size]:
        one = smaller(tokenizer, size)
        measured = measure(one, words)
        learned = measured.occurrences[first:] * scale
        share = float((learned >= OFTEN).mean()) if len(learned) else 1.0
        found.append(Choice(size, measured.whole, share))
    return found


def _without_rare(tokenizer: Tokenizer, words: Mapping[str, int], first: int) -> list[Choice]:
    """The sizes that cannot hold the alphabet: its most frequent pieces, and none that is longer."""
    sizes = [size for size in SIZES if len(SPECIAL_TOKENS) < size < first]
    if not sizes:
        return []
    occurrences = measure(smaller(tokenizer, first), words).occurrences
    special = {tokenizer.tokens.index(token) for token in SPECIAL_TOKENS}
    order = [*sorted(special), *(at for at in np.argsort(-occurrences, kind="stable").tolist() if at not in special)]
    settings = tokenizer.settings["normalizer"]
    found = []
    for size in sizes:
        tokens = [tokenizer.tokens[at] for at in order[:size]]
        part = Tokenizer.from_tokens(
            tokens, lowercase=settings["lowercase"], strip_accents=settings["strip_accents"], origin="vocabulary"
        )
        found.append(Choice(size, measure(part, words).whole, 1.0, whole_alphabet=False))
    return found


def advised(found: Sequence[Choice]) -> Choice:
    """The size to take: the largest whose pieces can be learned, as long as each step up makes the text shorter.

    At the size, 80 % of the learned pieces occur 100 times in the text, and each step from the smallest made it shorter
    by 1 %. When no size has that many frequent pieces, the smallest is taken that holds all characters.

    Args:
        found: by ascending size, as `choices` gives them; one at least holds all characters.

    Source: Gowda & May 2020 (arXiv:2004.02334), who ask for 100 examples of 95 % of the types. Differs: single
    characters are not counted, because every size needs them; a step must pay; and 80 % do, because a tenth of the
    pieces are steps on the way to longer ones, which stay rare at any size.
    """
    best, *larger = (choice for choice in found if choice.whole_alphabet)
    for choice in larger:
        if choice.learnable < LEARNABLE or choice.coverage.pieces > (1 - GAIN) * best.coverage.pieces:
            break
        best = choice
    return best
