"""Weights and configs of Hugging Face folders, both ways, exact to the bit; misfits named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.adopt import adopt
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import from_hf, load_model, save_model, to_hf
from bertsmith.model.heads import Model

Folder = tuple[dict[str, Any], dict[str, Tensor]]

SMALL: dict[str, Any] = {
    "vocab_size": 23,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}


def make(heads: Heads, **changes: Any) -> Model:
    model = Model(ModelConfig.model_validate(SMALL | changes), heads, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return model


def folder(heads: Heads, labels: list[str] | None = None, **changes: Any) -> Folder:
    model = make(heads, **changes)
    return to_hf(model.config, model.state_dict(), model.heads, labels)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@st.composite
def models(draw: st.DrawFn) -> Model:
    heads = st.builds(Heads, mlm=st.booleans(), nsp=st.booleans(), classify=st.integers(0, 3), tag=st.integers(0, 3))
    changes: dict[str, Any] = {
        "architecture": draw(st.sampled_from(["bert", "modernbert"])),
        "num_hidden_layers": draw(st.integers(1, 4)),
        "num_attention_heads": draw(st.sampled_from([1, 2, 4])),
        "tie_word_embeddings": draw(st.booleans()),
        "hidden_act": draw(st.sampled_from(["gelu", "gelu_new", "relu"])),
        "hidden_dropout": draw(st.sampled_from([0.0, 0.1])),
        "classifier_dropout": draw(st.sampled_from([0.0, 0.2])),
    }
    if changes["architecture"] == "bert":
        changes["type_vocab_size"] = draw(st.integers(1, 3))
    else:
        changes["bias"] = draw(st.booleans())
        changes["global_attention_every"] = draw(st.sampled_from([1, 3]))
        changes["local_attention"] = draw(st.sampled_from([4, 128]))
        changes["classifier_pooling"] = draw(st.sampled_from(["cls", "mean"]))
        changes["local_rope_theta"] = draw(st.sampled_from([500.0, 10_000.0]))
    return make(draw(heads), **changes)


@given(models())
@settings(max_examples=60, deadline=None)
def test_there_and_back_changes_nothing(model: Model) -> None:
    hf_config, tensors = to_hf(model.config, model.state_dict(), model.heads)
    hf_config = json.loads(json.dumps(hf_config))
    config, state, heads = from_hf(hf_config, tensors)
    # One layer shows no pattern: layer_types cannot tell how often global attention would come back.
    if config.num_hidden_layers > 1:
        assert config == model.config
    assert heads == model.heads
    assert same(state, model.state_dict())
    again_config, again = to_hf(config, state, heads)
    assert again_config == hf_config
    assert same(again, tensors)


@pytest.mark.parametrize(
    ("architecture", "heads", "name"),
    [
        ("bert", Heads(mlm=True, nsp=True), "BertForPreTraining"),
        ("bert", Heads(mlm=True), "BertForMaskedLM"),
        ("bert", Heads(nsp=True), "BertForNextSentencePrediction"),
        ("bert", Heads(classify=3), "BertForSequenceClassification"),
        ("bert", Heads(tag=3), "BertForTokenClassification"),
        ("bert", Heads(), "BertModel"),
        ("modernbert", Heads(mlm=True), "ModernBertForMaskedLM"),
        ("modernbert", Heads(classify=3), "ModernBertForSequenceClassification"),
        ("modernbert", Heads(tag=3), "ModernBertForTokenClassification"),
        ("modernbert", Heads(), "ModernBertModel"),
    ],
)
def test_heads_name_the_class(architecture: str, heads: Heads, name: str) -> None:
    hf_config, _ = folder(heads, architecture=architecture)
    assert hf_config["architectures"] == [name]
    assert hf_config["model_type"] == architecture


def test_a_head_without_a_class_is_kept_under_our_name() -> None:
    hf_config, tensors = folder(Heads(mlm=True, nsp=True), architecture="modernbert")
    assert hf_config["architectures"] == ["ModernBertForMaskedLM"]
    assert tensors["bertsmith.head.nsp.weight"].shape == (2, 8)


def test_published_bert_that_calls_itself_masked_lm_keeps_its_nsp_head() -> None:
    hf_config, tensors = folder(Heads(mlm=True, nsp=True))
    hf_config["architectures"] = ["BertForMaskedLM"]
    assert from_hf(hf_config, tensors)[2] == Heads(mlm=True, nsp=True)


def test_old_spellings_are_read() -> None:
    hf_config, tensors = folder(Heads(mlm=True, nsp=True))
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in tensors.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(16)[None]
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    assert len(old) == len(tensors) + 3
    assert same(from_hf(hf_config, old)[1], from_hf(hf_config, tensors)[1])


@pytest.mark.parametrize(("architecture", "prefix"), [("bert", "bert."), ("modernbert", "model.")])
def test_prefix_may_be_absent(architecture: str, prefix: str) -> None:
    hf_config, tensors = folder(Heads(mlm=True), architecture=architecture)
    bare = {name.removeprefix(prefix): value for name, value in tensors.items()}
    assert bare.keys() != tensors.keys()
    assert same(from_hf(hf_config, bare)[1], from_hf(hf_config, tensors)[1])


def test_untied_bias_is_the_one_that_transformers_reads() -> None:
    hf_config, tensors = folder(Heads(mlm=True), tie_word_embeddings=False)
    tensors["cls.predictions.bias"] = torch.full((23,), 7.0)
    state = from_hf(hf_config, tensors)[1]
    assert torch.equal(state["head.mlm.bias"], tensors["cls.predictions.decoder.bias"])


def test_old_modernbert_config_is_read() -> None:
    hf_config, tensors = folder(Heads(mlm=True), architecture="modernbert", num_hidden_layers=4)
    for key in ("layer_types", "rope_parameters", "tie_word_embeddings", "decoder_bias"):
        del hf_config[key]
    hf_config |= {
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 50_000.0,
        "local_rope_theta": None,
        "position_embedding_type": "absolute",
        "layer_norm_eps": 1e-5,
    }
    config = from_hf(hf_config, tensors)[0]
    assert [config.window(layer) for layer in range(4)] == [None, 64, None, 64]
    assert (config.global_rope_theta, config.local_rope_theta) == (50_000.0, 50_000.0)
    assert config.tie_word_embeddings


@pytest.mark.parametrize(
    ("architecture", "changes", "told"),
    [
        ("bert", {"model_type": "roberta"}, "model_type 'roberta' is not one of bert, modernbert"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ("bert", {"hidden_act": "swish"}, "hidden_act = 'swish' is not one of gelu, gelu_new"),
        ("bert", {"is_decoder": True}, "is_decoder = True"),
        ("bert", {"add_cross_attention": True}, "add_cross_attention = True"),
        ("bert", {"auto_map": {"AutoModel": "own.Model"}}, "auto_map"),
        ("bert", {"problem_type": "ranking"}, "problem_type = 'ranking'"),
        ("bert", {"num_attention_heads": 3}, "not a multiple of num_attention_heads 3"),
        ("bert", {"hidden_dropout_prob": 1.5}, "hidden_dropout: Input should be less than 1"),
        ("bert", {"architectures": ["BertLMHeadModel"]}, "architectures ['BertLMHeadModel']"),
        ("modernbert", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type = 'yarn'"),
        ("modernbert", {"norm_bias": True}, "'norm_bias': True"),
        ("modernbert", {"decoder_bias": False}, "decoder_bias"),
        ("modernbert", {"classifier_activation": "relu"}, "classifier_activation"),
    ],
)
def test_what_is_not_built_is_refused_by_name(architecture: str, changes: dict[str, Any], told: str) -> None:
    hf_config, tensors = folder(Heads(mlm=True), architecture=architecture)
    with pytest.raises(BundleError) as caught:
        from_hf(hf_config | changes, tensors, "models/x")
    assert told in str(caught.value)
    assert str(caught.value).startswith("models/x: ")


def _lose(tensors: dict[str, Tensor]) -> None:
    del tensors["bert.encoder.layer.1.attention.self.key.bias"]


def _add(tensors: dict[str, Tensor]) -> None:
    tensors["bert.encoder.layer.9.output.dense.bias"] = torch.zeros(8)


def _cut(tensors: dict[str, Tensor]) -> None:
    tensors["bert.embeddings.word_embeddings.weight"] = torch.zeros(22, 8)


def _quantise(tensors: dict[str, Tensor]) -> None:
    tensors["bert.pooler.dense.weight"] = torch.zeros(8, 8, dtype=torch.int8)


def _double(tensors: dict[str, Tensor]) -> None:
    tensors["embeddings.LayerNorm.gamma"] = torch.ones(8)


def _untie(tensors: dict[str, Tensor]) -> None:
    tensors["cls.predictions.decoder.weight"] = torch.zeros(23, 8)


def _shift(tensors: dict[str, Tensor]) -> None:
    tensors["bert.embeddings.position_ids"] = torch.arange(2, 18)[None]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_lose, "1 missing: .*layer.1.attention.self.key.bias"),
        (_add, "1 unexpected: encoder.layer.9.output.dense.bias"),
        (_cut, r"word_embeddings.weight is torch.float32 \[22, 8\], config.json asks for \[23, 8\]"),
        (_quantise, "pooler.dense.weight is torch.int8"),
        (_double, "embeddings.LayerNorm.gamma is there twice"),
        (_untie, "set tie_word_embeddings to false"),
        (_shift, "1 unexpected: embeddings.position_ids"),
    ],
)
def test_tensors_that_do_not_fit_are_named(damage: Callable[[dict[str, Tensor]], None], told: str) -> None:
    hf_config, tensors = folder(Heads(mlm=True, nsp=True))
    damage(tensors)
    with pytest.raises(BundleError, match=told):
        from_hf(hf_config, tensors)


def test_a_classifier_needs_to_say_what_it_classifies() -> None:
    hf_config, tensors = folder(Heads(tag=3))
    del hf_config["architectures"]
    with pytest.raises(BundleError, match="architectures is missing"):
        from_hf(hf_config, tensors)


def test_labels_must_fit_the_head() -> None:
    assert folder(Heads(tag=3), ["O", "B-X", "I-X"])[0]["id2label"] == {"0": "O", "1": "B-X", "2": "I-X"}
    with pytest.raises(BundleError, match=r"2 labels .* for a head of 3"):
        folder(Heads(tag=3), ["O", "B-X"])


def test_a_saved_model_comes_back_whole(tmp_path: Path) -> None:
    model = make(Heads(mlm=True, nsp=True), tie_word_embeddings=False)
    bundle = save_model(tmp_path / "b", model, {"vocab.txt": b"[PAD]\n"}, {"task": "pretraining"})
    again = load_model(bundle)
    assert (again.config, again.heads, bundle.task) == (model.config, model.heads, "pretraining")
    assert same(again.state_dict(), model.state_dict())
    assert (tmp_path / "b" / "vocab.txt").read_bytes() == b"[PAD]\n"


def test_wanted_heads_start_fresh_where_none_is_saved(tmp_path: Path) -> None:
    model = make(Heads(mlm=True, nsp=True, classify=2))
    bundle = save_model(tmp_path / "b", model, {}, {})
    first, again, other = (load_model(bundle, Heads(classify=5), seed=seed).state_dict() for seed in (1, 1, 2))
    saved = model.state_dict()
    assert same(first, again)
    assert first["head.classify.weight"].shape == (5, 8)
    assert not torch.equal(first["head.classify.weight"], other["head.classify.weight"])
    assert torch.equal(first["pooler.dense.weight"], saved["pooler.dense.weight"])
    assert not any(name.startswith(("head.mlm", "head.nsp")) for name in first)
    kept = load_model(bundle, Heads(classify=2)).state_dict()
    assert torch.equal(kept["head.classify.weight"], saved["head.classify.weight"])


def write_pickle(where: Path, heads: Heads) -> dict[str, Tensor]:
    hf_config, tensors = folder(heads)
    where.mkdir()
    (where / "config.json").write_text(json.dumps(hf_config))
    torch.save(tensors, where / "pytorch_model.bin")
    return tensors


def test_a_trusted_pickle_becomes_a_bundle(tmp_path: Path) -> None:
    tensors = write_pickle(tmp_path / "old", Heads(tag=3))
    with pytest.raises(BundleError, match="bertsmith convert"):
        adopt(tmp_path / "old", tmp_path / "new")
    bundle = adopt(tmp_path / "old", tmp_path / "new", trust_pickle=True)
    assert bundle.task == "tag"
    assert bundle.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert same(bundle.tensors(), tensors)
    assert Bundle.open(tmp_path / "new").hash == bundle.hash


class Trap:
    """Runs code when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("sprung"),)  # type: ignore[return-value]


