"""A pretrained bundle against text."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.evaluate.text import evaluate_text
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.preparation import prepare
from bertsmith.tokenizer.load import Tokenizer

TEXT = "\n\n".join(
    f"Anna lives in Paris {n}. Bert works in London. The film was good, not great.\nShe is here." for n in range(30)
)


def opened(folder: Path, tokenizer: Tokenizer, shape: ModelConfig, heads: Heads, **meta: object) -> Predictor:
    save_model(folder, Model(shape, heads), tokenizer.files(), {"task": "pretraining", "labels": [], **meta})
    return Predictor.open(folder, device="cpu", precision="fp32")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "held.txt").write_text(TEXT)
    return tmp_path / "held.txt"


@pytest.mark.parametrize("nsp", [True, False])
def test_text_is_scored_the_same_way_each_time(
    tmp_path: Path, text: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, nsp: bool
) -> None:
    predictor = opened(tmp_path / "b", toy_tokenizer, toy_shape, Heads(mlm=True, nsp=nsp))
    one, two = (evaluate_text(predictor, str(text), say=lambda line: None) for _ in range(2))
    assert one == two
    assert set(one.scores) == {"mlm_loss", "mlm_accuracy", *(("nsp_loss", "nsp_accuracy") if nsp else ())}
    # Fresh weights know nothing: the loss is that of guessing among all pieces.
    assert one.scores["mlm_loss"] == pytest.approx(math.log(toy_tokenizer.vocab_size), abs=0.3)
    assert one.part == "all of it"


def test_a_model_of_sentence_order_is_asked_for_the_order(
    tmp_path: Path, text: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig
) -> None:
    heads, saved = Heads(mlm=True, nsp=True), {"pairs": "sop", "masking": "span"}
    predictor = opened(tmp_path / "b", toy_tokenizer, toy_shape, heads, task_config=saved)
    found = evaluate_text(predictor, str(text), say=lambda line: None)
    assert set(found.scores) == {"mlm_loss", "mlm_accuracy", "sop_loss", "sop_accuracy"}


def test_a_single_sentence_has_no_pair(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> None:
    (tmp_path / "short.txt").write_text("Anna lives in Paris.")
    predictor = opened(tmp_path / "b", toy_tokenizer, toy_shape, Heads(mlm=True, nsp=True))
    found = evaluate_text(predictor, str(tmp_path / "short.txt"), say=lambda line: None)
    assert set(found.scores) == {"mlm_loss", "mlm_accuracy"}


def test_of_its_own_store_only_what_training_left_out_is_read(
    tmp_path: Path, text: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig
) -> None:
    store = prepare([str(text)], toy_tokenizer, tmp_path / "store", lambda line: None)
    lineage = {"data": {"store": store.hash}}
    own = opened(tmp_path / "own", toy_tokenizer, toy_shape, Heads(mlm=True), lineage=lineage)
    other = opened(tmp_path / "other", toy_tokenizer, toy_shape, Heads(mlm=True))
    part = evaluate_text(own, str(tmp_path / "store"), say=print)
    whole = evaluate_text(other, str(tmp_path / "store"), say=print)
    assert part.part == "the documents that training left out"
    assert part.tokens < whole.tokens / 5


def test_what_cannot_be_scored_is_refused(
    tmp_path: Path, text: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig
) -> None:
    with pytest.raises(ConfigError, match="no MLM head"):
        evaluate_text(opened(tmp_path / "a", toy_tokenizer, toy_shape, Heads(nsp=True)), str(text), say=print)
    predictor = opened(tmp_path / "b", toy_tokenizer, toy_shape, Heads(mlm=True))
    with pytest.raises(DataError, match="none"):
        evaluate_text(predictor, str(tmp_path / "none.txt"), say=print)
    longer = Tokenizer.from_tokens([*toy_tokenizer.tokens, "zebra"], lowercase=True)
    prepare([str(text)], longer, tmp_path / "store", lambda line: None)
    with pytest.raises(DataError, match="another vocabulary"):
        evaluate_text(predictor, str(tmp_path / "store"), say=print)
