"""What the texts were like that a model was trained on; its bundle keeps it, so that a service can tell others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from bertsmith.corpus.characters import count_kinds
from bertsmith.corpus.language import language
from bertsmith.tasks.base import Example
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.profile import Profile

TEXTS = ("text", "pair", "question", "context")
"""The fields of examples that a service is sent too."""
ENOUGH = 20_000
"""Texts from which more of them would tell nothing new."""


def inputs_seen(examples: Sequence[Example], tokenizer: Tokenizer) -> dict[str, Any]:
    """The profile of examples' texts, of the first 20,000.

    Args:
        examples: as training sees them.
        tokenizer: the model's.

    Returns:
        As `Profile.as_dict` has it; shares only, no texts.
    """
    texts = _texts(examples)
    profile = Profile.empty(tokenizer.vocab_size, tokenizer.unk_id)
    return profile.add([ids for ids, _ in tokenizer.encode_ids(texts[:ENOUGH])]).as_dict()


def languages_seen(examples: Sequence[Example]) -> dict[str, int]:
    """How many of the first 20,000 texts are in which language, or in which script where that tells no language.

    Args:
        examples: as training sees them.
    """
    texts = _texts(examples)[:ENOUGH]
    return dict(Counter(language(text, count_kinds(text), by_script=True) for text in texts).most_common())


def _texts(examples: Sequence[Example]) -> list[str]:
    found: list[str] = []
    for example in examples:
        found += [text for name in TEXTS if isinstance(text := example.fields.get(name), str)]
        found += example.fields.get("choices", ())
    return found
