"""int8 keeps the score within the drop allowed, or says that it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.compress.quantize import QuantizeConfig, quantize
from bertsmith.core.bundle import Bundle
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tokenizer.load import Tokenizer

pytest.importorskip("onnxruntime")


@pytest.fixture
def source(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Bundle:
    config = {"labels": ("no", "yes"), "regression": False, "pair": False, "max_length": 32}
    meta = {"task": "classify", "labels": ["no", "yes"], "task_config": config}
    shape = toy_shape.model_copy(update={"initializer_range": 0.5})
    return save_model(tmp_path / "parent", Model(shape, Heads(classify=2)), toy_tokenizer.files(), meta)


@pytest.fixture
def dev(tmp_path: Path, source: Bundle) -> Path:
    """Rows labelled by the parent itself, which so has no error."""
    words = ["the", "good", "bad", "great", "film", "boring", "london", "paris", "anna", "bert"]
    texts = [f"{a} {b} {c}" for a in words for b in words[:4] for c in words[::3]]
    answers = Predictor(source, device="cpu", precision="fp32")(texts)
    lines = [json.dumps({"text": t, "label": a["label"]}) for t, a in zip(texts, answers, strict=True)]
    file = tmp_path / "dev.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("most", [0.0, 100.0])
def test_the_drop_stays_within_the_gate(source: Bundle, dev: Path, tmp_run: Path, most: float) -> None:
    said: list[str] = []
    made = quantize(source, dev, tmp_run, QuantizeConfig(max_drop=most), say=said.append)
    figures = json.loads((tmp_run / "scores.json").read_text())
    assert figures["drop"] <= most
    assert figures["smaller"] > 1
    assert made.meta["onnx"]["kind"] == "int8"
    assert (made.meta["onnx"]["fp32"] == []) == (len(said) == 1)
    assert made.meta["lineage"]["parent_sha256"] == source.hash
    assert "int8" in (tmp_run / "report.html").read_text()
    card = (made.path / "README.md").read_text(encoding="utf-8")
    assert all(
        part in card for part in (source.hash, "`model.int8.onnx`: int8", "--engine onnx", "int8, rows of the gate")
    )
    assert "onnx" not in (source.path / "README.md").read_text(encoding="utf-8")
    assert Predictor(Bundle.open(tmp_run), device="cpu").engine.name.startswith("onnx int8")


def test_the_command(source: Bundle, dev: Path, tmp_run: Path, in_process: Callable[..., tuple[int, str, str]]) -> None:
    arguments = (
        "compress",
        "quantize",
        source.path,
        "--data",
        dev,
        "--out",
        tmp_run,
        "--max-drop",
        100,
        "--threads",
        1,
    )
    code, out, err = in_process(*arguments)
    assert (code, out.strip()) == (0, str(tmp_run / "bundle")), err
    code, _, err = in_process(*arguments)
    assert code == 2
    assert "already there" in err