def test_even_a_trusted_pickle_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pickle(tmp_path / "old", Heads(tag=3))
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Trap()}, protocol=2))
    with pytest.raises(BundleError, match="holds more than tensors"):
        adopt(tmp_path / "old", tmp_path / "new", trust_pickle=True)
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "new").exists()


def test_adopting_keeps_labels_token_ids_and_tokenizer(tmp_path: Path) -> None:
    model = make(Heads(classify=2), architecture="modernbert")
    bundle = save_model(tmp_path / "a", model, {"tokenizer.json": b"{}"}, {"task": "classify", "labels": ["no", "yes"]})
    (tmp_path / "a" / "bertsmith.json").unlink()
    (tmp_path / "a" / "config.json").write_text(json.dumps(bundle.config | {"cls_token_id": 2}))
    adopted = adopt(tmp_path / "a", tmp_path / "b", tokenizer_files={"tokenizer.json": b"x", "vocab.txt": b"y"})
    assert adopted.labels == ["no", "yes"]
    assert adopted.config["cls_token_id"] == 2
    assert adopted.meta["lineage"]["parent"] == bundle.hash
    assert (adopted.path / "tokenizer.json").read_bytes() == b"{}"
    assert (adopted.path / "vocab.txt").read_bytes() == b"y"
    assert same(load_model(adopted).state_dict(), model.state_dict())
