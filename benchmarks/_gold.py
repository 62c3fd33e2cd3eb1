"""The gold sentences, and how well a splitter finds their boundaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "corpus"
MARK = "|"
HELD_OUT = 5
"""Every fifth text was not looked at while the splitter was made."""

Splitter = Callable[[str], Iterable[str]]


@dataclass(frozen=True)
class Case:
    """One text with its sentences.

    Attributes:
        text: as a splitter gets it.
        boundaries: how many characters, white space not counted, stand before each sentence but the first.
        held_out: kept apart.
        group: the heading under which it stands.
        marked: as it was written.
    """

    text: str
    boundaries: frozenset[int]
    held_out: bool
    group: str
    marked: str


@dataclass(frozen=True)
class Score:
    """Boundaries found, missed and invented.

    Attributes:
        hits: found where gold has one.
        missed: not found.
        invented: found where gold has none.
        whole: texts without a fault.
        texts: all of them.
    """

    hits: int
    missed: int
    invented: int
    whole: int
    texts: int

    @property
    def f1(self) -> float:
        """Twice the hits by all boundaries, of gold and found; 1 where there is none of either."""
        both = 2 * self.hits + self.missed + self.invented
        return 2 * self.hits / both if both else 1.0


def read_gold(language: str, folder: Path = FOLDER) -> list[Case]:
    """The cases of a language in the order of the file.

    Args:
        language: `en` or `zh`.
        folder: where `sentences_LANGUAGE.txt` lies.
    """
    cases: list[Case] = []
    group = ""
    for line in (folder / f"sentences_{language}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            group = line.removeprefix("## ")
        elif line:
            parts = line.replace("\\r", "\r").replace("\\n", "\n").split(MARK)
            held_out = len(cases) % HELD_OUT == HELD_OUT - 1
            cases.append(Case("".join(parts), frozenset(boundaries(parts)), held_out, group, line))
    return cases


def boundaries(sentences: Iterable[str]) -> set[int]:
    """The number of characters, white space not counted, before each sentence but the first.

    Args:
        sentences: that make up a text.
    """
    lengths = [len("".join(sentence.split())) for sentence in sentences]
    return {sum(lengths[:count]) for count in range(1, len(lengths))} - {0, sum(lengths)}


def found(splitter: Splitter, text: str) -> set[int]:
    """Where a splitter puts its boundaries; a sentence that it has changed is looked for as far as it can be.

    Args:
        splitter: gives the sentences of a text.
        text: to split.
    """
    plain = "".join(text.split())
    cursor = 0
    places = set()
    for sentence in splitter(text):
        bare = "".join(sentence.split())
        place = plain.find(bare, cursor)
        cursor = (cursor if place < 0 else place) + len(bare)
        places.add(cursor)
    return {place for place in places if 0 < place < len(plain)}


def score(splitter: Splitter, cases: Iterable[Case]) -> Score:
    """Compare a splitter's boundaries with gold, added up over all texts.

    Args:
        splitter: gives the sentences of a text.
        cases: to split.
    """
    hits = missed = invented = whole = texts = 0
    for case in cases:
        places = found(splitter, case.text)
        hits += len(places & case.boundaries)
        missed += len(case.boundaries - places)
        invented += len(places - case.boundaries)
        whole += places == case.boundaries
        texts += 1
    return Score(hits, missed, invented, whole, texts)
