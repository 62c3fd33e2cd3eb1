"""`bertsmith convert` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from bertsmith.cli.main import build
from bertsmith.core.bundle import Bundle
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, to_hf
from bertsmith.model.heads import Model
from bertsmith.tokenizer.load import Tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "low", "##er"]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as published years ago: a pickle, a bare vocabulary, a card."""
    values = {"vocab_size": len(PIECES), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Model(ModelConfig.model_validate(values | {"intermediate_size": 8}), Heads(mlm=True, nsp=True))
    hf_config, tensors = to_hf(model.config, model.state_dict(), model.heads)
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf_config))
    (folder / "vocab.txt").write_text("".join(piece + "\n" for piece in PIECES))
    (folder / "README.md").write_text("a card\n")
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def convert(*arguments: str) -> Result:
    return CliRunner().invoke(build("convert"), ["convert", *arguments])


def test_a_trusted_folder_becomes_a_bundle(published: Path, tmp_path: Path) -> None:
    result = convert(str(published), str(tmp_path / "new"), "--trust-pickle")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "new")
    assert "left behind: README.md" in result.stderr
    bundle = Bundle.open(tmp_path / "new")
    assert bundle.task == "pretraining"
    assert load_model(bundle).heads == Heads(mlm=True, nsp=True)
    assert Tokenizer.load(bundle.path).encode(["lower"])[0].ids.tolist() == [5, 6]
    assert (bundle.path / "tokenizer.json").is_file()


def test_a_second_conversion_changes_nothing(published: Path, tmp_path: Path) -> None:
    convert(str(published), str(tmp_path / "one"), "--trust-pickle")
    convert(str(tmp_path / "one"), str(tmp_path / "two"))
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_what_is_there_is_never_overwritten(published: Path) -> None:
    before = {file.name: file.read_bytes() for file in published.iterdir()}
    result = convert(str(published), str(published), "--trust-pickle")
    assert result.exit_code == 2
    assert "already there" in result.stderr
    assert {file.name: file.read_bytes() for file in published.iterdir()} == before
