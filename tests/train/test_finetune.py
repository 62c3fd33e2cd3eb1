"""From a bundle and labelled rows to a model for a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.events import read_metrics
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Example
from bertsmith.train.best import rank
from bertsmith.train.finetune import check, config_class, finetune
from bertsmith.train.loop import Step, steps

NAMES, PLACES = ["Anna", "Bert", "Clara", "David"], ["London", "Paris", "Rome"]
COLOURS = ["red", "old", "new", "green"]
ROWS = {
    "classify": "text,label\n" + "".join(f"{n} reads the {c} book,{n.lower()}\n" for n in NAMES[:2] for c in COLOURS),
    "regression": "text,label\n"
    + "".join(f"{n} reads the {c} book,{i + 0.5}\n" for i, n in enumerate(NAMES) for c in COLOURS[:3]),
    "match": "text,pair,label\n"
    + "".join(f"{a} reads,{b} writes,{'yes' if b == 'Anna' else 'no'}\n" for a in NAMES[:3] for b in NAMES[:2]),
    "answer": "\n".join(
        json.dumps(
            {"question": f"Where is {n}?", "context": f"{n} is in {p}, not in Oslo.", "answers": [p], "title": n}
        )
        for n in NAMES
        for p in PLACES
    ),
    "tag": "\n\n".join(f"{n} B-PER\nis O\nin O\n{p} B-LOC" for n in NAMES for p in PLACES) + "\n",
}
BI = {
    "scores": "text,pair,score\n"
    + "".join(f"{a} reads,{b} reads,{4.5 if a == b else 0.5}\n" for a in NAMES[:3] for b in NAMES[:3]),
    "labels": "text,pair,label\n"
    + "".join(f"{a} reads,{b} reads,{'yes' if a == b else 'no'}\n" for a in NAMES[:3] for b in NAMES[:3]),
    "together": "query,positive,negative\n"
    + "".join(
        f"who reads the {c} book,{n} does,{NAMES[i - 1]} does\n"
        for i, (c, n) in enumerate(zip(COLOURS, NAMES, strict=True))
    ),
}
FAST = ["train.lr=5e-3", "train.batch_size=8", "task.max_length=32", "train.dropout=0"]


def run(task: str, data: Path, out: Path, start: Path, *sets: str, **how: Any) -> Bundle:
    config = load(config_class(task), sets=[*FAST, *sets])
    return finetune(task, data, out, config, start=start, quiet=True, threads=1, **how)


def rows(folder: Path, kind: str) -> Path:
    path = folder / {"tag": "train.conll", "answer": "train.jsonl"}.get(kind, "train.csv")
    path.write_text(ROWS[kind], encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ROWS)
def test_it_learns_a_few_rows_by_heart(tiny_run: Path, tmp_path: Path, kind: str) -> None:
    data = rows(tmp_path, kind)
    task = "classify" if kind == "regression" else kind
    bundle = run(task, data, tmp_path / "run", tiny_run, "train.steps=300", "train.lr=1e-3", dev=data, test=data)
    headline = bundle.meta["headline"]
    assert bundle.task == task
    assert bundle.meta["scores"]["test"][headline] > 0.98
    assert bundle.meta["lineage"]["parent"] == Bundle.open(tiny_run).hash
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Anna" in page
    assert f"Dev {headline}" in page
    assert "hidden_size" in (bundle.path / "config.json").read_text()
    predictor = Predictor(Bundle.open(tmp_path / "run"), device="cpu")
    assert predictor.task is not None
    assert list(predictor.task.labels) == bundle.labels


@pytest.mark.parametrize(("kind", "headline"), [("scores", "spearman"), ("labels", "ap"), ("together", "ndcg@10")])
def test_a_bi_encoder_learns_a_few_rows_by_heart(tiny_run: Path, tmp_path: Path, kind: str, headline: str) -> None:
    data = tmp_path / "train.csv"
    data.write_text(BI[kind], encoding="utf-8")
    sets = ("train.steps=150", "train.lr=1e-3", "task.mode=bi", "train.accumulation=2")
    bundle = run("match", data, tmp_path / "run", tiny_run, *sets, dev=data, test=data)
    scores = bundle.meta["scores"]["test"]
    assert bundle.meta["headline"] == headline
    assert scores[headline] > (0.7 if kind == "scores" else 0.98)  # of ties between equal scores Spearman makes less
    if kind == "labels":
        assert scores["accuracy"] == 1.0
        assert -1 < bundle.meta["task_config"]["threshold"] < 1
    predictor = Predictor(Bundle.open(tmp_path / "run"), device="cpu")
    vectors = predictor.encode(["Anna reads", "Bert reads"])
    assert vectors.shape == (2, bundle.config["hidden_size"])
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "cosine" in page
    assert (bundle.path / "1_Pooling" / "config.json").is_file()
    again = run("match", data, tmp_path / "more", bundle.path, "train.steps=2", "task.mode=bi", dev=data)
    assert again.meta["lineage"]["parent"] == bundle.hash


def test_a_bi_encoder_resumes_to_the_same_weights(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "train.csv"
    data.write_text(BI["labels"], encoding="utf-8")
    sets = ("train.steps=8", "train.evaluations=4", "task.mode=bi", "train.checkpoint_every=3steps")
    whole = run("match", data, tmp_path / "a", tiny_run, *sets, dev=data)
    real = steps

    def stops(*arguments: Any, **how: Any) -> Iterator[Step]:
        for step in real(*arguments, **how):
            yield step
            if step.number == 5:
                raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr("bertsmith.train.practice.steps", stops)
        with pytest.raises(OSError, match="no power"):
            run("match", data, tmp_path / "b", tiny_run, *sets, dev=data)
    resumed = run("match", data, tmp_path / "b", tiny_run, *sets, dev=data, resume=True)
    assert resumed.hash == whole.hash
    assert resumed.meta["task_config"]["threshold"] == whole.meta["task_config"]["threshold"]


def test_a_run_goes_on_with_the_rows_that_it_began_with(tiny_run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path, "classify")
    run("classify", data, tmp_path / "run", tiny_run, "train.steps=2", dev=data)
    data.write_text(ROWS["classify"] + "Anna writes,anna\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"sha256\.data"):
        run("classify", data, tmp_path / "run", tiny_run, "train.steps=2", dev=data, resume=True)


def test_the_best_weights_are_kept_not_the_last(tiny_run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path, "classify")
    dev = tmp_path / "dev.csv"
    dev.write_text(
        "text,label\n" + "".join(f"{n} paints the {c} house,{n.lower()}\n" for n in NAMES[:2] for c in COLOURS)
    )
    bundle = run(
        "classify", data, tmp_path / "run", tiny_run,
        "train.steps=30", "train.evaluations=30", "train.lr=0.3", "train.max_grad_norm=100", dev=dev,
    )  # fmt: skip
    logged = [line["eval/accuracy"] for line in read_metrics(tmp_path / "run")]
    assert len(logged) == 30
    assert bundle.meta["scores"]["dev"]["accuracy"] == max(logged)
    assert bundle.meta["lineage"]["steps"] == 1 + logged.index(max(logged))
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["dev"]["accuracy"] == max(logged)


def test_of_an_error_less_is_better(tiny_run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path, "regression")
    bundle = run("classify", data, tmp_path / "run", tiny_run, "train.steps=20", "train.evaluations=20",
                 "train.metric=mse", dev=data)  # fmt: skip
    logged = [line["eval/mse"] for line in read_metrics(tmp_path / "run")]
    assert bundle.meta["scores"]["dev"]["mse"] == pytest.approx(min(logged), rel=1e-5)


def test_an_undefined_score_never_counts_as_best() -> None:
    assert rank("pearson", {"pearson": float("nan")}) < rank("pearson", {"pearson": -1.0})
    assert rank("mse", {"mse": 2.0}) < rank("mse", {"mse": 1.0})


def test_without_dev_a_tenth_is_held_out_and_that_is_said(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = rows(tmp_path, "tag")
    config = load(config_class("tag"), sets=[*FAST, "train.steps=2"])
    finetune("tag", data, tmp_path / "run", config, start=tiny_run, threads=1)
    shown = capfd.readouterr()
    assert "no --dev: 1 of 12 rows are held out" in shown.err
    assert "11 rows to learn from, 1 dev, 0 test" in shown.err
    assert shown.out == ""


def test_questions_on_one_article_stay_together(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = rows(tmp_path, "answer")
    config = load(config_class("answer"), sets=[*FAST, "train.steps=2", "train.evaluations=1"])
    finetune("answer", data, tmp_path / "run", config, start=tiny_run, threads=1)
    shown = capfd.readouterr().err
    assert "no --dev: 3 of 12 rows, whole articles, are held out" in shown
    assert "9 rows to learn from, 3 dev, 0 test" in shown


def test_the_threshold_that_dev_chose_is_in_the_bundle(tiny_run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path, "answer")
    none = "".join(
        "\n" + json.dumps({"question": f"Where is {n}?", "context": f"Clara is in {p}.", "answers": []})
        for n in NAMES[:2]
        for p in PLACES
    )
    data.write_text(data.read_text() + none)
    bundle = run("answer", data, tmp_path / "run", tiny_run, "train.steps=40", dev=data, test=data)
    config, scores = bundle.meta["task_config"], bundle.meta["scores"]
    assert config["no_answer"] is True
    assert config["threshold"] != 0
    assert scores["dev"]["f1"] == pytest.approx(scores["dev"]["best_f1"])
    assert scores["test"] == pytest.approx(scores["dev"])
    predictor = Predictor(Bundle.open(tmp_path / "run"), device="cpu")
    assert predictor.task is not None
    assert predictor.task.config.threshold == config["threshold"]


def test_seeds_give_mean_and_deviation(tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = rows(tmp_path, "classify")
    out = tmp_path / "run"
    config = load(config_class("classify"), sets=[*FAST, "train.steps=3", "train.lr=1e-3"])
    bundle = finetune("classify", data, out, config, start=tiny_run, dev=data, test=data, seeds=[1, 2, 3], threads=1)
    each = [json.loads((out / f"seed-{s}" / "scores.json").read_text())["test"]["accuracy"] for s in (1, 2, 3)]
    table = json.loads((out / "scores.json").read_text())["test"]["accuracy"]
    assert table == {"mean": fmean(each), "sd": stdev(each), "each": each}
    assert f"test accuracy: {fmean(each):.4f} ± {stdev(each):.4f} over 3 seeds" in capfd.readouterr().err
    dev = [json.loads((out / f"seed-{s}" / "scores.json").read_text())["dev"]["accuracy"] for s in (1, 2, 3)]
    assert bundle.meta["scores"]["dev"]["accuracy"] == max(dev)
    assert (out / "report.html").exists()
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert f"± {stdev(dev):.4f} | " in card
    assert "over the seeds 1, 2, 3" in card
    assert "| test | `train.csv` | 8 |" in card
    assert len({Bundle.open(out / f"seed-{s}").hash for s in (1, 2, 3)}) == 3
    again = finetune("classify", data, out, config, start=tiny_run, dev=data, test=data, resume=True, threads=1)
    assert again.hash == bundle.hash
    with pytest.raises(ConfigError, match=r"seeds: \[1, 2, 3\] before, \[1, 2\] now"):
        finetune("classify", data, out, config, start=tiny_run, seeds=[1, 2], resume=True, threads=1)


def test_a_check_that_ends_early_says_what_it_skipped(tmp_path: Path) -> None:
    data = tmp_path / "open.csv"
    data.write_text('text,label\n"open,good\nx,bad\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"at least two classes\n.*\n  quotation_mark_left_open: 1 \(first: .*csv:2"):
        check("classify", data, load(config_class("classify")))


def test_a_run_learns_from_a_data_set_and_says_which(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "books"
    folder.mkdir()
    data = rows(folder, "classify")
    (folder / "test.csv").write_bytes(data.read_bytes())
    name = f"hf:{folder}:train"
    sets = ("train.steps=2", "train.evaluations=1")
    bundle = run("classify", Path(name), tmp_path / "run", tiny_run, *sets, test=Path(f"hf:{folder}:test"))
    splits = bundle.meta["splits"]
    assert {split: told["rows"] for split, told in splits.items()} == {"train": 7, "dev": 1, "test": 8}
    assert splits["dev"]["held_out"]
    assert splits["train"]["sha256"] == bundle.meta["lineage"]["data"][name] == splits["test"]["sha256"]
    assert str(tmp_path) not in (bundle.path / "README.md").read_text(encoding="utf-8")
    assert len(Predictor.open(tmp_path / "run")([Example({"text": "Anna reads the red book"})])) == 1


def test_random_weights_have_the_bundles_shape_and_not_its_words(tiny_run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path, "classify")
    sets = ("train.steps=1", "train.lr=1e-9")
    kept = run("classify", data, tmp_path / "a", tiny_run, *sets, dev=data)
    fresh = run("classify", data, tmp_path / "b", tiny_run, *sets, "train.init=random", dev=data)
    start = Bundle.open(tiny_run).tensors()["bert.embeddings.word_embeddings.weight"]
    name = "bert.embeddings.word_embeddings.weight"
    assert (kept.tensors()[name] - start).abs().max() < 1e-5
    assert (fresh.tensors()[name] - start).abs().max() > 1e-2
    assert fresh.config["hidden_size"] == kept.config["hidden_size"]
    assert fresh.meta["lineage"]["parent"] is None


def test_patience_ends_a_run(tiny_run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path, "classify")
    sets = ("train.steps=400", "train.evaluations=100", "train.patience=3")
    bundle = run("classify", data, tmp_path / "run", tiny_run, *sets, dev=data)
    last = read_metrics(tmp_path / "run")[-1]["step"]
    assert last < 400
    assert last - bundle.meta["lineage"]["steps"] == 3 * 4


def test_a_score_that_is_not_there_is_refused_before_training(tiny_run: Path, tmp_path: Path) -> None:
    data = rows(tmp_path, "classify")
    with pytest.raises(ConfigError, match=r"train\.metric 'f2' is not one of accuracy, macro_f1"):
        run("classify", data, tmp_path / "run", tiny_run, "train.metric=f2")
    assert read_metrics(tmp_path / "run") == []
    assert run("classify", data, tmp_path / "run", tiny_run, "train.steps=1", "train.metric=macro_f1")


def test_so_many_rows_only(tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = rows(tmp_path, "tag")
    config = load(config_class("tag"), sets=[*FAST, "train.steps=1", "train.rows=5"])
    finetune("tag", data, tmp_path / "run", config, start=tiny_run, dev=data, threads=1)
    assert "5 rows to learn from, 12 dev" in capfd.readouterr().err


def test_a_budget(tiny_run: Path, tmp_path: Path) -> None:
    run("classify", rows(tmp_path, "classify"), tmp_path / "run", tiny_run, "train.budget=3s")
    lines = read_metrics(tmp_path / "run")
    assert 1 <= lines[-1]["step"] == json.loads((tmp_path / "run" / "run.json").read_text())["steps"]


def test_tasks_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'classify'"):
        config_class("clasify")
    with pytest.raises(ConfigError, match="pretraining is not a task to fine-tune on"):
        config_class("pretraining")
