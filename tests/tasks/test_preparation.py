"""Preparation: copies are left out of the store where that is asked for, counted, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.dedup import DedupConfig
from bertsmith.tasks.preparation import CorpusConfig, prepare
from bertsmith.tokenizer.load import Tokenizer

PARAGRAPH = "The tide rose before noon and covered the lower steps of the harbour, so the boats stayed at the wall."


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Three documents; the second repeats the first, the third lacks its last word, the fourth is another."""
    file = tmp_path / "text.txt"
    altered = PARAGRAPH.replace("the wall.", "the.")
    file.write_text("\n\n".join([PARAGRAPH, PARAGRAPH, altered, "A clock needs a steady beat. It swings."]) + "\n")
    return file


@pytest.mark.parametrize(
    ("mode", "documents", "skipped"),
    [("off", 4, {}), ("exact", 3, {"duplicate": 1}), ("near", 2, {"duplicate": 1, "near_duplicate": 1})],
)
def test_copies_are_left_out_and_counted(
    copies: Path,
    toy_tokenizer: Tokenizer,
    tmp_path: Path,
    mode: Literal["off", "exact", "near"],
    documents: int,
    skipped: dict[str, int],
) -> None:
    said: list[str] = []
    config = CorpusConfig(dedup=DedupConfig(mode=mode))
    store = prepare([str(copies)], toy_tokenizer, tmp_path / "run" / "store", said.append, config)
    assert store.num_documents == documents
    assert store.manifest["skipped"] == skipped
    assert store.manifest["settings"]["dedup"]["mode"] == mode
    assert (f"duplicates: {4 - documents} of 4 documents" in said) == (mode != "off")
    for reason in skipped:
        assert f"{reason}: 1 (first: {copies}:" in said[-1]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["store"]


def test_what_is_skipped_on_the_way_is_counted_once(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "  "}\n{"text": "One two three."}\n{"text": "One two three."}\n')
    config = CorpusConfig(dedup=DedupConfig(mode="near"))
    store = prepare([str(tmp_path / "a.jsonl")], toy_tokenizer, tmp_path / "store", lambda line: None, config)
    assert store.manifest["skipped"] == {"duplicate": 1, "empty_text": 1}


def test_a_text_that_changes_between_the_passes_is_refused(
    copies: Path, toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def change(line: str) -> None:
        if line.startswith("duplicates:"):
            copies.write_text(PARAGRAPH)

    with pytest.raises(DataError, match="4 documents were read when looking for duplicates and 1 now"):
        prepare(
            [str(copies)],
            toy_tokenizer,
            tmp_path / "store",
            change,
            CorpusConfig(dedup=DedupConfig(mode="near")),
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]
