"""The Python of a bundle's card: it runs as it stands, and gives what bertsmith gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.core.bundle import Bundle
from bertsmith.core.snippets import commands, in_transformers, question
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import pack
from bertsmith.peft.base import insert
from bertsmith.peft.bundle import save_tuned
from bertsmith.peft.config import PeftConfig
from bertsmith.predict.engine import forward
from bertsmith.predict.predictor import CONFIGS, Predictor
from bertsmith.tasks.base import Task, task_class
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.tokenizer.load import Tokenizer

pytest.importorskip("transformers")

CLASSES = {"labels": ("bad", "fair", "good"), "regression": False, "multi_label": False, "pair": False}
TAGS = {"labels": ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "classes": ("classify", CLASSES),
    "pairs": ("classify", CLASSES | {"pair": True}),
    "several labels": ("classify", CLASSES | {"multi_label": True}),
    "numbers": ("classify", CLASSES | {"labels": (), "regression": True}),
    "match": ("match", {"labels": ("no", "yes"), "regression": False, "labelled": True}),
    "vectors": ("match", {"mode": "bi"}),
    "vectors of [CLS] with a prompt": ("match", {"mode": "bi", "pooling": "cls", "normalize": False, "prompt": "it: "}),
    "tags": ("tag", TAGS),
    "tags in a chain": ("tag", TAGS | {"head": "crf"}),
    "nested spans": ("tag", {"labels": ("LOC", "PER"), "head": "span"}),
    "relations": ("relate", {"labels": ("no", "yes")}),
    "relations from [CLS]": ("relate", {"labels": ("no", "yes"), "read": "cls"}),
    "answers": ("answer", {"no_answer": True}),
    "choices": ("choose", {"first": 0}),
    "sentences": ("generate", {"mode": "extract", "sentences": 1}),
    "writing": ("generate", {"mode": "unilm", "max_length": 30, "max_target": 30}),
    "pretraining": ("pretraining", {"pairs": "nsp"}),
    "pretraining without pairs": ("pretraining", {"pairs": "none"}),
}


@pytest.fixture(params=["bert", "modernbert"])
def shape(request: pytest.FixtureRequest, toy_tokenizer: Tokenizer) -> ModelConfig:
    return ModelConfig(
        architecture=request.param,
        vocab_size=toy_tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )


def made(folder: Path, name: str, settings: Mapping[str, Any], shape: ModelConfig, tokenizer: Tokenizer) -> Bundle:
    if name == "pretraining":
        config = Pretraining(tokenizer).config.model_copy(update={"max_length": 64, **settings})
        task: Any = Pretraining(tokenizer, config)
    else:
        task = task_class(name)(tokenizer, CONFIGS[name](**({"max_length": 64} | dict(settings))))
    model = Model(shape, task.head(shape), seed=5)
    meta = {
        "task": name,
        "labels": list(getattr(task, "labels", ())),
        "task_config": task.config.model_dump(mode="json"),
    }
    files = tokenizer.files(shape.architecture, max_length=shape.max_position_embeddings)
    return save_model(folder / "bundle", model, files, meta)


def run(code: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), found)
    return found


def python_of(bundle: Bundle, heading: str) -> str:
    said = (bundle.path / "README.md").read_text(encoding="utf-8")
    part = said[said.index(f"## {heading}") :]
    found = re.search(r"^```python\n(.*?)^```$", part, re.M | re.S)
    return found[1] if found else ""


@pytest.mark.parametrize("case", CASES)
def test_the_cards_python_for_transformers_gives_our_numbers(
    case: str,
    shape: ModelConfig,
    toy_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, settings = CASES[case]
    bundle = made(tmp_path, name, settings, shape, toy_tokenizer)
    code = python_of(bundle, "Use in transformers")
    if case == "writing":
        assert not code
        assert "write with bertsmith" in in_transformers(bundle.config, bundle.meta)[0]
        return
    monkeypatch.chdir(bundle.path)
    found = run(code)
    assert capsys.readouterr().out  # of an answer that ends before it begins, an empty line
    outputs, predictor = found["outputs"], Predictor.open(bundle.path, device="cpu", precision="fp32")
    assert type(found["model"]).__name__ in bundle.config["architectures"]
    texts = question(bundle.meta)
    if name == "pretraining":
        masks = predictor.fill_mask(list(texts), top_k=3)[0]["masks"]
        best = found["logits"].softmax(-1)[0].topk(3)
        assert [one["token"] for one in masks[0]] == found["tokenizer"].convert_ids_to_tokens(best.indices.tolist())
        assert [one["score"] for one in masks[0]] == pytest.approx(best.values.tolist(), abs=1e-5)
        return
    if "vectors" in found:
        vectors = predictor.encode(
            list(texts), normalize=settings.get("normalize", True), pooling=settings.get("pooling")
        )
        assert np.abs(found["vectors"].numpy() - vectors).max() < 1e-5
        return
    task = predictor.task
    assert task is not None
    encodings = task.encode([predictor._example(texts if len(texts) > 1 else texts[0], 1)])
    if "last_hidden_state" in outputs:
        with torch.no_grad():
            ours = predictor.model.encoder(pack(encodings))
        theirs = outputs.last_hidden_state[0]
    else:
        (order, _, heads), *_ = forward(predictor.model, encodings)
        ours = heads[{"relate": "classify", "match": "classify", "generate": "tag"}.get(name, name)]
        ours = ours[np.argsort(order)] if name == "choose" else ours
        theirs = outputs.logits if "logits" in outputs else torch.stack([outputs.start_logits, outputs.end_logits], -1)
        theirs = theirs[0] if theirs.ndim == 3 or name == "choose" else theirs
        ours = ours.reshape(theirs.shape)
    assert (ours - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_the_cards_python_for_bertsmith_runs(
    case: str,
    shape: ModelConfig,
    toy_tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, settings = CASES[case]
    bundle = made(tmp_path, name, settings, shape, toy_tokenizer)
    monkeypatch.chdir(bundle.path)
    code = python_of(bundle, "Use in bertsmith")
    assert run(code)["ask"].bundle.hash == bundle.hash
    assert capsys.readouterr().out.strip()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the peft library, about transformers
@pytest.mark.parametrize("method", ["lora", "prefix", "pfeiffer"])
def test_the_card_of_a_small_part_opens_it_in_the_peft_library(
    method: str, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    base = made(tmp_path / "base", "pretraining", {"pairs": "nsp"}, toy_shape, toy_tokenizer)
    task: Task = task_class("classify")(toy_tokenizer, CONFIGS["classify"](**CLASSES, max_length=32))
    config = PeftConfig(method=method, targets=("query", "value")) if method == "lora" else PeftConfig(method=method)
    model = load_model(base, task.head(toy_shape), seed=3)
    insert(model, config, seed=4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    meta = {"task": "classify", "labels": list(task.labels), "task_config": task.config.model_dump(mode="json")}
    bundle = save_tuned(tmp_path / "small", model, config, base, meta)
    code = python_of(bundle, "Use in transformers")
    said = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert base.hash in said
    assert "han" in said  # the base's vocabulary
    if method == "pfeiffer":
        assert not code
        assert "library_name: bertsmith" in said
        return
    assert "library_name: peft" in said
    monkeypatch.chdir(bundle.path)
    found = run(code.replace('"BASE"', repr(str(base.path))))
    answer = Predictor.open(bundle.path, device="cpu", precision="fp32")(question(bundle.meta)[0])
    chances = found["outputs"].logits.softmax(-1)[0].tolist()
    assert list(answer["probabilities"].values()) == pytest.approx(chances, abs=1e-5)


def test_every_block_of_a_card_is_one_that_it_means() -> None:
    blocks = commands({"task": "answer", "onnx": {"file": "model.int8.onnx"}})
    assert [language for language, _ in blocks] == ["bash", "python", "bash", "bash"]
    assert blocks[0][1].endswith("--engine onnx")
    assert '"question": "Who lives in Turin?"' in blocks[3][1]
    assert commands({}) == []
