"""Duplicates: planted copies are found, the smallest id stays, and the number of ranks does not change the result."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.core.errors import DataError
from bertsmith.corpus import dedup, sketches
from bertsmith.corpus.dedup import DedupConfig, Duplicates, find
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.shingles import band_keys, jaccard, repetition, rows_per_band, shingles, signatures

NEAR = DedupConfig(mode="near")
WORDS = ["".join(random.Random(n).choices("abcdefghijklmnoprstuvw", k=2 + n % 7)) for n in range(2000)]
CHARACTERS = [chr(0x4E00 + 7 * n) for n in range(2000)]


def article(seed: int, units: int = 300, chinese: bool = False) -> list[str]:
    return random.Random(seed).choices(CHARACTERS if chinese else WORDS, k=units)


def written(units: list[str], chinese: bool = False) -> str:
    return "".join(units) + "。" if chinese else " ".join(units).capitalize() + "."


def without(units: list[str], *places: int) -> list[str]:
    return [unit for place, unit in enumerate(units) if place not in places]


def corpus(chinese: bool = False) -> tuple[list[str], list[tuple[int, int]]]:
    """200 articles and 60 copies at random places; the places of each copy and its original."""
    chance = random.Random(5)
    articles = [article(n, chance.randint(60, 800), chinese) for n in range(200)]
    originals = chance.sample(range(200), 60)
    copies = []
    for number in originals:
        units = articles[number]
        changes = chance.sample(range(len(units)), max(1, len(units) // 100))
        copies.append(units[: -len(units) // 12] if number % 2 else without(units, *changes))
    order = list(range(260))
    chance.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    everything = articles + copies
    pairs = [(place[200 + copy], place[number]) for copy, number in enumerate(originals)]
    return [written(everything[old], chinese) for old in order], pairs


def step(job: list[str], folder: Path, ranks: int, name: str, rank: int) -> None:
    if name == "sketch":
        dedup.sketch([(n, text) for n, text in enumerate(job) if n * 7 % ranks == rank], folder, rank, NEAR)
    elif name == "match_texts":
        dedup.match_texts(folder, rank, ranks)
    else:
        {"match_bands": dedup.match_bands, "compare": dedup.compare}[name](folder, rank, ranks, NEAR)


STEPS = ("sketch", "match_texts", "match_bands", "compare")


def by_ranks(texts: list[str], folder: Path, ranks: int, run: Any = map) -> Duplicates:
    for name in STEPS:
        list(run(partial(step, texts, folder, ranks, name), reversed(range(ranks))))
    return dedup.choose(folder)


def pairs_of(found: Duplicates) -> list[tuple[int, int]]:
    return list(zip(found.rows["id"].tolist(), found.rows["kept"].tolist(), strict=True))


@pytest.mark.parametrize("chinese", [False, True], ids=["words", "characters"])
def test_altered_copies_are_left_out_and_nothing_else(tmp_path: Path, chinese: bool) -> None:
    texts, pairs = corpus(chinese)
    found = find(texts, tmp_path / "job", NEAR)
    assert pairs_of(found) == sorted((max(pair), min(pair)) for pair in pairs), "the smaller id stays"
    assert found.documents == 260
    assert (found.rows["similarity"] >= 0.8).all()
    assert not found.rows["exact"].any()


def test_any_number_of_ranks_finds_the_same(tmp_path: Path) -> None:
    texts, _ = corpus()
    texts += texts[:20]
    one, two, five = (by_ranks(texts, tmp_path / str(ranks), ranks) for ranks in (1, 2, 5))
    assert len(one.rows) == 80
    assert one.rows.tolist() == two.rows.tolist() == five.rows.tolist()
    assert one.rows.tolist() == find(texts, tmp_path / "all", NEAR).rows.tolist()


def test_ranks_may_be_processes_that_share_a_folder_only(tmp_path: Path) -> None:
    texts, _ = corpus()
    dealt = [[(n, text) for n, text in enumerate(texts) if n % 2 == rank] for rank in range(2)]
    folder = tmp_path / "two"
    both: list[Any] = [[folder, folder], [0, 1], [2, 2], [NEAR, NEAR]]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(dedup.sketch, dealt, both[0], both[1], both[3]))
        list(pool.map(dedup.match_texts, *both[:3]))
        list(pool.map(dedup.match_bands, *both))
        list(pool.map(dedup.compare, *both))
    assert dedup.choose(folder).rows.tolist() == find(texts, tmp_path / "one", NEAR).rows.tolist()


def test_work_in_small_pieces_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus that is larger than a piece of work, at every place where work is cut into pieces."""
    texts, _ = corpus()
    texts += texts[:20]
    whole = find(texts, tmp_path / "whole", NEAR)
    monkeypatch.setattr(sketches, "_BATCH", 5000)
    monkeypatch.setattr(sketches, "_GROUPED", 17)
    monkeypatch.setattr(sketches, "PART", 64)
    monkeypatch.setattr(dedup, "PART", 3)
    monkeypatch.setattr(dedup, "_COMPARED", 2)
    monkeypatch.setattr("bertsmith.corpus.shingles._AT_ONCE", 1000)
    assert sketches.Sketches(tmp_path / "whole").turns() > 10
    pieces = by_ranks(texts, tmp_path / "pieces", 3)
    assert len(list((tmp_path / "pieces").glob("edges-*/part-*"))) > 2
    assert pieces.rows.tolist() == whole.rows.tolist()
    documents = [Document(text, str(n), "f") for n, text in enumerate(texts)]
    assert len(list(pieces.leave_out(documents, Tally()))) == 200


