"""Every engine gives the answers of the plain model, and an ONNX model is taken only from inside its bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.dense import parts, to_onnx
from bertsmith.model.heads import Model
from bertsmith.predict.bench import bench
from bertsmith.predict.predictor import Predictor
from bertsmith.tokenizer.load import Tokenizer

TEXTS = ["a good film", "", "anna lives in paris", "我在北京", "the " * 100, "he works for acme in london"]


@pytest.fixture
def bundle(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Bundle:
    pytest.importorskip("onnxruntime")
    shape = toy_shape.model_copy(update={"num_hidden_layers": 2, "initializer_range": 0.2})
    meta = {"task": "match", "labels": [], "task_config": {"mode": "bi", "max_length": 32}}
    return save_model(tmp_path / "b", Model(shape, Heads(embed="mean")), toy_tokenizer.files(), meta)


def with_onnx(bundle: Bundle, int8: tuple[str, ...] = (), **onnx: str) -> Bundle:
    encoder = Predictor(bundle, device="cpu", precision="fp32").model.encoder
    kind = "int8" if int8 else "fp32"
    return bundle.add("model.onnx", to_onnx(encoder, int8), onnx={"file": "model.onnx", "kind": kind} | onnx)


def vectors(bundle: Bundle, **options: str) -> np.ndarray:
    return Predictor(Bundle.open(bundle.path), device="cpu", **options).encode(TEXTS)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "relu"])
def test_engines_agree(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, act: str) -> None:
    pytest.importorskip("onnxruntime")
    shape = toy_shape.model_copy(update={"num_hidden_layers": 2, "initializer_range": 0.2, "hidden_act": act})
    meta = {"task": "match", "labels": [], "task_config": {"mode": "bi", "max_length": 32}}
    made = save_model(tmp_path / "b", Model(shape, Heads(embed="mean")), toy_tokenizer.files(), meta)
    right = vectors(made, precision="fp32", engine="torch")
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        low = vectors(made, precision="bf16", engine="torch")
        assert 0 < np.abs(low - right).max() < 0.05
        assert (1 - (low * right).sum(1)).max() < 1e-3
    assert np.abs(vectors(with_onnx(made), engine="onnx") - right).max() < 1e-5


def test_int8_is_smaller_and_near(bundle: Bundle) -> None:
    right = vectors(bundle, precision="fp32")
    encoder = Predictor(bundle, device="cpu").model.encoder
    made = with_onnx(bundle, tuple(parts(encoder)))
    found = vectors(made, engine="onnx")
    assert 0 < (1 - (found * right).sum(1)).max() < 0.05
    assert len(to_onnx(encoder, parts(encoder))) < len(to_onnx(encoder))
    # Quantised for ONNX Runtime: taken without being asked for.
    assert Predictor(Bundle.open(made.path), device="cpu").engine.name.startswith("onnx int8")


def test_bench_writes_the_choice_down_and_it_is_used(bundle: Bundle) -> None:
    found = bench(bundle, rounds=1)
    opened = Bundle.open(bundle.path)
    assert opened.meta["bench"]["short"] == found["short"]
    with_onnx(opened)
    for short, long in (("torch", "onnx"), ("onnx", "torch"), ("onnx", "onnx"), ("torch", "torch")):
        Bundle.open(bundle.path).annotate(bench=found | {"short": short, "long": long})
        predictor = Predictor(Bundle.open(bundle.path), device="cpu", precision="fp32")
        assert predictor.engine.name.startswith(short)
        assert (long in predictor.engine.name) or short == long
        assert np.abs(predictor.encode(TEXTS) - vectors(bundle, engine="torch", precision="fp32")).max() < 1e-5


def test_an_engine_that_is_not_there_says_what_to_do(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="--engine tpu: not one of auto, torch, onnx"):
        vectors(bundle, engine="tpu")
    with pytest.raises(BundleError, match="bertsmith bench"):
        vectors(bundle, engine="onnx")


def test_a_model_outside_the_folder_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    made = with_onnx(bundle)
    outside = tmp_path / "outside.onnx"
    (made.path / "model.onnx").rename(outside)
    (made.path / "model.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="outside the folder"):
        vectors(made, engine="onnx")
    made.annotate(onnx={"file": "../outside.onnx"})
    with pytest.raises(BundleError, match="outside the folder"):
        vectors(made, engine="onnx")
    Bundle.open(made.path).annotate(files={"../outside.onnx": {"sha256": "", "bytes": 1}})
    with pytest.raises(BundleError, match="outside the folder"):
        Bundle.open(made.path)


def test_weights_in_another_file_are_refused(bundle: Bundle) -> None:
    onnx = pytest.importorskip("onnx")
    made = with_onnx(bundle)
    model = onnx.load(made.path / "model.onnx")
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location="/etc/passwd")
    tensor.ClearField("raw_data")
    made.add("model.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match="takes weights from another file"):
        vectors(made, engine="onnx")
    made.add("model.onnx", b"no model")
    with pytest.raises(BundleError, match="not an ONNX model"):
        vectors(made, engine="onnx")


def test_the_modern_shape_says_that_it_is_not_exported() -> None:
    shape = ModelConfig(architecture="modernbert", hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    with torch.device("cpu"), pytest.raises(ConfigError, match="modernbert"):
        to_onnx(Model(shape, Heads(embed="mean")).encoder)
