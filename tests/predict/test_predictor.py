"""A bundle, answering."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.core.errors import BundleError, ConfigError, DataError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding, pack
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Example
from bertsmith.tokenizer.load import Tokenizer

Open = Callable[..., Predictor]


@pytest.fixture
def opened(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Open:
    """Save a model with fresh weights of these heads and open it."""

    def make(heads: Heads, keep_meta: bool = True, **meta: Any) -> Predictor:
        model = Model(toy_shape.model_copy(update={"initializer_range": 0.5}), heads)
        save_model(tmp_path / "bundle", model, toy_tokenizer.files(), meta)
        if not keep_meta:
            (tmp_path / "bundle" / "bertsmith.json").unlink()
        return Predictor.open(tmp_path / "bundle", device="cpu", precision="fp32")

    return make


def test_masks_are_filled_one_by_one(opened: Open, toy_tokenizer: Tokenizer) -> None:
    predictor = opened(Heads(mlm=True, nsp=True), task="pretraining")
    text = "Anna  lives in [MASK], [MASK] she works."
    answer = predictor(text, top_k=3)
    assert [len(options) for options in answer["masks"]] == [3, 3]
    for options in answer["masks"]:
        scores = [option["score"] for option in options]
        assert scores == sorted(scores, reverse=True)
        assert 0 < sum(scores) <= 1
    first, second = (options[0]["token"] for options in answer["masks"])
    assert answer["filled"] == answer["masks"][0][0]["filled"] == answer["masks"][1][0]["filled"]
    if not first.startswith("##") and not second.startswith("##"):
        assert answer["filled"] == f"Anna  lives in {first}, {second} she works."


def test_masks_get_the_models_probabilities(opened: Open, toy_tokenizer: Tokenizer) -> None:
    predictor = opened(Heads(mlm=True), task="pretraining")
    everything = predictor.fill_mask(["bert is [MASK]"], top_k=10_000)[0]["masks"][0]
    ids = toy_tokenizer.encode(["bert is"])[0].ids.tolist()
    row = np.array([toy_tokenizer.cls_id, *ids, toy_tokenizer.mask_id, toy_tokenizer.sep_id], np.int32)
    batch = pack([Encoding(row, np.zeros_like(row))], {"mlm_positions": torch.tensor([len(row) - 2])})
    with torch.inference_mode():
        expected = predictor.model(batch)["mlm"][0].softmax(-1)
    found = {toy_tokenizer.tokens.index(option["token"]): option["score"] for option in everything}
    assert len(found) == toy_tokenizer.vocab_size
    for index, score in found.items():
        assert score == pytest.approx(float(expected[index]), abs=1e-6)


def test_a_long_text_keeps_its_masks(opened: Open) -> None:
    predictor = opened(Heads(mlm=True), task="pretraining")
    answer = predictor("a " * 100 + "[MASK]" + " b" * 100)
    assert len(answer["masks"]) == 1
    assert predictor.tally.counts == {"cut_to_max_length": 1}
    with pytest.raises(DataError, match="too long"):
        predictor("[MASK] " + "a " * 100 + "[MASK]")


def test_a_text_without_a_mask_is_refused(opened: Open) -> None:
    with pytest.raises(DataError, match=r"text 2 has no \[MASK\]: 'anna'"):
        opened(Heads(mlm=True), task="pretraining")(["a [MASK]", "anna"])


def test_pairs_and_texts_may_be_mixed(opened: Open) -> None:
    predictor = opened(Heads(mlm=True, nsp=True), task="pretraining")
    one, two, three = predictor([("anna lives", "in paris"), "a [MASK]", ("a", "b")])
    assert one == pytest.approx(predictor(("anna lives", "in paris")), abs=1e-6)
    assert 0 <= three["is_next"] <= 1
    assert two["text"] == "a [MASK]"


def test_next_sentence_needs_its_head(opened: Open) -> None:
    with pytest.raises(BundleError, match="no nsp head"):
        opened(Heads(mlm=True), task="pretraining")(("a", "b"))


@pytest.mark.parametrize("bare", [False, True])
def test_a_hugging_face_folder_is_understood_without_our_file(opened: Open, bare: bool) -> None:
    labels = ["bad", "good", "so so"]
    meta = {"labels": labels} | ({} if bare else {"task": "classify"})
    predictor = opened(Heads(classify=3), keep_meta=not bare, **meta)
    answers = predictor(["a great film", "", "the film " * 200])
    for answer in answers:
        assert list(answer["probabilities"]) == labels
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
        assert answer["probabilities"][answer["label"]] == answer["score"] == max(answer["probabilities"].values())
    assert predictor.tally.counts == {"cut_to_max_length": 1}
    assert predictor.tally.first == {"cut_to_max_length": "input 3"}


def test_a_folder_with_one_output_predicts_a_number(opened: Open) -> None:
    answer = opened(Heads(classify=1), keep_meta=False)("a film")
    assert list(answer) == ["value"]


def test_a_tagger_without_our_file(opened: Open) -> None:
    predictor = opened(Heads(tag=3), keep_meta=False, labels=["O", "B-PER", "I-PER"])
    (answer,) = predictor(["Anna  lives in Paris"])
    assert answer["words"] == [(0, 4), (6, 11), (12, 14), (15, 20)]
    assert all(answer["text"][e["start"] : e["end"]] == e["text"] for e in answer["entities"])


def test_an_encoder_without_a_head_says_what_to_do(opened: Open) -> None:
    with pytest.raises(BundleError, match="without a head; give it a task with `bertsmith finetune`"):
        opened(Heads(), keep_meta=False)


def test_a_pair_for_a_model_of_single_texts_is_refused_and_the_other_way_round(opened: Open) -> None:
    config = {"labels": ["x", "y"], "regression": False, "max_length": 32}
    single = opened(Heads(classify=2), task="classify", labels=["x", "y"], task_config=config | {"pair": False})
    with pytest.raises(DataError, match="input 2: this model takes single texts"):
        single(["a", ("a", "b")])
    double = opened(Heads(classify=2), task="match", labels=["x", "y"], task_config=config | {"pair": True})
    with pytest.raises(DataError, match="input 1: this model compares two texts"):
        double("a")
    assert double(("a", "b"))["label"] in ("x", "y")


def test_questions_about_a_text(opened: Open) -> None:
    config = {"no_answer": True, "threshold": 1e9, "scorer": "squad", "max_length": 32, "stride": 8}
    predictor = opened(Heads(answer=True), task="answer", labels=["start", "end"], task_config=config)
    text = "😀 Anna lives in Paris, 我在北京. " * 200
    one = predictor(("where is anna?", text))
    assert one["answer"]
    assert text[one["start"] : one["end"]] == one["answer"]
    assert one["answer"] == next(entry["answer"] for entry in one["n_best"] if entry["answer"])
    assert one["null_odds"] < 1e9
    several = predictor([("", "paris"), ("where is anna?", text), ("where?", "")])
    assert [bool(answer["answer"]) for answer in several] == [False, True, False]
    assert (several[1]["start"], several[1]["end"]) == (one["start"], one["end"])
    asked = Example({"question": "where is anna?", "context": text, "id": "7"}, where="file:7")
    assert predictor(asked)["start"] == one["start"]
    assert predictor.tally.counts == {"read_in_windows": 3, "empty_question": 1}
    with pytest.raises(DataError, match="input 1: this model answers a question about a text; give both, as a pair"):
        predictor("where is anna?")


def test_a_folder_with_a_span_head_answers_always(opened: Open) -> None:
    answer = opened(Heads(answer=True), keep_meta=False)(("where?", "anna lives in paris"))
    assert answer["answer"]
    assert "null_odds" not in answer


def test_labels_that_do_not_fit_the_head_are_refused(opened: Open) -> None:
    with pytest.raises(BundleError, match=r"its labels \(2\) do not fit its head"):
        opened(Heads(classify=3), task="classify", labels=["a", "b", "c"], task_config={"labels": ["a", "b"]})


@pytest.mark.parametrize("options", [{"batch_tokens": 0}, {"precision": "fp8"}])
def test_impossible_options_are_refused(opened: Open, tmp_path: Path, options: dict[str, Any]) -> None:
    opened(Heads(mlm=True), task="pretraining")
    with pytest.raises(ConfigError):
        Predictor.open(tmp_path / "bundle", device="cpu", **options)


def test_published_weights_open_and_ask_for_a_task(minilm_dir: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(minilm_dir / name)
    with pytest.raises(BundleError, match="without a head"):
        Predictor.open(tmp_path, device="cpu")


def test_one_line_from_a_run_to_an_answer(tiny_run: Path) -> None:
    import bertsmith

    found = bertsmith.load(tiny_run, device="cpu")("Anna reads the [MASK] book.")
    assert found == Predictor.open(tiny_run, device="cpu")("Anna reads the [MASK] book.")
