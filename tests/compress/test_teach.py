from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.compress.distil import StudentConfig
from bertsmith.compress.teach import Taught, TeachConfig, answers_apart, relations_apart
from bertsmith.core.errors import ConfigError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding, pack
from bertsmith.model.pointer import WIDTH, Ends
from bertsmith.tasks.base import Loss

SHAPE = ModelConfig(
    vocab_size=30, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=10,
    max_position_embeddings=16, initializer_range=0.5, classifier_dropout=0.0,
)  # fmt: skip
LENGTHS = (3, 6, 6)


class Ones:
    """A task whose loss is 1 for each sequence."""

    joint = True

    def loss(self, outputs: Any, batch: Batch) -> Loss:
        return Loss(outputs["classify"].sum() * 0 + len(batch.lengths), len(batch.lengths), {})


@pytest.fixture
def batch() -> Batch:
    draw = np.random.default_rng(1)
    ids = [draw.integers(0, 30, n).astype(np.int32) for n in LENGTHS]
    return pack([Encoding(one, np.zeros(len(one), np.int32)) for one in ids])


def taught(student: Model, teacher: Model, **lessons: Any) -> Taught:
    config = TeachConfig(**{"task": 0.0, "logits": 0.0, "hidden": 0.0, **lessons})
    made = Taught(Ones(), teacher.eval(), config, range(1, student.config.num_hidden_layers + 1))
    made.ready(student)
    return made


def test_a_student_that_is_its_teacher_has_nothing_to_learn(batch: Batch) -> None:
    model = Model(SHAPE, Heads(classify=3), seed=1)
    lesson = taught(model, Model(SHAPE, Heads(classify=3), seed=1), logits=1, hidden=1, relations=1)
    loss = lesson.loss(model.train()(batch), batch)
    assert float(loss.total.detach()) == pytest.approx(0, abs=1e-5)
    assert {"logits", "hidden", "relations", "task_loss"} <= loss.parts.keys()
    assert float(loss.parts["task_loss"][0]) == 3
    assert lesson.joint


def test_every_lesson_weighs_what_it_says_and_reaches_the_student_alone(batch: Batch) -> None:
    student, teacher = (Model(SHAPE, Heads(classify=3), seed=seed) for seed in (1, 2))
    weights = {"task": 0.5, "logits": 2.0, "hidden": 3.0, "relations": 4.0}
    lesson = taught(student, teacher, **weights)
    loss = lesson.loss(student.train()(batch), batch)
    parts = {name: float(total) for name, (total, _) in loss.parts.items()}
    expected = sum(weights[name.removesuffix("_loss")] * parts[name] for name in parts)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    loss.total.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.layers[0].attention.qkv.weight.grad is not None


def test_relations_are_those_of_each_sequence_by_itself(batch: Batch) -> None:
    """Against the formula of MiniLMv2, a sequence, a relation and a head at a time; widths differ."""
    generator = torch.Generator().manual_seed(0)
    mine = torch.randn(15, 3, 2, 4, generator=generator)
    theirs = torch.randn(15, 3, 3, 4, generator=generator)
    pairs, heads = ("qk", "vv"), 4
    total, rows = 0.0, 0
    for a, b in zip(mine.split(LENGTHS), theirs.split(LENGTHS), strict=True):
        for pair in pairs:
            first, second = ("qkv".index(letter) for letter in pair)
            for head in range(heads):
                tables = []
                for x in (a, b):
                    width = x[0, 0].numel() // heads
                    cut = [x[:, n].reshape(len(x), -1)[:, head * width : (head + 1) * width] for n in (first, second)]
                    tables.append(torch.softmax(cut[0] @ cut[1].T / math.sqrt(width), -1))
                total += float((tables[1] * (tables[1] / tables[0]).log()).sum())
                rows += len(a)
    assert float(relations_apart(mine, theirs, LENGTHS, pairs, heads)) == pytest.approx(total / rows, rel=1e-4)


