"""Training a WordPiece vocabulary on text of one's own."""

from __future__ import annotations

import hashlib
import heapq
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import tokenizers
from numpy.typing import NDArray
from pydantic import Field
from tokenizers import models, normalizers, pre_tokenizers, trainers

from bertsmith.core.config import Config, Count
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.tokenizer.load import CONTINUATION, MAX_WORD_CHARACTERS, SPECIAL_TOKENS, Tokenizer, well_formed

Counts = NDArray[np.int64]

CHARACTERS = 0x110000
MOST_UNKNOWN = 0.01
"""A size too small for the alphabet of the text is refused when it leaves more than this share of characters out."""
_RUN = re.compile(rf"[^\s!-/:-@\[-`{{-~]{{{MAX_WORD_CHARACTERS + 1},}}")
"""Characters that may be one word: no space and no ASCII punctuation among them."""
MOST_RUNS = 500_000
"""Runs between spaces that are counted at once."""
_REPEATED = 1 << 16
"""Characters of a run that are given to the library at once."""
REPORT_CHARACTERS = 1_000_000
"""About so many characters are encoded at once when unknown words are counted."""


class VocabConfig(Config):
    """How a vocabulary is trained."""

    size: Count = Field(default=30_000, ge=6, description="number of pieces, special tokens included")
    lowercase: bool = Field(default=True, description="fold case, so that Apple and apple are one piece")
    strip_accents: bool | None = Field(default=None, description="remove accents (é to e); unset: when case is folded")
    min_frequency: int = Field(
        default=2, ge=1, description="how often a character or a pair must occur to become a piece"
    )
    sample_bytes: Count = Field(
        default=100_000_000, ge=1, description="train on at most so many bytes of text, drawn evenly"
    )


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


def train_wordpiece(
    texts: Iterable[str], config: VocabConfig, *, at_most: bool = False, say: Callable[[str], None] = _to_stderr
) -> Tokenizer:
    """Train BERT's kind of vocabulary: special tokens, then the alphabet, then pieces by frequency.

    The alphabet has every character that occurs `min_frequency` times, each Han character as a word of its own, and
    comes before longer pieces. When it does not fit `size`, its rarest characters are left out, which is said; when
    more than 1 % of the text's characters would then be unknown, training is refused. The result depends on the texts
    and the config only, not on the number of threads.

    Args:
        texts: documents or sentences; read once. Beyond `config.sample_bytes` an even sample is kept, chosen by hash.
        config: size, case, accents, thresholds.
        at_most: `config.size` is a limit, so that a smaller vocabulary needs no remark.
        say: takes each remark for the user, one line a call.

    Raises:
        DataError: the texts hold no characters that could become pieces.
        ConfigError: `config.size` is too small for the alphabet; names the size that would do.

    Source: Schuster & Nakajima 2012 (WordPiece), Wu et al. 2016 (arXiv:1609.08144), Devlin et al. 2019
    (arXiv:1810.04805). Differs: pieces are merged by pair frequency, as in byte-pair encoding (Sennrich et al. 2016,
    arXiv:1508.07909), because the `tokenizers` library trains so; Google's likelihood trainer was never released.
    """
    sample, total = _sample(texts, config.sample_bytes)
    if total > config.sample_bytes:
        part, whole = size_in_words(sum(map(len, sample))), size_in_words(total)
        say(f"vocabulary: trained on a sample of {part} out of {whole} of text (sample_bytes)")
    characters, runs = _count(sample, config)
    alphabet, rare = _alphabet(*characters, config, say)
    # Naming the alphabet as "special" fixes its ids, by which the library breaks ties between equally frequent pairs;
    # left to itself it numbers continuations in hash order, which changes from run to run.
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.size,
        min_frequency=config.min_frequency,
        special_tokens=[*SPECIAL_TOKENS, *alphabet],
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]", continuing_subword_prefix=CONTINUATION))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learner.train_from_iterator(_repeated(runs, rare), trainer)
    numbers = learner.get_vocab(with_added_tokens=False)
    pieces = sorted(numbers, key=numbers.__getitem__)
    if len(pieces) < config.size and not at_most:
        say(f"vocabulary: the text supports only {len(pieces):,} of the {config.size:,} pieces asked for; all are kept")
    return Tokenizer.from_tokens(
        pieces, lowercase=config.lowercase, strip_accents=config.strip_accents, origin="vocabulary"
    )


