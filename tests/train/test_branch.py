"""Checkpoints that stay, and runs that branch from them as if the old one went on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import BundleError, DataError
from bertsmith.core.events import read_metrics
from bertsmith.train.checkpoint import to_keep
from bertsmith.train.pretrain import PretrainConfig, pretrain
from bertsmith.train.run import saved_config

STABLE = {"train.schedule": "constant", "train.warmup_ratio": 0, "train.evaluations": 1}
KEPT = {"train.checkpoint_every": "5steps", "train.keep_every": 10, "train.keep_last": 1}


def run(
    inputs: list[str], out: Path, tiny: dict[str, object], changes: dict[str, Any], start: Path | None = None
) -> Bundle:
    sets = [f"{key}={value}" for key, value in (tiny | STABLE | changes).items()]
    return pretrain(inputs, out, load(PretrainConfig, sets=sets), start=start, quiet=True, threads=1)


@pytest.fixture(scope="module")
def stable(small_text: Path, tiny: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stable") / "run"
    run([str(small_text)], out, tiny, {"train.steps": 31} | KEPT)
    return out


def test_one_checkpoint_a_stretch_stays(stable: Path) -> None:
    assert sorted(path.name for path in (stable / "checkpoints").iterdir()) == ["step-10", "step-20", "step-30"]


@pytest.mark.parametrize("patience", [None, 1])
def test_what_the_last_step_learnt_is_there_when_the_bundle_is_not(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch, patience: int | None
) -> None:
    """A full disk, a kill, a page that cannot be drawn: the steps are not taken again."""
    lr = {"train.lr": 1e-12, "train.patience": patience, "train.evaluations": 6} if patience else {}
    changes = {"train.steps": 6} | lr
    whole = run([str(small_text)], tmp_path / "whole", tiny, changes)

    def fails(*_: object, **__: object) -> None:
        raise BundleError("no room")

    with monkeypatch.context() as patched:
        patched.setattr("bertsmith.train.ending.pretraining_report", fails)
        with pytest.raises(BundleError, match="no room"):
            run([str(small_text)], tmp_path / "cut", tiny, changes)
    taken = [line["step"] for line in read_metrics(tmp_path / "cut")]
    monkeypatch.setattr("bertsmith.train.course.refuse_small_disk", fails)  # the room is taken, and by what matters
    bundle = pretrain([], tmp_path / "cut", saved_config(tmp_path / "cut", PretrainConfig), resume=True)
    assert [line["step"] for line in read_metrics(tmp_path / "cut")] == taken
    assert (bundle.path / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_text_that_changed_leaves_no_store_behind(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    text, out = tmp_path / "text", tmp_path / "run"
    shutil.copytree(small_text, text)
    run([str(text)], out, tiny, {"train.steps": 6} | KEPT)
    shutil.rmtree(out / "bundle")
    shutil.rmtree(out / "store")
    (text / "more.txt").write_text("One more sentence. And another one.")
    config = saved_config(out, PretrainConfig)
    with pytest.raises(DataError, match=r"text: has changed since this run began; put it back"):
        pretrain([], out, config, resume=True, quiet=True)
    (text / "more.txt").unlink()
    assert pretrain([], out, config, resume=True, quiet=True)


def test_a_disk_too_small_for_the_result_is_told_at_the_start(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertsmith.train.checkpoint.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(BundleError, match=r"a checkpoint and the result take .* MB and 0 MB are free"):
        run([str(small_text)], tmp_path / "run", tiny, {"train.steps": 6})
    assert not [line for line in read_metrics(tmp_path / "run") if line["step"]]


@pytest.mark.parametrize(
    ("last", "every", "expected"),
    [(2, None, {43, 50}), (1, 20, {21, 43, 50}), (1, 100, {50}), (3, 1, {7, 14, 21, 29, 36, 43, 50})],
)
def test_which_checkpoints_stay_does_not_depend_on_when_others_went(
    last: int, every: int | None, expected: set[int]
) -> None:
    there: list[int] = []
    for step in (7, 14, 21, 29, 36, 43, 50):
        there = sorted(to_keep([*there, step], last, every))
    assert set(there) == expected


def test_a_branch_with_the_same_settings_is_the_old_run_going_on(
    stable: Path, small_text: Path, tmp_path: Path, tiny: dict[str, object]
) -> None:
    bundle = run(
        [str(stable / "store")], tmp_path / "run", tiny, {"train.steps": 21}, stable / "checkpoints" / "step-10"
    )
    losses = [line["train/loss"] for line in read_metrics(tmp_path / "run")[1:]]
    assert losses == [line["train/loss"] for line in read_metrics(stable)[11:]]
    ours, theirs = (load_file(path / "bundle" / "model.safetensors") for path in (tmp_path / "run", stable))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert bundle.meta["lineage"]["parent"] == Bundle.open(tmp_path / "run" / "start").hash


def test_a_branch_of_a_branch_goes_on_where_that_one_stood(
    stable: Path, tmp_path: Path, tiny: dict[str, object]
) -> None:
    text, one, two = [str(stable / "store")], tmp_path / "one", tmp_path / "two"
    run(text, one, tiny, {"train.steps": 6} | KEPT, stable / "checkpoints" / "step-10")
    run(text, two, tiny, {"train.steps": 5}, one / "checkpoints" / "step-5")
    losses = [line["train/loss"] for line in read_metrics(two)[1:]]
    assert losses == [line["train/loss"] for line in read_metrics(stable)[16:21]]


def test_a_branch_may_decay_on_another_text_when_the_old_run_is_gone(
    stable: Path, tmp_path: Path, tiny: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(stable, old)
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Sentence {n} is new. Nobody has read it. It comes {n} times." for n in range(40)))
    decay = {"train.steps": 6, "train.schedule": "linear", "train.checkpoint_every": "2steps"}
    out = tmp_path / "run"
    run([str(text)], out, tiny, decay, old / "checkpoints" / "step-20")
    lines = read_metrics(out)
    assert [line["lr"] for line in lines[1:]] == sorted((line["lr"] for line in lines[1:]), reverse=True)
    assert json.loads((out / "run.json").read_text())["branch"]["step"] == 20
    shutil.rmtree(old)
    shutil.rmtree(out / "bundle")
    pretrain([], out, load(PretrainConfig, file=out / "config.toml"), resume=True, quiet=True, threads=1)
    assert Bundle.open(out).meta["lineage"]["steps"] == 6


def test_another_optimiser_takes_the_weights_only(
    stable: Path, tmp_path: Path, tiny: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [f"{key}={value}" for key, value in (tiny | STABLE | {"train.steps": 2, "train.name": "lamb"}).items()]
    start = stable / "checkpoints" / "step-30"
    pretrain([str(stable / "store")], tmp_path / "run", load(PretrainConfig, sets=sets), start=start, threads=1)
    assert "weights only, since it had adamw and this run has lamb" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_no_place_to_branch_from(stable: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    shutil.copytree(stable, tmp_path / "old")
    weights = tmp_path / "old" / "checkpoints" / "step-10" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"step-10: model\.safetensors is damaged"):
        run([str(stable / "store")], tmp_path / "run", tiny, {"train.steps": 2}, weights.parent)


def test_text_that_comes_again_is_told(
    stable: Path, tmp_path: Path, tiny: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    start, store = stable / "checkpoints" / "step-10", [str(stable / "store")]
    for number, (changes, told) in enumerate([({}, ""), ({"train.seed": 5}, "train.seed differ from those of")]):
        sets = [f"{key}={value}" for key, value in (tiny | STABLE | {"train.steps": 1} | changes).items()]
        out = tmp_path / str(number)
        pretrain(store, out, load(PretrainConfig, sets=sets), start=start, threads=1)
        said = capsys.readouterr().err
        assert told in said
        assert ("comes again" in said) is bool(told)
        assert json.loads((out / "run.json").read_text())["branch"]["read"] == 10


def test_batches_of_replayed_text_do_not_count_as_read(
    stable: Path, small_text: Path, tmp_path: Path, tiny: dict[str, object]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Sentence {n} is new. Nobody has read it. It comes {n} times." for n in range(400)))
    mixed = {"train.steps": 12, "continued.replay": text, "continued.replay_share": 0.5}
    run([str(small_text)], tmp_path / "old", tiny, mixed | KEPT)
    own = sum(not line["source"] for line in read_metrics(tmp_path / "old")[1:11])
    run(
        [str(tmp_path / "old" / "store")],
        tmp_path / "new",
        tiny,
        {"train.steps": 1},
        tmp_path / "old/checkpoints/step-10",
    )
    assert json.loads((tmp_path / "new" / "run.json").read_text())["branch"]["read"] == own < 10


def test_a_run_that_lost_its_way_says_so_even_when_quiet(
    small_text: Path, tmp_path: Path, tiny: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    run([str(small_text)], tmp_path / "run", tiny, {"train.steps": 8, "train.lr": 20})
    assert "lost its way" in capsys.readouterr().err


def test_the_largest_seed_is_a_seed(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    run([str(small_text)], tmp_path / "run", tiny, {"train.steps": 2, "train.seed": 2**63 - 1})
    assert (tmp_path / "run" / "bundle").exists()


def test_pairs_where_all_texts_are_of_one_kind(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    bundle = run([str(small_text)], tmp_path / "run", tiny, {"train.steps": 2, "model.type_vocab_size": 1})
    assert bundle.config["type_vocab_size"] == 1
