"""The card of a bundle: what it says, that it is completed by people and stays sound, and what it keeps to itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bertsmith.core.bundle import Bundle, write_bundle
from bertsmith.core.card import card
from bertsmith.core.front_matter import languages, scripts_of

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "max_position_embeddings": 64,
}
META: dict[str, Any] = {
    "task": "classify",
    "labels": ["bad", "go|od"],
    "headline": "accuracy",
    "task_config": {"max_length": 256, "labels": ["bad", "go|od"]},
    "lineage": {
        "parent": "ab" * 32,
        "base_model": "some/encoder",
        "data": {"/home/ada/secret/train.csv": "cd" * 32},
        "configs": {"train": {"lr": 3e-4, "batch_size": 32, "seed": 7}},
        "steps": 1234,
    },
    "splits": {
        "train": {"name": "train.csv", "rows": 9000, "sha256": "cd" * 32},
        "dev": {"name": "train.csv", "rows": 1000, "sha256": "cd" * 32, "held_out": True},
    },
    "languages": {"zh": 90, "latin": 10},
    "vocabulary": {"size": 400, "scripts": {"han": 300, "latin": 100}},
    "scores": {"dev": {"accuracy": 0.91234, "f1": 0.8, "f1/bad": 0.7}},
}


def write(path: Path, **changes: Any) -> Bundle:
    files = {"vocab.txt": "[PAD]\n[UNK]\nthe\n##s\n我\n是\n!\n".encode()}
    tensors = {"a": torch.ones(3, 4)}
    return write_bundle(path, config=CONFIG, tensors=tensors, files=files, meta={**META, **changes})


def text(meta: dict[str, Any], config: dict[str, Any] = CONFIG) -> str:
    return card(config, meta).decode()


def test_every_bundle_has_a_card_that_says_what_it_is(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    said = (bundle.path / "README.md").read_text(encoding="utf-8")
    for part in (
        "sorts texts into classes",
        "class `BertForSequenceClassification`",
        "| train | `train.csv` | 9,000 | `cdcd",
        "Dev rows were held out",
        "| steps to these weights | 1,234 |",
        "| train.lr | 0.0003 |",
        "| accuracy (the one that counts) | 0.9123 |",
        "At most 64 pieces at once",
        "2 labels",
        "There were no test rows",
        "One seed",
        "zh 90%, latin 10%",
        "numbers in the file | 12 |",
    ):
        assert part in said, part


def test_the_hub_reads_its_front_matter(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(write(tmp_path / "b").path / "README.md").data
    assert data.license is None
    assert data.language == ["en", "zh"]
    assert data.pipeline_tag == "text-classification"
    assert data.base_model == "some/encoder"
    assert data.library_name == "transformers"
    assert data.metrics == ["accuracy", "f1"]
    assert data.tags == ["bertsmith", "bert", "classify"]


def test_spread_over_seeds_is_shown_beside_the_bundles_own_scores() -> None:
    table = {"dev": {"accuracy": {"mean": 0.9, "sd": 0.0123, "each": [0.91234, 0.88766]}}}
    said = text({**META, "seeds": {"seeds": [1, 2], "scores": table}})
    assert "| accuracy (the one that counts) | 0.9123 | 0.9000 ± 0.0123 |" in said
    assert "over the seeds 1, 2" in said
    assert "One seed" not in said


@pytest.mark.parametrize(
    ("task", "labels", "settings"),
    [("answer", ["start", "end"], {}), ("generate", ["left_out", "summary"], {"mode": "extract"})],
)
def test_places_in_a_text_are_no_classes(task: str, labels: list[str], settings: dict[str, str]) -> None:
    said = text({**META, "task": task, "labels": labels, "task_config": {"max_length": 64, **settings}})
    assert "labels and answers" not in said
    assert "At most 64 pieces at once: longer texts are read in windows." in said


def test_equal_bundles_have_equal_cards(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert (first.path / "README.md").read_bytes() == (second.path / "README.md").read_bytes()
    opened = Bundle.open(first.path)
    assert card(opened.config, opened.meta) == (first.path / "README.md").read_bytes()


def test_a_completed_card_keeps_its_bundle_sound_and_is_not_written_over(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    assert "README.md" not in bundle.meta["files"]
    file = bundle.path / "README.md"
    file.write_text(file.read_text(encoding="utf-8").replace("# license: yours", "license: mit #"), encoding="utf-8")
    completed, before = file.read_bytes(), bundle.hash
    opened = Bundle.open(bundle.path).annotate(scores={"dev": {"accuracy": 0.5}})
    assert Bundle.open(bundle.path).hash == opened.hash == before
    assert file.read_bytes() == completed


def test_a_card_that_nobody_touched_follows_what_is_added(tmp_path: Path) -> None:
    bundle = Bundle.open(write(tmp_path / "b").path).annotate(scores={"dev": {"accuracy": 0.5}})
    said = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert "| 0.5000 |" in said
    assert "0.9123" not in said


def test_a_bundle_from_before_there_were_cards_opens(tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    (bundle.path / "README.md").unlink()
    opened = Bundle.open(bundle.path)
    assert opened.hash == bundle.hash
    old = {name: META[name] for name in ("task", "labels", "scores")}
    assert "sorts texts" in text(old, {"model_type": "bert"})
    assert "encodes text" in text({}, {})


def test_paths_of_the_machine_stay_out(tmp_path: Path) -> None:
    assert "/home/ada" not in text(META)
    without = {name: value for name, value in META.items() if name != "splits"}
    assert "/home/ada" not in text(without)
    assert "`train.csv`" in text(without)
    runs = {"task": "pretraining", "lineage": {"data": {"store": "ef", "inputs": ["/home/ada/wiki", "pydoc:json"]}}}
    assert "/home/ada" not in text(runs)
    assert "| `wiki` |" in text(runs)
    int8 = {**META, "lineage": {"parent": "/home/ada/run/bundle", "parent_sha256": "12" * 32}}
    assert "/home/ada" not in text(int8)
    assert "12" * 32 in text(int8)


def test_what_comes_from_outside_breaks_neither_tables_nor_code() -> None:
    said = text({**META, "labels": ["a|b", "c`d", "e\nf"]})
    assert "`a\\|b`, `c'd`, `e f`" in said
    assert len(re.findall(r"^```", said, re.M)) % 2 == 0


def test_a_vocabulary_is_told_by_the_script_of_its_letters() -> None:
    pieces = [["[PAD]", 0.0], ["the", -1.0], ["▁is", -1.0], ["你", -2.0], ["привет", -3.0], ["42", -4.0]]
    unigram = {"tokenizer.json": json.dumps({"model": {"vocab": pieces}}).encode()}
    assert scripts_of(unigram) == {"size": 6, "scripts": {"latin": 2, "cyrillic": 1, "han": 1}}
    wordpiece = {"tokenizer.json": json.dumps({"model": {"vocab": {"[CLS]": 0, "a": 1, "##b": 2}}}).encode()}
    assert scripts_of(wordpiece) == {"size": 3, "scripts": {"latin": 2}}
    assert scripts_of({}) is None
    assert languages({"vocabulary": {"scripts": {"latin": 96, "han": 4}}}) == ["en"]
    assert languages({"languages": {"ja": 50, "zh": 50}, "vocabulary": {"scripts": {"latin": 1}}}) == ["ja", "zh"]
