"""One contract for every task that reads labelled rows: a new task gets all of these by one line in CASES."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.compress import report
from bertsmith.compress.distil import distil, distil_class
from bertsmith.compress.prune import prune, prune_class
from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import read_metrics
from bertsmith.corpus.document import Tally
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.predict.engine import answer
from bertsmith.predict.predictor import CONFIGS, Predictor
from bertsmith.tasks.base import TASKS, Example, Loss, collate, task_class
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.losses import difference, label_weights

WORDS = ["good", "bad", "great", "boring", "london", "paris", "anna", "bert"]


@dataclass(frozen=True)
class Case:
    task: str
    file: str
    text: str
    sets: dict[str, Any] = field(default_factory=dict)


CONLL = "\n\n".join(
    f"{name} B-PER\nlives O\nin O\n{place} B-LOC\n. O"
    for name in ("anna", "bert", "he")
    for place in ("paris", "london")
)
SPANS = "\n".join(
    f'{{"text": "我在{place}很好, {name}!", "spans": [[2, 4, "LOC"]]}}'
    for place in ("北京", "上海")
    for name in ("anna", "bert")
)
QUESTIONS = "\n".join(
    f'{{"question": "where is {name}?", "context": "{name} lives in {place}, not in acme! 我在北京",'
    f' "answers": ["{answer}"]}}'
    for name in ("anna", "bert")
    for place in ("paris", "london")
    for answer in (place,)
)
NO_ANSWER = (
    QUESTIONS
    + "\n"
    + "\n".join(
        f'{{"question": "where is {name}?", "context": "{other} works for acme 😀, she is not bad", "answers": []}}'
        for name, other in (("anna", "bert"), ("bert", "anna"), ("he", "she"))
    )
)
NESTED = "\n".join(
    f'{{"text": "the {name} of {place} lives in {other}", "entities": [[4, {8 + len(name) + len(place)}, "ORG"], '
    f'[4, {4 + len(name)}, "PER"], [{8 + len(name)}, {8 + len(name) + len(place)}, "LOC"]]}}'
    for name in ("anna", "bert")
    for place in ("paris", "acme")
    for other in ("london", "paris")
)
RELATIONS = "\n".join(
    f'{{"text": "<e1>{name}</e1> {verb} <e2>{place}</e2>!", "relation": "{verb.split()[-1]}"}}'
    for name in ("anna", "bert")
    for verb in ("lives in", "works for", "is not")
    for place in ("paris", "acme", "北京")
)
DOCUMENTS = "\n".join(
    f'{{"text": "{name} {verb} {place} !", "entities": ['
    f'{{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 4}}, '
    f'{{"id": 2, "label": "LOC", "start_offset": {6 + len(verb)}, "end_offset": {6 + len(verb) + len(place)}}}], '
    f'"relations": {json.dumps([{"from_id": 1, "to_id": 2, "type": verb}] if verb != "is not" else [])}}}'
    for name in ("anna", "bert")
    for verb in ("lives in", "works for", "is not")
    for place in ("paris", "acme")
)
CHOICES = "\n".join(
    json.dumps({"context": f"{name} was in {place}!", "question": "the film was", "choices": choices, "label": n})
    for name in ("anna", "bert")
    for place in ("paris", "北京")
    for n, choices in enumerate((["great, 不错", "bad"], ["boring", "great", "bad"], ["not it", "bad", "great"]))
)
WRITTEN = "\n".join(
    f'{{"source": "{name}, {place}", "target": "{name} lives in {place}, not in {other}!"}}'
    for name in ("anna", "bert", "he")
    for place, other in (("paris", "london"), ("london", "paris"), ("acme", "london"))
)
SUMMARIES = "\n".join(
    f'{{"text": "{first} The film was great. 我在北京很好。 {last}", "summary": "{name.title()} lives in {place}."}}'
    for name in ("anna", "bert", "he")
    for place in ("paris", "london")
    for lives in (f"{name.title()} lives in {place}.",)
    for first, last in ((lives, "She works for Acme."), ("He was not bad.", lives))
)
DIALOGUES = "\n".join(
    f"where is {name}? __eou__ {name} is in {place}, not in acme! __eou__ is {name} good? __eou__"
    f" it was {w} for {name}. __eou__\t1"
    for name, place, w in (("anna", "paris", "good"), ("bert", "london", "bad"), ("he", "acme", "great"))
)
CASES = {
    "two classes": Case(
        "classify", "a.csv", "text,label\n" + "".join(f"the {w} film,{int(w in 'good great')}\n" for w in WORDS)
    ),
    "classes of the mean": Case(
        "classify",
        "a.csv",
        "text,label\n" + "".join(f"the {w} film,{int(w in 'good great')}\n" for w in WORDS),
        {"pooling": "mean"},
    ),
    "many classes": Case("classify", "a.csv", "text,label\n" + "".join(f"{w} {w},class {w}\n" for w in WORDS)),
    "numbers": Case("classify", "a.csv", "text,label\n" + "".join(f"{w},{i / 4 + 0.1}\n" for i, w in enumerate(WORDS))),
    "pairs": Case(
        "match",
        "a.tsv",
        "text_a\ttext_b\tlabel\n" + "".join(f"{a}\t{b}\t{'ny'[b == 'bad']}\n" for a in WORDS[:3] for b in WORDS[:3]),
    ),
    "pairs as vectors": Case(
        "match",
        "a.csv",
        "text_a,text_b,label\n" + "".join(f"{a},{b},{'ny'[b == a]}\n" for a in WORDS[:3] for b in WORDS[:3]),
        {"mode": "bi"},
    ),
    "scores as vectors": Case(
        "match",
        "a.csv",
        "sentence1,sentence2,score\n"
        + "".join(f"{WORDS[0]},{WORDS[i]} {WORDS[j]},{(9 - 3 * i - j) / 2}\n" for i in range(3) for j in range(3)),
        {"mode": "bi", "pooling": "cls", "temperature": 0.01},
    ),
    "rows that go together": Case(
        "match",
        "a.csv",
        "query,positive,negative\n"
        + "".join(f"is it {w},it is {w},{'he was' * (i % 2)}\n" for i, w in enumerate(WORDS)),
        {"mode": "bi"},
    ),
    "rows that go together, read as pairs": Case(
        "match", "a.csv", "query,positive,negative\n" + "".join(f"is it {w},it is {w},he was {w}\n" for w in WORDS)
    ),
    "columns": Case("tag", "a.txt", CONLL),
    "spans": Case("tag", "a.jsonl", SPANS),
    "a chain of tags": Case("tag", "a.txt", CONLL, {"head": "crf"}),
    "pairs of words": Case("tag", "a.jsonl", SPANS, {"head": "span"}),
    "nested spans": Case("tag", "a.jsonl", NESTED, {"head": "span"}),
    "several labels": Case(
        "classify",
        "a.jsonl",
        "\n".join(
            f'{{"text": "the {a} {b} film", "label": {json.dumps([w for w in (a, b) if w not in ("bad", "boring")])}}}'
            for a in WORDS[:4]
            for b in WORDS[:4]
        ),
    ),
    "paths": Case(
        "classify",
        "a.csv",
        "text,label\n" + "".join(f"{w},{'ab'[i % 2]}/{w}\n" for i, w in enumerate(WORDS)),
        {"levels": "/"},
    ),
    "relations from [CLS]": Case("relate", "a.jsonl", RELATIONS, {"read": "cls"}),
    "whole texts with relations": Case("relate", "a.jsonl", DOCUMENTS),
    "relations": Case("relate", "a.jsonl", RELATIONS),
    "answers": Case("answer", "a.jsonl", QUESTIONS),
    "answers or none": Case("answer", "a.jsonl", NO_ANSWER),
    "choices": Case("choose", "a.jsonl", CHOICES),
    "texts to be written": Case("generate", "a.jsonl", WRITTEN, {"max_target": 16, "label_smoothing": 0}),
    "texts to be written by a decoder": Case(
        "generate", "a.jsonl", WRITTEN, {"mode": "decoder", "max_target": 16, "label_smoothing": 0, "num_beams": 3}
    ),
    "responses": Case("generate", "a.txt", DIALOGUES, {"max_target": 16, "label_smoothing": 0}),
    "summaries of sentences": Case("generate", "a.jsonl", SUMMARIES, {"mode": "extract"}),
    "turns that go together": Case("match", "a.txt", DIALOGUES, {"mode": "bi"}),
}


STEPS = 200


def fitted(
    case: Case, folder: Path, tokenizer: Tokenizer, shape: ModelConfig
) -> tuple[Any, Model, list[Example], list[float]]:
    """The task, a model that has learnt its rows by heart, the rows, and the losses on the way."""
    path = folder / case.file
    path.write_text(case.text, encoding="utf-8")
    kind = task_class(case.task)
    task = kind(tokenizer, CONFIGS[case.task](max_length=32, **case.sets), say=lambda text: None)
    examples = task.rows(path, Tally())
    model = Model(shape, task.head(shape), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = collate(task.encode(examples))
    losses = []
    torch.manual_seed(0)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / STEPS)
        loss = task.loss(model(batch), batch)
        mean = loss.total / loss.count
        optimizer.zero_grad()
        mean.backward()
        optimizer.step()
        losses.append(float(mean.detach()))
    return task, model.eval(), examples, losses


@pytest.fixture(scope="module", params=CASES)
def learnt(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    toy_tokenizer: Tokenizer,
    toy_shape: ModelConfig,
) -> tuple[Any, Model, list[Example], list[float]]:
    return fitted(CASES[request.param], tmp_path_factory.mktemp("task"), toy_tokenizer, toy_shape)


Learnt = tuple[Any, Model, Sequence[Example], list[float]]


def same(one: Any, other: Any) -> bool:
    """Equal, floats to 1e-5."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple | np.ndarray):
        return len(one) == len(other) and all(map(same, one, other))
    return one == pytest.approx(other, abs=1e-5) if isinstance(one, float | np.floating) else bool(one == other)


