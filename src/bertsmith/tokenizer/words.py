"""Words as BERT sees them: counted once, so that many vocabularies can be measured on the same text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import tokenizers

from bertsmith.tokenizer.load import Tokenizer, well_formed


def count_words(texts: Iterable[str], tokenizer: Tokenizer) -> Counter[str]:
    """Count the words of a text as a tokenizer normalises and splits them, before it cuts them into pieces.

    A punctuation mark and a Han character are words. Memory grows with the number of different words.

    Args:
        texts: any strings; read once.
        tokenizer: whose case folding and splitting count; its pieces do not.

    Returns:
        How often each normalised word occurs, in the order in which the words were first met.
    """
    backend = tokenizers.Tokenizer.from_str(tokenizer.files()["tokenizer.json"].decode())
    # Where words end does not depend on what stands beyond the next space, so each chunk is cut once.
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(_normal(backend, text).split())
    words: Counter[str] = Counter()
    for chunk, times in chunks.items():
        for word in split_words(backend, chunk):
            words[word] += times
    return words


def words_of(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    """The normalised words of one text.

    Args:
        backend: of the library, with BERT's pre-tokenizer.
        text: any string.
    """
    return split_words(backend, _normal(backend, text))


def split_words(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    """The words of a text that is normalised already.

    Args:
        backend: of the library, with BERT's pre-tokenizer.
        text: a normalised string.
    """
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def _normal(backend: tokenizers.Tokenizer, text: str) -> str:
    text = well_formed(text)
    return backend.normalizer.normalize_str(text) if backend.normalizer is not None else text
