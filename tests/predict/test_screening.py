"""Leaving toxic documents out of a corpus, by a classifier that has learned two words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.runner import Crew
from bertsmith.corpus.clean import CleanConfig
from bertsmith.corpus.document import Document
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import pack
from bertsmith.predict.predictor import Predictor
from bertsmith.predict.screening import judge, passages_of, screening, toxicity
from bertsmith.tasks.base import Example
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tasks.preparation import CorpusConfig, PrepareConfig, prepare
from bertsmith.tokenizer.load import Tokenizer

KIND = "The good people of the town walked to the sea with their dogs."
HARSH = "You are a bad man and nobody of the town would miss you."


def _save(path: Path, tokenizer: Tokenizer, shape: ModelConfig, labels: tuple[str, ...]) -> Path:
    """A classifier that was taught to tell sentences with "bad" from others."""
    torch.manual_seed(0)
    task = Classification(tokenizer, ClassificationConfig(labels=labels, max_length=64), say=lambda _: None)
    model = Model(shape, task.head(shape)).train()
    texts = [KIND, HARSH, "It was good.", "It was bad.", "A good day at sea.", "A bad day for a man."] * 4
    batch = pack(task.encode([Example({"text": text}, where="") for text in texts]))
    gold = torch.tensor([int("bad" in text) for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(batch)["classify"], gold)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    config = task.config.model_dump(mode="json")
    save_model(path, model, tokenizer.files(), {"task": "classify", "labels": labels, "task_config": config})
    return path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Path:
    return _save(tmp_path_factory.mktemp("judge") / "bundle", toy_tokenizer, toy_shape, ("fine", "toxic"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Documents 1 and 3 are harsh, 4 says it in one of many passages."""
    texts = [
        f"{KIND} The sea was good.",
        f"{HARSH} A bad man.",
        "A good day at sea. " * 3,
        "It was bad, a bad day.",
        " ".join([KIND] * 80 + [HARSH] + [KIND] * 80),
    ]
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


def _config(classifier: Path, **more: object) -> CorpusConfig:
    clean = CleanConfig(mode="filter", quality=False, toxic=str(classifier), **more)  # type: ignore[arg-type]
    return CorpusConfig(clean=clean)


