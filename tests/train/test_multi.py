"""Several tasks on one encoder: each is learned, scored and saved as if it were alone, and their encoder is one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from bertsmith.cli.main import main
from bertsmith.core.bundle import Bundle
from bertsmith.core.config import layered, load
from bertsmith.core.errors import BundleError, ConfigError, DataError
from bertsmith.core.events import read_metrics
from bertsmith.evaluate.score import evaluate
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import join
from bertsmith.model.views import Shared, view
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Example, collate
from bertsmith.tasks.classification import Classification
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.catalogue import read_run
from bertsmith.train.feed import ExampleFeed, TaskFeed
from bertsmith.train.loop import Step, steps
from bertsmith.train.multi import check_multi, finetune_multi, multi_class

NAMES, PLACES, COLOURS = ["Anna", "Bert", "Clara", "David"], ["London", "Paris", "Rome"], ["red", "old", "new", "green"]
ROWS = {
    "reviews": ("classify", "a.csv", "text,label\n" + "".join(
        f"{n} reads the {c} book,{n.lower()}\n" for n in NAMES[:2] for c in [*COLOURS, "blue"]
    )),
    "names": ("tag", "a.conll", "\n\n".join(
        f"{n} B-PER\nis O\nin O\n{p} B-LOC" for n in NAMES for p in PLACES
    ) + "\n"),
    "stars": ("classify", "b.csv", "text,label\n" + "".join(
        f"{n} reads the {c} book,{i + 0.5}\n" for i, n in enumerate(NAMES) for c in COLOURS[:3]
    )),
    "pairs": ("match", "c.csv", "text,pair,label\n" + "".join(
        f"{a} reads,{b} reads,{'yes' if a == b else 'no'}\n" for a in NAMES[:3] for b in NAMES[:3]
    )),
    "answers": ("answer", "d.jsonl", "\n".join(
        json.dumps({"question": f"Where is {n}?", "context": f"{n} is in {p}, not in Oslo.", "answers": [p]})
        for n in NAMES for p in PLACES
    )),
    "relations": ("relate", "e.jsonl", "\n".join(
        json.dumps({"text": f"<e1>{n}</e1> {verb} <e2>{p}</e2>!", "relation": verb})
        for n in NAMES[:2] for verb in ("paints", "builds") for p in PLACES
    )),
    "choices": ("choose", "f.jsonl", "\n".join(
        json.dumps({"context": f"{n} is in {p}", "question": "where", "choices": [p, "Oslo"], "label": 0})
        for n in NAMES for p in PLACES
    )),
    "written": ("generate", "g.jsonl", "\n".join(
        json.dumps({"source": f"{n} {p}", "target": f"{n} is in {p}"}) for n in NAMES for p in PLACES
    )),
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "pairs": {"mode": "bi"},
    "names": {"head": "crf"},
    "relations": {"marks": ["a", "b", "c", "d"]},  # the toy vocabulary has no others
    "written": {"max_target": 8, "label_smoothing": 0},
}
FAST = ("train.lr=5e-3", "train.batch_size=8", "train.dropout=0", "train.doctor=off", "train.evaluations=1")


def sections(folder: Path, *names: str, **changes: Any) -> dict[str, Any]:
    """What a TOML file says of these tasks, whose rows are written into the folder; dev is train."""
    found = {}
    for name in names:
        task, file, text = ROWS[name]
        (folder / file).write_text(text, encoding="utf-8")
        path = str(folder / file)
        found[name] = {"task": task, "data": path, "dev": path, "max_length": 48, **MORE.get(name, {}), **changes}
    return {"tasks": found}


def run(out: Path, start: Path, values: dict[str, Any], *sets: str, **how: Any) -> dict[str, Bundle]:
    config = load(multi_class(values), base=values, sets=[*FAST, *sets])
    return finetune_multi(out, config, start=start, **{"quiet": True, "threads": 1, **how})


def test_rows_of_two_tasks_are_learned_by_heart_on_one_encoder(tiny_run: Path, tmp_path: Path) -> None:
    values = sections(tmp_path, "reviews", "names", head="token")
    del values["tasks"]["reviews"]["head"]
    more = ("train.precision=fp32", "train.evaluations=4")
    bundles = run(tmp_path / "run", tiny_run, values, "train.steps=500", "train.lr=1e-3", *more)
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["dev"]
    assert list(bundles) == ["reviews", "names"]
    assert scores["mean"] == fmean([scores["reviews/accuracy"], scores["names/f1"]]) > 0.98
    first, second = (bundle.tensors() for bundle in bundles.values())
    encoder = [name for name in first if name.startswith("bert.") and "pooler" not in name]
    assert len(encoder) > 10
    assert all(torch.equal(first[name], second[name]) for name in encoder)
    assert set(second) - set(encoder) == {"classifier.weight", "classifier.bias"}
    for name, bundle in bundles.items():
        predictor = Predictor(Bundle.open(tmp_path / "run" / "bundle" / name), device="cpu", precision="fp32")
        found = evaluate(predictor, Path(values["tasks"][name]["data"])).scores
        told = {key.removeprefix(f"{name}/"): value for key, value in scores.items() if key.startswith(f"{name}/")}
        assert dict(found) == pytest.approx(told)
        assert bundle.meta["scores"]["dev"] == pytest.approx(told)
        assert bundle.meta["lineage"]["parent"] == Bundle.open(tiny_run).hash
        assert bundle.meta["splits"]["train"]["rows"] == (10 if name == "reviews" else 12)
        card = (bundle.path / "README.md").read_text(encoding="utf-8")
        assert f"| one encoder with | `{'names' if name == 'reviews' else 'reviews'}` |" in card
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Samples: reviews" in page
    assert "Samples: names" in page
    assert "Dev mean" in page


def test_any_tasks_go_together_and_each_bundle_answers(tiny_run: Path, tmp_path: Path) -> None:
    values = sections(tmp_path, *ROWS)
    bundles = run(tmp_path / "run", tiny_run, values, "train.steps=16", "train.temperature=1e6", "train.accumulation=2")
    lines = read_metrics(tmp_path / "run")
    turns = Counter(
        key.split("/")[1] for line in lines for key in line if key.endswith("/loss") and key.count("/") == 2
    )
    assert set(turns) == set(ROWS)
    assert max(turns.values()) <= 3
    for name, bundle in bundles.items():
        assert bundle.task == ROWS[name][0]
        predictor = Predictor(bundle, device="cpu")
        assert predictor.task is not None
        rows = predictor.task.rows(Path(values["tasks"][name]["data"]), predictor.tally)
        assert len(predictor.examples(rows)) == len(rows)
        assert f"{name}/{bundle.meta['headline']}" in json.loads((tmp_path / "run" / "scores.json").read_text())["dev"]


@pytest.mark.parametrize("sets", [(), ("train.r_drop=1", "train.dropout=0.1"), ("train.ema=0.9",)], ids=str)
def test_it_resumes_to_the_same_weights(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sets: tuple[str, ...]
) -> None:
    values = sections(tmp_path, "reviews", "stars", "relations")
    asked = ("train.steps=9", "train.evaluations=3", "train.checkpoint_every=2steps", "train.accumulation=2", *sets)
    whole = run(tmp_path / "a", tiny_run, values, *asked)
    real = steps

    def stops(*arguments: Any, **how: Any) -> Iterator[Step]:
        for step in real(*arguments, **how):
            yield step
            if step.number == 5:
                raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr("bertsmith.train.practice.steps", stops)
        with pytest.raises(OSError, match="no power"):
            run(tmp_path / "b", tiny_run, values, *asked)
    again = run(tmp_path / "b", tiny_run, values, *asked, resume=True)
    assert {name: bundle.hash for name, bundle in again.items()} == {
        name: bundle.hash for name, bundle in whole.items()
    }
    assert len({bundle.hash for bundle in again.values()}) == 3
    finished = run(tmp_path / "b", tiny_run, values, *asked, resume=True)
    assert finished["stars"].hash == whole["stars"].hash


def test_the_best_mean_is_kept_and_patience_ends_a_run(tiny_run: Path, tmp_path: Path) -> None:
    values = sections(tmp_path, "reviews", "relations")
    asked = ("train.steps=400", "train.evaluations=100", "train.patience=3", "train.lr=2e-3")
    bundles = run(tmp_path / "run", tiny_run, values, *asked)
    logged = {line["step"]: line["eval/mean"] for line in read_metrics(tmp_path / "run") if "eval/mean" in line}
    last, kept = max(logged), bundles["relations"].meta["lineage"]["steps"]
    assert last < 400
    assert last - kept == 3 * 4
    assert logged[kept] == max(logged.values())
    values = sections(tmp_path, "reviews", "stars")
    other = run(tmp_path / "other", tiny_run, values, "train.steps=8", "train.metric=stars/mse", "train.evaluations=4")
    errors = {line["step"]: line["eval/stars/mse"] for line in read_metrics(tmp_path / "other") if "eval/mean" in line}
    assert errors[other["reviews"].meta["lineage"]["steps"]] == min(errors.values())
    with pytest.raises(ConfigError, match=r"train\.metric 'accuracy' is not one of mean, reviews/accuracy"):
        run(tmp_path / "none", tiny_run, values, "train.metric=accuracy")


def test_seeds_give_mean_and_deviation_of_each_task(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = sections(tmp_path, "reviews", "names")
    values["tasks"]["reviews"]["test"] = values["tasks"]["reviews"]["data"]
    out = tmp_path / "run"
    bundles = run(out, tiny_run, values, "train.steps=4", seeds=[1, 2], quiet=False)
    said = capfd.readouterr().err
    each = [json.loads((out / f"seed-{n}" / "scores.json").read_text())["dev"] for n in (1, 2)]
    table = json.loads((out / "scores.json").read_text())
    for score in ("mean", "reviews/accuracy", "names/f1"):
        values_of = [one[score] for one in each]
        assert table["dev"][score] == {"mean": fmean(values_of), "sd": stdev(values_of), "each": values_of}
        assert f"dev {score}: {fmean(values_of):.4f} ± {stdev(values_of):.4f} over 2 seeds" in said
    assert "mean" not in table["test"], "one of the tasks has no test rows"
    assert f"test reviews/accuracy: {table['test']['reviews/accuracy']['mean']:.4f}" in said
    assert bundles["names"].meta["seeds"]["scores"]["dev"]["f1"] == table["dev"]["names/f1"]
    assert "accuracy" not in bundles["names"].meta["seeds"]["scores"]["dev"]
    best = max((1, 2), key=lambda n: each[n - 1]["mean"])
    assert bundles["names"].hash == Bundle.open(out / f"seed-{best}" / "bundle" / "names").hash
    listed = read_run(out, "run")
    assert (listed.task, listed.state, list(listed.headline)) == ("multi", "finished", ["mean"])
    assert listed.score().startswith("mean ")


def test_a_small_part_and_a_smaller_vocabulary_are_shared_too(tiny_run: Path, tmp_path: Path) -> None:
    values = sections(tmp_path, "reviews", "names")
    values["tasks"]["names"]["head"] = "token"
    tuned = run(tmp_path / "tuned", tiny_run, values, "train.steps=6", "peft.method=lora", seeds=[3])
    first, second = (bundle.tensors() for bundle in tuned.values())
    same = [name for name in first if "lora" in name]
    assert same
    assert all(any(torch.equal(first[name], value) for value in second.values()) for name in same)
    assert len(Predictor.open(tmp_path / "tuned" / "bundle" / "names", device="cpu")(["Anna is in Rome"])) == 1
    cut = run(tmp_path / "cut", tiny_run, values, "train.steps=2", "train.shrink_vocab=true")
    one, other = (Tokenizer.load(bundle.path) for bundle in cut.values())
    whole = Tokenizer.load(Bundle.open(tiny_run).path)
    assert one.hash == other.hash != whole.hash
    for word in ("reads", "rome"):  # of one task each
        assert {whole.tokens[i] for i in whole.encode([word])[0].ids} <= set(one.tokens)


def test_transformers_opens_each_bundle(tiny_run: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    values = sections(tmp_path, "reviews", "names", head="token")
    del values["tasks"]["reviews"]["head"]
    bundles = run(tmp_path / "run", tiny_run, values, "train.steps=4", "train.precision=fp32")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(bundles["reviews"].path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bundles["reviews"].path)
    with torch.no_grad():
        chances = theirs(**tokenizer("Anna reads the red book", return_tensors="pt")).logits.softmax(-1)[0]
    ours = Predictor(bundles["reviews"], device="cpu", precision="fp32")("Anna reads the red book")
    assert list(ours["probabilities"].values()) == pytest.approx(chances.tolist(), abs=1e-5)
    tagger = transformers.AutoModelForTokenClassification.from_pretrained(bundles["names"].path)
    assert tagger.config.id2label == dict(enumerate(bundles["names"].labels))


def feed(rows: int, batch_size: int, heads: str, tokenizer: Tokenizer) -> ExampleFeed:
    task = Classification(tokenizer)
    encodings = task.encode([Example({"text": "the film " * (n % 3 + 1)}) for n in range(rows)])
    return ExampleFeed(encodings, seed=1, batch_size=batch_size, heads=heads)


def test_shares_follow_the_temperature_and_each_task_goes_over_its_rows(toy_tokenizer: Tokenizer) -> None:
    def feeds() -> list[ExampleFeed]:
        return [feed(rows, 4, name, toy_tokenizer) for name, rows in (("a", 160), ("b", 40), ("c", 10))]

    assert TaskFeed(feeds(), 1.0).shares == pytest.approx([16 / 21, 4 / 21, 1 / 21])
    assert TaskFeed(feeds(), 2.0).shares == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert TaskFeed(feeds(), 1e9).shares == pytest.approx([1 / 3] * 3)
    mixed = TaskFeed(feeds(), 2.0)
    assert mixed.steps_per_epoch == 40 + 10 + 3
    found = [mixed(step) for step in range(140)]
    assert Counter(batches[0].heads for batches in found) == {"a": 80, "b": 40, "c": 20}
    for alone in feeds():
        own = [batches for batches in found if batches[0].heads == alone.heads]
        for step, batches in enumerate(own):
            (batch,), (expected,) = batches, alone(step)
            assert batch.input_ids.tolist() == expected.input_ids.tolist()
    mixed.halve()
    assert [len(mixed(step)) for step in range(7)] == [2] * 7
    assert join(mixed(0)).heads == mixed(0)[0].heads


def test_one_encoder_learns_from_all_heads_and_is_saved_once(toy_shape: ModelConfig, toy_tokenizer: Tokenizer) -> None:
    kinds = {"one": Heads(classify=3), "two": Heads(classify=2), "three": Heads(tag=4, crf=True)}
    alone = {name: Model(toy_shape, heads, seed=n) for n, (name, heads) in enumerate(kinds.items())}
    first = {name: value.clone() for name, value in alone["one"].state_dict().items()}
    model = Shared(alone.items())
    names = list(model.state_dict())
    assert len(names) == len(set(names)) == len(list(model.named_parameters()))
    assert sum(name.startswith("encoder.") for name in names) == len(list(model.encoder.named_parameters()))
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items() if name in first)
    batch = collate(Classification(toy_tokenizer).encode([Example({"text": "the film"}), Example({"text": "bad"})]))
    for name, heads in kinds.items():
        plain = Model(toy_shape, heads)
        plain.load_state_dict(view(model, name).state_dict())
        outputs = model.eval()(replace(batch, heads=name))
        assert all(torch.equal(outputs[key], value) for key, value in plain.eval()(batch).items())
        model.zero_grad()
        sum(value.sum() for value in outputs.values()).backward()  # type: ignore[union-attr]
        moved = {
            key for key, value in model.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0
        }
        assert "encoder.embeddings.word.weight" in moved
        assert {key.split(".")[1] for key in moved if key.startswith("head.")} == {f"of_{name}"}
    model.train()
    assert all(one.training for one in model.views.values())


GOOD = {"task": "classify", "data": "a.csv"}
BAD = {
    "nothing": ({}, r"there is no section \[tasks\.NAME\]; write one for each task .*\n\[tasks\.reviews\]"),
    "no tasks.": ({"reviews": GOOD, "names": GOOD}, r"did you mean \[tasks\.reviews\] instead of \[reviews\]\?"),
    "one": ({"tasks": {"reviews": GOOD}}, r"tasks\.reviews: the only task; multi needs two"),
    "no task": ({"tasks": {"a": GOOD, "b": {"data": "a.csv"}}}, r"tasks\.b: does not say which task it is; task"),
    "misspelt key": ({"tasks": {"a": GOOD, "b": {"tsak": "tag"}}}, r"did you mean 'task' instead of 'tsak'\?"),
    "misspelt task": ({"tasks": {"a": GOOD, "b": {"task": "clasify"}}}, r"tasks\.b: there is no task 'clasify'; did"),
    "pretraining": ({"tasks": {"a": GOOD, "b": {"task": "pretraining"}}}, r"tasks\.b: pretraining is not a task to"),
    "no section": ({"tasks": {"a": GOOD, "b": "tag"}}, r"tasks\.b: no section; write it like this"),
    "a path": ({"tasks": {"a": GOOD, "b/c": GOOD}}, r"tasks\.b/c: this name is none: it must begin with a letter"),
    "taken": ({"tasks": {"a": GOOD, "copy": GOOD}}, r"tasks\.copy: this name is taken; choose another"),
    "one folder": ({"tasks": {"RTE": GOOD, "rte": GOOD}}, r"tasks\.rte: as a folder the same as tasks\.RTE"),
}  # fmt: skip


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD)
def test_sections_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        multi_class(values)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "max_lenght = 64",
            r"tasks\.toml:4: unknown setting 'tasks\.a\.max_lenght'; did you mean 'tasks\.a\.max_l",
        ),
        ("max_length = 2", r"tasks\.toml:4: setting 'tasks\.a\.max_length': .*\(it is 2\)"),
        ("data = 3", r"Cannot overwrite a value"),
        ("[tasks.a]", r"not valid TOML: Cannot declare \('tasks', 'a'\) twice"),
        ("[tasks.c]\ntask = 'tag'", r"setting 'tasks\.c\.data' is needed; give it with --set tasks\.c\.data=…"),
    ],
    ids=["misspelt", "too short", "key twice", "name twice", "no data"],
)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "tasks.toml"
    head = '[tasks.a]\ntask = "classify"\ndata = "a.csv"\n'
    file.write_text(head + line + '\n[tasks.b]\ntask = "tag"\ndata = "b.conll"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load(multi_class(layered(file=file)), file=file)


def test_rows_are_looked_at_without_training(tmp_path: Path) -> None:
    values = sections(tmp_path, "reviews", "names")
    found = check_multi(load(multi_class(values), base=values))
    assert {name: one.rows for name, one in found.items()} == {
        "reviews": {"train": 10, "dev": 10}, "names": {"train": 12, "dev": 12}
    }  # fmt: skip
    assert "leak" in {finding.kind for finding in found["names"].findings}


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert not ended.value.code, words


def test_the_command_line(tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    values = sections(tmp_path, "reviews", "names")
    del values["tasks"]["names"]["dev"]
    file, out = tmp_path / "tasks.toml", tmp_path / "run"
    lines = [
        f"[tasks.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
        for name, section in values["tasks"].items()
    ]
    file.write_text("\n".join(lines) + "[train]\nevaluations = 1\n", encoding="utf-8")
    asked = ["finetune", "multi", "--config", file, "--from", tiny_run, "--out", out, "--threads", 1]
    command(*asked, "--steps", 3, "--json", "--skip-bad-rows")
    shown = capfd.readouterr()
    told = json.loads(shown.out)
    assert set(told) == {"reviews", "names"}
    assert told["names"]["bundle"] == str(out / "bundle" / "names")
    assert "names: no --dev: 1 of 12 rows are held out" in shown.err
    assert "updates: reviews 49%, names 51% (train.temperature=2); weights are kept by dev mean" in shown.err
    command("finetune", "multi", "--from", tiny_run, "--out", out, "--resume")
    assert "this run is finished" in capfd.readouterr().err
    command("finetune", "multi", "--config", file, "--check", "--json")
    assert json.loads(capfd.readouterr().out)["names"]["rows"] == {"train": 12}
    command("evaluate", out / "bundle" / "names", "--data", values["tasks"]["names"]["data"], "--json")
    assert json.loads(capfd.readouterr().out)["task"] == "tag"
    with pytest.raises(
        BundleError, match=r"holds a bundle for each of several tasks; name one of them: .*bundle/names, "
    ):
        Bundle.open(out)
    for words in (["--data", "a.csv"], ["--folds", "3"], ["--text-column", "body"]):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in [*asked, *words]])
        assert ended.value.code == 2
        assert f"{words[0]} is for a single task; with multi, " in capfd.readouterr().err


def test_an_error_about_one_of_the_tasks_names_its_section(tiny_run: Path, tmp_path: Path) -> None:
    values = sections(tmp_path, "reviews", "stars")
    values["tasks"]["stars"]["max_length"] = 256
    with pytest.raises(ConfigError, match=r"tasks\.stars\.max_length is 256, .* --set tasks\.stars\.max_length=64"):
        run(tmp_path / "run", tiny_run, values)
    values["tasks"]["stars"] |= {"max_length": 32, "label_column": "star"}
    with pytest.raises((ConfigError, DataError), match=r"b\.csv.*there is no column 'star'"):
        run(tmp_path / "other", tiny_run, values)
    values["tasks"]["stars"]["label_column"] = "label"
    with pytest.raises(ConfigError, match=r"train\.label_smoothing does not suit classify: this task learns numbers"):
        run(tmp_path / "third", tiny_run, values, "train.label_smoothing=0.1")
