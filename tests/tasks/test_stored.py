from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.store import Store
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.stored import StoredText, find_vocabulary, spans
from bertsmith.tasks.vocabulary import save_vocabulary
from bertsmith.tokenizer.load import Tokenizer

TEXT = """The film was good. London is great!

Anna lives in Paris. Bert works for Acme (not in London). She was bad.

我在北京。上海很好。

He is not boring.
"""


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture
def store(toy_tokenizer: Tokenizer, tmp_path: Path) -> Store:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    made = prepare([str(tmp_path / "text.txt")], toy_tokenizer, tmp_path / "store", quiet)
    save_vocabulary(toy_tokenizer, tmp_path / "vocab")
    return made


def test_documents_read_as_they_were_written(store: Store) -> None:
    stored = StoredText.open(store.path)
    assert len(stored) == 4
    assert stored.sentences(1) == ["anna lives in paris.", "bert works for acme (not in london).", "she was bad."]
    assert list(stored.texts()) == [
        "the film was good. london is great!",
        "anna lives in paris. bert works for acme (not in london). she was bad.",
        "我在北京[UNK]上海很好[UNK]",
        "he is not boring.",
    ]
    names = stored.names([3, 0])
    assert list(names) == [0, 3]
    assert names[3].endswith("text.txt:7")


@pytest.mark.parametrize("size", [1, 12, 40, 1000])
def test_spans_are_whole_documents_and_together_the_store(store: Store, size: int) -> None:
    found = list(spans(store, size))
    assert [span.first for span in found] == sorted({span.first for span in found})
    assert np.concatenate([span.tokens for span in found]).tolist() == store.read(0, store.num_tokens).tolist()
    starts = store.sentence_offsets[store.document_offsets].tolist()
    at = 0
    for span in found:
        last = span.first + len(span.documents) - 1
        assert (span.documents + at).tolist() == starts[span.first : last + 1]
        assert (span.documents[0], span.documents[-1], span.sentences[-1]) == (0, len(span.tokens), len(span.tokens))
        assert len(span.tokens) <= size or last == span.first + 1
        at += len(span.tokens)
    assert (len(found) == 1) == (size == 1000)


def test_the_vocabulary_is_looked_for_in_the_store_and_then_beside_it(
    store: Store, toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    assert find_vocabulary(store.path, None).hash == toy_tokenizer.hash
    (tmp_path / "vocab").rename(tmp_path / "moved")
    shutil.rmtree(store.path / "vocab", ignore_errors=True)
    with pytest.raises(ConfigError, match=r"name the vocabulary that this store was made with: --vocab DIR"):
        StoredText.open(store.path)
    assert len(StoredText.open(store.path, tmp_path / "moved")) == 4
    shutil.copytree(tmp_path / "moved", store.path / "vocab")
    assert len(StoredText.open(store.path)) == 4


def test_another_vocabulary_is_refused(store: Store, toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    longer = Tokenizer.from_tokens([*toy_tokenizer.tokens, "zebra"], lowercase=True)
    save_vocabulary(longer, tmp_path / "longer")
    with pytest.raises(DataError, match=r"store: made with another vocabulary than the one given .* --vocab"):
        StoredText.open(store.path, tmp_path / "longer")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["tokens-00000.bin", "documents.offsets", "documents.names", "documents.sources"])
def test_a_flipped_bit_is_found(store: Store, name: str) -> None:
    flip(store.path / name)
    with pytest.raises(DataError, match=rf"{name}: damaged, its sha256 differs"):
        StoredText.open(store.path)


def empty(path: Path) -> Path:
    """A store of no document, as no command makes it."""
    path.mkdir()
    (path / "documents.offsets").write_bytes(bytes(8))
    (path / "sentences.offsets").write_bytes(bytes(8))
    manifest = {
        "format": "bertsmith-store",
        "version": 1,
        "dtype": "uint16",
        "vocab_size": 10,
        "tokenizer": "t",
        "settings": {},
        "counts": dict.fromkeys(("documents", "sentences", "tokens", "words", "characters"), 0),
        "skipped": {},
        "shards": [],
        "files": {},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_an_empty_store_is_refused(store: Store, tmp_path: Path) -> None:
    hollow = empty(tmp_path / "hollow")
    assert list(spans(Store.open(hollow))) == []
    with pytest.raises(DataError, match=r"hollow: this store is empty; prepare the corpus again"):
        StoredText.open(hollow, tmp_path / "vocab")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=r"nothing: no token store"):
        StoredText.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    "words", [["stats"], ["sample"], ["search", "film"], ["diff"]], ids=lambda words: str(words[0])
)
def test_every_command_refuses_a_bad_store(
    words: list[str], store: Store, tmp_path: Path, in_process: Callable[..., tuple[int, str, str]]
) -> None:
    def asked(path: Path) -> list[object]:
        return ["corpus", words[0], path, *words[1:], *([store.path] if words[0] == "diff" else [])]

    hollow = empty(tmp_path / "hollow")
    code, out, err = in_process(*asked(hollow), "--vocab", tmp_path / "vocab")
    assert (code, out) == (2, "")
    assert "hollow: this store is empty" in err
    flip(store.path / "tokens-00000.bin")
    code, out, err = in_process(*asked(store.path))
    assert (code, out) == (2, "")
    assert "tokens-00000.bin: damaged" in err
