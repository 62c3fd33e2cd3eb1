"""Replaced-token detection as an objective: its loss by hand, what it leaves out, and that a run is exact."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.core.events import read_metrics
from bertsmith.corpus.store import Store
from bertsmith.model.config import ModelConfig
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.feed import PretrainingFeed, evaluation_batches, idle
from bertsmith.train.pretrain import PretrainConfig, pretrain

REPLACED = {"task.objective": "replaced"}


def settings(tiny: dict[str, object], **changes: Any) -> PretrainConfig:
    values = tiny | REPLACED | {key.replace("__", "."): value for key, value in changes.items()}
    return load(PretrainConfig, sets=[f"{key}={value}" for key, value in values.items()])


@pytest.fixture(scope="module")
def ground(
    small_text: Path, toy_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Store]:
    folder = tmp_path_factory.mktemp("store")
    return toy_tokenizer, prepare([str(small_text)], toy_tokenizer, folder / "store", lambda line: None)


def feed_of(ground: tuple[Tokenizer, Store], parts: int = 1, **changes: Any) -> PretrainingFeed:
    tokenizer, store = ground
    task = Pretraining(tokenizer, PretrainingConfig(max_length=32, objective="replaced", **changes))
    return PretrainingFeed(task, store, task.rows(store)[0], seed=3, batch_tokens=512, parts=parts)


@pytest.fixture(scope="module")
def model(ground: tuple[Tokenizer, Store], toy_shape: ModelConfig) -> Model:
    return Model(toy_shape, feed_of(ground).task.head(toy_shape), seed=0).eval()


def test_the_loss_is_that_of_the_paper(ground: tuple[Tokenizer, Store], model: Model) -> None:
    """Mean over masked pieces, plus 50 times the mean over all tokens, plus the mean over pairs; token by token."""
    feed = feed_of(ground, generator_size=0.5)
    (batch,) = feed(4)
    with torch.no_grad():
        outputs = model(batch)
    loss = feed.task.loss(outputs, batch)
    rtd, right, found = 0.0, 0, 0
    for logit, replaced in zip(outputs["rtd"].tolist(), outputs["replaced"].tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        rtd -= math.log(probability if replaced else 1 - probability)
        right += (logit > 0) == replaced
        found += logit > 0 and replaced
    many = int(outputs["replaced"].sum())
    assert 0 < many <= len(batch.targets["mlm_labels"])
    pairs = torch.nn.functional.cross_entropy(outputs["nsp"], batch.targets["nsp_labels"])
    expected = outputs["mlm_losses"].mean() + 50 * rtd / batch.num_tokens + pairs
    assert float(loss.total / loss.count) == pytest.approx(float(expected), rel=1e-5)
    parts = {name: float(total) / float(count) for name, (total, count) in loss.parts.items()}
    assert parts["rtd_loss"] == pytest.approx(rtd / batch.num_tokens, rel=1e-5)
    assert parts["rtd_accuracy"] == pytest.approx(right / batch.num_tokens)
    assert parts["rtd_recall"] == pytest.approx(found / many)
    assert parts["rtd_replaced"] == pytest.approx(many / batch.num_tokens)


@pytest.mark.parametrize("parts", [2, 5])
def test_draws_and_weights_do_not_depend_on_how_a_step_is_cut(
    ground: tuple[Tokenizer, Store], model: Model, parts: int
) -> None:
    (whole,), cut = feed_of(ground)(7), feed_of(ground, parts)(7)
    assert torch.equal(whole.targets["mlm_draws"], torch.cat([batch.targets["mlm_draws"] for batch in cut]))
    task = feed_of(ground).task
    with torch.no_grad():
        losses = [task.loss(model(batch), batch) for batch in cut]
        one = task.loss(model(whole), whole)
    assert float(sum(loss.total for loss in losses)) == pytest.approx(float(one.total), rel=1e-5)
    for name, (total, count) in one.parts.items():
        assert float(sum(float(loss.parts[name][0]) for loss in losses)) == pytest.approx(float(total), rel=1e-5)
        assert sum(int(loss.parts[name][1]) for loss in losses) == int(count)


def test_draws_are_a_function_of_seed_and_step(ground: tuple[Tokenizer, Store]) -> None:
    feed = feed_of(ground)
    draws = [feed(step)[0].targets["mlm_draws"] for step in (2, 9, 2)]
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][:9], draws[1][:9])
    assert 0 <= float(draws[0].min()) < 0.05
    assert 0.95 < float(draws[0].max()) < 1


def test_what_is_hidden_is_that_of_other_runs(ground: tuple[Tokenizer, Store]) -> None:
    tokenizer, store = ground
    tasks = [
        Pretraining(tokenizer, PretrainingConfig(max_length=32, **more)) for more in ({}, {"objective": "replaced"})
    ]
    found = [evaluation_batches(task, store, task.rows(store)[1], 512) for task in tasks]
    for plain, other in zip(*found, strict=True):
        assert torch.equal(plain.input_ids, other.input_ids)
        assert torch.equal(plain.targets["mlm_positions"], other.targets["mlm_positions"])


def test_a_rank_with_nothing_to_do_adds_nothing(ground: tuple[Tokenizer, Store], model: Model) -> None:
    feed = feed_of(ground)
    batch = idle(feed(1)[0])
    loss = feed.task.loss(model(batch), batch)
    assert loss.count == 0
    assert float(loss.total.detach()) == 0
    assert all(float(total) == 0 and int(count) == 0 for total, count in loss.parts.values())
    model.zero_grad()
    loss.total.backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_a_run_learns_and_leaves_an_encoder(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    config = settings(tiny, train__steps=150, train__lr=3e-3, task__pairs="none", task__eval_share=0.2)
    bundle = pretrain([str(small_text)], tmp_run, config, quiet=True, threads=1)
    lines = [line for line in read_metrics(tmp_run) if "eval/rtd_loss" in line]
    assert lines[-1]["eval/mlm_loss"] < 0.9 * lines[0]["eval/mlm_loss"], "the generator learns"
    last = lines[-1]
    uninformed = last["eval/rtd_replaced"]
    entropy = -uninformed * math.log(uninformed) - (1 - uninformed) * math.log(1 - uninformed)
    assert last["eval/rtd_loss"] < 0.9 * entropy, "the encoder does better than the share of replaced tokens tells"
    assert bundle.config["architectures"] == ["ElectraForPreTraining"]
    report = (tmp_run / "report.html").read_text(encoding="utf-8")
    assert "held-out MLM loss of the generator" in report
    assert "of the replaced, found" in report
    with pytest.raises(BundleError, match="no mlm head, so it cannot fill in masks"):
        Predictor(bundle, device="cpu").fill_mask(["Anna [MASK] the book."])


def test_a_stopped_run_goes_on_to_the_bit(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bertsmith.train import course

    changes = {"train__steps": 12, "train__checkpoint_every": "5steps", "train__average": 0.5}
    changes |= {"model__hidden_dropout": 0.1}
    whole = pretrain([str(small_text)], tmp_path / "whole", settings(tiny, **changes), quiet=True, threads=1)
    real = course.steps

    def stop_in_the_eighth(*given: Any, **named: Any) -> Any:
        for step in real(*given, **named):
            if step.number == 8:
                raise RuntimeError("pulled the plug")
            yield step

    monkeypatch.setattr(course, "steps", stop_in_the_eighth)
    with pytest.raises(RuntimeError, match="plug"):
        pretrain([str(small_text)], tmp_path / "cut", settings(tiny, **changes), quiet=True, threads=1)
    monkeypatch.undo()
    config = settings(tiny, **changes)
    cut = pretrain([str(small_text)], tmp_path / "cut", config, quiet=True, threads=1, resume=True)
    for name in ("model.safetensors", "generator.safetensors"):
        assert (whole.path / name).read_bytes() == (cut.path / name).read_bytes()
    one, two = (
        [{k: v for k, v in line.items() if k.startswith(("train/", "eval/"))} for line in read_metrics(tmp_path / name)]
        for name in ("whole", "cut")
    )
    assert one == two


def test_two_ranks_take_the_same_steps(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], command_line: Callable[..., Any]
) -> None:
    values = tiny | REPLACED | {"train.precision": "fp32", "train.stages": "[]"}
    sets = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        words = ["--steps", 20, "--nproc", ranks, "--threads", 1, *sets]
        done = command_line("pretrain", small_text, "--out", out, *words)
        assert done.returncode == 0, done.stderr
    one, two = (read_metrics(tmp_path / name) for name in ("1", "2"))
    for name in ("train/loss", "train/mlm_loss", "train/rtd_loss", "train/rtd_replaced", "eval/rtd_accuracy"):
        found = [line[name] for line in two if name in line]
        assert len(found) > 1
        assert found == pytest.approx([line[name] for line in one if name in line], abs=2e-5), name
    theirs, ours = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("1", "2"))
    assert all((theirs[name] - ours[name]).abs().max() < 1e-4 for name in theirs)


def test_a_run_goes_on_with_its_generator(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    changes = {"train__steps": 30, "train__evaluations": 3, "train__lr": 3e-3}
    first = settings(tiny, **changes, train__checkpoint_every="10steps", train__keep_last=5)
    kept = pretrain([str(small_text)], tmp_path / "first", first, quiet=True, threads=1).meta["scores"]
    further = settings(tiny, train__steps=2, train__lr=1e-6)
    pretrain([str(small_text)], tmp_path / "on", further, start=tmp_path / "first", quiet=True, threads=1)
    on = read_metrics(tmp_path / "on")
    for name in ("mlm_loss", "rtd_loss"):
        assert on[0][f"eval/{name}"] == pytest.approx(kept[name], rel=1e-3)
    table = json.loads((tmp_path / "on" / "scores.json").read_text())["forgetting"]
    assert table[0]["before"]["rtd_loss"] == pytest.approx(kept["rtd_loss"], rel=1e-3)
    start = tmp_path / "first" / "checkpoints" / "step-20"
    pretrain([str(small_text)], tmp_path / "branch", further, start=start, quiet=True, threads=1)
    at_twenty = next(line for line in read_metrics(tmp_path / "first") if line["step"] == 20)
    begun = read_metrics(tmp_path / "branch")[0]
    for name in ("eval/mlm_loss", "eval/rtd_loss"):
        assert begun[name] == pytest.approx(at_twenty[name], rel=1e-3)


def test_objectives_may_follow_each_other(
    tiny_run: Path, small_text: Path, tmp_path: Path, tiny: dict[str, object]
) -> None:
    """From a masked language model to replaced tokens and back: the encoder goes on, the heads are fresh."""
    bundle = pretrain(
        [str(small_text)], tmp_path / "a", settings(tiny, train__steps=2), start=tiny_run, quiet=True, threads=1
    )
    assert bundle.meta["task_config"]["objective"] == "replaced"
    assert bundle.config["architectures"] == ["BertForNextSentencePrediction"], "with pairs it is no ELECTRA"
    masked = settings(tiny, train__steps=2, task__objective="masked")
    again = pretrain([str(small_text)], tmp_path / "b", masked, start=bundle.path, quiet=True, threads=1)
    assert again.config["architectures"] == ["BertForPreTraining"]
    assert not (again.path / "generator.safetensors").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model__architecture": "modernbert", "task__masking": "whole-word", "task__mask_rate": 0.3},
        {"train__stages": "[{share=0.5, max_length=24}, {share=0.5}]", "task__generator_size": 1.0},
        {"train__name": "muon", "train__accumulation": 3},
        {"train__precision": "bf16", "train__metric": "rtd_loss", "train__checkpoint_activations": "true"},
    ],
    ids=["modern", "stages", "muon", "bf16"],
)
def test_other_ways_to_train(small_text: Path, tmp_run: Path, tiny: dict[str, object], changes: dict[str, Any]) -> None:
    bundle = pretrain([str(small_text)], tmp_run, settings(tiny, train__steps=4, **changes), quiet=True, threads=1)
    assert {"mlm_loss", "rtd_loss", "rtd_accuracy", "nsp_loss"} <= bundle.meta["scores"].keys()
    assert all(math.isfinite(value) for value in bundle.meta["scores"].values())
    assert Bundle.open(tmp_run).config["model_type"] == ("modernbert" if "model__architecture" in changes else "bert")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train__stages": '[{share=0.5}, {share=0.5, objective="causal"}]'}, r"train\.stages\[1\].*stages=\[\]"),
        ({"model__tie_word_embeddings": "false"}, r"tie_word_embeddings=false has nothing to untie"),
        ({"probe__minimal_pairs": "pairs.jsonl"}, r"probe\.minimal_pairs asks how probable a sentence is"),
        ({"task__generator_size": 0}, r"'task\.generator_size': .*greater than 0"),
        ({"task__rtd_weight": "nan"}, r"'task\.rtd_weight'"),
        ({"task__objective": "electra"}, r"'task\.objective': .*'masked' or 'replaced'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(tiny: dict[str, object], changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(tiny, **changes)


def test_a_score_of_the_other_objective_cannot_choose(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    config = settings(tiny, task__objective="masked", train__metric="rtd_loss", train__steps=2)
    with pytest.raises(ConfigError, match=r"train\.metric 'rtd_loss' is not measured here; use one of mlm_loss"):
        pretrain([str(small_text)], tmp_run, config, quiet=True, threads=1)
