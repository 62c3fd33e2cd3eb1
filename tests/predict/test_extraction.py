"""Entities, then relations among them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.predict.extraction import Extractor
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Example
from bertsmith.tasks.relations import Relations, RelationsConfig
from bertsmith.tasks.tagging import Tagging, TaggingConfig
from bertsmith.tokenizer.load import Tokenizer

TEXT = "anna works for acme in paris"
ENTITIES = [(0, 4, "PER"), (15, 19, "ORG"), (23, 28, "LOC")]


def stub(task: Any, answer: Any) -> Predictor:
    return cast(Predictor, SimpleNamespace(task=task, bundle=SimpleNamespace(path="x"), examples=answer, tally=Tally()))


class Tagger:
    """Finds the same entities in every text."""

    def __init__(self, task: Tagging) -> None:
        self.task, self.bundle = task, SimpleNamespace(path="tagger")

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        found = [{"start": a, "end": b, "type": kind, "text": TEXT[a:b], "score": 1.0} for a, b, kind in ENTITIES]
        return [{"text": text, "entities": [dict(one) for one in found]} for text in texts]


def works(examples: list[Example]) -> list[dict[str, Any]]:
    known = {("PER", "ORG"): "works", ("ORG", "LOC"): "in"}
    pairs = [(example.fields["first"].type, example.fields["second"].type) for example in examples]
    return [{"label": known.get(pair, "none"), "score": 0.9} for pair in pairs]


@pytest.fixture
def extractor(toy_tokenizer: Tokenizer) -> Extractor:
    config = RelationsConfig(
        labels=("in", "none", "works"), none="none", types=(("ORG", "LOC"), ("PER", "ORG")), reach=12
    )
    task = Relations(toy_tokenizer, config)
    return Extractor(cast(Predictor, Tagger(Tagging(toy_tokenizer))), stub(task, works))


def test_relations_point_to_entities(extractor: Extractor) -> None:
    (answer,) = extractor([TEXT])
    assert answer["relations"] == [
        {"first": 0, "second": 1, "type": "works", "score": 0.9},
        {"first": 1, "second": 2, "type": "in", "score": 0.9},
    ]


def test_triples_are_scored_strictly(extractor: Extractor, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    ann = [f"T{n}\t{kind} {a} {b}\t{TEXT[a:b]}" for n, (a, b, kind) in enumerate(ENTITIES, 1)]
    (tmp_path / "a.ann").write_text("\n".join([*ann, "R1\tworks Arg1:T1 Arg2:T2", "R2\tin Arg1:T1 Arg2:T3"]))
    entities, triples, texts = extractor.evaluate(tmp_path, Tally())
    assert (entities.f1, triples.f1, triples.support, texts) == (1.0, 0.5, 2, 1)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "a.txt").write_text(TEXT)
    (bare / "a.ann").write_text("\n".join(ann))
    with pytest.raises(DataError, match="none of its 1 texts has a relation"):
        extractor.evaluate(bare, Tally())


def test_the_wrong_kind_of_model_is_refused(toy_tokenizer: Tokenizer) -> None:
    tagger, relations = Tagging(toy_tokenizer), Relations(toy_tokenizer)
    with pytest.raises(ConfigError, match="entities are found by a tagger, and this is none"):
        Extractor(stub(relations, works), stub(relations, works))
    with pytest.raises(ConfigError, match="relations are told by a model that `bertsmith finetune relate` made"):
        Extractor(stub(tagger, works), stub(tagger, works))


def test_two_bundles_answer_together(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> None:
    tagging = Tagging(toy_tokenizer, TaggingConfig(head="span", labels=("PER", "ORG"), max_length=32))
    labels = {"labels": ("none", "works"), "none": "none", "max_length": 32, "types": (("PER", "PER"),)}
    relating = Relations(toy_tokenizer, RelationsConfig.model_validate(labels))
    opened = []
    for task in (tagging, relating):
        meta = {"task": task.name, "labels": list(task.labels), "task_config": task.config.model_dump(mode="json")}
        bundle = save_model(tmp_path / task.name, Model(toy_shape, task.head(toy_shape)), toy_tokenizer.files(), meta)
        opened.append(Predictor(bundle, device="cpu", precision="fp32"))
    answers = Extractor(*opened)([TEXT, ""])
    json.dumps(answers, allow_nan=False)
    for answer in answers:
        for one in answer["relations"]:
            assert {answer["entities"][one[role]]["type"] for role in ("first", "second")} == {"PER"}