def _sample(texts: Iterable[str], limit: int) -> tuple[list[bytes], int]:
    """Keep texts of at most `limit` bytes together: those with the smallest hashes of place and length, in order.

    They are kept as UTF-8: a single character beyond Latin-1 makes a text twice as long, one beyond 16 bits four times.
    """
    kept: list[tuple[int, int, bytes]] = []
    kept_bytes = total = 0
    for place, text in enumerate(texts):
        data = well_formed(text).encode()
        total += len(data)
        if len(data) > limit:
            data = data[:limit].decode(errors="ignore").encode()
        key = int.from_bytes(hashlib.blake2b(b"%d %d" % (place, len(data)), digest_size=8).digest())
        heapq.heappush(kept, (-key, place, data))
        kept_bytes += len(data)
        while kept_bytes > limit:
            kept_bytes -= len(heapq.heappop(kept)[2])
    return [data for _, _, data in sorted(kept, key=lambda entry: entry[1])], total


def _count(sample: list[bytes], config: VocabConfig) -> tuple[tuple[Counts, NDArray[np.bool_]], dict[str, int]]:
    """The characters of normalised texts, and how often each run between spaces occurs.

    The library keeps half a kilobyte and more for each word that it has seen, so the number of runs has a limit: where
    it is reached, the rarest are forgotten, those seen once first, and counted anew if they come again (lossy counting,
    Manku & Motwani 2002). In natural text these are misprints and names, which hardly tell which pairs are frequent.

    Args:
        sample: UTF-8; emptied, so that its memory is free for what is learned.
        config: case and accents.
    """
    normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=config.strip_accents, lowercase=config.lowercase
    )
    runs: Counter[str] = Counter()
    rarest = 0

    def normalised() -> Iterator[str]:
        nonlocal rarest
        sample.reverse()
        while sample:
            text = normalizer.normalize_str(sample.pop().decode())
            yield text
            runs.update(_RUN.sub(_short_words, text).split())
            while len(runs) > MOST_RUNS:
                rarest += 1
                for run in [run for run, count in runs.items() if count <= rarest]:
                    del runs[run]

    return _count_characters(normalised()), runs


def _alphabet(
    counts: Counts, continues: NDArray[np.bool_], config: VocabConfig, say: Callable[[str], None]
) -> tuple[list[str], str]:
    """The one-character pieces, plain ones first, by code point; and the characters left out.

    Args:
        counts: how often each character occurs, `[0x110000]`.
        continues: which ever follow another inside a word, `[0x110000]`.
        config: size and thresholds.
        say: takes a remark for the user.
    """
    if not counts.any():
        raise DataError(
            "no text to train a vocabulary on: the input holds no visible characters; check the input files"
        )
    known = np.flatnonzero(counts >= config.min_frequency)
    if not len(known):
        raise DataError(
            f"no character occurs {config.min_frequency} times in the input; give more text or lower min_frequency"
        )
    room = config.size - len(SPECIAL_TOKENS)
    costs = 1 + continues[known]
    if costs.sum() > room:
        by_frequency = np.lexsort((known, -counts[known]))
        fits = by_frequency[np.cumsum(costs[by_frequency]) <= room]
        unknown = 1 - counts[known[fits]].sum() / counts.sum()
        wanted = int(costs.sum()) + len(SPECIAL_TOKENS)
        if unknown > MOST_UNKNOWN:
            raise ConfigError(
                f"size={config.size}: the text has {len(known):,} different characters, so {unknown:.1%} of it would "
                f"be unknown; ask for at least {wanted:,} pieces"
            )
        say(
            f"vocabulary: {len(known) - len(fits):,} rare characters do not fit {config.size:,} pieces and become "
            f"[UNK] ({unknown:.2%} of the text); {wanted:,} pieces would hold them all"
        )
        known = np.sort(known[fits])
    pieces = [*map(chr, known), *(CONTINUATION + chr(code) for code in known if continues[code])]
    return pieces, "".join(map(chr, np.setdiff1d(np.flatnonzero(counts), known)))


