"""Small bundles and their base: found where it was, refused where it is another one, shared by many."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from bertsmith.cli.main import build
from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.predict.adapters import Adapters
from bertsmith.predict.predictor import Predictor
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.finetune import config_class, finetune

ROWS = {
    "mood": "text,label\nthe film was good,good\nthe film was bad,bad\ngreat,good\nboring,bad\n",
    "place": "text,label\nanna lives in london,london\nbert lives in paris,paris\nin london,london\nin paris,paris\n",
}
TAGS = "anna B-PER\nlives O\nin O\nparis B-LOC\n\nbert B-PER\nworks O\nin O\nlondon B-LOC\n"


def write_base(folder: Path, shape: ModelConfig, tokenizer: Tokenizer, seed: int = 5) -> Bundle:
    return save_model(folder, Model(shape, Heads(mlm=True), seed=seed), tokenizer.files(), {"task": "pretraining"})


def tune(task: str, data: Path, out: Path, start: Path, *sets: str, **how: Any) -> Bundle:
    config = load(config_class(task), sets=["train.steps=40", "train.lr=2e-2", "task.max_length=32", *sets])
    return finetune(task, data, out, config, start=start, dev=data, quiet=True, threads=1, **how)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, toy_shape: ModelConfig, toy_tokenizer: Tokenizer) -> Path:
    """A folder with a base and two classifiers and a tagger on it, each by another method."""
    folder = tmp_path_factory.mktemp("place")
    wide = toy_shape.model_copy(update={"initializer_range": 0.2})
    write_base(folder / "encoder", wide, toy_tokenizer)
    for name, text in ROWS.items():
        (folder / f"{name}.csv").write_text(text)
    (folder / "names.conll").write_text(TAGS)
    for name, method in (("mood", "lora"), ("place", "pfeiffer")):
        tune("classify", folder / f"{name}.csv", folder / name, folder / "encoder", f"peft.method={method}")
    tune("tag", folder / "names.conll", folder / "names", folder / "encoder", "peft.method=adalora", "peft.rank=4")
    return folder


@pytest.fixture
def own(place: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change; the place that it was copied from stays."""
    return Path(shutil.copytree(place, tmp_path / "copy"))


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(build("convert"), ["convert", *map(str, arguments)])


def test_a_bundle_finds_its_base_beside_it_after_both_have_moved(own: Path) -> None:
    predictor = Predictor.open(own / "mood", device="cpu")
    assert predictor("the film was good")["label"] == "good"
    assert predictor.tokenizer.tokens == Tokenizer.load(own / "encoder").tokens
    bundle = Bundle.open(own / "mood")
    assert bundle.base is not None
    assert bundle.base["path"] == "../../encoder"
    assert not (bundle.path / "tokenizer.json").exists()


def test_a_bundle_that_has_moved_alone_finds_its_base_where_it_stayed(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "mood" / "bundle", tmp_path / "far" / "away")
    assert Predictor.open(tmp_path / "far" / "away", device="cpu")("boring")["label"] == "bad"


def test_a_base_that_is_gone_is_missed_by_name(
    tmp_path: Path, toy_shape: ModelConfig, toy_tokenizer: Tokenizer
) -> None:
    write_base(tmp_path / "encoder", toy_shape, toy_tokenizer)
    (tmp_path / "mood.csv").write_text(ROWS["mood"])
    tune("classify", tmp_path / "mood.csv", tmp_path / "run", tmp_path / "encoder", "peft.method=lora", "train.steps=2")
    before = Predictor.open(tmp_path / "run", device="cpu")("great")
    (tmp_path / "encoder").rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError) as caught:
        Predictor.open(tmp_path / "run", device="cpu")
    assert f"is no longer at {tmp_path / 'encoder'}" in str(caught.value)
    command = str(caught.value).partition("bertsmith convert ")[2].replace("BASE", str(tmp_path / "elsewhere")).split()
    done = convert(*command)
    assert done.exit_code == 0, done.output
    assert Predictor.open(command[1], device="cpu")("great") == before


