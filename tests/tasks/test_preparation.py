"""Preparation: copies are left out of the store where that is asked for, counted, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.runner import Crew
from bertsmith.corpus import blocks
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


def test_a_text_is_read_once(
    copies: Path, toy_tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = blocks.documents_of
    monkeypatch.setattr(blocks, "documents_of", lambda source, tally: opened.append(source.name) or real(source, tally))
    config = CorpusConfig.model_validate({"clean": {"mode": "filter"}, "dedup": {"mode": "near"}})
    prepare([str(copies)], toy_tokenizer, tmp_path / "store", lambda line: None, config)
    assert opened == [str(copies)]


def test_characters_are_mended_by_default_and_everything_is_said(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A <b>good</b> film.\n\nRead more\n", encoding="utf-8")
    said: list[str] = []
    store = prepare([str(tmp_path / "a.txt")], toy_tokenizer, tmp_path / "store", said.append)
    assert store.manifest["skipped"] == {"html_remains": 1}
    assert store.manifest["cleaning"]["rules"]["html_remains"]["samples"][0]["text"] == "A good film."
    assert toy_tokenizer.decode(store.read(0, store.num_tokens)) == "a good film. read more"
    assert "html_remains: 1 (first: " in said[-1]
    assert Tokenizer.load(store.path / "vocab").hash == store.manifest["tokenizer"]
    off = CorpusConfig.model_validate({"clean": {"mode": "off"}})
    plain = prepare([str(tmp_path / "a.txt")], toy_tokenizer, tmp_path / "off", said.append, off)
    assert plain.num_tokens > store.num_tokens
    assert plain.manifest["skipped"] == {}


def test_a_clean_that_leaves_nothing_says_which_rule_and_how_to_relax_it(
    toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("One two.\n\nThree four.\n", encoding="utf-8")
    config = CorpusConfig.model_validate({"clean": {"mode": "filter"}})
    with pytest.raises(DataError, match=r"left nothing of 2 documents \(too_short: 2\).*clean.min_words=1"):
        prepare([str(file)], toy_tokenizer, tmp_path / "store", lambda line: None, config)
    # Here it is the documents together that empty each other.
    file.write_text("\n\n".join(["The very same line of words."] * 25), encoding="utf-8")
    with pytest.raises(DataError, match=r"only_boilerplate: 25.*--set corpus.clean.boilerplate=0"):
        prepare([str(file)], toy_tokenizer, tmp_path / "store", lambda line: None, config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"], "nothing is left behind"
    relaxed = CorpusConfig.model_validate({"clean": {"mode": "filter", "boilerplate": 0}})
    assert prepare([str(file)], toy_tokenizer, tmp_path / "store", lambda line: None, relaxed).num_documents == 25


def test_what_is_no_store_is_refused_before_anything_is_read(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some words of text.")
    said: list[str] = []
    with pytest.raises(DataError, match="exists and is no token store"):
        prepare([str(tmp_path / "a.txt")], toy_tokenizer, tmp_path, said.append)
    assert said == []


def test_standard_input_has_one_reader(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only one process can read standard input"):
        prepare(["-"], toy_tokenizer, tmp_path / "store", lambda line: None, crew=Crew(2, rank=1))