def test_it_learns_its_rows_by_heart(learnt: Learnt) -> None:
    task, model, examples, losses = learnt
    assert losses[-1] < 0.05 * losses[0]
    scores = task.score(answer(task, model, examples), examples)
    assert scores[task.headline] > 0.98


def test_every_example_knows_its_place(learnt: Learnt) -> None:
    for example in learnt[2]:
        file, _, line = example.where.rpartition(":")
        assert Path(file).is_file()
        assert 1 <= int(line) <= len(Path(file).read_text().splitlines())


def test_the_loss_is_a_sum_that_does_not_depend_on_the_cut(learnt: Learnt) -> None:
    task, model, examples, _ = learnt
    encodings = task.encode(examples)

    def loss(part: Sequence[Any]) -> Loss:
        batch = collate(part)
        with torch.no_grad():
            return task.loss(model(batch), batch)

    whole = loss(encodings)
    assert whole.total.dtype == torch.float32
    if getattr(task, "joint", False):  # the loop takes it over all parts at once: tests/train/test_loop.py
        shuffled = [encodings[i] for i in np.random.default_rng(0).permutation(len(encodings))]
        assert float(loss(shuffled).total) == pytest.approx(float(whole.total), abs=1e-4)
        return
    parts = [loss(encodings[:3]), loss(encodings[3:])]
    assert float(whole.total) == pytest.approx(sum(float(part.total) for part in parts), abs=1e-4)
    assert int(whole.count) == sum(int(part.count) for part in parts)
    for name, (total, count) in whole.parts.items():
        assert int(count) == int(whole.count)
        assert float(total) == pytest.approx(sum(float(part.parts[name][0]) for part in parts))