def test_an_adapter_for_another_base_is_refused_by_its_hash(
    own: Path, toy_shape: ModelConfig, toy_tokenizer: Tokenizer
) -> None:
    right = Bundle.open(own / "encoder").hash
    shutil.rmtree(own / "encoder")
    wide = toy_shape.model_copy(update={"initializer_range": 0.2})
    other = write_base(own / "encoder", wide, toy_tokenizer, seed=6).hash
    bundle = Bundle.open(own / "mood")
    stays = (bundle.base or {})["absolute"]
    # Beside it lies another base, but where it was trained the right one is still there.
    assert Predictor(bundle, device="cpu").model is not None
    bundle = bundle.annotate(base={**(bundle.base or {}), "absolute": str(own / "nowhere")})
    for attempt in (
        lambda: Predictor(bundle, device="cpu"),
        lambda: Adapters({"mood": bundle}, device="cpu"),
        lambda: Adapters({"place": Bundle.open(own / "place"), "mood": other_bundle(own, other)}, device="cpu"),
    ):
        with pytest.raises(BundleError, match="an adapter for the base with sha256 [0-9a-f]{12}…, but .* has"):
            attempt()
    with pytest.raises(BundleError) as caught:
        Predictor(bundle, device="cpu")
    assert right[:12] in str(caught.value)
    assert other[:12] in str(caught.value)
    bundle.annotate()
    done = convert(own / "mood", own / "moved", "--base", own / "encoder")
    assert done.exit_code == 2
    assert "works only with the weights that it was trained on" in done.stderr
    assert not (own / "moved").exists()
    assert Path(stays).exists()


def other_bundle(folder: Path, sha256: str) -> Bundle:
    """A bundle that says that it belongs to another base."""
    bundle = Bundle.open(folder / "mood")
    return bundle.annotate(base={**(bundle.base or {}), "sha256": sha256})


def test_many_stand_on_one_base_that_is_in_memory_once(place: Path) -> None:
    both = Adapters.open({"mood": place / "mood", "place": place / "place", "names": place / "names"}, device="cpu")
    assert list(both) == ["mood", "place", "names"]
    assert both("place", "anna lives in london")["label"] == "london"
    assert both("mood", "the film was bad")["label"] == "bad"
    assert both("names", "anna lives in paris")["entities"][0]["type"] == "PER"
    for name in both:
        assert both[name](["great", "in paris"]) == Predictor.open(place / name, device="cpu")(["great", "in paris"])
    asked = [(name, text) for name in ("mood", "place") for text in ("great", "in paris", "boring")] * 5
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda one: both(*one), asked)) == [both(*one) for one in asked]
    table = both.base.encoder.encoder.embeddings.word.weight
    assert all(one.model.encoder.embeddings.word.weight.data_ptr() == table.data_ptr() for one in both.values())
    with pytest.raises(ConfigError, match="no adapter 'moods'; the adapters are mood, place, names"):
        both("moods", "great")


def test_a_whole_model_is_no_adapter_and_an_adapter_no_whole_model(place: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="this is a whole model, not an adapter"):
        Adapters.open({"encoder": place / "encoder"}, device="cpu")
    with pytest.raises(BundleError, match="this is an adapter, a small part of a model, and a whole one is needed"):
        tune("classify", place / "mood.csv", tmp_path / "run", place / "mood")


