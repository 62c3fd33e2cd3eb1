"""One contract for every way to make a model smaller: a new one gets all of these by one line in CASES."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bertsmith.compress import report
from bertsmith.compress.distil import distil, distil_class
from bertsmith.compress.prune import prune, prune_class
from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import BertsmithError
from bertsmith.core.events import read_metrics
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train import practice as module

ROWS = [
    ("the film is good", "good"), ("the film was great", "good"), ("a good film", "good"), ("it is not bad", "good"),
    ("great", "good"), ("the film is bad", "bad"), ("the film was boring", "bad"), ("a bad film", "bad"),
    ("it is not good", "bad"), ("boring", "bad"),
]  # fmt: skip
UNSEEN = ["paris is great!", "anna works in london"]
USUAL = ["train.batch_size=4", "train.steps=12", "train.evaluations=2", "train.precision=fp32"]


@dataclass(frozen=True)
class Case:
    """A way to make a model smaller and what is true of it.

    Attributes:
        verb: `prune` or `distil`.
        sets: settings.
        shape: layers, heads, width and units of the result.
        still: no weight moves.
    """

    verb: str
    sets: tuple[str, ...]
    shape: tuple[int, int, int, int]
    still: bool = False


CASES = {
    "units": Case("prune", ("prune.units=16", "prune.rounds=3"), (4, 4, 32, 16)),
    "all": Case("prune", ("prune.units=24", "prune.heads=2", "prune.layers=3", "prune.rounds=2"), (3, 2, 16, 24)),
    "once": Case(
        "prune", ("prune.units=16", "prune.retrain=false", "prune.rounds=2", "prune.batches=2"), (4, 4, 32, 16), True
    ),
    "layers": Case("distil", ("student.layers=2", "distil.relations=1"), (2, 4, 32, 64)),
    "narrow": Case("distil", ("student.from_layers=[2,3]", "student.heads=2", "student.units=32"), (2, 2, 16, 32)),
}


@pytest.fixture(params=CASES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "ten.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    return path


@pytest.fixture(scope="module")
def shape(toy_shape: ModelConfig) -> ModelConfig:
    return toy_shape.model_copy(
        update={
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "initializer_range": 0.2,
            "max_position_embeddings": 32,
        }
    )


@pytest.fixture(scope="module")
def parent(shape: ModelConfig, toy_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    model = Model(shape, Heads(classify=2), seed=5)
    settings = {"labels": ["bad", "good"], "pair": False, "max_length": 32}
    meta = {"task": "classify", "labels": ["bad", "good"], "task_config": settings}
    return save_model(tmp_path_factory.mktemp("parent") / "model", model, toy_tokenizer.files(), meta)


def small(name: str, parent: Bundle, data: Path, out: Path, *sets: str, **how: Any) -> Bundle:
    case = CASES[name]
    kind, verb, given = (prune_class, prune, data) if case.verb == "prune" else (distil_class, distil, [data])
    config: Any = load(kind("classify"), sets=[*USUAL, *case.sets, *sets])
    make: Callable[..., Bundle] = verb
    return make(parent.path, given, out, config, dev=data, quiet=True, threads=1, **how)


@pytest.fixture(scope="module")
def run(name: str, parent: Bundle, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp(name) / "run"
    small(name, parent, data, out)
    return out


def answers(bundle: Bundle) -> Any:
    return Predictor(bundle, device="cpu", precision="fp32")([text for text, _ in ROWS] + UNSEEN)


def test_the_result_has_the_shape_that_was_asked_for_and_is_smaller(name: str, run: Path, parent: Bundle) -> None:
    bundle = Bundle.open(run)
    config = bundle.config
    found = tuple(
        config[key] for key in ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    )
    assert found == CASES[name].shape
    numbers = [sum(value.numel() for value in one.tensors().values()) for one in (parent, bundle)]
    assert numbers[1] < numbers[0]
    sizes = [(one.path / "model.safetensors").stat().st_size for one in (parent, bundle)]
    assert sizes[1] < sizes[0]
    assert bundle.meta["compressed"][-1]["parameters"] == numbers


def test_pruning_says_what_fewer_pieces_mean_for_rows_to_come(
    parent: Bundle, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one.csv"
    one.write_text("text,label\ngood,good\nbad,bad\n")
    config: Any = load(prune_class("classify"), sets=[*USUAL, "prune.units=16", "prune.retrain=false"])
    prune(parent.path, one, tmp_path / "run", config, dev=data, threads=1)
    assert re.search(r"dev rows by the smaller vocabulary: \d+ pieces instead of \d+ \(\+", capfd.readouterr().err)


def test_it_answers_in_the_same_form(run: Path, parent: Bundle) -> None:
    before, after = answers(parent), answers(Bundle.open(run))
    assert [list(one) for one in before] == [list(one) for one in after]
    assert [list(one["probabilities"]) for one in before] == [list(one["probabilities"]) for one in after]


@pytest.mark.filterwarnings("ignore")
def test_transformers_opens_it_and_gives_the_same_logits(run: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    bundle = Bundle.open(run)
    theirs = AutoModelForSequenceClassification.from_pretrained(bundle.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(bundle.path)
    texts = [text for text, _ in ROWS] + UNSEEN
    with torch.no_grad():
        logits = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    probabilities = torch.softmax(logits, -1)
    ours = torch.tensor([list(one["probabilities"].values()) for one in answers(bundle)])
    assert theirs.config.id2label == {0: "bad", 1: "good"}
    assert (probabilities - ours).abs().max() < 1e-5


def test_its_lineage_names_parent_rows_and_what_was_done(name: str, run: Path, parent: Bundle, data: Path) -> None:
    meta = Bundle.open(run).meta
    assert meta["lineage"]["parent"] == parent.hash
    assert list(meta["lineage"]["data"]) == [str(data)]
    (done,) = meta["compressed"]
    assert done["how"] == CASES[name].verb
    assert done["parent"] == parent.hash
    assert meta["scores"]["dev"].keys() >= {"accuracy"}


def test_the_page_shows_both(run: Path) -> None:
    page = (run / "comparison" / "report.html").read_text(encoding="utf-8")
    for words in ("times smaller", "times faster, batch 1", "times faster, batch 32", "points of accuracy lost"):
        assert words in page


def test_the_same_request_gives_the_same_weights(
    name: str, run: Path, parent: Bundle, data: Path, tmp_path: Path
) -> None:
    assert same(Bundle.open(run), small(name, parent, data, tmp_path / "again"))


def test_stopped_and_resumed_it_ends_with_the_same_weights(
    name: str, run: Path, parent: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = read_metrics(run)[-1]["step"]
    stop = last - 2

    def breaks(*given: Any, **how: Any) -> Iterator[Any]:
        for step in taken(*given, **how):
            if step.number == stop:
                raise KeyboardInterrupt
            yield step

    taken = module.steps
    monkeypatch.setattr(module, "steps", breaks)
    every = f"train.checkpoint_every={stop - 1 if stop > 2 else 1}steps"
    with pytest.raises(KeyboardInterrupt):
        small(name, parent, data, tmp_path / "cut", every)
    monkeypatch.setattr(module, "steps", taken)
    assert list((tmp_path / "cut" / "checkpoints").iterdir())
    resumed = small(name, parent, data, tmp_path / "cut", every, resume=True)
    assert same(Bundle.open(run), resumed)
    assert read_metrics(tmp_path / "cut")[-1]["step"] == last


def test_stopped_while_both_are_compared_it_compares_when_it_is_resumed(
    parent: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any, **how: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(report, "measure", stopped)
        with pytest.raises(KeyboardInterrupt):
            small("units", parent, data, tmp_path / "run")
    weights = (tmp_path / "run" / "bundle" / "model.safetensors").read_bytes()
    small("units", parent, data, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "comparison" / "report.html").exists()
    assert (tmp_path / "run" / "bundle" / "model.safetensors").read_bytes() == weights


def test_labelled_pairs_measure_a_model_that_learned_from_pairs_without_labels(
    shape: ModelConfig, toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    meta = {"task": "match", "task_config": {"mode": "bi", "max_length": 32}, "labels": []}
    parent = save_model(tmp_path / "parent", Model(shape, Heads(embed="mean")), toy_tokenizer.files(), meta)
    rows = "".join(f"a good film {n},a bad film {n},{n % 2}\n" for n in range(12))
    (tmp_path / "pairs.csv").write_text("text,pair,label\n" + rows)
    sets = ["prune.units=16", "prune.rounds=1", *USUAL]
    config: Any = load(prune_class("match"), sets=sets)
    rows_of = tmp_path / "pairs.csv"
    prune(parent.path, rows_of, tmp_path / "run", config, dev=rows_of, quiet=True, threads=1)
    found = json.loads((tmp_path / "run" / "comparison" / "scores.json").read_text())
    assert found["parent"]["headline"] == found["child"]["headline"] == "ap"
    assert found["drop"] is not None


def same(one: Bundle, other: Bundle) -> bool:
    mine, theirs = one.tensors(), other.tensors()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_weights_that_stay_are_the_parents_unless_they_learn(name: str, run: Path, parent: Bundle) -> None:
    """Of the pruned, and before the student learns, every row that is left is a row of the parent."""
    if CASES[name].verb == "prune" and not CASES[name].still:
        pytest.skip("it has learned")
    bundle = Bundle.open(run if CASES[name].still else run / "start")
    layer = "bert.encoder.layer.0.intermediate.dense.bias"
    theirs = {
        float(value) for n in range(4) for value in parent.tensors()[f"bert.encoder.layer.{n}.intermediate.dense.bias"]
    }
    assert {float(value) for value in bundle.tensors()[layer]} <= theirs


def test_compressors_compose(parent: Bundle, data: Path, tmp_path: Path) -> None:
    first = small("layers", parent, data, tmp_path / "student", "train.steps=4")
    second = small("units", first, data, tmp_path / "pruned", "train.steps=4")
    assert [done["how"] for done in second.meta["compressed"]] == ["distil", "prune"]
    assert [done["parent"] for done in second.meta["compressed"]] == [parent.hash, first.hash]
    assert second.config["num_hidden_layers"] == 2
    assert second.config["intermediate_size"] == 16


@pytest.mark.parametrize(
    ("name", "sets", "told"),
    [
        ("units", ["prune.units=100"], "prune.units is 100, but the model has only 64"),
        ("units", ["prune.keep=0.5"], "give keep, from which the units follow, or units"),
        ("layers", ["student.layers=9"], "student.layers is 9, but the teacher has only 4"),
        ("layers", ["student.layers=4"], "as large as its teacher"),
        ("narrow", ["student.heads=5"], "student.heads is 5, but the teacher has only 4"),
        ("narrow", ["student.from_layers=[3,2]"], "ascending, each once"),
        ("layers", ["distil.relation_heads=5"], "cannot both be cut into 5 heads"),
        ("layers", ["peft.method=lora"], "compressed as a whole"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_to_change(
    name: str, sets: list[str], told: str, parent: Bundle, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(BertsmithError, match=told):
        small(name, parent, data, tmp_path / "run", *sets)


def test_too_little_to_keep_is_refused_before_anything_is_learned(parent: Bundle, data: Path, tmp_path: Path) -> None:
    config: Any = load(prune_class("classify"), sets=["prune.keep=0.1", "prune.vocabulary=all"])
    with pytest.raises(BertsmithError, match=r"prune.keep=0.1 asks for .* or set prune.vocabulary=used"):
        prune(parent.path, data, tmp_path / "run", config, dev=data, quiet=True, threads=1)


def test_a_mean_of_weights_is_refused_where_their_shapes_change(parent: Bundle, data: Path, tmp_path: Path) -> None:
    config: Any = load(prune_class("classify"), sets=["train.ema=0.9"])
    with pytest.raises(BertsmithError, match=r"train.ema .* leave it out"):
        prune(parent.path, data, tmp_path / "run", config, dev=data, quiet=True, threads=1)
