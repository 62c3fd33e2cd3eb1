"""A run in stages: which stage a step is in, what the causal one learns, and that the whole is one run."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from bertsmith.core.config import load, to_toml
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import read_metrics
from bertsmith.model.config import ModelConfig
from bertsmith.model.heads import Model
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.pretraining import Objective, Pretraining, PretrainingConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.feed import PretrainingFeed
from bertsmith.train.pretrain import PretrainConfig, pretrain
from bertsmith.train.stages import StagedFeed, phases

TWO = 'train.stages=[{share=0.25, max_length=24, batch_tokens=128, objective="causal"}, {share=0.75}]'


def feed_of(
    folder: Path, tokenizer: Tokenizer, *, length: int = 32, tokens: int = 128, objective: Objective = "masked"
) -> PretrainingFeed:
    file = folder / "text.txt"
    file.write_text("\n\n".join(f"The film was good {n}. Anna lives in Paris. It is not bad." for n in range(60)))
    task = Pretraining(tokenizer, PretrainingConfig(max_length=length))
    store = prepare([str(file)], tokenizer, folder / f"store-{length}-{tokens}-{objective}", lambda line: None)
    return PretrainingFeed(task, store, task.rows(store)[0], seed=length, batch_tokens=tokens, objective=objective)


def test_each_stage_has_its_share_of_the_steps_and_loses_no_batch(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    feeds = [feed_of(tmp_path, toy_tokenizer, length=24), feed_of(tmp_path, toy_tokenizer, tokens=256)]
    staged = StagedFeed([feeds[0], feeds[1], feeds[0]], [0.5, 0.3, 0.2])
    staged.total = 100
    turns = [staged.turn(step) for step in range(100)]
    assert [sum(stage == wanted for stage, _ in turns) for wanted in range(3)] == [50, 30, 20]
    for wanted, count in enumerate((50, 30, 20)):
        assert [own for stage, own in turns if stage == wanted] == list(range(count))
    assert [stage for stage, _ in turns] == sorted(stage for stage, _ in turns)
    assert staged.tokens_per_step == pytest.approx(0.7 * feeds[0].tokens_per_step + 0.3 * feeds[1].tokens_per_step)
    assert torch.equal(staged(60)[0].input_ids, feeds[1].batches(10, 60 / 99)[0].input_ids)
    assert [share for share, _ in phases(staged)] == [0.5, 0.3, 0.2]


def test_a_run_shorter_than_its_stages_has_those_there_are_steps_for(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    staged = StagedFeed([feed_of(tmp_path, toy_tokenizer)] * 3, [0.2, 0.3, 0.5])
    staged.total = 1
    assert staged.turn(0) == (2, 0)
    assert staged(0)[0].num_tokens


def test_a_causal_batch_asks_for_every_piece_from_what_stands_before_it(
    tmp_path: Path, toy_tokenizer: Tokenizer
) -> None:
    batch = feed_of(tmp_path, toy_tokenizer, objective="causal")(3)[0]
    assert batch.causal
    special = {toy_tokenizer.cls_id, toy_tokenizer.sep_id}
    expected = [
        (at, following) for at, following in enumerate(batch.input_ids.tolist()[1:]) if following not in special
    ]
    assert list(zip(batch.targets["mlm_positions"].tolist(), batch.targets["mlm_labels"].tolist(), strict=True)) == (
        expected
    )
    assert len(expected) > 0.7 * batch.num_tokens
    assert toy_tokenizer.mask_id not in batch.input_ids
    assert (batch.targets["nsp_labels"] == -100).all()


def test_a_share_of_the_pieces_may_be_predicted(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    every = feed_of(tmp_path, toy_tokenizer, objective="causal")
    some = feed_of(tmp_path, toy_tokenizer, objective="causal")
    some.predicted = 0.3
    counts = [[len(feed(step)[0].targets["mlm_positions"]) for step in range(20)] for feed in (every, some)]
    assert 0.2 < sum(counts[1]) / sum(counts[0]) < 0.4
    one, again = some(3)[0], some(3)[0]
    assert torch.equal(one.targets["mlm_positions"], again.targets["mlm_positions"])
    assert torch.equal(one.targets["mlm_labels"], one.input_ids[one.targets["mlm_positions"] + 1])
    assert len({tuple(some(step)[0].targets["mlm_positions"].tolist()) for step in range(5)}) == 5


def test_the_causal_loss_does_not_know_the_future(
    tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig
) -> None:
    feed = feed_of(tmp_path, toy_tokenizer, objective="causal")
    batch = feed(0)[0]
    model = Model(toy_shape, feed.task.head(toy_shape), seed=0).eval()
    before = model(batch)["mlm_losses"]
    last = int(batch.cu_seqlens[1]) - 2
    changed = batch.input_ids.clone()
    changed[last] = (changed[last] + 1) % toy_tokenizer.vocab_size
    batch.input_ids.copy_(changed)
    after = model(batch)["mlm_losses"]
    earlier = batch.targets["mlm_positions"] < last
    assert torch.allclose(before[earlier], after[earlier], atol=1e-6)
    parts = feed.task.loss(model(batch), batch).parts
    assert parts.keys() == {"clm_loss", "clm_accuracy"}


def test_a_run_in_stages(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    config = load(PretrainConfig, sets=[*(f"{key}={value}" for key, value in tiny.items()), "train.steps=40", TWO])
    (tmp_run.parent / "again.toml").write_text(to_toml(config), encoding="utf-8")
    assert load(PretrainConfig, file=tmp_run.parent / "again.toml") == config
    pretrain([str(small_text)], tmp_run, config, quiet=True, threads=1)
    lines = read_metrics(tmp_run)[1:]
    assert ["train/clm_loss" in line for line in lines] == [True] * 10 + [False] * 30
    assert ["train/mlm_loss" in line for line in lines] == [False] * 10 + [True] * 30
    sizes = [now["tokens"] - before["tokens"] for before, now in zip(read_metrics(tmp_run), lines, strict=False)]
    assert max(sizes[:10]) <= 128 < max(sizes[10:])
    assert all("eval/mlm_loss" in line for line in lines if "eval/nsp_loss" in line)
    assert lines[-1]["eval/mlm_loss"] < read_metrics(tmp_run)[0]["eval/mlm_loss"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[{share=0.5}, {share=0.3}]", r"'train\.stages': .*add up to 0\.8"),
        ("[{share=0.5}, {share=1.5}]", r"--set train\.stages.*'train\.stages\[1\]\.share': .*less than or equal to 1"),
        ("[{share=1, length=32}]", r"unknown setting 'train\.stages\[0\]\.length'.*'train\.stages\[0\]\.max_length'"),
        ("[{max_length=32}]", r"'train\.stages\[0\]\.share' is needed"),
    ],
)
def test_stages_that_make_no_sense_are_refused(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(PretrainConfig, sets=[f"train.stages={value}"])


def test_a_stage_longer_than_what_is_measured_is_refused(
    small_text: Path, tmp_run: Path, tiny: dict[str, object]
) -> None:
    sets = [*(f"{key}={value}" for key, value in tiny.items()), "train.stages=[{share=1, max_length=256}]"]
    with pytest.raises(ConfigError, match=r"max_length 256 is more than task\.max_length \d+"):
        pretrain([str(small_text)], tmp_run, load(PretrainConfig, sets=sets), quiet=True, threads=1)


MIXED = "train.stages=[{share=1, causal_share=0.25, predicted=0.5}]"


def test_two_objectives_share_the_tokens_of_a_stage(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    sets = [f"{key}={value}" for key, value in (tiny | {"train.steps": 40, "train.evaluations": 1}).items()]
    config = load(PretrainConfig, sets=[*sets, MIXED, "train.warmup=7steps"])
    pretrain([str(small_text)], tmp_path / "run", config, quiet=True, threads=1)
    lines = read_metrics(tmp_path / "run")[1:]
    assert [line["lr"] for line in lines].index(max(line["lr"] for line in lines)) == 7
    causal = ["train/clm_loss" in line for line in lines]
    assert all(("train/mlm_loss" in line) is not kind for line, kind in zip(lines, causal, strict=True))
    assert sum(causal) == pytest.approx(10, abs=2)
    assert all(not (one and other) for one, other in pairwise(causal)), "the two take turns"


def test_a_mixture_goes_on_to_the_same_bits_and_branches_behind_what_was_read(
    small_text: Path, tmp_path: Path, tiny: dict[str, object]
) -> None:
    usual = {"train.schedule": "constant", "train.warmup_ratio": 0, "train.evaluations": 1, "train.keep_every": 6}
    sets = [f"{key}={value}" for key, value in (tiny | usual | {"train.checkpoint_every": "6steps"}).items()]
    for steps in (12, 7):
        config = load(PretrainConfig, sets=[*sets, MIXED, f"train.steps={steps}"])
        pretrain([str(small_text)], tmp_path / str(steps), config, quiet=True, threads=1)
    whole = [line["train/loss"] for line in read_metrics(tmp_path / "12")[1:]]
    assert [line["train/loss"] for line in read_metrics(tmp_path / "7")[1:]] == whole[:7]
    start, store = tmp_path / "12" / "checkpoints" / "step-6", [str(tmp_path / "12" / "store")]
    config = load(PretrainConfig, sets=[*sets, MIXED, "train.steps=6"])
    pretrain(store, tmp_path / "branch", config, start=start, quiet=True, threads=1)
    assert [line["train/loss"] for line in read_metrics(tmp_path / "branch")[1:]] == whole[6:]


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ('train.stages=[{share=1, objective="causal", causal_share=0.5}]', "mixes into a masked stage"),
        ("continued.replay_share=[0.5,0.6]", "add up to less than 1"),
        ("continued.replay_share=[0.1,0.2]", "replay_share has 2 shares, and replay names 0"),
        ("continued.replay_share=0", "above 0 and below 1"),
    ],
)
def test_mixtures_that_are_none(sets: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(PretrainConfig, sets=[sets])


def test_each_corpus_has_its_own_share(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    texts = []
    for name, words in (("a", "Nobody has read it."), ("b", "It comes again.")):
        texts.append(tmp_path / f"{name}.txt")
        texts[-1].write_text("\n\n".join(f"Sentence {n} is new. {words} It comes {n} times." for n in range(300)))
    told = {
        "train.steps": 60,
        "continued.replay": json.dumps(list(map(str, texts))),
        "continued.replay_share": "[0.3,0.1]",
    }
    sets = [f"{key}={value}" for key, value in (tiny | told | {"train.evaluations": 1}).items()]
    pretrain([str(small_text)], tmp_path / "run", load(PretrainConfig, sets=sets), quiet=True, threads=1)
    lines = read_metrics(tmp_path / "run")
    tokens = [0, 0, 0]
    for before, line in pairwise(lines):
        tokens[int(line["source"])] += line["tokens"] - before["tokens"]
    assert [count / sum(tokens) for count in tokens] == pytest.approx([0.6, 0.3, 0.1], abs=0.06)


def test_a_checkpoint_of_a_version_with_fewer_settings_goes_on(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [f"{key}={value}" for key, value in (tiny | {"train.steps": 6, "train.checkpoint_every": "2steps"}).items()]
    config = load(PretrainConfig, sets=[*sets, "train.stages=[{share=0.5},{share=0.5}]"])

    class Older(type(config)):  # type: ignore[misc]
        def model_dump(self, **how: Any) -> dict[str, Any]:
            found: dict[str, Any] = super().model_dump(**how)
            for stage in found["train"]["stages"]:
                stage.pop("causal_share", None)
            found["train"].pop("keep_every", None)
            return found

    older = Older.model_validate(config.model_dump())
    with monkeypatch.context() as patched:
        patched.setattr("bertsmith.train.course.finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain([str(small_text)], tmp_path / "run", older, quiet=True, threads=1)
    state = json.loads(next((tmp_path / "run" / "checkpoints").glob("step-6/*.json")).read_text())
    assert "causal_share" not in json.dumps(state)
    pretrain([], tmp_path / "run", config, resume=True, quiet=True, threads=1)
    assert (tmp_path / "run" / "bundle").exists()