def test_merged_it_needs_no_base(place: Path, tmp_path: Path) -> None:
    done = convert(place / "mood", tmp_path / "whole", "--merge")
    assert done.exit_code == 0, done.output
    texts, paths = ["the film was good", "boring", "in paris"], (tmp_path / "whole", place / "mood")
    ours, theirs = (Predictor.open(path, device="cpu", precision="fp32")(texts) for path in paths)
    assert [one["label"] for one in ours] == [one["label"] for one in theirs]
    assert [one["score"] for one in ours] == pytest.approx([one["score"] for one in theirs], abs=1e-6)
    assert (tmp_path / "whole" / "tokenizer.json").is_file()
    meta = json.loads((tmp_path / "whole" / "bertsmith.json").read_text())
    assert "base" not in meta
    assert "peft" not in meta
    assert meta["scores"] == Bundle.open(place / "mood").meta["scores"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("mood",), "a bundle already; --merge makes a plain model of it"),
        (("place", "--merge"), "keep it beside its base, or train with --peft lora"),
        (("encoder", "--merge"), "no adapter, so there is nothing to merge"),
    ],
)
def test_what_cannot_be_converted_says_why(place: Path, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = convert(place / arguments[0], tmp_path / "new", *arguments[1:])
    assert done.exit_code == 2
    assert told in done.stderr
    assert not (tmp_path / "new").exists()


def test_the_best_of_several_seeds_finds_the_base_too(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "encoder", tmp_path / "a" / "encoder")
    bundle = tune("classify", place / "mood.csv", tmp_path / "a" / "run", tmp_path / "a" / "encoder",
                  "peft.method=bitfit", "train.steps=2", seeds=[1, 2])  # fmt: skip
    assert (bundle.base or {})["path"] == "../../encoder"
    (tmp_path / "a").rename(tmp_path / "b")
    assert Predictor.open(tmp_path / "b" / "run", device="cpu")("great")["label"] in ("good", "bad")


def test_adalora_s_ranks_are_drawn_and_saved(place: Path) -> None:
    ranks = Bundle.open(place / "names").meta["peft"]["ranks"]
    assert len(ranks) == 6
    assert sum(ranks.values()) == 6 * 4
    tensors = Bundle.open(place / "names").tensors()
    assert sum(len(value) for name, value in tensors.items() if name.endswith("lora_E")) == 6 * 4
    picture = (place / "names" / "ranks.svg").read_text()
    assert "Ranks that AdaLoRA left, of 12" in picture
    assert all(f">{rank}<" in picture for rank in ranks.values())


def test_a_run_does_not_go_on_on_another_base(
    tmp_path: Path, toy_shape: ModelConfig, toy_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bertsmith.train import practice as module

    write_base(tmp_path / "encoder", toy_shape, toy_tokenizer)
    (tmp_path / "mood.csv").write_text(ROWS["mood"])
    given = ("classify", tmp_path / "mood.csv", tmp_path / "run", tmp_path / "encoder")
    sets = ("peft.method=lora", "train.steps=9", "train.checkpoint_every=2steps")
    real = module.steps

    def breaks(*a: Any, **k: Any) -> Any:
        for step in real(*a, **k):
            if step.number == 4:
                raise KeyboardInterrupt
            yield step

    monkeypatch.setattr(module, "steps", breaks)
    with pytest.raises(KeyboardInterrupt):
        tune(*given, *sets)
    monkeypatch.setattr(module, "steps", real)
    shutil.rmtree(tmp_path / "encoder")
    write_base(tmp_path / "encoder", toy_shape, toy_tokenizer, seed=9)
    with pytest.raises(ConfigError, match="was begun on a base with sha256"):
        tune(*given, *sets, resume=True)


def test_a_small_part_that_is_cut_short_does_not_pass(own: Path) -> None:
    from safetensors.torch import load_file, save_file

    bundle = Bundle.open(own / "place")
    file = bundle.path / "adapter_model.safetensors"
    tensors = load_file(file)
    lost = next(iter(tensors))
    save_file({name: value for name, value in tensors.items() if name != lost}, file)
    with pytest.raises(BundleError, match="adapter_model.safetensors"):
        Predictor.open(own / "place", device="cpu")
    with pytest.raises(BundleError, match=lost.replace(".", r"\.")):
        Predictor(Bundle.open(own / "place", verify=False), device="cpu")


def test_a_pretrained_base_is_not_changed_by_training(place: Path) -> None:
    again = Bundle.open(place / "encoder")  # verifies every sum
    assert torch.isfinite(load_model(again).encoder.embeddings.word.weight).all()