def test_the_loss_is_taken_of_what_is_decided(learnt: Learnt) -> None:
    task, model, examples, _ = learnt
    batch = collate(task.encode(examples))
    with torch.no_grad():
        outputs = model(batch)
    if getattr(task, "decides", None) is None:
        assert task.name in ("tag", "match"), "a chain, pairs of words, a bi-encoder"
        return
    found = task.decisions(outputs, batch)
    loss = task.loss(outputs, batch)
    total = sum(one.share * float(one.loss().total) for one in found)
    assert total == pytest.approx(float(loss.total), rel=1e-5, abs=1e-4)
    assert {len(one.logits) for one in found} == {int(loss.count)}
    assert sum(one.share for one in found) == 1
    assert all(float(difference(one, one).abs().max()) == 0 for one in found)
    if task.decides in ("classes", "sets"):
        assert len(label_weights("balanced", task, task.encode(examples))) == len(task.labels)  # type: ignore[arg-type]


def test_answers_keep_their_order_and_do_not_depend_on_the_batch(learnt: Learnt) -> None:
    task, model, examples, _ = learnt
    whole = answer(task, model, examples)
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    alone = answer(task, model, [examples[i] for i in order], batch_tokens=1)
    assert same([whole[i] for i in order], alone)


def test_texts_without_a_label_are_encoded_alike(learnt: Learnt) -> None:
    task, _, examples, _ = learnt
    bare = [Example(example.fields, None) for example in examples]
    for labelled, plain in zip(task.encode(examples), task.encode(bare), strict=True):
        assert labelled.input_ids.tolist() == plain.input_ids.tolist()
        assert labelled.targets
        assert not plain.targets


