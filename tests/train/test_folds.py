"""Folds and few rows: nothing is lost or doubled, groups stay whole, classes keep their shares, all is repeatable."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.tasks.base import Example
from bertsmith.tasks.parallel import References
from bertsmith.train.catalogue import read_run
from bertsmith.train.finetune import config_class, finetune
from bertsmith.train.folds import few, folds

LABELS = st.lists(st.sampled_from("aaaaaabbbc"), min_size=24, max_size=120)


def rows(labels: list[Any], **fields: Any) -> list[Example]:
    return [
        Example({"text": f"text {i}"} | {k: v[i] for k, v in fields.items()}, label) for i, label in enumerate(labels)
    ]


@given(labels=LABELS, count=st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_every_row_is_in_one_fold_and_classes_differ_by_one_row(labels: list[Any], count: int) -> None:
    found = folds(rows(labels), count)
    assert sorted(i for fold in found for i in fold) == list(range(len(labels)))
    for kind in set(labels):
        each = [sum(labels[i] == kind for i in fold) for fold in found]
        assert max(each) - min(each) <= 1
    sizes = [len(fold) for fold in found]
    assert max(sizes) - min(sizes) <= len(set(labels))
    assert found == folds(rows(labels), count)


@given(articles=st.lists(st.integers(0, 15), min_size=40, max_size=120), count=st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_articles_and_equal_texts_stay_whole(articles: list[int], count: int) -> None:
    if len(set(articles)) < count:
        return
    labels = ["ab"[i % 2] for i in range(len(articles))]
    examples = rows(labels, article=[f"article {i}" for i in articles])
    owner = {i: number for number, fold in enumerate(folds(examples, count)) for i in fold}
    assert all(len({owner[i] for i, a in enumerate(articles) if a == article}) == 1 for article in articles)
    same = [Example({"text": f"text {i % 9}"}, "ab"[i % 2]) for i in range(30)]
    owner = {i: number for number, fold in enumerate(folds(same, count)) for i in fold}
    assert all(owner[i] == owner[i % 9] for i in range(30))


def test_numbers_keep_the_shares_of_their_tenths_and_rows_without_classes_are_dealt_evenly() -> None:
    found = folds(rows([float(i) for i in range(100)]), 5)
    assert [len(fold) for fold in found] == [20] * 5
    assert all(Counter(i // 10 for i in fold) == dict.fromkeys(range(10), 2) for fold in found)
    assert sorted(len(fold) for fold in folds(rows([0, 1] * 11), 4)) == [5, 5, 6, 6]


def test_more_folds_than_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 different texts cannot be dealt into 4 folds"):
        folds(rows(["a", "b", "a"]), 4)
    with pytest.raises(ConfigError, match="2 articles cannot be dealt into 3 folds"):
        folds(rows(["a", "b", "a"], article=["x", "y", "x"]), 3)


@given(labels=LABELS, shots=st.integers(1, 30), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_so_many_of_each_class_or_all_that_there_are(labels: list[Any], shots: int, seed: int) -> None:
    found, scarce = few(rows(labels), shots, seed)
    total = Counter(labels)
    assert found == sorted(set(found))
    assert Counter(labels[i] for i in found) == {kind: min(shots, number) for kind, number in total.items()}
    assert scarce == {kind: number for kind, number in total.items() if number < shots}
    assert few(rows(labels), shots, seed)[0] == found


def test_another_seed_draws_other_rows_and_sets_of_classes_have_enough_of_each() -> None:
    labels = ["ab"[i % 2] for i in range(200)]
    assert len({tuple(few(rows(labels), 8, seed)[0]) for seed in range(5)}) == 5
    sets: list[Any] = [("a", "b") if i % 10 == 0 else ("a",) if i % 2 else () for i in range(100)]
    found, scarce = few(rows(sets), 4, 0)
    counts = Counter(kind for i in found for kind in sets[i])
    assert counts["b"] == 4
    assert counts["a"] == 4, "the rows drawn for b hold a too"
    assert not scarce
    with pytest.raises(ConfigError, match=r"no classes .* use train\.rows"):
        few(rows([0, 1, 2]), 4, 0)


COLOURS = ("red", "old", "new", "green", "blue")
CLASSES = "text,label\n" + "".join(f"{n} reads the {c} book,{n.lower()}\n" for n in ("Anna", "Bert") for c in COLOURS)
FAST = ["train.lr=5e-3", "train.batch_size=8", "task.max_length=32", "train.steps=3", "train.evaluations=1"]


def run(folder: Path, start: Path, *sets: str, quiet: bool = True, **how: Any) -> Bundle:
    data = folder / "rows.csv"
    data.write_text(CLASSES, encoding="utf-8")
    config = load(config_class("classify"), sets=[*FAST, *sets])
    return finetune("classify", data, folder / "run", config, start=start, quiet=quiet, threads=1, **how)


def test_each_fold_is_tested_once_and_scores_have_a_deviation(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = run(tmp_path, tiny_run, "train.doctor=off", quiet=False, folds=5)
    out = tmp_path / "run"
    said = capfd.readouterr().err
    each = [json.loads((out / f"fold-{n}" / "scores.json").read_text())["test"]["accuracy"] for n in range(1, 6)]
    assert json.loads((out / "scores.json").read_text())["test"]["accuracy"] == {
        "mean": fmean(each), "sd": stdev(each), "each": each
    }  # fmt: skip
    assert f"test accuracy: {fmean(each):.4f} ± {stdev(each):.4f} over 5 folds" in said
    assert "fold 3 of 5: 2 rows are held out to test on" in said
    assert "7 rows to learn from, 1 dev, 2 test" in said
    dev = [json.loads((out / f"fold-{n}" / "scores.json").read_text())["dev"]["accuracy"] for n in range(1, 6)]
    assert bundle.meta["scores"]["dev"]["accuracy"] == max(dev)
    assert run(tmp_path, tiny_run, "train.doctor=off", resume=True).hash == bundle.hash
    listed = read_run(out, "run")
    assert [inner.name for inner in listed.seeds] == [f"fold-{n}" for n in range(1, 6)]
    assert (listed.step, listed.steps, listed.state) == (15, 15, "finished")
    with pytest.raises(ConfigError, match="holds a run already"):
        run(tmp_path, tiny_run, folds=5)


@pytest.mark.parametrize("how", [{"folds": 3, "seeds": [1, 2]}, {"folds": 1}, {"folds": 3, "test": Path("a.csv")}])
def test_folds_go_alone(tiny_run: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="--folds needs two or more, makes its own rows to test on"):
        run(tmp_path, tiny_run, **how)
    assert not (tmp_path / "run").exists()


def test_shots_are_drawn_by_the_seed_and_that_is_said(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dev.csv").write_text(CLASSES, encoding="utf-8")
    run(tmp_path, tiny_run, "train.shots=2", "train.seed=7", "train.doctor=off", quiet=False, dev=tmp_path / "dev.csv")
    said = capfd.readouterr().err
    assert "2 rows of each class are drawn with seed 7\n" in said
    assert "4 rows to learn from, 10 dev, 0 test" in said
    with pytest.raises(ConfigError, match="choose one of them"):
        load(config_class("classify"), sets=["train.shots=2", "train.rows=5"])


def test_texts_to_be_written_are_no_classes() -> None:
    with pytest.raises(ConfigError, match="--shots"):
        few(rows([References((f"text {n}",)) for n in range(9)]), 2, 1)
    multi = rows([("a", "b"), ("a",), ("b",)] * 3)
    assert len(few(multi, 1, 1)[0]) < 9
