"""Few rows: vectors of one class come together, the head is the logistic regression on them, misfits are refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import read_metrics
from bertsmith.corpus.document import Tally
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import from_hf, load_model, to_hf
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding
from bertsmith.predict.engine import forward
from bertsmith.predict.predictor import Predictor
from bertsmith.train.contrastive import PairFeed, logistic_regression
from bertsmith.train.finetune import config_class, finetune

ROWS = "text,label\n" + "".join(
    f"{name} {verb} the {colour} book,{verb}\n"
    for name in ("Anna", "Bert", "Clara")
    for verb in ("reads", "writes", "sells")
    for colour in ("red", "old")
)
ASKED = (
    "train.contrastive=true",
    "task.pooling=mean",
    "task.max_length=32",
    "train.batch_size=8",
    "train.lr=3e-3",
    "train.dropout=0",
)


def encodings(labels: list[int]) -> list[Encoding]:
    ids = [np.array([2, 10 + place, 3], np.int32) for place in range(len(labels))]
    return [Encoding(one, np.zeros(3, np.int32), {"label": label}) for one, label in zip(ids, labels, strict=True)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path / "rows.csv"


def test_the_head_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 7, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    weight, bias = logistic_regression(vectors, labels, 4)
    theirs = LogisticRegression(tol=1e-8, max_iter=5000).fit(vectors.double().numpy(), labels.numpy())
    assert np.allclose(weight.numpy(), theirs.coef_, atol=1e-4)
    assert np.allclose((bias - bias.mean()).numpy(), theirs.intercept_ - theirs.intercept_.mean(), atol=1e-4)


def test_each_row_finds_another_of_its_class() -> None:
    labels = [0, 1, 0, 1, 0, 2, 1]
    feed, again = (PairFeed(encodings(labels), seed=3, batch_size=6) for _ in range(2))
    assert feed.steps_per_epoch == 3
    partners: dict[int, Counter[int]] = {}
    for step in range(300):
        chosen = list(feed.chosen(step))
        assert chosen == list(again.chosen(step))
        for row, partner in zip(chosen[::2], chosen[1::2], strict=True):
            assert labels[row] == labels[partner]
            assert row != partner or labels.count(labels[row]) == 1
            partners.setdefault(row, Counter())[partner] += 1
    assert {row: set(found) for row, found in partners.items()} == {
        0: {2, 4}, 2: {0, 4}, 4: {0, 2}, 1: {3, 6}, 3: {1, 6}, 6: {1, 3}, 5: {5}
    }  # fmt: skip
    assert sum(len(batch.input_ids) for batch in feed(0)) == 18


def test_a_bundle_from_few_rows(data: Path, tmp_path: Path, tiny_run: Path) -> None:
    config = load(config_class("classify"), sets=[*ASKED, "train.steps=120", "train.evaluations=2"])
    bundle = finetune("classify", data, tmp_path / "run", config, start=tiny_run, dev=data, quiet=True, threads=1)
    rows = read_metrics(tmp_path / "run")
    first, last = (rows[place]["train/same"] - rows[place]["train/other"] for place in (0, -1))
    assert last > 0.5 > first
    assert bundle.meta["scores"]["dev"]["accuracy"] == 1
    predictor = Predictor(Bundle.open(bundle.path), device="cpu")
    assert predictor("Anna sells the red book")["label"] == "sells"
    model, task = load_model(Bundle.open(bundle.path)), predictor.task
    assert task is not None
    assert model.heads == Heads(mean=3)
    assert model.pooler is None
    examples = task.rows(data, Tally())
    sequences = task.encode(examples)
    vectors = torch.empty(len(sequences), model.config.hidden_size)
    for places, _, outputs in forward(model, sequences, pooling="mean"):
        vectors[torch.from_numpy(places)] = outputs["embed"]
    weight, _ = logistic_regression(vectors, torch.tensor([one.targets["label"] for one in sequences]), 3)
    torch.testing.assert_close(model.head["mean"].weight, weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("task", "rows", "sets", "told"),
    [
        ("classify", ROWS, ("train.contrastive=true",), "task.pooling=mean"),
        ("classify", "text,label\na b,0.5\nc d,1.5\ne f,2.5\n", ASKED, "does not sort texts"),
        ("classify", ROWS, (*ASKED, "train.r_drop=1", "train.dropout=0.1"), "train.r_drop changes a classifier's loss"),
        ("classify", ROWS, (*ASKED, "train.adversarial=fgm"), "train.adversarial changes"),
        ("classify", ROWS, (*ASKED, "train.class_weights=balanced"), "train.class_weights changes"),
        (
            "tag",
            "anna B-PER\nlives O\n\nbert B-PER\nworks O\n\nhe O\nis O\n",
            ("train.contrastive=true",),
            "does not sort",
        ),
        ("match", "text,pair,label\na b,c d,y\nc d,e f,n\ne f,a b,y\n", ("train.contrastive=true",), "pooling=mean"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, tiny_run: Path, task: str, rows: str, sets: tuple[str, ...], told: str
) -> None:
    data = tmp_path / ("rows.conll" if task == "tag" else "rows.csv")
    data.write_text(rows)
    config = load(config_class(task), sets=sets)
    with pytest.raises(ConfigError, match=told):
        finetune(task, data, tmp_path / "run", config, start=tiny_run, quiet=True, threads=1)


def test_the_mean_also_serves_sets_and_modern_encoders(tmp_path: Path, toy_shape: ModelConfig) -> None:
    for shape in (toy_shape, toy_shape.model_copy(update={"architecture": "modernbert", "type_vocab_size": 0})):
        model = Model(shape, Heads(mean=3, multi=True), seed=1)
        config, tensors = to_hf(shape, model.state_dict(), model.heads)
        assert config["architectures"] == ["ModernBertModel" if shape.modern else "BertModel"]
        again, state, heads = from_hf(config, tensors)
        assert (again.architecture, heads) == (shape.architecture, model.heads)
        assert {name: value.tolist() for name, value in state.items()} == {
            name: value.tolist() for name, value in model.state_dict().items()
        }
