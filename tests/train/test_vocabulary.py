"""A vocabulary cut to what the rows need: smaller, with nothing lost that the rows are written with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bertsmith.compress.prune import prune, prune_class
from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Example
from bertsmith.tasks.classification import Classification
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.shrink import keep_pieces, needed_pieces
from bertsmith.train.finetune import config_class, finetune
from bertsmith.train.loop import Step, steps
from bertsmith.train.vocabulary import told

TRAIN = "text,label\n" + "".join(f"Anna {v} the {c} book,{v}\n" for v in ("reads", "writes") for c in ("red", "old"))
DEV = "text,label\nDavid builds the green bridge in Rome,reads\n我在北京工作 🜚,writes\n"
FAST = ["train.lr=1e-9", "train.batch_size=4", "train.steps=4", "train.evaluations=2", "task.max_length=32"]
EMBEDDING = "bert.embeddings.word_embeddings.weight"


def run(folder: Path, name: str, start: Path, *sets: str, task: str = "classify", **how: Any) -> Bundle:
    data, dev = folder / "train.csv", folder / "dev.csv"
    data.write_text(TRAIN, encoding="utf-8")
    dev.write_text(DEV, encoding="utf-8")
    sets = (*FAST, "train.shrink_vocab=true", *sets)
    return finetune(task, data, folder / name, load(config_class(task), sets=[*sets]), start=start, dev=dev, **how)


def test_pieces_of_the_rows_and_single_characters_stay_with_their_vectors(
    tiny_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = run(tmp_path, "run", tiny_run, threads=1)
    whole, cut = Tokenizer.load(Bundle.open(tiny_run).path), Tokenizer.load(bundle.path)
    rows = [line.rpartition(",")[0] for line in TRAIN.splitlines()[1:]]
    used = {whole.tokens[i] for pieces in whole.encode(rows) for i in pieces.ids}
    single = {token for token in whole.tokens if len(token.removeprefix("##")) == 1}
    assert set(cut.tokens) == used | single | set(SPECIAL_TOKENS)
    assert cut.vocab_size < 0.8 * whole.vocab_size
    assert [token for token in whole.tokens if token in set(cut.tokens)] == list(cut.tokens), "their order"
    place = [whole.tokens.index(token) for token in cut.tokens]
    before, after = Bundle.open(tiny_run).tensors()[EMBEDDING], bundle.tensors()[EMBEDDING]
    assert torch.allclose(after, before[place], atol=1e-6)
    assert bundle.config["vocab_size"] == len(
        json.loads((bundle.path / "tokenizer.json").read_text())["model"]["vocab"]
    )
    shown = capfd.readouterr().err
    assert f"vocabulary: {cut.vocab_size} of {whole.vocab_size} pieces stay" in shown
    assert f"{bundle.meta['parameters']:,} parameters instead of" in shown
    assert "dev rows by the smaller vocabulary: " in shown


def test_words_of_the_rows_are_cut_as_before_and_others_into_characters(tiny_run: Path, tmp_path: Path) -> None:
    bundle = run(tmp_path, "run", tiny_run, quiet=True, threads=1)
    whole, cut = Tokenizer.load(Bundle.open(tiny_run).path), Tokenizer.load(bundle.path)

    def words(tokenizer: Tokenizer, text: str) -> list[str]:
        return [tokenizer.tokens[i] for i in tokenizer.encode([text])[0].ids]

    assert words(cut, "Anna writes the old book") == words(whole, "Anna writes the old book")
    assert "[UNK]" not in words(cut, "David paints the bridge. 我们")
    assert "".join(word.removeprefix("##") for word in words(cut, "bridge")) == "bridge"
    answers = Predictor.open(tmp_path / "run", device="cpu")(["Anna reads", "David builds"])
    assert {answer["label"] for answer in answers} <= {"reads", "writes"}


def test_what_dev_loses_is_counted(toy_tokenizer: Tokenizer) -> None:
    fewer = keep_pieces(toy_tokenizer, needed_pieces(toy_tokenizer, set()))
    rows = [Example({"text": "the film"}), Example({"text": "a 🜚"})]
    line = told(Classification(toy_tokenizer).encode(rows), toy_tokenizer, Classification(fewer).encode(rows), fewer)
    # [CLS] the film [SEP] [CLS] a [UNK] [SEP] are 8 pieces; t h e f i l m instead of two words makes 13.
    assert "13 pieces instead of 8 (+62.5%), of which unknown 1 (7.69%) instead of 1 (12.50%)" in line
    assert told([], toy_tokenizer, [], fewer) == ""


def test_it_resumes_to_the_same_weights(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ("train.lr=1e-2", "train.checkpoint_every=1steps")
    whole = run(tmp_path, "a", tiny_run, *sets, quiet=True, threads=1)
    real = steps

    def stops(*arguments: Any, **how: Any) -> Iterator[Step]:
        for step in real(*arguments, **how):
            yield step
            if step.number == 2:
                raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr("bertsmith.train.practice.steps", stops)
        with pytest.raises(OSError, match="no power"):
            run(tmp_path, "b", tiny_run, *sets, quiet=True, threads=1)
    assert (tmp_path / "b" / "vocab" / "tokenizer.json").exists()
    resumed = run(tmp_path, "b", tiny_run, *sets, quiet=True, resume=True, threads=1)
    assert resumed.hash == whole.hash
    assert resumed.meta["files"]["tokenizer.json"] == whole.meta["files"]["tokenizer.json"]


def test_each_seed_and_a_model_that_writes(tiny_run: Path, tmp_path: Path) -> None:
    bundle = run(tmp_path, "seeds", tiny_run, quiet=True, threads=1, seeds=[1, 2])
    assert bundle.config["vocab_size"] < Bundle.open(tiny_run).config["vocab_size"]
    data = tmp_path / "written.jsonl"
    data.write_text('{"source": "Anna", "target": "reads"}\n{"source": "Bert", "target": "writes"}\n' * 2)
    config = load(config_class("generate"), sets=[*FAST, "train.shrink_vocab=true", "task.max_target=8"])
    how: dict[str, Any] = {"start": tiny_run, "dev": data, "quiet": True, "threads": 1}
    bundle = finetune("generate", data, tmp_path / "writes", config, **how)
    whole, cut = Tokenizer.load(Bundle.open(tiny_run).path), Tokenizer.load(bundle.path)
    for word in ("reads", "writes", "anna"):
        assert {whole.tokens[i] for i in whole.encode([word])[0].ids} <= set(cut.tokens)
    assert bundle.tensors()["cls.predictions.bias"].shape == (cut.vocab_size,)


def test_what_it_does_not_go_with(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora stands on the bundle as it is, and train\.shrink_vocab cuts it"):
        run(tmp_path, "run", tiny_run, "peft.method=lora")
    config = load(prune_class("classify"), sets=["train.shrink_vocab=true"])
    with pytest.raises(ConfigError, match=r"here prune\.vocabulary=used cuts the vocabulary"):
        prune(tiny_run, tmp_path / "train.csv", tmp_path / "small", config)
