"""The token store: what goes in comes out, across shards, in the layout other programs read; damage is found."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bertsmith.core.errors import DataError
from bertsmith.corpus.build import Counts, build
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.store import Store


def encode(sentences: list[str]) -> tuple[Any, Any, Any]:
    """Two pieces a word, its length and its first character; the word `nothing` gives none."""
    kept = [[word for word in sentence.split() if word != "nothing"] for sentence in sentences]
    ids = np.array([number for words in kept for word in words for number in (len(word), ord(word[0]))], np.int32)
    return ids, np.arange(len(ids)) % 2 == 0, np.array([2 * len(words) for words in kept], np.int64)


def _build(out: Path, texts: list[str], tally: Tally | None = None, **changes: Any) -> Store:
    documents = [Document(text, f"d{number}", "test") for number, text in enumerate(texts)]
    options: dict[str, Any] = {"vocab_size": 60_000, "tokenizer_hash": "t", "settings": {"lower": True}} | changes
    return build(documents, encode, out, tally=tally or Tally(), **options)


TEXTS = ["One two three. Four five.", "nothing", "Six.\n\nSeven eight!\n\nnothing", "Nine ten eleven. Twelve."]


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    tally = Tally()
    seen: list[Counts] = []
    store = _build(tmp_path / "s", TEXTS, tally, progress=seen.append)
    sentences = ["One two three.", "Four five.", "Six.", "Seven eight!", "Nine ten eleven.", "Twelve."]
    assert (store.num_documents, store.num_sentences, store.num_tokens) == (3, 6, 24)
    assert store.document_offsets.tolist() == [0, 2, 4, 6]
    assert store.sentence_offsets.tolist() == [0, 6, 10, 12, 16, 22, 24]
    for number, sentence in enumerate(sentences):
        ids, flags, _ = encode([sentence])
        start, stop = store.sentence_offsets[number : number + 2].tolist()
        assert store.read(start, stop).tolist() == ids.tolist()
        assert store.word_starts(start, stop).tolist() == flags.tolist()
    assert (store.read(0, 24).dtype, store.word_starts(3, 3).shape) == (np.int32, (0,))
    assert tally.counts == {"sentence_without_tokens": 2, "document_without_tokens": 1}
    assert tally.first["document_without_tokens"] == "d1"
    assert seen[-1] == Counts(3, 6, 24, 12, sum(map(len, sentences)))
    assert store.manifest["skipped"] == tally.counts
    assert (store.manifest["tokenizer"], store.manifest["settings"]) == ("t", {"lower": True})


@pytest.mark.parametrize("vocab_size", [65_535, 65_536])
@pytest.mark.parametrize("shard_tokens", [1, 11, 1000])
def test_shards_are_complete_megatron_data_sets(tmp_path: Path, vocab_size: int, shard_tokens: int) -> None:
    store = _build(tmp_path / "s", TEXTS * 5, vocab_size=vocab_size, shard_tokens=shard_tokens)
    assert len(store.manifest["shards"]) == {1: 15, 11: 8, 1000: 1}[shard_tokens]
    read: list[list[list[int]]] = []
    for shard in store.manifest["shards"]:
        read += _megatron(store.path / shard["name"], {65_535: "<u2", 65_536: "<i4"}[vocab_size])
    bounds = store.document_offsets.tolist()
    assert read == [
        [store.read(*store.sentence_offsets[number : number + 2].tolist()).tolist() for number in range(begin, end)]
        for begin, end in pairwise(bounds)
    ]
    assert len(read) == 15


def _megatron(stem: Path, dtype: str) -> Iterator[list[list[int]]]:
    """The documents of a shard, read by the published layout alone."""
    index = stem.with_suffix(".idx").read_bytes()
    tokens = stem.with_suffix(".bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, count, documents = struct.unpack_from("<QBQQ", index, 9)
    assert (version, {8: "<u2", 4: "<i4"}[code]) == (1, dtype)
    sizes = struct.unpack_from(f"<{count}i", index, 34)
    pointers = struct.unpack_from(f"<{count}q", index, 34 + 4 * count)
    firsts = struct.unpack_from(f"<{documents}q", index, 34 + 12 * count)
    assert len(index) == 34 + 12 * count + 8 * documents
    assert (firsts[0], firsts[-1]) == (0, count)
    sequences = [
        np.frombuffer(tokens, dtype, size, pointer).tolist() for size, pointer in zip(sizes, pointers, strict=True)
    ]
    for begin, end in pairwise(firsts):
        yield sequences[begin:end]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, NDArray[np.int32], NDArray[np.bool_]]:
    texts = [" ".join("x" * (1 + (7 * word) % 13) for word in range(number % 9 + 1)) for number in range(60)]
    store = _build(tmp_path_factory.mktemp("store") / "s", texts, shard_tokens=30)
    ids, flags, _ = encode(texts)
    return store, ids, flags


@given(st.data())
@settings(deadline=None)
def test_any_range_across_shards(
    sharded: tuple[Store, NDArray[np.int32], NDArray[np.bool_]], data: st.DataObject
) -> None:
    store, ids, flags = sharded
    assert len(store.tokens) > 10
    start = data.draw(st.integers(0, len(ids)))
    stop = data.draw(st.integers(start, len(ids)))
    assert store.read(start, stop).tolist() == ids[start:stop].tolist()
    assert store.word_starts(start, stop).tolist() == flags[start:stop].tolist()


@given(st.data())
@settings(deadline=None)
def test_any_positions_across_shards(
    sharded: tuple[Store, NDArray[np.int32], NDArray[np.bool_]], data: st.DataObject
) -> None:
    store, ids, flags = sharded
    positions = np.array(data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=50)), np.int64)
    assert store.gather(positions).tolist() == ids[positions].tolist()
    assert store.gather_word_starts(positions).tolist() == flags[positions].tolist()


@pytest.mark.parametrize("outside", [-1, 10**6])
def test_a_range_outside_is_refused(sharded: tuple[Store, NDArray[np.int32], NDArray[np.bool_]], outside: int) -> None:
    with pytest.raises(IndexError):
        sharded[0].read(0, sharded[0].num_tokens + 1)
    with pytest.raises(IndexError):
        sharded[0].gather(np.array([0, outside]))


def test_the_hash_stands_for_content_settings_and_tokenizer_not_for_the_place(tmp_path: Path) -> None:
    base = _build(tmp_path / "a", TEXTS).hash
    assert _build(tmp_path / "b" / "c", TEXTS).hash == base
    assert _build(tmp_path / "d", [*TEXTS, "More."]).hash != base
    assert _build(tmp_path / "e", TEXTS, tokenizer_hash="u").hash != base
    assert _build(tmp_path / "f", TEXTS, settings={}).hash != base
    assert Store.open(tmp_path / "a").hash == base


def test_a_flipped_byte_is_found_and_its_shard_named(tmp_path: Path) -> None:
    store = _build(tmp_path / "s", TEXTS, shard_tokens=1)
    Store.open(store.path, verify=True)
    for name in ("tokens-00001.bin", "tokens-00000.starts", "tokens-00002.idx", "documents.offsets"):
        path = store.path / name
        whole = path.read_bytes()
        path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(DataError, match=rf"{name}: damaged"):
            Store.open(store.path, verify=True)
        path.write_bytes(whole)


def test_missing_or_short_files_are_found_at_once(tmp_path: Path) -> None:
    store = _build(tmp_path / "s", TEXTS)
    path = store.path / "tokens-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"tokens-00000\.bin: has 46 bytes instead of 48; copy the store again"):
        Store.open(store.path)
    for name in ("tokens-00000.bin", "tokens-00000.starts"):
        store = _build(tmp_path / name, TEXTS)
        (store.path / name).unlink()
        with pytest.raises(DataError, match=rf"{name}: is missing"):
            Store.open(store.path)


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no token store.*bertsmith pretrain"):
        Store.open(tmp_path)
    for content in (
        "{",
        "[]",
        '{"format": "other", "version": 1}',
        json.dumps({"format": "bertsmith-store", "version": 9}),
    ):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(DataError, match=r"manifest\.json: not a token store that this version reads"):
            Store.open(tmp_path)


def test_a_corpus_without_a_sentence_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not one sentence to store; document_without_tokens: 2"):
        _build(tmp_path / "s", ["nothing", " "])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_keeps_the_old_store(tmp_path: Path) -> None:
    old = _build(tmp_path / "s", TEXTS).hash

    def documents() -> Iterator[Document]:
        yield Document("Some text.", "1", "x")
        raise DataError("x.txt.xz: is cut off")

    with pytest.raises(DataError, match="is cut off"):
        build(documents(), encode, tmp_path / "s", vocab_size=99, tokenizer_hash="", settings={}, tally=Tally())
    assert Store.open(tmp_path / "s", verify=True).hash == old
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert _build(tmp_path / "s", ["New text."]).num_sentences == 1


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("precious")
    with pytest.raises(DataError, match="exists and is no token store"):
        _build(tmp_path, TEXTS)
    assert (tmp_path / "book.txt").read_text() == "precious"


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocabulary 50"):
        _build(tmp_path / "s", TEXTS, vocab_size=50)


_PEAK = """
import resource, sys
import numpy as np
from pathlib import Path
from bertsmith.corpus.build import build
from bertsmith.corpus.document import Document, Tally
def encode(texts):
    return np.ones(20 * len(texts), np.int32), np.ones(20 * len(texts), bool), np.full(len(texts), 20)
text = "A b c.\\n\\n" * 1000
documents = (Document(text, str(n), "x") for n in range(int(sys.argv[2])))
options = dict(vocab_size=99, tokenizer_hash="", settings={}, tally=Tally())
build(documents, encode, Path(sys.argv[1]), **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    def peak(documents: int) -> int:
        command = [sys.executable, "-c", _PEAK, str(tmp_path / str(documents)), str(documents)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert peak(400) - peak(20) < 12, "MB more for 20 times the text: 400,000 sentences, 8,000,000 tokens"
