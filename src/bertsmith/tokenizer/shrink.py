"""Fewer pieces for a vocabulary: those that a text uses, and those by which any word can still be written."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

import tokenizers

from bertsmith.tokenizer.extend import described
from bertsmith.tokenizer.load import CONTINUATION, SPECIAL_TOKENS, Tokenizer


def needed_pieces(tokenizer: Tokenizer, used: Collection[int]) -> list[int]:
    """Which pieces stay when only `used` ones are to: these, special tokens, and all pieces of one character.

    Text that is made of used pieces is cut as before, since WordPiece takes the longest piece that there is; other
    words are cut into shorter pieces.

    Args:
        tokenizer: a WordPiece vocabulary.
        used: ids that occurred.

    Returns:
        Ids, ascending.
    """
    known = set(used)
    return [
        number
        for number, token in enumerate(tokenizer.tokens)
        if number in known or token in SPECIAL_TOKENS or len(token.removeprefix(CONTINUATION)) == 1
    ]


def keep_pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> Tokenizer:
    """A vocabulary of some of the pieces of another, with the same settings; the piece `ids[n]` gets the id n.

    Args:
        tokenizer: a WordPiece vocabulary; not changed.
        ids: what stays, special tokens among them.

    Raises:
        ConfigError: not a WordPiece vocabulary.
    """
    description, _ = described(tokenizer)
    place = {tokenizer.tokens[number]: new for new, number in enumerate(ids)}
    description["model"]["vocab"] = place
    description["added_tokens"] = [
        {**token, "id": place[token["content"]]} for token in description["added_tokens"] if token["content"] in place
    ]
    post = description["post_processor"] or {}
    for token in post.get("special_tokens", {}).values():
        token["ids"] = [place[name] for name in token["tokens"]]
    post |= {name: [post[name][0], place[post[name][0]]] for name in ("cls", "sep") if name in post}
    return type(tokenizer)(tokenizers.Tokenizer.from_str(json.dumps(description)), origin="smaller vocabulary")