def test_the_same_text_is_exact_whatever_the_white_space(tmp_path: Path) -> None:
    texts = ["One two.\n\nThree.", "Other.", "One  two. Three.", "one two. three.", "One two.\nThree."]
    found = find(texts, tmp_path / "job", DedupConfig(mode="exact"))
    assert pairs_of(found) == [(2, 0), (4, 0)]
    assert found.rows["exact"].all()
    near = find(texts, tmp_path / "job", NEAR)
    assert pairs_of(near) == [(2, 0), (3, 0), (4, 0)], "capitals do not make another document"
    assert near.rows["exact"].tolist() == [True, False, True]


def test_texts_shorter_than_a_shingle_are_copies_only_of_the_same_words(tmp_path: Path) -> None:
    texts = ["Yes.", "No.", "yes!", "Yes indeed.", "是。", "是！", "不是", "…", "……", "…"]
    found = find(texts, tmp_path / "job", NEAR)
    assert pairs_of(found) == [(2, 0), (5, 4), (9, 7)]


def test_nothing_to_look_at(tmp_path: Path) -> None:
    for mode in ("exact", "near"):
        found = find([], tmp_path / "job", DedupConfig(mode=mode))
        assert (len(found.rows), found.documents) == (0, 0)
    for texts in (["…"], ["", ""], ["One only."]):
        assert len(find(texts, tmp_path / "job", NEAR).rows) == len(texts) - 1


def test_a_chain_of_changes_does_not_leave_out_what_is_unlike_all_that_stays(tmp_path: Path) -> None:
    first = article(1, 200)
    chain = [first[shift:] + article(2, 200)[:shift] for shift in (0, 15, 30, 45)]
    found = find(map(written, chain), tmp_path / "job", NEAR)
    assert pairs_of(found) == [(1, 0), (3, 2)]


def test_a_copy_of_a_left_out_document_points_at_the_one_that_stays(tmp_path: Path) -> None:
    units = article(1)
    other = without(units, 100)
    found = find([written(units), written(other), written(other)], tmp_path / "job", NEAR)
    assert pairs_of(found) == [(1, 0), (2, 0)]
    assert found.rows["exact"].tolist() == [False, True]
    assert found.rows["similarity"][1] == found.rows["similarity"][0] < 1


def test_many_copies_of_one_document(tmp_path: Path) -> None:
    units = article(1)
    texts = [written(units), *(written(without(units, n, n + 1)) for n in range(0, 200, 2))]
    found = find(texts, tmp_path / "job", NEAR)
    assert found.rows["id"].tolist() == list(range(1, 101))
    assert not found.rows["kept"].any()


def test_mixed_scripts(tmp_path: Path) -> None:
    units = [unit for pair in zip(article(1), article(2, chinese=True), strict=True) for unit in pair]
    texts = [written(units), written(article(3)), written(without(units, 50, 51))]
    assert pairs_of(find(texts, tmp_path / "job", NEAR)) == [(2, 0)]


def test_ids_must_ascend(tmp_path: Path) -> None:
    for ids in ([3, 3], [4, 2], [-1]):
        with pytest.raises(ValueError, match="must ascend"):
            dedup.sketch([(id, "text") for id in ids], tmp_path, 0, NEAR)
    assert not list(tmp_path.iterdir()), "a step's output is there whole or not at all"


def test_leaving_out_counts_by_reason() -> None:
    rows = np.array([(1, 0, 1.0, True), (3, 0, 0.9, False)], dedup._RESULT)
    documents = [Document(str(n), f"d{n}", "file") for n in range(5)]
    tally = Tally()
    kept = Duplicates(rows, 5).leave_out(documents, tally)
    assert [document.id for document in kept] == ["d0", "d2", "d4"]
    assert tally.counts == {"duplicate": 1, "near_duplicate": 1}
    assert tally.first == {"duplicate": "d1", "near_duplicate": "d3"}
    for other in (documents[:4], [*documents, documents[0]]):
        with pytest.raises(DataError, match="5 documents were read when looking for duplicates and"):
            list(Duplicates(rows, 5).leave_out(other, Tally()))


