from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bertsmith.corpus.store import MANIFEST, Store
from bertsmith.tasks import corpus_stats as module
from bertsmith.tasks.corpus_report import corpus_report, write_corpus_report
from bertsmith.tasks.corpus_stats import StoreStats, corpus_stats, fingerprints
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.stored import StoredText
from bertsmith.tokenizer.load import Tokenizer

LINES = ["The film was good.", "He works for Acme.", "She lives in Paris.", "我在北京。"]


def stored(folder: Path, texts: dict[str, str], tokenizer: Tokenizer) -> StoredText:
    (folder / "text").mkdir(parents=True)
    for name, text in texts.items():
        (folder / "text" / name).write_text(text, encoding="utf-8")
    made = prepare([str(folder / "text")], tokenizer, folder / "store", lambda line: None)
    return StoredText(made, tokenizer)


@pytest.fixture
def small(tmp_path: Path, toy_tokenizer: Tokenizer) -> StoredText:
    english = "The film was good. He works for Acme.\n\nShe lives in Paris. The film was good.\n\nNot bad!"
    return stored(
        tmp_path,
        {"a.txt": english, "b.txt": "我在北京。 The film was good.\n\nNot bad!\n\n1 2 3", "c.txt": "Not bad!"},
        toy_tokenizer,
    )


def test_what_is_counted(small: StoredText) -> None:
    found = corpus_stats(small)
    assert found.counts == small.store.manifest["counts"]
    assert [(Path(s.name).name, s.documents) for s in found.sources] == [("a.txt", 3), ("b.txt", 3), ("c.txt", 1)]
    assert sum(source.tokens for source in found.sources) == small.store.num_tokens
    assert {name: documents for name, (documents, _) in found.scripts.items()} == {"latin": 5, "han": 1, "digits": 1}
    assert found.lines == {"the film was good.": 3, "not bad!": 3}
    assert found.lines_at_most == 1
    assert found.repeated == 2
    assert [(one.rpartition("/")[2], two.rpartition("/")[2], text) for one, two, text in found.repetitions] == [
        ("a.txt:5", "b.txt:3", "not bad!"),
        ("a.txt:5", "c.txt:1", "not bad!"),
    ]
    occurrences = Counter(small.store.read(0, small.store.num_tokens).tolist())
    assert found.pieces["occurring"] == len(occurrences)
    assert found.pieces["unknown"] == occurrences[small.tokenizer.unk_id] == 1
    assert next(iter(found.pieces["most_frequent"].items())) == (".", 5)


