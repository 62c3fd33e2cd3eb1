"""Exact search: the same as sorting everything, in memory that does not grow."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.predict import index as module
from bertsmith.predict.index import Index


@pytest.mark.parametrize("k", [1, 7, 50, 1000])
def test_it_finds_what_sorting_everything_finds(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    monkeypatch.setattr(module, "VECTORS", 16)
    monkeypatch.setattr(module, "QUERIES", 5)
    rng = np.random.default_rng(0)
    # Small whole numbers: products are exact, and many are equal.
    vectors = rng.integers(-2, 3, (101, 4)).astype(np.float32)
    queries = rng.integers(-2, 3, (13, 4)).astype(np.float32)
    found = Index(vectors).search(queries, k)
    every = queries @ vectors.T
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    assert found.ids.tolist() == order.tolist()
    assert found.scores.tolist() == np.take_along_axis(every, order, 1).tolist()


def test_nothing_among_nothing() -> None:
    found = Index(np.zeros((0, 3), np.float32)).search(np.zeros((2, 3), np.float32), 5)
    assert (found.scores.shape, found.ids.shape) == ((2, 0), (2, 0))
    assert Index(np.ones((4, 3), np.float32)).search(np.zeros((0, 3), np.float32), 2).ids.shape == (0, 2)


def test_it_is_saved_and_mapped(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    Index(vectors).save(tmp_path / "texts.npy")
    opened = Index.open(tmp_path / "texts.npy")
    assert isinstance(opened.vectors, np.memmap)
    assert len(opened) == 20
    assert opened.search(vectors, 1).ids[:, 0].tolist() == (vectors @ vectors.T).argmax(1).tolist()


def test_memory_does_not_grow_with_the_number_of_vectors() -> None:
    def peak(count: int) -> int:
        index = Index(np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32))
        queries = index.vectors[:64].copy()
        tracemalloc.start()
        index.search(queries, 10)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(160_000) < 1.2 * peak(20_000)


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    index = Index(np.ones((4, 3), np.float32))
    with pytest.raises(ConfigError, match="k is 0"):
        index.search(np.ones((1, 3), np.float32), 0)
    with pytest.raises(DataError, match=r"queries \[1, 2\] do not fit vectors \[4, 3\]"):
        index.search(np.ones((1, 2), np.float32))
    with pytest.raises(DataError, match="not finite"):
        index.search(np.full((1, 3), np.nan, np.float32))
    with pytest.raises(DataError, match=r"not float64 \[4, 3\]"):
        Index(np.ones((4, 3)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no such file"):
        Index.open(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(DataError, match="holds no vectors"):
        Index.open(tmp_path / "text.npy")