def _repeated(runs: Mapping[str, int], characters: str) -> Iterator[str]:
    """Each run as often as it occurs, with a space for the rare `characters`: they become [UNK] and teach nothing."""
    rare = re.compile(f"[{re.escape(characters)}]") if characters else re.compile("(?!)")
    for run, count in runs.items():
        text = rare.sub(" ", run) + " "
        at_once = 1 + _REPEATED // len(text)
        for first in range(0, count, at_once):
            yield text * min(at_once, count - first)


def _short_words(found: re.Match[str]) -> str:
    """The words of a run that are not too long: training takes time that grows with the square of a word's length."""
    if found[0].isalnum():
        return " "
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(found[0])
    return f" {' '.join(word for word, _ in words if len(word) <= MAX_WORD_CHARACTERS)} "


def _count_characters(texts: Iterable[str]) -> tuple[Counts, NDArray[np.bool_]]:
    """How often each character occurs, and which ever follow another inside a word; both `[0x110000]`."""
    counts = np.zeros(CHARACTERS, dtype=np.int64)
    continues = np.zeros(CHARACTERS, dtype=np.bool_)
    classes = _CharacterClasses()
    for batch in _batches(texts, characters=2**20):
        codes = np.frombuffer("\n".join(batch).encode("utf-32-le"), dtype=np.uint32)
        counts += np.bincount(codes, minlength=CHARACTERS)
        classes.learn(np.flatnonzero((counts > 0) & (classes.table == 0)))
        in_word = classes.table[codes] == classes.LETTER
        continues[codes[1:][in_word[1:] & in_word[:-1]]] = True
    counts[classes.table == classes.SPACE] = 0
    return counts, continues


class _CharacterClasses:
    """What BERT's pre-tokenizer takes each character for, asked of the pre-tokenizer itself."""

    SPACE, PUNCTUATION, LETTER = 1, 2, 3

    def __init__(self) -> None:
        self.table = np.zeros(CHARACTERS, dtype=np.uint8)
        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def learn(self, codes: NDArray[np.int64]) -> None:
        for code in codes:
            words = [word for word, _ in self._pre_tokenizer.pre_tokenize_str(f"a{chr(code)}a")]
            self.table[code] = {1: self.LETTER, 2: self.SPACE, 3: self.PUNCTUATION}[len(words)]


def _batches(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Texts, about so many characters at a time; encoding takes a hundred bytes and more for each."""
    batch: list[str] = []
    length = 0
    for text in texts:
        batch.append(text)
        length += len(text)
        if length >= characters:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def size_in_words(count: int) -> str:
    """A number of bytes as people write it: `42.0 MB`.

    Args:
        count: bytes.
    """
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count:,} bytes"


_SCRIPTS = {
    "LATIN": "latin",
    "FULLWIDTH LATIN": "latin",
    "CJK": "han",
    "HIRAGANA": "kana",
    "KATAKANA": "kana",
    "HALFWIDTH KATAKANA": "kana",
    "HANGUL": "hangul",
    "CYRILLIC": "cyrillic",
    "ARABIC": "arabic",
}


def script(character: str) -> str:
    """Which of latin, han, kana, hangul, cyrillic, arabic, digits, other a character is, by its Unicode name."""
    if character.isdecimal():
        return "digits"
    if not character.isalpha():
        return "other"
    name = unicodedata.name(character, "")
    return next((found for prefix, found in _SCRIPTS.items() if name.startswith(prefix)), "other")


def unk_report(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Count words by script, and those of them that the vocabulary cannot write.

    Returns:
        For each script that occurs, largest first: its number of words and how many of them are [UNK]. A punctuation
        mark and a Han character are words; a word's script is that of its first character.
    """
    words: dict[str, int] = {}
    unknown: dict[str, int] = {}
    scripts: dict[str, str] = {}
    for batch in _batches(texts, REPORT_CHARACTERS):
        for text, pieces in zip(batch, tokenizer.encode(batch), strict=True):
            first = np.diff(pieces.words, prepend=-1) != 0
            for start, is_unknown in zip(
                pieces.starts[first].tolist(), (pieces.ids[first] == tokenizer.unk_id).tolist(), strict=True
            ):
                character = text[start]
                kind = scripts.get(character) or scripts.setdefault(character, script(character))
                words[kind] = words.get(kind, 0) + 1
                unknown[kind] = unknown.get(kind, 0) + is_unknown
    return {kind: (count, unknown[kind]) for kind, count in sorted(words.items(), key=lambda item: (-item[1], item[0]))}
