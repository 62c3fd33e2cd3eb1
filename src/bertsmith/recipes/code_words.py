"""Finding code words in prose: the ``backticks`` of documentation strings are labels that cost nothing.

The marks are taken out of everything, of the text to pretrain on too, so that a model can know code words only by the
few labelled sentences. What is scored comes from modules that neither pretraining nor the labelled sentences have seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertsmith.core.errors import DataError
from bertsmith.core.files import atomic_folder
from bertsmith.corpus.document import Document
from bertsmith.corpus.sentences import split
from bertsmith.tasks.windows import counter_rng

TYPE = "CODE"
LEARN, CHOOSE, TEST = 200, 200, 1500
A_MODULE = 20
"""Sentences that one held-out module gives at most, so that no module speaks for all."""
WORDS = (5, 60)
SHUFFLE = 20_181_011

_MARK = re.compile(r"``([^`\n]+)``")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A sentence without its marks, and where the code words are.

    Attributes:
        text: the sentence.
        spans: first character of each code word and the character after it, in order.
        module: where the sentence stands.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    module: str

    def row(self) -> str:
        """The sentence as a line of JSON that `bertsmith finetune tag` reads."""
        spans = [{"start": start, "end": end, "type": TYPE} for start, end in self.spans]
        return json.dumps({"text": self.text, "spans": spans, "module": self.module}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Folder:
    """Where the data of the recipe lies."""

    path: Path

    @property
    def text(self) -> Path:
        """What to pretrain on, a module a line."""
        return self.path / "text.jsonl"

    @property
    def train(self) -> Path:
        """Labelled sentences to learn from."""
        return self.path / "train.jsonl"

    @property
    def dev(self) -> Path:
        """Labelled sentences to choose by."""
        return self.path / "dev.jsonl"

    @property
    def test(self) -> Path:
        """Labelled sentences to score on."""
        return self.path / "test.jsonl"


def labelled(sentence: str, module: str = "") -> Labelled | None:
    """Turn the marks of a sentence into spans.

    Args:
        sentence: with ``marks``.
        module: where it stands.

    Returns:
        The sentence without marks; None where it has none, is too short or long, or where the marks do not tell all:
        other marks beside them (`single` ones, which mean code in one package and emphasis in the next), or a mark
        that ends inside a word.
    """
    sentence = _SPACES.sub(" ", sentence).strip()
    if not _MARK.search(sentence) or not WORDS[0] <= len(sentence.split()) <= WORDS[1]:
        return None
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    at = length = 0
    for mark in _MARK.finditer(sentence):
        before, word = sentence[at : mark.start()], mark[1]
        glued = (before[-1:], word[:1]), (word[-1:], sentence[mark.end() : mark.end() + 1])
        if not word.strip() or any(_joins(left) and _joins(right) for left, right in glued):
            return None
        start = length + len(before) + len(word) - len(word.lstrip())
        spans.append((start, start + len(word.strip())))
        parts += [before, word]
        length += len(before) + len(word)
        at = mark.end()
    text = "".join([*parts, sentence[at:]])
    return None if "`" in text else Labelled(text, tuple(spans), module)


def write_data(
    documents: Iterable[Document],
    out: Path,
    say: Callable[[str], None],
    *,
    sizes: Sequence[int] = (LEARN, CHOOSE, TEST),
) -> Folder:
    """Write the text to pretrain on, and labelled sentences to learn from, to choose by and to score on.

    Modules are held out for the last two; their text is in none of the other files, and a sentence that stands
    anywhere else as well is left out. The choice depends on the documents alone.

    Args:
        documents: one a module, with marks; ids tell them apart.
        out: the folder to write; appears whole or not at all.
        say: takes lines for the user.
        sizes: labelled sentences to learn from, to choose by and to score on.

    Raises:
        DataError: too few marked sentences.
    """
    order = sorted(documents, key=lambda document: document.id)
    order = [order[i] for i in counter_rng(SHUFFLE).permutation(len(order)).tolist()]
    learn, choose, test = sizes
    found = {document.id: list(_labelled_of(document)) for document in order}
    given = {id: min(A_MODULE, len(rows)) for id, rows in found.items()}
    # Some of what a module gives will turn out to stand elsewhere too, so a third more is held out.
    enough = min((choose + test) * 4 / 3, sum(given.values()) / 2)
    held: set[str] = set()
    wanted = 0
    for document in order:
        if wanted >= enough:
            break
        if found[document.id]:
            held.add(document.id)
            wanted += given[document.id]
    seen = {_key(sentence) for d in order if d.id not in held for sentence in split(d.text)}
    taught: set[str] = set()
    scored, pool = (
        [row for d in order if (d.id in held) == out_of_sight for row in _fresh(found[d.id], known)]
        for out_of_sight, known in ((True, seen), (False, taught))
    )
    if len(scored) < choose + min(test, 1) or len(pool) < learn:
        raise DataError(
            f"only {len(pool)} sentences with ``marks`` to learn from and {len(scored)} to score on were found; "
            f"{learn} and {choose + min(test, 1)} are needed: install more packages, or take your own: --text FOLDER"
        )
    train = [pool[i] for i in counter_rng(SHUFFLE, 1).permutation(len(pool))[:learn].tolist()]
    stop = choose + test
    with atomic_folder(out) as folder:
        files = Folder(folder)
        texts = [{"text": _bare(d.text), "id": d.id} for d in order if d.id not in held]
        _lines(files.text, (json.dumps(row, ensure_ascii=False) for row in texts))
        for path, rows in (
            (files.train, train),
            (files.dev, scored[:choose]),
            (files.test, scored[choose:stop]),
        ):
            _lines(path, (row.row() for row in rows))
    characters = sum(len(row["text"]) for row in texts)
    say(
        f"{len(texts):,} modules to pretrain on, {characters / 1e6:.1f} MB; {len(held):,} modules held out\n"
        f"{len(train)} labelled sentences to learn from; to score on {len(scored[choose:stop]):,} "
        f"of held-out modules, such as:\n  {scored[choose].text}"
    )
    return Folder(out)


def _labelled_of(document: Document) -> Iterator[Labelled]:
    for sentence in split(document.text):
        found = labelled(sentence, document.id)
        if found is not None:
            yield found


def _fresh(rows: Iterable[Labelled], seen: set[str]) -> Iterator[Labelled]:
    """At most so many rows of a module, none that was seen before; what is given counts as seen."""
    count = 0
    for row in rows:
        key = _key(row.text)
        if key not in seen and count < A_MODULE:
            count += 1
            seen.add(key)
            yield row


def _key(sentence: str) -> str:
    return _SPACES.sub(" ", _bare(sentence)).strip().casefold()


def _bare(text: str) -> str:
    return text.replace("`", "")


def _joins(character: str) -> bool:
    return character.isalnum() or character == "_"


def _lines(path: Path, rows: Iterable[str]) -> None:
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
