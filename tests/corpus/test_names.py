from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.build import build
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.names import NAMES, SOURCES, Name, SourceCounts, read_names, read_sources
from bertsmith.corpus.store import Store

DOCUMENTS = [
    Document("One two. Three.", "a.txt:1", "a.txt"),
    Document("Four.", "a.txt:5", "a.txt"),
    Document("Five six seven.", "7\n\ud800é", "b.jsonl"),
    Document(" ", "b.jsonl:2", "b.jsonl"),
    Document("Eight.", "a.txt:9#2", "a.txt"),
]


def store_of(documents: list[Document], out: Path) -> Store:
    def encode(sentences: list[str]) -> tuple[Any, Any, Any]:
        lengths = np.array([len(sentence.split()) for sentence in sentences], np.int64)
        return np.ones(lengths.sum(), np.int32), np.ones(lengths.sum(), np.bool_), lengths

    options = {"vocab_size": 99, "tokenizer_hash": "t", "settings": {}, "tally": Tally()}
    return build(iter(documents), encode, out, **options)  # type: ignore[arg-type]


def test_each_document_keeps_its_name_and_each_source_its_counts(tmp_path: Path) -> None:
    store = store_of(DOCUMENTS, tmp_path / "s")
    assert list(read_names(store.path)) == [
        Name(document.id, document.source) for document in DOCUMENTS if document.text.strip()
    ]
    a, b = read_sources(store.path)
    assert a == SourceCounts("a.txt", documents=3, sentences=4, tokens=5, characters=25)
    assert b == SourceCounts("b.jsonl", documents=1, sentences=1, tokens=3, characters=15)
    assert a.characters + b.characters == store.manifest["counts"]["characters"]


def test_a_name_that_begins_with_its_source_takes_little_room(tmp_path: Path) -> None:
    folder = "a/long/path/to/a/file.txt"
    documents = [Document("Text.", f"{folder}:{line}", folder) for line in range(100)]
    store = store_of(documents, tmp_path / "s")
    assert (store.path / NAMES).stat().st_size < 12 * 100
    assert next(read_names(store.path)).id == f"{folder}:0"


def test_names_do_not_change_what_is_learned_and_are_guarded_like_the_rest(tmp_path: Path) -> None:
    moved = [Document(d.text, *(name.replace("a.txt", "z/a.txt") for name in (d.id, d.source))) for d in DOCUMENTS]
    here, there = store_of(DOCUMENTS, tmp_path / "here"), store_of(moved, tmp_path / "there")
    assert here.content_hash == there.content_hash
    assert here.hash != there.hash
    data = (here.path / NAMES).read_bytes()
    (here.path / NAMES).write_bytes(data.replace(b":1", b":2"))
    with pytest.raises(DataError, match=rf"{NAMES}: damaged"):
        Store.open(here.path, verify=True)


def test_a_store_without_names_is_read_all_the_same(tmp_path: Path) -> None:
    store = store_of(DOCUMENTS, tmp_path / "s")
    manifest = json.loads((store.path / "manifest.json").read_text())
    for name in (NAMES, SOURCES):
        (store.path / name).unlink()
        del manifest["files"][name]
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    old = Store.open(store.path, verify=True)
    assert old.content_hash == store.content_hash
    assert list(read_names(old.path)) == []
    assert read_sources(old.path) == []
