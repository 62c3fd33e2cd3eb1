from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.tokenizer.load import Tokenizer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def made(small_text: Path, tmp_path_factory: pytest.TempPathFactory, command_line: Run) -> Path:
    out = tmp_path_factory.mktemp("made") / "vocab"
    done = command_line("vocab", small_text, "--size", "120", "--out", out, "--cover", "pydoc:json")
    assert done.returncode == 0, done.stderr
    assert f"{out}: 120 pieces" not in done.stdout
    for expected in ("pieces per word", "[UNK]", "han", "pydoc:json", "advised"):
        assert expected in done.stdout
    assert f"the page is {out / 'report.html'}" in done.stderr
    return out


def test_pretraining_takes_the_result(made: Path, small_text: Path, tmp_run: Path, command_line: Run) -> None:
    toy = ["model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=2", "train.compile=off"]
    sets = [word for setting in [*toy, "task.max_length=32"] for word in ("--set", setting)]
    done = command_line("pretrain", small_text, "--vocab", made, "--steps", "2", "--out", tmp_run, *sets)
    assert done.returncode == 0, done.stderr
    assert Tokenizer.load(tmp_run / "bundle").hash == Tokenizer.load(made).hash


def test_an_extension_goes_on_from_the_model_whose_vocabulary_it_extends(
    tiny_run: Path, tmp_run: Path, tmp_path: Path, command_line: Run
) -> None:
    text = tmp_path / "field.txt"
    text.write_text("Cardiomyopathy and angioplasty. The stent in the aorta of Anna.\n\n" * 12, encoding="utf-8")
    longer = tmp_path / "longer"
    done = command_line("vocab", text, "--extend", tiny_run / "vocab", "--terms", "4", "--out", longer, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert len(facts["added"]) == 4
    assert facts["path"] == str(longer)
    asked = ["--from", tiny_run, "--vocab", longer, "--steps", "2", "--out", tmp_run]
    done = command_line("pretrain", text, *asked, "--set", "train.compile=off", "--set", "task.max_length=32")
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_run / "bundle" / "config.json").read_text())
    assert config["vocab_size"] == facts["pieces"] == facts["pieces_before"] + 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "20"], "ask for at least"),
        (["--size", "many"], "'many' is not a count"),
        (["--terms", "5"], "--terms: says how many words to add with --extend"),
        (["--extend", "nowhere", "--size", "300"], "--size: a vocabulary that is extended keeps its pieces"),
        (["--extend", "nowhere"], "nowhere: no such file or folder"),
        (["--cover", "nowhere.txt"], "nowhere.txt: no such file or folder"),
    ],
)
def test_a_bad_request_says_what_to_do(
    options: list[str], message: str, small_text: Path, tmp_path: Path, command_line: Run
) -> None:
    done = command_line("vocab", small_text, "--out", tmp_path / "v", *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert not done.stdout
    assert not (tmp_path / "v").exists()


def test_case_is_kept_on_request(small_text: Path, tmp_path: Path, command_line: Run) -> None:
    done = command_line("vocab", small_text, "--size", "120", "--cased", "--out", tmp_path / "v", "--json", "--quiet")
    assert done.returncode == 0
    assert not done.stderr
    assert json.loads(done.stdout)["settings"]["lowercase"] is False
    assert "A" in Tokenizer.load(tmp_path / "v").tokens