def exact(texts: Iterable[str], size: int) -> list[set[tuple[str, ...]]]:
    found = []
    for text in texts:
        units = text.lower().replace(".", "").split()
        found.append({tuple(units[n : n + size]) for n in range(max(1, len(units) - size + 1))})
    return found


def test_shingles_are_sets_of_consecutive_words() -> None:
    texts = ["A b c d e f.", "a b c d e f", "b c d e f", "a b", "a b a b a b a", "…", "日本の歌", "x日y本"]
    hashes, offsets = shingles(texts, 3, 2, 0)
    sizes = np.diff(offsets).tolist()
    assert sizes == [4, 4, 3, 1, 2, 0, 3, 2]
    first, second, third = (set(hashes[offsets[n] : offsets[n + 1]].tolist()) for n in range(3))
    assert first == second > third
    others, _ = shingles(texts, 3, 2, 1)
    assert set(others.tolist()).isdisjoint(hashes.tolist()), "a seed is another hash function"


@given(st.lists(st.text(st.sampled_from("aAéÉΣσς1 .,雨風カ\u0e01😀\n"), max_size=60), max_size=5))
def test_shingles_are_those_of_the_words_in_small_letters(texts: list[str]) -> None:
    found, offsets = shingles(texts, 3, 2, 7)
    for text, begin, end in zip(texts, offsets, offsets[1:], strict=False):
        units = re.findall("[雨風カ\u0e01]|[aéσ1]+", text.lower().replace("ς", "σ"))
        rows = set()
        for at, unit in enumerate(units):
            size = 2 if unit in "雨風カ\u0e01" else 3
            if at == 0 or at + size <= len(units):
                rows.add(tuple(units[at : at + size]))
        assert end - begin == len(rows)
        (alone, _), mine = shingles([text], 3, 2, 7), found[begin:end]
        assert alone.tolist() == mine.tolist(), "a text's hashes do not depend on those beside it"
        share = len(rows) and repetition([text], 3, 2)[0]
        counted = sum(at == 0 or at + (2 if one in "雨風カ\u0e01" else 3) <= len(units) for at, one in enumerate(units))
        assert share == pytest.approx(1 - len(rows) / counted if counted else 0)


def test_jaccard_is_exact_for_whole_sets_and_near_for_cut_ones() -> None:
    base = article(1, 3000)
    texts = [" ".join(base), " ".join(without(base, *range(0, 3000, 60))), " ".join(article(2, 3000))]
    sets = exact(texts, 5)
    hashes, offsets = shingles(texts, 5, 5, 0)
    parts = [hashes[offsets[n] : offsets[n + 1]] for n in range(3)]
    for left, right in ((0, 1), (1, 2), (0, 0)):
        truth = len(sets[left] & sets[right]) / len(sets[left] | sets[right])
        assert jaccard([parts[left]], [parts[right]], 10**6)[0] == pytest.approx(truth)
        cut = jaccard([parts[left][:1000]], [parts[right][:1000]], 1000)[0]
        assert cut == pytest.approx(truth, abs=0.04)
    assert len(jaccard([], [], 10)) == 0


@pytest.mark.parametrize("units", [12, 60, 1000])
def test_signatures_agree_as_often_as_the_sets_overlap(units: int) -> None:
    """Also where a document has fewer shingles than a signature has places."""
    texts = []
    for seed in range(200):
        base = article(seed, units)
        texts += [written(base), written(without(base, units // 2))]
    sets = exact(texts, 3)
    truth = np.mean([len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)])
    signed = signatures(*shingles(texts, 3, 3, 0), 128, 0)
    assert np.mean(signed[::2] == signed[1::2]) == pytest.approx(truth, abs=0.02)
    assert np.mean(signed[::2] == np.roll(signed[1::2], 1, axis=0)) < 0.02
    keys = band_keys(signed, 6)
    assert keys.shape == (400, 21)
    bands = signed[:, :126].reshape(400, 21, 6)
    same = (bands[::2] == bands[1::2]).all(axis=2)
    assert ((keys[::2] == keys[1::2]) == same).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_are_chosen_to_miss_few(threshold: float) -> None:
    rows = rows_per_band(threshold, 128)
    assert (1 - threshold**rows) ** (128 // rows) <= 0.005
    assert rows == 128 or (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) > 0.005


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError):
        DedupConfig(mode="near", threshold=0)
    with pytest.raises(ValueError):
        DedupConfig(permutations=1000)
