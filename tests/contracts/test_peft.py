"""One contract for every method that trains a small part: a new method gets all of these by one line in CASES."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bertsmith.core.bundle import ADAPTER, Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.core.events import read_metrics
from bertsmith.corpus.document import Tally
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.peft.adalora import Allocator
from bertsmith.peft.base import METHODS, insert, method_of, small_part
from bertsmith.peft.bundle import Base, load_tuned, merged, save_tuned
from bertsmith.peft.config import READS, PeftConfig
from bertsmith.predict.engine import answer
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import collate
from bertsmith.tasks.classification import Classification
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train import practice as module
from bertsmith.train.finetune import config_class, finetune


@dataclass(frozen=True)
class Case:
    """A method and what is true of it.

    Attributes:
        settings: of the method, small enough for toys.
        moves: the last words of the names of the encoder's parameters that move.
        exact: at the start the model computes what the base does.
        merges: its result can become a plain model.
        modern: it can be used with modernbert.
    """

    settings: dict[str, Any]
    moves: set[str]
    exact: bool = True
    merges: bool = False
    modern: bool = True


BOTTLENECK = {"down.weight", "down.bias", "up.weight", "up.bias"}
CASES = {
    "houlsby": Case(
        {"width": 8}, BOTTLENECK | {f"{n}_norm.{p}" for n in ("attention", "mlp") for p in ("weight", "bias")}
    ),
    "pfeiffer": Case({"width": 8}, BOTTLENECK),
    "lora": Case({"rank": 4}, {f"{t}.{f}" for t in ("query", "value") for f in "ab"}, merges=True),
    "adalora": Case(
        {"rank": 2, "start_rank": 4},
        {f"{t}.{f}" for t in ("query", "key", "value", "out", "up", "down") for f in "abe"},
        merges=True,
    ),
    "prefix": Case({"length": 4}, {"0.prefix", "1.prefix"}, exact=False),
    "bitfit": Case(
        {},
        {"norm.bias", "qkv.bias", "out.bias", "attention_norm.bias", "up.bias", "down.bias", "mlp_norm.bias"},
        merges=True,
        modern=False,
    ),
}
ROWS = [
    ("the film is good", "good"), ("the film was great", "good"), ("a good film", "good"), ("it is not bad", "good"),
    ("great", "good"), ("the film is bad", "bad"), ("the film was boring", "bad"), ("a bad film", "bad"),
    ("it is not good", "bad"), ("boring", "bad"),
]  # fmt: skip


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def settings(name: str) -> PeftConfig:
    return PeftConfig.model_validate({"method": name, **CASES[name].settings})


@pytest.fixture(scope="module")
def shape(toy_shape: ModelConfig) -> ModelConfig:
    return toy_shape.model_copy(update={"num_hidden_layers": 2, "initializer_range": 0.2})


@pytest.fixture(scope="module")
def base(shape: ModelConfig, toy_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model without a task, whose biases are not zero."""
    model = Model(shape, Heads(mlm=True), seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    path = tmp_path_factory.mktemp("base") / "encoder"
    return save_model(path, model, toy_tokenizer.files(), {"task": "pretraining"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "ten.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return path


@pytest.fixture
def batch(toy_tokenizer: Tokenizer, data: Path) -> Batch:
    task = Classification(toy_tokenizer, say=lambda text: None)
    return collate(task.encode(task.rows(data, Tally())))


def stirred(base: Bundle, name: str) -> Model:
    """A model whose small part is off its starting values, as training leaves it."""
    model = load_model(base, Heads(classify=2))
    insert(model, settings(name), seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in small_part(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.eval()


def logits(model: Model, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model.eval()(batch)["classify"]  # type: ignore[no-any-return]


def train(name: str, data: Path, base: Bundle | Path, out: Path, *sets: str, **how: Any) -> Bundle:
    own = [f"peft.{key}={value}" for key, value in CASES[name].settings.items()]
    usual = [f"peft.method={name}", "train.batch_size=10", "task.max_length=32", "train.dropout=0"]
    config = load(config_class("classify"), sets=[*usual, *own, *sets])
    start = base.path if isinstance(base, Bundle) else base
    return finetune("classify", data, out, config, start=start, dev=data, quiet=True, threads=1, **how)


def test_every_method_has_a_case_and_settings() -> None:
    assert set(CASES) == set(METHODS) == set(READS)


def test_only_what_the_method_names_moves(name: str, base: Bundle, data: Path, tmp_path: Path) -> None:
    model = load_model(base, Heads(classify=2))
    insert(model, settings(name))
    inside = {key for key in small_part(model) if key.startswith("encoder.")}
    assert {".".join(key.split(".")[-2:]) for key in inside} == CASES[name].moves
    above = {key for key in model.state_dict() if not key.startswith("encoder.")}
    assert above == {key for key in small_part(model) if not key.startswith("encoder.")} != set()

    bundle = train(name, data, base, tmp_path / "run", "train.steps=3")
    trained = load_tuned(bundle, Base.load(base)).state_dict()
    before = load_model(base, Heads()).state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, trained[key])}
    assert moved == inside & before.keys()


def test_at_the_start_it_computes_what_the_base_does(name: str, base: Bundle, batch: Batch) -> None:
    plain, tuned = (load_model(base, Heads(classify=2), seed=1) for _ in range(2))
    insert(tuned, settings(name))
    # A prefix draws attention to itself from the start, though its values add nothing yet.
    assert torch.equal(logits(plain, batch), logits(tuned, batch)) is CASES[name].exact


def test_saved_and_loaded_it_is_the_same_to_the_bit(name: str, base: Bundle, batch: Batch, tmp_path: Path) -> None:
    model = stirred(base, name)
    bundle = save_tuned(tmp_path / "bundle", model, settings(name), base, {"task": "classify", "labels": ["a", "b"]})
    again = load_tuned(Bundle.open(tmp_path / "bundle"), Base.load(base))
    assert torch.equal(logits(again, batch), logits(model, batch))
    assert not torch.equal(logits(load_model(base, Heads(classify=2)), batch), logits(model, batch))
    assert bundle.shards() == [ADAPTER]
    size = (bundle.path / ADAPTER).stat().st_size
    assert size < 0.5 * (base.path / "model.safetensors").stat().st_size
    numbers = sum(value.numel() for value in bundle.tensors().values())
    assert numbers == sum(value.numel() for value in small_part(model).values())


def test_several_share_one_base_and_leave_it_alone(name: str, base: Bundle, batch: Batch, tmp_path: Path) -> None:
    ground = Base.load(base)
    before = {key: value.clone() for key, value in ground.encoder.state_dict().items()}
    models = [stirred(base, name), stirred(base, "lora")]
    loaded = []
    for model, method in zip(models, (name, "lora"), strict=True):
        bundle = save_tuned(tmp_path / method, model, settings(method), base, {"labels": ["a", "b"]})
        loaded.append(load_tuned(bundle, ground))
    for model, again in zip(models, loaded, strict=True):
        assert torch.equal(logits(model, batch), logits(again, batch))
        own = sum(v.numel() for k, v in again.named_parameters() if not _shared(v, ground.encoder))
        assert own == sum(value.numel() for value in small_part(model).values())
    assert all(torch.equal(value, before[key]) for key, value in ground.encoder.state_dict().items())


def _shared(value: Tensor, encoder: Model) -> bool:
    return any(value.data_ptr() == own.data_ptr() for own in encoder.parameters())


def test_merged_it_is_a_plain_model(name: str, base: Bundle, batch: Batch, tmp_path: Path) -> None:
    model = stirred(base, name)
    bundle = save_tuned(tmp_path / "bundle", model, settings(name), base, {"task": "classify", "labels": ["a", "b"]})
    if not CASES[name].merges:
        with pytest.raises(BundleError, match="keep it beside its base, or train with --peft lora"):
            merged(bundle, tmp_path / "merged")
        assert not (tmp_path / "merged").exists()
        return
    plain = merged(bundle, tmp_path / "merged")
    assert plain.base is None
    assert plain.labels == ["a", "b"]
    assert plain.meta["lineage"]["adapter"] == bundle.hash
    assert (logits(load_model(plain), batch) - logits(model, batch)).abs().max() < 1e-5
    with pytest.raises(BundleError, match="this is an adapter, a small part of a model"):
        load_model(bundle)


def test_it_learns_ten_examples_by_heart(
    name: str, base: Bundle, data: Path, toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    bundle = train(name, data, base, tmp_path / "run", "train.steps=150", "train.lr=2e-2", "train.evaluations=3")
    assert bundle.meta["scores"]["dev"]["accuracy"] == 1.0
    predictor = Predictor(Bundle.open(tmp_path / "run"), device="cpu", precision="fp32")
    assert [found["label"] for found in predictor([text for text, _ in ROWS])] == [label for _, label in ROWS]
    assert predictor.task is not None
    again = answer(predictor.task, predictor.model, predictor.task.rows(data, Tally()))
    assert [found["score"] for found in again] == pytest.approx([f["score"] for f in predictor([t for t, _ in ROWS])])


def test_a_run_that_is_stopped_and_resumed_ends_with_the_same_weights(
    name: str, base: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = (
        "train.steps=20",
        "train.checkpoint_every=7steps",
        "train.dropout=0.1",
        "train.batch_size=4",
        "train.lr=1e-2",
    )
    whole = train(name, data, base, tmp_path / "whole", *sets)

    def breaks(*given: Any, **how: Any) -> Iterator[Any]:
        for step in taken(*given, **how):
            if step.number == 16:
                raise KeyboardInterrupt
            yield step

    taken = module.steps
    monkeypatch.setattr(module, "steps", breaks)
    with pytest.raises(KeyboardInterrupt):
        train(name, data, base, tmp_path / "cut", *sets)
    monkeypatch.setattr(module, "steps", taken)
    checkpoints = tmp_path / "cut" / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} == {"step-7", "step-14"}
    weight = "encoder.embeddings.word.weight"
    held = {key.partition("::")[0] for file in ("model", "optimizer") for key in _keys(checkpoints / "step-14", file)}
    assert weight not in held
    assert "head.classify.weight" in held
    resumed = train(name, data, base, tmp_path / "cut", *sets, resume=True)
    assert read_metrics(tmp_path / "cut")[-1]["step"] == 20
    one, other = whole.tensors(), resumed.tensors()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def _keys(checkpoint: Path, name: str) -> list[str]:
    from safetensors import safe_open

    with safe_open(checkpoint / f"{name}.safetensors", "pt") as file:
        return list(file.keys())


def test_it_trains_in_bf16(name: str, base: Bundle, data: Path, tmp_path: Path) -> None:
    sets = ("train.steps=40", "train.lr=1e-2", "train.evaluations=1")
    losses = []
    for precision in ("fp32", "bf16"):
        train(name, data, base, tmp_path / precision, *sets, f"train.precision={precision}")
        losses.append([line["train/loss"] for line in read_metrics(tmp_path / precision)])
    assert losses[1] == pytest.approx(losses[0], rel=0.5, abs=0.15)
    assert losses[1][-1] < 0.7 * losses[1][0]
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of itself
def test_its_layers_can_be_compiled(name: str, base: Bundle, batch: Batch) -> None:
    from bertsmith.train.compile import has_compiler

    if not has_compiler():
        pytest.skip("no C++ compiler")
    plain, compiled = stirred(base, name), stirred(base, name)
    compiled.compile_parts(layers=True)
    gradients = []
    for model in (plain, compiled):
        model(batch)["classify"].square().sum().backward()
        gradients.append({key: value.grad for key, value in small_part(model).items()})
    for key, one in gradients[0].items():
        assert one is not None
        assert torch.allclose(one, gradients[1][key], atol=1e-4, rtol=1e-3), key


def test_modernbert(name: str, toy_tokenizer: Tokenizer, batch: Batch, tmp_path: Path) -> None:
    shape = ModelConfig(
        architecture="modernbert", vocab_size=toy_tokenizer.vocab_size, hidden_size=32, num_hidden_layers=3,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=64, local_attention=4,
    )  # fmt: skip
    save_model(tmp_path / "base", Model(shape, Heads(mlm=True), seed=1), toy_tokenizer.files(), {})
    base = Bundle.open(tmp_path / "base")
    if not CASES[name].modern:
        with pytest.raises(ConfigError, match="this encoder \\(modernbert\\) has none; choose lora or pfeiffer"):
            insert(load_model(base, Heads(classify=2)), settings(name))
        return
    model = stirred(base, name)
    bundle = save_tuned(tmp_path / "bundle", model, settings(name), base, {"labels": ["a", "b"]})
    assert torch.equal(logits(load_tuned(bundle, Base.load(base)), batch), logits(model, batch))
    if CASES[name].merges:
        plain = merged(bundle, tmp_path / "merged")
        assert (logits(load_model(plain), batch) - logits(model, batch)).abs().max() < 1e-5


def test_a_bundle_says_what_moved(name: str, base: Bundle, data: Path, tmp_path: Path) -> None:
    bundle = train(name, data, base, tmp_path / "run", "train.steps=2")
    told = json.loads((bundle.path / "bertsmith.json").read_text())
    assert told["base"]["sha256"] == base.hash == told["lineage"]["parent"]
    assert told["peft"]["settings"]["method"] == name
    model = load_tuned(bundle, Base.load(base))
    inside = sum(value.numel() for key, value in small_part(model).items() if key.startswith("encoder."))
    assert told["peft"]["parameters"]["encoder"] == inside > 0
    if name == "adalora":
        assert sum(told["peft"]["ranks"].values()) == 2 * 6 * 2


def test_the_allocator_of_every_method_that_has_one_meets_its_budget(base: Bundle, batch: Batch) -> None:
    model = load_model(base, Heads(classify=2))
    config = settings("adalora")
    insert(model, config, seed=0)
    allocator = Allocator(model, config, total=30)
    method_of(config)
    sums = []
    for step in range(1, 31):
        model(batch)["classify"].square().sum().backward()
        with torch.no_grad():
            for parameter in small_part(model).values():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1e-2)
        allocator(step)
        sums.append(sum(allocator.ranks().values()))
        model.zero_grad()
    start, end = 4 * 12, 2 * 12
    assert sums[:3] == [start] * 3
    assert sums == sorted(sums, reverse=True)
    assert sums[20] == sums[-1] == end
    allocator.shrink()
    assert sum(len(f.a) for f in allocator.factors.values()) == end
