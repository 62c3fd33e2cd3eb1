"""More pieces for a vocabulary: words of a field that it would cut to shreds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import tokenizers

from bertsmith.core.errors import ConfigError
from bertsmith.tokenizer.load import CONTINUATION, Tokenizer
from bertsmith.tokenizer.words import count_words, words_of

MIN_FREQUENCY = 5
MIN_PIECES = 3


def extend(tokenizer: Tokenizer, new_words: Sequence[str]) -> Tokenizer:
    """Add pieces at the end of a vocabulary; every id that there was stays what it was.

    A text comes out as before unless one of its words is a new piece or begins with one (`cardio` also cuts
    `cardiology` anew). A piece that continues words is written with `##`.

    Args:
        tokenizer: a WordPiece vocabulary; not changed.
        new_words: in the order of their ids; normalised (case, accents) as the tokenizer does.

    Returns:
        The longer vocabulary, with the same settings.

    Raises:
        ConfigError: not a WordPiece vocabulary, or a word that can never be a piece of it or is one already; names it.
    """
    description, backend = described(tokenizer)
    known = set(tokenizer.tokens)
    added: dict[str, str] = {}
    for word in new_words:
        continues = word.startswith(CONTINUATION) and len(word) > len(CONTINUATION)
        cut = words_of(backend, word.removeprefix(CONTINUATION) if continues else word)
        if len(cut) != 1:
            raise ConfigError(f"{word!r} is {len(cut)} words for this tokenizer, so it can never be one piece")
        if len(cut[0]) > description["model"]["max_input_chars_per_word"]:
            raise ConfigError(f"{word!r} is longer than the words that this tokenizer reads; leave it out")
        piece = CONTINUATION + cut[0] if continues else cut[0]
        if piece in known:
            raise ConfigError(f"{word!r}: the vocabulary has the piece {piece!r} already; leave it out")
        if piece in added:
            raise ConfigError(f"{word!r} and {added[piece]!r} are the same piece {piece!r}; leave one out")
        added[piece] = word
    # Tokens that were added beside the model's table are written into it as well, so that no id depends on its length.
    description["model"]["vocab"] = {token: number for number, token in enumerate([*tokenizer.tokens, *added])}
    return type(tokenizer)(tokenizers.Tokenizer.from_str(json.dumps(description)), origin="extended vocabulary")


def domain_terms(
    texts: Iterable[str], tokenizer: Tokenizer, count: int, *, min_frequency: int = MIN_FREQUENCY
) -> list[str]:
    """The most frequent words of a corpus that a vocabulary cuts into three pieces or more, or cannot write at all.

    A word without a letter (a number, a date) is never one of them.

    Args:
        texts: the corpus; read once.
        tokenizer: a WordPiece vocabulary.
        count: how many words at most.
        min_frequency: how often a word must occur, 1 or more.

    Returns:
        Normalised words, the most frequent first, equally frequent ones by alphabet; `extend` takes each of them.

    Raises:
        ConfigError: not a WordPiece vocabulary.
    """
    description, _ = described(tokenizer)
    longest = description["model"]["max_input_chars_per_word"]
    counts = count_words(texts, tokenizer)
    known = set(tokenizer.tokens)
    frequent = [
        word
        for word, times in counts.items()
        if times >= min_frequency and word not in known and len(word) <= longest and any(map(str.isalpha, word))
    ]
    found = [
        word
        for word, (ids, _) in zip(frequent, tokenizer.encode_ids(frequent), strict=True)
        if len(ids) >= MIN_PIECES or tokenizer.unk_id in ids
    ]
    return sorted(found, key=lambda word: (-counts[word], word))[:count]


def is_extension(new: Tokenizer, old: Tokenizer) -> bool:
    """Whether a vocabulary is another one, or that one with more pieces at its end, and treats text in the same way.

    Args:
        new: the vocabulary in question.
        old: the one that it may extend.
    """
    return new.tokens[: old.vocab_size] == old.tokens and new.settings == old.settings


def old_pieces(old: Tokenizer, new: Tokenizer) -> dict[int, list[int]]:
    """For each id that an extended vocabulary has more, the ids by which the old one writes the same piece.

    Args:
        old: the vocabulary before `extend`.
        new: the one after.

    Raises:
        ConfigError: `new` does not begin with the pieces of `old`.
    """
    size = old.vocab_size
    if new.tokens[:size] != old.tokens:
        raise ConfigError("the new vocabulary does not begin with the pieces of the old one; it must be an extension")
    table = {token: number for number, token in enumerate(old.tokens)}
    found = {}
    for number, token in enumerate(new.tokens[size:], start=size):
        if token.startswith(CONTINUATION):
            found[number] = _continuation(token, table) or [old.unk_id]
        else:
            found[number] = old.encode([token])[0].ids.tolist()
    return found


def _continuation(token: str, table: dict[str, int]) -> list[int]:
    """Longest matches of a piece that continues a word; nothing when it cannot be written."""
    rest, ids = token.removeprefix(CONTINUATION), list[int]()
    while rest:
        end = next((end for end in range(len(rest), 0, -1) if CONTINUATION + rest[:end] in table), 0)
        if not end:
            return []
        ids.append(table[CONTINUATION + rest[:end]])
        rest = rest[end:]
    return ids


def described(tokenizer: Tokenizer) -> tuple[dict, tokenizers.Tokenizer]:  # type: ignore[type-arg]
    """The tokenizer as JSON and as the library has it, after a check that its pieces are words and parts of words.

    Args:
        tokenizer: to be described.

    Raises:
        ConfigError: it cuts text otherwise than BERT does.
    """
    content = tokenizer.files()["tokenizer.json"].decode()
    description = json.loads(content)
    kinds = description["model"]["type"], (description["pre_tokenizer"] or {}).get("type")
    if kinds != ("WordPiece", "BertPreTokenizer"):
        raise ConfigError(f"only BERT's WordPiece vocabularies can be changed, not {kinds[0]} with {kinds[1]}")
    return description, tokenizers.Tokenizer.from_str(content)