TEXTS = {
    "empty": "",
    "one token": "paris",
    "5,000 tokens": "anna lives in paris . " * 1000,
    "emoji": "😀 anna 👩\u200d👩\u200d👧 lives in paris 😀",
    "mixed scripts": "我在paris不错, он в Москве, مرحبا a\u0301 ß",
    "lone surrogate": "\ud800 anna lives in paris \udfff",
    "special tokens": "[SEP] [CLS] [MASK] [PAD]",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_any_text_gets_an_answer_with_offsets_into_it(learnt: Learnt, text: str) -> None:
    task, model, examples, _ = learnt
    fields = {name: value for name, value in examples[0].fields.items() if name != "words"}
    place = next(name for name in ("context", "pair", "text") if name in fields)
    asked = [Example({**fields, place: text}), Example(examples[1].fields)]
    found, other = answer(task, model, asked)
    assert same([other], answer(task, model, asked[1:]))
    json.dumps(found, allow_nan=False)
    for part in [*found.get("entities", []), *found.get("n_best", []), *found.get("sentences", [])]:
        surface = part.get("text", part.get("answer"))
        assert surface == ("" if part["start"] is None else text[part["start"] : part["end"]])
    for encoding in task.encode(asked):
        assert len(encoding) <= 32
        begun, ended = encoding.input_ids[0], encoding.input_ids[-1]
        assert (begun, ended) == (task.tokenizer.cls_id, task.tokenizer.sep_id)
        assert (encoding.input_ids == task.tokenizer.cls_id).sum() == 1


def test_nothing_in_nothing_out(learnt: Learnt) -> None:
    task, model, _, _ = learnt
    assert answer(task, model, []) == []


def test_a_bundle_answers_as_the_task_did(learnt: Learnt, tmp_path: Path) -> None:
    task, model, examples, _ = learnt
    meta = {"task": task.name, "labels": list(task.labels), "task_config": task.config.model_dump(mode="json")}
    save_model(tmp_path / "bundle", model, task.tokenizer.files(), meta)
    bundle = Bundle.open(tmp_path / "bundle")
    predictor = Predictor(bundle, device="cpu", precision="fp32")
    assert predictor.task is not None
    assert predictor.task.config == task.config
    assert same(predictor.examples(examples), answer(task, model, examples))


def test_labels_name_the_outputs_of_the_head(learnt: Learnt, toy_shape: ModelConfig) -> None:
    task = learnt[0]
    heads = task.head(toy_shape)
    outputs = (
        0
        if task.config.model_dump().get("regression")
        else heads.classify + heads.mean + heads.tag + heads.span + heads.relate + 2 * heads.answer
    )
    assert len(task.labels) == outputs


@pytest.mark.parametrize("verb", ["distil", "prune"])
def test_its_models_can_be_made_smaller(
    learnt: Learnt, toy_shape: ModelConfig, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _, examples, _ = learnt
    monkeypatch.setattr(report, "ROUNDS", 1)
    shape = toy_shape.model_copy(update={"num_hidden_layers": 2})
    settings = task.config.model_dump(mode="json")
    meta = {"task": task.name, "labels": list(task.labels), "headline": task.headline, "task_config": settings}
    model = Model(shape, task.head(shape), seed=1)
    parent = save_model(tmp_path / "parent", model, task.tokenizer.files(), meta)
    data, section = Path(examples[0].where.rpartition(":")[0]), {"distil": "student", "prune": "prune"}[verb]
    fewer = [f"{section}.layers=1"] if model.heads.decoder else [f"{section}.heads=1", f"{section}.units=16"]
    sets = ["train.steps=2", "train.batch_size=4", "train.precision=fp32", "train.doctor=off", "train.lr=1e-4", *fewer]
    if verb == "distil":
        made = distil(
            parent.path, [data], tmp_path / "run", load(distil_class(task.name), sets=sets), dev=data, quiet=True
        )
    else:
        config: Any = load(prune_class(task.name), sets=sets)
        made = prune(parent.path, data, tmp_path / "run", config, dev=data, quiet=True)
    before, after = (Predictor(one, device="cpu", precision="fp32") for one in (parent, made))
    sizes = [sum(parameter.numel() for parameter in one.model.parameters()) for one in (before, after)]
    assert sizes[1] < (0.9 if model.heads.decoder else 0.8) * sizes[0]
    assert after.model.heads == before.model.heads
    for one, other in zip(before.examples(examples), after.examples(examples), strict=True):
        assert one.keys() <= other.keys()  # a threshold may have been found on dev
    # The teacher has answered too: no head's outputs are passed over.
    assert read_metrics(tmp_path / "run")[0]["train/logits"] > 0


@pytest.mark.parametrize("name", TASKS)
def test_the_table_names_classes_that_are_there(name: str) -> None:
    kind = task_class(name)
    assert kind.name == name
    for method in ("rows", "encode", "head", "loss", "decode", "score"):
        assert callable(getattr(kind, method))


def test_a_misspelt_task_suggests_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"no task 'clasify'; did you mean 'classify'\?"):
        task_class("clasify")
