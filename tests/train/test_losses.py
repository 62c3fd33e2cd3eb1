"""Forms of the loss, each against its formula written out by hand or against torch's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.base import Loss
from bertsmith.tasks.decisions import Decisions
from bertsmith.train.finetune import config_class
from bertsmith.train.losses import LossConfig, difference, label_weights, r_drop, refuse_misfits, shape, shaped


def drawn(kind: str, seed: int, rows: int = 7, columns: int = 4) -> Decisions:
    """Logits and gold, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if kind == "sets":
        return Decisions("sets", logits, torch.randint(0, 2, (rows, columns), generator=generator).double())
    if kind == "numbers":
        return Decisions("numbers", logits[:, :1], torch.randn(rows, generator=generator, dtype=torch.float64))
    return Decisions("classes", logits, torch.randint(0, columns, (rows,), generator=generator))


def weights(seed: int, columns: int = 4) -> Tensor:
    return torch.rand(columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5 + 0.1


@given(seed=st.integers(0, 999), smoothing=st.floats(0, 0.9), weighed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_weights_and_smoothing_of_classes_are_those_of_torch(seed: int, smoothing: float, weighed: bool) -> None:
    one, mine = drawn("classes", seed), weights(seed) if weighed else None
    torch.testing.assert_close(
        shaped(one, 0.0, smoothing, mine),
        F.cross_entropy(one.logits, one.gold, weight=mine, label_smoothing=smoothing, reduction="none"),
    )


@given(seed=st.integers(0, 999), gamma=st.floats(0.5, 5), weighed=st.booleans())
@settings(max_examples=60, deadline=None)
def test_focal_loss_by_hand(seed: int, gamma: float, weighed: bool) -> None:
    one, mine = drawn("classes", seed), weights(seed) if weighed else None
    odds = np.exp(one.logits.numpy())
    chance = (odds / odds.sum(-1, keepdims=True))[np.arange(7), one.gold.numpy()]
    expected = (1 - chance) ** gamma * -np.log(chance)
    expected *= mine.numpy()[one.gold.numpy()] if mine is not None else 1
    np.testing.assert_allclose(shaped(one, gamma, 0.0, mine).numpy(), expected, rtol=1e-6, atol=1e-12)


@given(seed=st.integers(0, 999), gamma=st.floats(0.5, 5), smoothing=st.floats(0, 0.9))
@settings(max_examples=60, deadline=None)
def test_sets_by_hand(seed: int, gamma: float, smoothing: float) -> None:
    one, mine = drawn("sets", seed), weights(seed)
    chance, gold, heavy = 1 / (1 + np.exp(-one.logits.numpy())), one.gold.numpy(), mine.numpy()
    right = np.where(gold > 0, chance, 1 - chance)
    focal = ((1 - right) ** gamma * np.where(gold > 0, heavy, 1) * -np.log(right)).sum(-1)
    np.testing.assert_allclose(shaped(one, gamma, 0.0, mine).numpy(), focal, rtol=1e-5)
    soft = gold * (1 - smoothing) + smoothing / 2
    smooth = -(heavy * soft * np.log(chance) + (1 - soft) * np.log(1 - chance)).sum(-1)
    np.testing.assert_allclose(shaped(one, 0.0, smoothing, mine).numpy(), smooth, rtol=1e-9)


def test_what_cannot_be_chosen_gets_no_share_of_a_smoothed_target() -> None:
    logits = torch.tensor([[1.0, 2.0, -torch.inf], [0.5, -1.0, 3.0]], requires_grad=True)
    each = shaped(Decisions("classes", logits, torch.tensor([1, 2])), 0.0, 0.3, None)
    pair = F.cross_entropy(logits[:1, :2], torch.tensor([1]), label_smoothing=0.3)
    torch.testing.assert_close(each[0], pair)
    each.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 2] == 0


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("kind", ["classes", "sets"])
def test_the_gradient_of_focal_loss_is_finite_at_certainty(kind: str, gamma: float) -> None:
    logits = torch.tensor([[90.0, -90.0], [-90.0, 90.0]], requires_grad=True)
    gold = torch.tensor([0, 0]) if kind == "classes" else torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = shaped(Decisions(kind, logits, gold), gamma, 0.0, None)  # type: ignore[arg-type]
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert float(loss.detach()[0]) == pytest.approx(0)
    assert float(loss.detach()[1]) > 100 / 2


@pytest.mark.parametrize("kind", ["classes", "sets"])
@given(seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_difference_is_the_mean_of_both_divergences(kind: str, seed: int) -> None:
    one, other = drawn(kind, seed), drawn(kind, seed + 1000)
    if kind == "classes":
        p, q = one.logits.log_softmax(-1), other.logits.log_softmax(-1)
        both = [F.kl_div(a, b, log_target=True, reduction="none").sum(-1) for a, b in ((p, q), (q, p))]
    else:
        logs = [torch.stack([F.logsigmoid(d.logits), F.logsigmoid(-d.logits)]) for d in (one, other)]
        both = [F.kl_div(a, b, log_target=True, reduction="none").sum((0, 2)) for a, b in (logs, logs[::-1])]
    torch.testing.assert_close(difference(one, other), (both[0] + both[1]) / 2)
    assert torch.equal(difference(one, other), difference(other, one))
    assert not difference(one, one).any()


def test_numbers_differ_by_their_square_and_what_cannot_be_chosen_by_nothing() -> None:
    one, other = drawn("numbers", 0), drawn("numbers", 1)
    torch.testing.assert_close(difference(one, other), (one.logits - other.logits).squeeze(-1) ** 2)
    cut = torch.tensor([[1.0, 2.0, -torch.inf]], requires_grad=True)
    found = difference(Decisions("classes", cut, torch.tensor([0])), Decisions("classes", cut * 2, torch.tensor([0])))
    pair = [Decisions("classes", cut.detach()[:, :2] * factor, torch.tensor([0])) for factor in (1, 2)]
    torch.testing.assert_close(found, difference(*pair))
    found.sum().backward()
    assert cut.grad is not None
    assert torch.isfinite(cut.grad).all()


class Fixed:
    """A task that decides between classes, whose loss is plain cross-entropy."""

    name, decides, weighed = "classify", "classes", "label"
    labels = ("a", "b", "c", "d")

    def decisions(self, outputs: Any, batch: Any) -> list[Decisions]:
        return [Decisions("classes", outputs["logits"], batch.targets["label"])]

    def loss(self, outputs: Any, batch: Any) -> Loss:
        return self.decisions(outputs, batch)[0].loss()


def encodings(golds: list[Any], name: str = "label") -> list[Encoding]:
    nothing = np.zeros(1, np.int32)
    return [Encoding(nothing, nothing, {name: gold}) for gold in golds]


def test_r_drop_is_the_mean_loss_and_the_weighed_difference() -> None:
    one, other = drawn("classes", 0), drawn("classes", 1)
    passes = iter([one.logits, other.logits])
    batch: Any = SimpleNamespace(targets={"label": one.gold})
    task = Fixed()

    def ask(batch: Batch) -> dict[str, Tensor]:
        return {"logits": next(passes)}

    loss = r_drop(task, task, 0.7)(ask, batch)
    mean = (
        F.cross_entropy(one.logits, one.gold, reduction="sum")
        + F.cross_entropy(other.logits, one.gold, reduction="sum")
    ) / 2
    gap = difference(one, other).sum()
    torch.testing.assert_close(loss.total, mean + 0.7 * gap)
    assert loss.count == 7
    torch.testing.assert_close(loss.parts["r_drop"][0], gap)
    hits = sum(int((d.logits.argmax(-1) == one.gold).sum()) for d in (one, other))
    assert float(loss.parts["accuracy"][0]) == hits / 2


def test_balanced_weights_make_labels_weigh_the_same_and_are_one_on_average() -> None:
    golds = [0] * 12 + [1] * 3 + [3] * 1
    found = label_weights("balanced", Fixed(), encodings(golds))
    assert found is not None
    assert found.tolist() == pytest.approx([16 / (3 * 12), 16 / (3 * 3), 1.0, 16 / 3])
    assert float(found[golds].mean()) == pytest.approx(1)
    tagged = encodings([np.array([-100, 0, 0, 1, -100]), np.array([0, 3])], "tag")
    tags = SimpleNamespace(weighed="tag", decides="classes", labels=("O", "B-X", "I-X", "B-Y"))
    assert label_weights("balanced", tags, tagged).tolist() == pytest.approx([5 / 9, 5 / 3, 1, 5 / 3])  # type: ignore[union-attr]
    sets = SimpleNamespace(weighed="label", decides="sets", labels=("x", "y", "z"))
    rows = encodings([np.array([1, 0, 0.0]), np.array([1, 1, 0.0]), np.array([1, 0, 0.0]), np.array([0, 0, 0.0])])
    assert label_weights("balanced", sets, rows).tolist() == pytest.approx([1 / 3, 3, 4])  # type: ignore[union-attr]


def test_weights_by_name_and_by_type() -> None:
    assert label_weights({"b": 2.5}, Fixed(), []).tolist() == [1, 2.5, 1, 1]  # type: ignore[union-attr]
    tags = SimpleNamespace(weighed="tag", decides="classes", labels=("O", "B-LOC", "I-LOC", "B-PER"))
    found = label_weights({"LOC": 3.0, "I-LOC": 2.0, "O": 0.5}, tags, [])
    assert found.tolist() == [0.5, 3, 2, 1]  # type: ignore[union-attr]
    with pytest.raises(
        ConfigError, match=r"train\.class_weights: 'lok' is not one of B-LOC, B-PER, I-LOC, LOC, O, PER"
    ):
        label_weights({"lok": 1.0}, tags, [])


def test_the_shaped_loss_keeps_the_plain_one_in_sight() -> None:
    one = drawn("classes", 3)
    batch: Any = SimpleNamespace(targets={"label": one.gold})
    task = shape(LossConfig(class_weights={"a": 2.0}, focal_gamma=2), Fixed(), [])
    loss = task.loss({"logits": one.logits.float()}, batch)
    heavy = torch.tensor([2.0, 1, 1, 1])
    torch.testing.assert_close(loss.total, shaped(one, 2.0, 0.0, heavy.double()).sum().float())
    plain = F.cross_entropy(one.logits, one.gold, reduction="sum")
    torch.testing.assert_close(loss.parts["cross_entropy"][0], plain.float())
    assert set(loss.parts) == {"accuracy", "cross_entropy"}
    assert shape(LossConfig(), task_ := Fixed(), []) is task_


REFUSED = {
    "class_weights": (
        {None: "fall apart", "numbers": "numbers", "places": "row to row", "pieces": "writes"},
        "balanced",
    ),
    "focal_gamma": ({None: "fall apart", "numbers": "numbers", "pieces": "writes"}, 2.0),
    "label_smoothing": ({None: "fall apart", "numbers": "numbers", "pieces": r"use task\.label_smoothing"}, 0.1),
    "r_drop": ({None: "fall apart"}, 1.0),
}


@pytest.mark.parametrize("decides", [None, "classes", "sets", "numbers", "places", "pieces"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_form_that_does_not_suit_the_task_is_refused(name: str, decides: Any) -> None:
    reasons, value = REFUSED[name]
    config, task = LossConfig(**{name: value}), SimpleNamespace(name="it", decides=decides)
    if decides not in reasons:
        refuse_misfits(config, task, 0.1)
        return
    with pytest.raises(ConfigError, match=rf"train\.{name} does not suit it: .*{reasons[decides]}"):
        refuse_misfits(config, task, 0.1)


def test_r_drop_needs_dropout_and_what_tempers_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.dropout is 0"):
        refuse_misfits(LossConfig(r_drop=1), Fixed(), 0.0)
    with pytest.raises(ConfigError, match="choose one of them"):
        load(config_class("classify"), sets=["train.focal_gamma=2", "train.label_smoothing=0.1"])


@pytest.mark.parametrize("written", ["balanced", "{spam=5, ham=0.5}", '{"a b"=2}'])
def test_weights_are_written_as_people_write_them(written: str) -> None:
    config = load(config_class("classify"), sets=[f"train.class_weights={written}"])
    expected = {"balanced": "balanced", "{spam=5, ham=0.5}": {"spam": 5, "ham": 0.5}}.get(written, {"a b": 2})
    assert config.train.class_weights == expected


@pytest.mark.parametrize("written", ["equal", "{spam=-1}", "3"])
def test_other_weights_are_refused_by_name(written: str) -> None:
    with pytest.raises(ConfigError, match=r"setting 'train\.class_weights': write balanced, or a weight of 0 or more"):
        load(config_class("classify"), sets=[f"train.class_weights={written}"])
