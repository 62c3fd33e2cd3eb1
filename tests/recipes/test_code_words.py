"""Sentences with free labels: the marks become spans, and nothing that is scored has been seen before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.recipes.code_words import Folder, labelled, write_data
from bertsmith.tasks.tagging import Tagging
from bertsmith.tokenizer.load import Tokenizer

NOUNS = ["path", "loader", "widget", "matrix", "socket", "parser", "kernel", "buffer", "signal", "handle"]


def words(sentence: str) -> list[str]:
    found = labelled(sentence)
    assert found is not None
    return [found.text[start:end] for start, end in found.spans]


def test_marks_become_spans_and_are_gone() -> None:
    found = labelled("Set ``max_size`` to ``None`` or  call ``a.b(1)``.", "m")
    assert found is not None
    assert found.text == "Set max_size to None or call a.b(1)."
    assert [found.text[start:end] for start, end in found.spans] == ["max_size", "None", "a.b(1)"]
    assert json.loads(found.row())["spans"][0] == {"start": 4, "end": 12, "type": "CODE"}


@pytest.mark.parametrize(
    "sentence",
    [
        "Nothing is marked in this sentence.",
        "Too ``short``.",
        "A ``Node``s list is glued to a letter.",
        "The `other` mark stands beside ``this`` one here.",
        "One ``pair is never closed in this sentence.",
        "Only `` `` blanks are marked in this one.",
        "Very long: ``x`` " + "word " * 80,
    ],
)
def test_sentences_whose_marks_do_not_tell_all_are_left_out(sentence: str) -> None:
    assert labelled(sentence) is None


@given(st.lists(st.tuples(st.sampled_from(NOUNS), st.booleans()), min_size=5, max_size=30))
def test_spans_are_exactly_what_was_marked(parts: list[tuple[str, bool]]) -> None:
    sentence = " ".join(f"``{word}``" if marked else word for word, marked in parts)
    wanted = [word for word, marked in parts if marked]
    assert (words(sentence) if wanted else labelled(sentence)) == (wanted or None)


def corpus(modules: int = 60) -> list[Document]:
    """Modules of ten sentences, each with a sentence of its own, and one that stands in every module."""
    documents = []
    for module in range(modules):
        own = [
            f"The ``{NOUNS[n]}_{module}`` of module {module} takes {NOUNS[n - 1]} number {n} as it is."
            for n in range(10)
        ]
        text = "\n".join([*own, "This ``everywhere`` sentence stands in each of them."])
        documents.append(Document(text, f"pkg.m{module}", "test"))
    return documents


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made(folder: Path, documents: Sequence[Document]) -> Folder:
    return write_data(documents, folder, lambda line: None, sizes=(50, 20, 80))


def test_what_is_scored_was_never_seen(tmp_path: Path) -> None:
    data = made(tmp_path / "data", corpus())
    splits = [rows(path) for path in (data.train, data.dev, data.test)]
    assert [len(split) for split in splits] == [50, 20, 80]
    texts = [row["text"] for split in splits for row in split]
    assert len(set(texts)) == len(texts)
    pretrained = {row["id"]: row["text"] for row in rows(data.text)}
    assert {row["module"] for row in splits[0]} <= set(pretrained)
    for row in splits[1] + splits[2]:
        assert row["module"] not in pretrained
        assert not any(row["text"] in text for text in pretrained.values())
    assert not any("`" in text for text in [*texts, *pretrained.values()])
    assert len({row["module"] for row in splits[2]}) >= 8


def test_the_same_documents_in_any_order_give_the_same_files(tmp_path: Path) -> None:
    one, other = made(tmp_path / "a", corpus()), made(tmp_path / "b", corpus()[::-1])
    for path in one.path.iterdir():
        assert path.read_bytes() == (other.path / path.name).read_bytes()


def test_a_tagger_reads_the_rows(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    data = made(tmp_path / "data", corpus())
    task, tally = Tagging(toy_tokenizer), Tally()
    examples = task.rows(data.train, tally)
    task.encode(examples, tally)
    assert (len(examples), task.labels) == (50, ("O", "B-CODE", "I-CODE"))
    assert not tally.counts


def test_too_few_marked_sentences_are_said_and_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"only \d+ sentences with ``marks``.*--text FOLDER"):
        made(tmp_path / "data", corpus(3))
    assert not (tmp_path / "data").exists()
