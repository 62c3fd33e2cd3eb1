"""A checkpoint is whole or not there; the newest whole one is taken up, and it holds all that is needed to go on."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.train import checkpoint as module
from bertsmith.train.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    load_tensors,
    open_checkpoint,
    save_checkpoint,
)
from bertsmith.train.optim import OptimConfig, build_optimizer

Trained = tuple[Model, torch.optim.Optimizer]


def trained(shape: ModelConfig, name: str = "adamw") -> Trained:
    model = Model(shape, Heads(classify=2), seed=0)
    optimizer = build_optimizer(model, OptimConfig.model_validate({"name": name}))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon", "sgd"])
def test_weights_and_optimiser_come_back(toy_shape: ModelConfig, tmp_run: Path, name: str) -> None:
    model, optimizer = trained(toy_shape, name)
    extra = {"best": {"x": torch.arange(3.0)}}
    save_checkpoint(tmp_run, 7, model, optimizer, {"tokens": 5, "best": (float("inf"), 0)}, extra)
    found = latest_checkpoint(tmp_run, pytest.fail)
    assert found is not None
    assert (found.step, found.state["tokens"], found.state["best"]) == (7, 5, [float("inf"), 0])
    assert load_tensors(found, "best")["x"].tolist() == [0, 1, 2]
    assert load_tensors(found, "worst") == {}
    fresh = Model(toy_shape, Heads(classify=2), seed=1)
    again = build_optimizer(fresh, OptimConfig.model_validate({"name": name}))
    load_checkpoint(found, fresh, again)
    for both in (model, fresh):
        for parameter in both.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    again.step()
    one, other = model.state_dict(), fresh.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_last_two_are_kept(toy_shape: ModelConfig, tmp_run: Path) -> None:
    model, optimizer = trained(toy_shape)
    for step in (2, 10, 9, 100):
        save_checkpoint(tmp_run, step, model, optimizer, {})
    assert sorted(path.name for path in (tmp_run / "checkpoints").iterdir()) == ["step-10", "step-100"]


@pytest.mark.parametrize("damage", ["flip", "missing", "manifest", "empty"])
def test_a_broken_newest_is_passed_over_and_that_is_said(toy_shape: ModelConfig, tmp_run: Path, damage: str) -> None:
    model, optimizer = trained(toy_shape)
    for step in (1, 2):
        save_checkpoint(tmp_run, step, model, optimizer, {})
    newest = tmp_run / "checkpoints" / "step-2"
    weights = newest / "model.safetensors"
    if damage == "flip":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "missing":
        (newest / "optimizer.safetensors").unlink()
    elif damage == "manifest":
        (newest / "manifest.json").unlink()
    else:
        (newest / "manifest.json").write_text("")
    said: list[str] = []
    found = latest_checkpoint(tmp_run, said.append)
    assert found is not None
    assert found.step == 1
    assert len(said) == 1
    assert "step-2: " in said[0]
    assert "passed over" in said[0]


def test_no_bit_of_the_manifest_can_turn_unnoticed(toy_shape: ModelConfig, tmp_run: Path) -> None:
    state = {"recipe": {"vocab.lowercase": True}, "seen": {3: 0.1}}
    save_checkpoint(tmp_run, 1, *trained(toy_shape), state)
    folder = tmp_run / "checkpoints" / "step-1"
    whole, file = open_checkpoint(folder), folder / "manifest.json"
    content = file.read_bytes()
    noticed = 0
    for place, byte in enumerate(content):
        for bit in range(8):
            file.write_bytes(content[:place] + bytes([byte ^ 1 << bit]) + content[place + 1 :])
            try:
                assert open_checkpoint(folder) == whole
            except BundleError:
                noticed += 1
    assert noticed > 4 * len(content), "most of these are no white space"


def test_when_none_is_whole_the_run_starts_again_and_says_so(toy_shape: ModelConfig, tmp_run: Path) -> None:
    assert latest_checkpoint(tmp_run, pytest.fail) is None
    save_checkpoint(tmp_run, 1, *trained(toy_shape), {})
    (tmp_run / "checkpoints" / "step-1" / "manifest.json").unlink()
    said: list[str] = []
    assert latest_checkpoint(tmp_run, said.append) is None
    assert "starts from its first step again" in said[-1]


def test_a_full_disk_leaves_the_one_before(
    toy_shape: ModelConfig, tmp_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(toy_shape)
    save_checkpoint(tmp_run, 1, model, optimizer, {})

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(BundleError, match=r"step-2: the disk is full .* Free some space"):
        save_checkpoint(tmp_run, 2, model, optimizer, {})
    assert [path.name for path in (tmp_run / "checkpoints").iterdir()] == ["step-1"]
    found = latest_checkpoint(tmp_run, pytest.fail)
    assert found is not None
    assert found.step == 1


def test_another_model_is_refused(toy_shape: ModelConfig, tmp_run: Path) -> None:
    save_checkpoint(tmp_run, 1, *trained(toy_shape), {})
    found = latest_checkpoint(tmp_run, pytest.fail)
    assert found is not None
    with pytest.raises(BundleError, match="does not fit this run's model"):
        load_checkpoint(found, *trained(toy_shape.model_copy(update={"hidden_size": 16})))


def test_what_is_frozen_is_neither_saved_nor_asked_for(toy_shape: ModelConfig, tmp_run: Path) -> None:
    def half_frozen(seed: int) -> Trained:
        model = Model(toy_shape, Heads(classify=2), seed=seed)
        model.encoder.requires_grad_(False)
        optimizer = build_optimizer(model, OptimConfig())
        for parameter in model.head.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        return model, optimizer

    model, optimizer = half_frozen(0)
    save_checkpoint(tmp_run, 3, model, optimizer, {})
    found = latest_checkpoint(tmp_run, pytest.fail)
    assert found is not None
    held = load_tensors(found, "model")
    assert set(held) == {"pooler.dense.weight", "pooler.dense.bias", "head.classify.weight", "head.classify.bias"}
    other, again = half_frozen(1)
    load_checkpoint(found, other, again)
    assert torch.equal(other.head["classify"].weight, model.head["classify"].weight)
    assert not torch.equal(other.encoder.embeddings.word.weight, model.encoder.embeddings.word.weight)
    other.encoder.requires_grad_(True)
    with pytest.raises(BundleError, match=r"does not fit this run's model: missing or left over: encoder\.embeddings"):
        load_checkpoint(found, other, again)
