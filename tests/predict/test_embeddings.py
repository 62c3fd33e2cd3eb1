"""Vectors of texts, and what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding, pack
from bertsmith.predict.predictor import Predictor
from bertsmith.tokenizer.load import Tokenizer

TEXTS = ["a good film", "", "anna lives in paris", "我在北京", "the " * 100, "a good film", "😀 [SEP]"]


def opened(folder: Path, tokenizer: Tokenizer, shape: ModelConfig, heads: Heads, **config: Any) -> Predictor:
    model = Model(shape.model_copy(update={"initializer_range": 0.5}), heads)
    meta = {"task": "match", "labels": list(config.get("labels", ())), "task_config": config | {"max_length": 32}}
    save_model(folder, model, tokenizer.files(), meta)
    return Predictor.open(folder, device="cpu", precision="fp32", batch_tokens=40)


@pytest.fixture
def bi(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Predictor:
    return opened(tmp_path / "bi", toy_tokenizer, toy_shape, Heads(embed="mean"), mode="bi")


@pytest.fixture
def cross(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Predictor:
    config = {"labels": ("no", "yes"), "regression": False, "pair": True}
    return opened(tmp_path / "cross", toy_tokenizer, toy_shape, Heads(classify=2), **config)


def test_a_text_s_vector_is_the_mean_of_its_pieces(bi: Predictor, toy_tokenizer: Tokenizer) -> None:
    found = bi.encode(TEXTS, normalize=False)
    assert (found.dtype, found.shape) == (np.float32, (len(TEXTS), 32))
    for text, vector in zip(TEXTS, found, strict=True):
        ids = toy_tokenizer.encode([text])[0].ids[:30]
        row = np.array([toy_tokenizer.cls_id, *ids, toy_tokenizer.sep_id], np.int32)
        with torch.inference_mode():
            expected = bi.model.hidden(pack([Encoding(row, np.zeros_like(row))])).mean(0)
        assert np.abs(vector - expected.numpy()).max() < 1e-5
    assert bi.tally.counts == {"cut_to_max_length": 1}
    assert bi.tally.first == {"cut_to_max_length": "text 5"}


def test_vectors_have_length_1_unless_asked_otherwise(bi: Predictor) -> None:
    assert np.linalg.norm(bi.encode(TEXTS), axis=1) == pytest.approx(np.ones(len(TEXTS)))
    raw = bi.encode(TEXTS, normalize=False)
    assert bi.encode(TEXTS) == pytest.approx(raw / np.linalg.norm(raw, axis=1, keepdims=True), abs=1e-6)
    cls = bi.encode(TEXTS, pooling="cls")
    assert np.abs(cls - bi.encode(TEXTS)).max() > 0.01
    assert bi.encode([]).shape == (0, 32)


def test_similarity_is_that_of_the_answers(bi: Predictor, cross: Predictor) -> None:
    first, second = TEXTS[:3], TEXTS[2:6]
    for predictor in (bi, cross):
        matrix = predictor.similarity(first, second)
        assert (matrix.shape, matrix.dtype) == ((3, 4), np.float32)
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                answer = predictor((a, b))
                one = answer["similarity"] if predictor is bi else answer["probabilities"]["yes"]
                assert matrix[i, j] == pytest.approx(one, abs=1e-5)


def test_reranking_is_sorting_by_similarity(bi: Predictor, cross: Predictor) -> None:
    for predictor in (bi, cross):
        scores = predictor.similarity(["a film"], TEXTS)[0]
        found = predictor.rerank("a film", TEXTS)
        assert [one["index"] for one in found] == np.argsort(-scores, kind="stable").tolist()
        assert [one["text"] for one in found] == [TEXTS[one["index"]] for one in found]
        assert [one["score"] for one in found] == sorted(map(float, scores), reverse=True)
        assert predictor.rerank("a film", TEXTS, top_k=2) == found[:2]
        assert predictor.rerank("a film", []) == []


def test_single_texts_and_pairs_may_be_mixed(bi: Predictor) -> None:
    alone, pair = bi(["a film", ("a film", "anna")])
    assert alone["embedding"] == pytest.approx(bi.encode(["a film"])[0], abs=1e-6)
    assert -1 <= pair["similarity"] <= 1


def test_a_model_not_made_for_it_says_what_to_do(cross: Predictor) -> None:
    with pytest.raises(BundleError, match=r"not made to give vectors of texts; train one with .*pooling='mean'"):
        cross.encode(["a"])
    assert cross.encode(["a", "the " * 100], pooling="mean").shape == (2, 32)
    assert cross.tally.first == {"cut_to_max_length": "text 2"}


@pytest.mark.parametrize("heads", [Heads(mlm=True, nsp=True), Heads(classify=3)])
def test_a_model_that_does_not_compare_says_so(
    tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, heads: Heads
) -> None:
    meta = {"task": "pretraining"} if heads.mlm else {"task": "classify", "labels": ["a", "b", "c"]}
    save_model(tmp_path / "b", Model(toy_shape, heads), toy_tokenizer.files(), meta)
    predictor = Predictor.open(tmp_path / "b", device="cpu", precision="fp32")
    with pytest.raises(BundleError, match="does not say how well two texts go together"):
        predictor.similarity(["a"], ["b"])
    assert predictor.encode(["a"], pooling="cls").shape == (1, 32)


def test_a_folder_says_itself_how_vectors_are_made(tmp_path: Path, toy_tokenizer: Tokenizer, bi: Predictor) -> None:
    (bi.bundle.path / "bertsmith.json").unlink()
    plain = Predictor(Bundle.open(bi.bundle.path), device="cpu", precision="fp32")
    assert plain.task is not None
    assert (plain.task.name, plain.task.config.mode, plain.max_length) == ("match", "bi", 32)
    assert plain.encode(TEXTS) == pytest.approx(bi.encode(TEXTS), abs=1e-6)