@pytest.mark.parametrize(
    "name", ["classify", "tag", "span", "relate", "answer", "choose", "next", "embed", "number", "several"]
)
def test_answers_of_every_kind_can_be_compared(name: str, batch: Batch) -> None:
    rows = {"classify": (3, 4), "relate": (3, 4), "several": (3, 4), "tag": (15, 4), "answer": (15, 2), "embed": (3, 8),
            "number": (3, 1), "choose": (3, 1), "next": (7, 30), "span": (15, 2 * WIDTH + 2 * 3)}[name]  # fmt: skip
    key, how = "classify" if name in ("number", "several") else name, {"multi": name == "several"}
    generator = torch.Generator().manual_seed(0)
    one, other = ({key: torch.randn(rows, generator=generator)} for _ in range(2))
    assert float(answers_apart(one, one, batch, 2.0, **how)) == pytest.approx(0, abs=1e-6)
    assert float(answers_apart(one, other, batch, 2.0, **how)) > 0.01
    if name == "classify":
        p, q = (torch.softmax(x[key] / 2, -1) for x in (other, one))
        expected = 4 * float((p * (p / q).log()).sum(-1).mean())
        assert float(answers_apart(one, other, batch, 2.0)) == pytest.approx(expected, rel=1e-4)
    if name == "several":  # each class by itself: two probabilities, yes and no
        p, q = (torch.sigmoid(x[key] / 2) for x in (other, one))
        both = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(-1)
        assert float(answers_apart(one, other, batch, 2.0, **how)) == pytest.approx(4 * float(both.mean()), rel=1e-4)
    if name == "span":  # what a stretch before its own beginning would score is never asked
        (a, b), n = (Ends.of(x[key][:3]).scores() for x in (one, other)), 6
        first = sum(float((a - b)[c, i, j].square()) for c in range(3) for i in range(3) for j in range(i, 3)) / (3 * n)
        alone = replace(batch, lengths=(3,))
        found = float(answers_apart({key: one[key][:3]}, {key: other[key][:3]}, alone, 2.0))
        assert found == pytest.approx(first, rel=1e-4)
    if name == "answer":  # a shift of all scores of a sequence says nothing about where
        moved: dict[str, Tensor] = {key: one[key] + 3.0}
        assert float(answers_apart(one, moved, batch, 2.0)) == pytest.approx(0, abs=1e-5)
    if name == "embed":  # widths may differ
        assert float(answers_apart({key: torch.randn(3, 5)}, other, batch, 2.0)) > 0


def test_a_narrower_student_follows_the_dimensions_that_it_has(batch: Batch) -> None:
    teacher = Model(SHAPE, Heads(classify=3), seed=1)
    student = Model(SHAPE.model_copy(update={"hidden_size": 8, "num_attention_heads": 1}), Heads(classify=3), seed=2)
    lesson = taught(student, teacher, hidden=1, relations=1)
    lesson.dims = list(range(4, 12))
    outputs = student.train()(batch)
    with torch.no_grad():
        theirs = list(teacher.encoder.walk(batch))[1:]
    expected = (
        sum(float((outputs[f"hidden.{n}"] - theirs[n - 1][:, 4:12]).square().mean().detach()) for n in (1, 2, 3)) / 3
    )
    assert float(lesson.loss(outputs, batch).parts["hidden"][0]) == pytest.approx(3 * expected, rel=1e-4)


def test_what_cannot_be_taught_is_refused(batch: Batch) -> None:
    student, teacher = Model(SHAPE, Heads(mlm=True)), Model(SHAPE, Heads())
    with pytest.raises(ConfigError, match="scores no pieces"):
        taught(student, teacher, logits=1)
    with pytest.raises(ConfigError, match="distil.relation_layer is 4, but the teacher has 3 layers"):
        taught(student, teacher, relations=1, relation_layer=4)


def test_hidden_pieces_are_scored_as_the_teacher_does(batch: Batch) -> None:
    student, teacher = (Model(SHAPE, Heads(mlm=True, classify=2), seed=seed) for seed in (1, 2))
    where = {"mlm_positions": torch.tensor([1, 5]), "mlm_labels": torch.tensor([3, 4])}
    asked = replace(batch, targets=where)
    lesson = taught(student, teacher, logits=1)
    outputs = student.train()(asked)
    assert outputs["mlm"].shape == (2, 30)
    assert outputs["mlm_losses"].shape == (2,)
    assert float(lesson.loss(outputs, asked).parts["logits"][0]) > 0


def test_a_student_of_a_modern_teacher_begins_with_its_first_layer(toy_shape: ModelConfig) -> None:
    shape = toy_shape.model_copy(
        update={"architecture": "modernbert", "type_vocab_size": 0, "bias": False, "num_hidden_layers": 4}
    )
    teacher = Model(shape, Heads(classify=2), seed=1)
    with pytest.raises(ConfigError, match=r"student.from_layers=\[1, 3\]"):
        StudentConfig(layers=2).kept(teacher)
    assert StudentConfig(from_layers=(1, 3)).kept(teacher) is not None