def test_toxic_documents_are_left_out_counted_and_shown(
    classifier: Path, corpus: Path, toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config, said = _config(classifier), list[str]()
    store = prepare(
        [str(corpus)], toy_tokenizer, tmp_path / "store", said.append, config, screen=screening(config.clean)
    )
    rule = store.manifest["cleaning"]["rules"]["toxic"]
    assert rule["documents"] == 2
    assert [(sample["id"], sample["note"].partition(",")[0]) for sample in rule["samples"]] in (
        [("d1", "1 of 1 passages"), ("d3", "1 of 1 passages")],
        [("d3", "1 of 1 passages"), ("d1", "1 of 1 passages")],
    )
    assert store.manifest["skipped"] == {"toxic": 2}
    assert store.num_documents == store.manifest["cleaning"]["kept_documents"] == 3
    assert "cleaning: 3 of 5 documents stay" in "\n".join(said)
    facts = store.manifest["classifier"]
    assert facts == {"bundle": str(classifier), "sha256": Predictor.open(classifier).bundle.hash, "labels": ["toxic"]}


def test_the_store_is_the_same_however_many_ranks_judge(
    classifier: Path,
    corpus: Path,
    toy_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bertsmith.corpus.blocks.SMALLEST", 50)  # a block a document
    config = _config(classifier)
    hashes = set()
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        screen = screening(config.clean)
        hashes.add(prepare([str(corpus)], toy_tokenizer, out, print, config, crew=Crew(ranks), screen=screen).hash)
    assert len(hashes) == 1


def test_a_trained_vocabulary_knows_nothing_of_what_is_left_out(classifier: Path, corpus: Path, tmp_path: Path) -> None:
    from bertsmith.tokenizer.train import VocabConfig

    config, vocab = _config(classifier), VocabConfig(size=120, min_frequency=1)
    with corpus.open("a") as file:
        file.write(json.dumps({"id": "d9", "text": "A bad man. Zounds, a bad bad zounds day."}) + "\n")
    screen = screening(config.clean)
    store = prepare([str(corpus)], None, tmp_path / "store", print, config, vocab=vocab, screen=screen)
    assert store.manifest["skipped"]["toxic"] == 3
    assert "z" not in "".join((store.path / "vocab" / "vocab.txt").read_text().split("\n")[5:])


def test_how_much_is_judged_and_from_when_on_it_counts(classifier: Path) -> None:
    predictor = Predictor.open(classifier)
    long = Document(" ".join([KIND] * 80 + [HARSH] + [KIND] * 80), "d", "f")
    passages = passages_of(long, predictor)
    assert " ".join(passages) == long.text
    room = min(128, predictor.max_length - 2)
    assert all(len(ids) <= room for ids, _ in predictor.tokenizer.encode_ids(passages))
    few = CleanConfig(mode="filter", toxic=str(classifier))
    every = few.model_copy(update={"toxic_passages": 0, "toxic_share": 0.001})
    strict = every.model_copy(update={"toxic_score": 1.0})
    assert judge([long], predictor, few) == [None]
    (found,) = judge([long], predictor, every)
    assert found is not None
    assert HARSH in found.text
    assert re.fullmatch(rf"1 of {len(passages)} passages, highest (0\.\d\d|1\.00)", found.note)
    assert judge([long], predictor, strict) == [None]


def test_several_labels_count_by_the_worst_and_one_label_by_the_sum() -> None:
    chances = {"insult": 0.6, "threat": 0.5, "praise": 0.9}
    assert toxicity(chances, ("insult", "threat"), several=True) == 0.6
    assert toxicity({"fine": 0.4, "rude": 0.35, "hate": 0.25}, ("rude", "hate"), several=False) == pytest.approx(0.6)


def test_what_cannot_judge_is_refused_before_anything_is_read(
    classifier: Path, corpus: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, tiny_run: Path, tmp_path: Path
) -> None:
    numbers = _save(tmp_path / "numbers", toy_tokenizer, toy_shape, ("0", "1"))
    with pytest.raises(ConfigError, match=r"which of its labels are toxic\? It has 0, 1; say it with .*toxic_labels="):
        screening(_config(numbers).clean)
    named = screening(_config(numbers, toxic_labels=("1",)).clean)
    assert named is not None
    assert named.classifier["labels"] == ["1"]
    with pytest.raises(ConfigError, match=r"has no label rude; it has fine, toxic"):
        screening(_config(classifier, toxic_labels=("rude",)).clean)
    with pytest.raises(ConfigError, match=r"is for the task pretraining, and a classifier with labels is needed"):
        screening(_config(tiny_run).clean)
    with pytest.raises(ConfigError, match=r"corpus\.clean.*toxic leaves out documents, and mode=mend does not"):
        load(PrepareConfig, sets=[f"corpus.clean.toxic={classifier}"])
    with pytest.raises(ConfigError, match=r"pass screen=predict\.screening\.screening"):
        prepare([str(corpus)], toy_tokenizer, tmp_path / "store", print, _config(classifier))


@pytest.mark.parametrize("trained", [False, True])
def test_when_nothing_is_left_the_rule_is_named(
    classifier: Path, toy_tokenizer: Tokenizer, tmp_path: Path, trained: bool
) -> None:
    (tmp_path / "text.txt").write_text(f"{HARSH}\n\nIt was bad, a bad day.\n")
    config = _config(classifier)
    with pytest.raises(DataError, match=r"cleaning left nothing of 2 documents \(toxic: 2\).*toxic_score=1"):
        prepare(
            [str(tmp_path / "text.txt")],
            None if trained else toy_tokenizer,
            tmp_path / "store",
            print,
            config,
            screen=screening(config.clean),
        )
