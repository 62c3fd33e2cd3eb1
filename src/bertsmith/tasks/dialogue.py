"""Dialogues: turn by turn from files, as history and response, and as pieces with [SEP] between the turns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.tasks.values import Rejects, read_json
from bertsmith.tokenizer.load import Tokenizer

END_OF_TURN = "__eou__"
NAMES = ("dialogue", "dialog", "turns", "utterances", "messages", "conversation", "conversations")
WORDS = ("content", "text", "utterance", "value")
_KEY = re.compile(rf'[{{,\s]"(?:{"|".join(NAMES)})"\s*:\s*\[')


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said, and what it answers.

    Attributes:
        history: the turns before it, a line each, oldest first.
        response: the turn.
        where: file and line of its dialogue.
        dialogue: number of the dialogue in its file, from 0.
    """

    history: str
    response: str
    where: str
    dialogue: int


def is_dialogue(text: str) -> bool:
    """Whether a file's text holds dialogues: turns that end in `__eou__`, or JSON objects with a list of turns."""
    if text.lstrip()[:1] in ("[", "{"):
        return bool(_KEY.search(text[:100_000]))
    lines = [line for line in text[:100_000].split("\n") if line.strip()]
    return bool(lines) and sum(END_OF_TURN in line for line in lines) >= 0.9 * len(lines)


def read_turns(path: Path, text: str, rejects: Rejects, most: int) -> list[Turn]:
    """Every turn but the first of each dialogue, with the turns before it.

    Args:
        path: of the file, for messages.
        text: `__eou__` after each turn and a dialogue a line (DailyDialog, XDailyDialog; what follows a tab is left
            out), or JSON objects with a list of turns: strings, or objects such as `{"role": …, "content": …}`.
        rejects: takes dialogues with fewer than two turns.
        most: turns of a history; older ones are left out.

    Raises:
        DataError: names file and line.
    """
    found: list[Turn] = []
    dialogues: list[tuple[str, list[str]]] = []
    if text.lstrip()[:1] in ("[", "{"):
        for where, value in read_json(path, text, rejects):
            dialogues.append((where, _turns(value)))
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                dialogues.append((f"{path}:{number}", line.partition("\t")[0].split(END_OF_TURN)))
    for number, (where, raw) in enumerate(dialogues):
        turns = [turn for one in raw if (turn := " ".join(one.split()))]
        if len(turns) < 2:
            rejects.add("no_response", where, f"a dialogue has two turns or more, not {len(turns)}")
        for place in range(1, len(turns)):
            found.append(Turn("\n".join(turns[max(0, place - most) : place]), turns[place], where, number))
    return found


def turn_ids(tokenizer: Tokenizer, histories: Sequence[str]) -> list[NDArray[np.int32]]:
    """Pieces of histories, whose lines are turns, with [SEP] between two turns.

    Args:
        tokenizer: turns text into pieces.
        histories: N texts.

    Returns:
        An array each, without [CLS] and without a [SEP] at the end.
    """
    lines = [[line for line in history.split("\n") if line.strip()] for history in histories]
    distinct = list(dict.fromkeys(line for turns in lines for line in turns))
    known = dict(zip(distinct, (ids for ids, _ in tokenizer.encode_ids(distinct)), strict=True))
    sep = np.array([tokenizer.sep_id], np.int32)
    joined = []
    for turns in lines:
        parts = [part for turn in turns for part in (sep, known[turn])][1:]
        joined.append(np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, np.int32))
    return joined


def _turns(value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        return []
    turns: Sequence[Any] = next((value[name] for name in NAMES if isinstance(value.get(name), list)), [])
    texts = [
        next((turn[name] for name in WORDS if name in turn), "") if isinstance(turn, Mapping) else turn
        for turn in turns
    ]
    return [text for text in texts if isinstance(text, str)]
