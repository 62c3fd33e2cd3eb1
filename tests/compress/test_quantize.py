"""int8 keeps the score within the drop allowed, or says that it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bertsmith.compress import quantize as module
from bertsmith.compress.quantize import QuantizeConfig, quantize
from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.predict.bench import bench
from bertsmith.predict.predictor import Predictor
from bertsmith.serve.worker import _facts
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
    return labelled_by(source, tmp_path / "dev.jsonl")


def labelled_by(parent: Bundle, file: Path, surer_than: float = 0.0) -> Path:
    """Rows labelled by the parent itself, which so has no error, where it is surer than this."""
    words = ["the", "good", "bad", "great", "film", "boring", "london", "paris", "anna", "bert"]
    texts = [f"{a} {b} {c}" for a in words for b in words[:4] for c in words[::3]]
    answers = Predictor(parent, device="cpu", precision="fp32", engine="torch")(texts)
    pairs = zip(texts, answers, strict=True)
    lines = [json.dumps({"text": t, "label": a["label"]}) for t, a in pairs if a["score"] > surer_than]
    assert len(lines) > 60
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


DOWN = [f"layers.{number}.mlp.down" for number in range(3)]


@pytest.fixture
def spoilt(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Bundle:
    """In three of 13 parts one weight is so large that beside it all others round to 0; it reads a unit that is 0."""
    config = {"labels": ("no", "yes"), "regression": False, "pair": False, "max_length": 32}
    meta = {"task": "classify", "labels": ["no", "yes"], "task_config": config}
    shape = toy_shape.model_copy(update={"initializer_range": 0.5, "num_hidden_layers": 3})
    model = Model(shape, Heads(classify=2), seed=2)
    with torch.no_grad():
        for layer in model.layers:
            layer.mlp.up.weight[7], layer.mlp.up.bias[7] = 0.0, -100.0
            layer.mlp.down.weight[:, 7] = 1e4
    return save_model(tmp_path / "spoilt", model, toy_tokenizer.files(), meta)


def test_all_parts_are_int8_where_that_passes_at_once(source: Bundle, dev: Path, tmp_run: Path) -> None:
    said: list[str] = []
    made = quantize(source, dev, tmp_run, QuantizeConfig(max_drop=100.0), say=said.append)
    assert [line.split(":")[0] for line in said] == ["0 of 5 parts in fp32"]
    assert made.meta["onnx"]["fp32"] == []
    (done,) = made.meta["compressed"]
    assert (done["how"], done["parent"], done["settings"]["max_drop"]) == ("quantize", source.hash, 100.0)
    opened = Bundle.open(tmp_run)
    facts = {name: _facts(Predictor(opened, device="cpu", engine=name)) for name in ("onnx", "torch")}
    assert facts["torch"]["sha"] == source.hash != facts["onnx"]["sha"], "a client can tell which one answered"
    assert facts["onnx"]["precision"].startswith("int8 (onnx int8, ")


def test_else_the_fewest_parts_that_disturb_most_stay_in_fp32(spoilt: Bundle, tmp_path: Path) -> None:
    """Their number is doubled until the gate is passed, then halved back: 1, 2, 4, and of 3 and 4 the smaller."""
    rows = labelled_by(spoilt, tmp_path / "sure.jsonl", surer_than=0.7)
    said: list[str] = []
    made = quantize(spoilt, rows, tmp_path / "run", QuantizeConfig(max_drop=2.0), say=said.append)
    assert [int(line.split()[0]) for line in said] == [0, 1, 2, 4, 3]
    assert made.meta["onnx"]["fp32"] == DOWN
    figures = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert figures["drop"] <= 2.0
    page = (tmp_path / "run" / "report.html").read_text()
    assert all(name in page for name in DOWN)


def test_where_no_part_can_be_int8_that_is_said(
    spoilt: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = labelled_by(spoilt, tmp_path / "rows.jsonl")
    monkeypatch.setattr(module, "parts", lambda encoder: DOWN)  # as if only the spoilt ones could be tried
    with pytest.raises(ConfigError, match="nothing of this model can be int8 within the drop allowed"):
        quantize(spoilt, rows, tmp_path / "run", QuantizeConfig(max_drop=0.0))
    assert not (tmp_path / "run").exists()


def test_a_score_that_is_not_defined_is_no_gate(source: Bundle, tmp_path: Path) -> None:
    config = {"regression": True, "pair": False, "max_length": 32}
    meta = {"task": "classify", "labels": [], "task_config": config}
    model, files = Model(load_model(source).config, Heads(classify=1)), Tokenizer.load(source.path).files()
    parent = save_model(tmp_path / "numbers", model, files, meta)
    (tmp_path / "same.csv").write_text("text,label\nanna,1.5\nbert,1.5\n")
    with pytest.raises(DataError, match=r"same.csv: .* is not defined on these rows; give more of them, that differ"):
        quantize(parent, tmp_path / "same.csv", tmp_path / "run", QuantizeConfig(max_drop=100))
    assert not (tmp_path / "run").exists()


def test_what_writes_texts_is_for_torch(
    toy_tokenizer: Tokenizer, toy_shape: ModelConfig, dev: Path, tmp_path: Path
) -> None:
    meta = {"task": "generate", "labels": [], "task_config": {"mode": "unilm", "max_length": 32, "max_target": 8}}
    writes = save_model(tmp_path / "writes", Model(toy_shape, Heads(mlm=True)), toy_tokenizer.files(), meta)
    with pytest.raises(ConfigError, match="writes texts, which only torch does"):
        quantize(writes, dev, tmp_path / "run")
    with pytest.raises(ConfigError, match="writes texts, which only the torch engine does"):
        bench(writes)


def test_a_stop_while_it_is_measured_leaves_nothing_in_the_way(
    source: Bundle, dev: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: object, **how: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "measure", stopped)
        with pytest.raises(KeyboardInterrupt):
            quantize(source, dev, tmp_path / "run", QuantizeConfig(max_drop=100))
    assert quantize(source, dev, tmp_path / "run", QuantizeConfig(max_drop=100)).path == tmp_path / "run" / "bundle"


def test_speed_is_told_beside_both_engines_in_fp32(source: Bundle, dev: Path, tmp_run: Path) -> None:
    quantize(source, dev, tmp_run, QuantizeConfig(max_drop=100.0), say=lambda text: None)
    figures = json.loads((tmp_run / "scores.json").read_text())
    (other,) = figures["between"].values()
    assert (figures["parent"]["engine"][:10], other["engine"][:9]) == ("torch fp32", "onnx fp32")
    assert figures["child"]["engine"].startswith("onnx int8")
    assert other["scores"] == figures["parent"]["scores"]
    assert other["bytes"] > figures["child"]["bytes"]
    for batch, ratio in other["faster"].items():
        before, after = (side["milliseconds"][batch] for side in (other, figures["child"]))
        assert ratio == pytest.approx(before / after)


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