def test_a_document_counts_for_the_script_of_most_of_its_pieces(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    text = "我在北京上海很好 film\n\nthe film 我\n\n123 456 我\n\n! ?\n\n1 !"
    found = corpus_stats(stored(tmp_path, {"a.txt": text}, toy_tokenizer))
    assert {name: documents for name, (documents, _) in found.scripts.items()} == {
        "han": 2,
        "latin": 1,
        "other": 1,
        "digits": 1,
    }
    assert sum(tokens for _, tokens in found.scripts.values()) == found.counts["tokens"]


def test_lengths_are_those_of_numpy(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    draw = random.Random(0)
    documents = ("the film " * draw.randint(1, 60) for _ in range(99))
    small = stored(tmp_path, {"a.txt": "\n\n".join(documents)}, toy_tokenizer)
    store = small.store
    lengths = np.diff(store.sentence_offsets[store.document_offsets])
    found = corpus_stats(small).documents
    assert found.mean == pytest.approx(lengths.mean())
    assert found.quantiles[3] == lengths.max()
    for share, value in zip((0.1, 0.5, 0.9), found.quantiles, strict=False):
        assert abs((lengths <= value).mean() - share) < 0.03
    assert sum(found.bins.values()) == len(lengths)
    for least, count in found.bins.items():
        assert count == ((lengths >= least) & (lengths < 2 * least)).sum()


def test_frequent_lines_are_exact_or_not_told(
    tmp_path: Path, toy_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = random.Random(1)
    words = [*["film", "london", "paris", "anna", "bert", "lives", "in", "works"], *["good", "bad", "great", "acme"]]
    rare = [f"{' '.join(draw.choices(words, k=9))}." for _ in range(400)]
    lines = [*rare, *["the film was good."] * 40, *["not bad."] * 30]
    draw.shuffle(lines)
    small = stored(tmp_path, {"a.txt": "\n\n".join(lines)}, toy_tokenizer)
    monkeypatch.setattr(module, "_CELLS", 64)
    monkeypatch.setattr(module, "_CANDIDATES", 3)
    found = corpus_stats(small)
    assert found.lines == {"the film was good.": 40, "not bad.": 30}
    assert 1 < found.lines_at_most < 30
    monkeypatch.setattr(module, "LINES", 1)
    found = corpus_stats(small)
    assert found.lines == {"the film was good.": 40}
    assert found.lines_at_most == 30


def test_fingerprints_tell_order_and_ids_apart_and_nothing_else() -> None:
    tokens = np.array([1, 2, 3, 2, 1, 3, 1, 2, 3, 0, 0, 0], np.int32)
    one, two, again, zeros = fingerprints(tokens, np.array([0, 3, 6, 9, 12])).tolist()
    assert one == again
    assert len({one, two, zeros}) == 3
    assert fingerprints(tokens[9:10], np.array([0, 1])) != fingerprints(tokens[9:11], np.array([0, 2]))
    many = np.arange(200_000, dtype=np.int32)
    assert len(np.unique(fingerprints(many, np.arange(0, 200_001, 2)))) == 100_000


def test_the_page_stands_alone_and_shows_everything(small: StoredText, tmp_path: Path) -> None:
    path = write_corpus_report(corpus_stats(small), tmp_path / "page.html", "bertsmith corpus stats store")
    page = path.read_text(encoding="utf-8")
    sections = (
        "Counts", "Sources", "Script", "Length", "Duplicates", "Most frequent lines", "Vocabulary", "Settings",
    )  # fmt: skip
    for expected in (*sections, "Still in the store", "bertsmith corpus stats store", "the film was good."):
        assert expected in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def with_cleaning(store: Store) -> Store:
    """The store as a preparation with cleaning writes it."""
    path = store.path / MANIFEST
    manifest = json.loads(path.read_text())
    sample = {"id": "x:1", "text": "buy <b>now</b>", "note": "symbols 0.4"}
    manifest["cleaning"] = {
        "documents": 9,
        "characters": 900,
        "kept_documents": 7,
        "kept_characters": 700,
        "rules": {"too_many_symbols": {"documents": 2, "characters": 200, "samples": [sample]}},
    }
    pair = {
        "id": "x:2",
        "similarity": 0.91,
        "text": "the tide rose & sank",
        "kept": "x:1",
        "kept_text": "The tide rose, & sank",
    }
    manifest["duplicates"] = {"near_duplicate": [pair]}
    manifest["skipped"] = {"too_many_symbols": 2, "near_duplicate": 1}
    path.write_text(json.dumps(manifest))
    return Store.open(store.path, verify=True)


def test_what_was_left_out_is_shown_with_samples_and_pairs(small: StoredText) -> None:
    found: StoreStats = corpus_stats(StoredText(with_cleaning(small.store), small.tokenizer))
    page = corpus_report(found).html()
    assert "Cleaning kept 7 of 9 documents and 700 of 900 characters." in page
    assert "buy &lt;b&gt;now&lt;/b&gt;" in page
    assert "symbols 0.4" in page
    kept, copy = "<mark>The</mark> tide rose<mark>,</mark> &amp; sank", "<mark>the</mark> tide rose &amp; sank"
    assert 0 < page.index(copy) - page.index(kept) < 200
    assert "similarity 0.91" in page
    assert page.count("<td>too_many_symbols</td>") == 1


def test_a_store_that_names_no_sources_says_so(small: StoredText, tmp_path: Path) -> None:
    manifest = json.loads((small.store.path / MANIFEST).read_text())
    for name in ("documents.names", "documents.sources"):
        (small.store.path / name).unlink()
        del manifest["files"][name]
    (small.store.path / MANIFEST).write_text(json.dumps(manifest))
    found = corpus_stats(StoredText(Store.open(small.store.path), small.tokenizer))
    assert list(found.sources) == []
    assert found.repetitions[0][:2] == ("document 2", "document 4")
    assert "does not say where its documents come from" in corpus_report(found).html()
