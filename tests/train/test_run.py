"""The run folder: begun once, gone on with as it was, stopped without loss."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.train.pretrain import PretrainConfig
from bertsmith.train.run import begin, go_on, resumed, saved_config, stoppable, sums_of, terminable


def config(**train: object) -> PretrainConfig:
    return PretrainConfig.model_validate({"train": train})


def test_settings_come_back_as_they_were(tmp_run: Path) -> None:
    asked = config(lr=3e-4, steps=10, checkpoint_every="5steps", track=("tensorboard",))
    begin(tmp_run, asked, {"inputs": ["a"]})
    assert saved_config(tmp_run, PretrainConfig) == asked
    assert resumed(tmp_run, asked, {"inputs": ["a"], "vocab": None}) == {"inputs": ["a"]}


def test_what_differs_is_listed(tmp_run: Path) -> None:
    begin(tmp_run, config(lr=3e-4, steps=10), {"inputs": ["a"], "from": None})
    with pytest.raises(ConfigError, match="go on|goes on") as caught:
        resumed(tmp_run, config(lr=5e-4, steps=20), {"inputs": ["b"], "from": None})
    message = str(caught.value)
    assert "train.lr: 0.0003 before, 0.0005 now" in message
    assert "train.steps: 10 before, 20 now" in message
    assert "inputs: ['a'] before, ['b'] now" in message
    assert "seed" not in message


def test_files_that_changed_meanwhile_are_named(tmp_run: Path, tmp_path: Path) -> None:
    data, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    data.write_text("text,label")
    dev.write_text("text,label")
    begin(tmp_run, config(), {"sha256": sums_of({"data": data, "dev": dev, "test": None})})
    assert resumed(tmp_run, config(), {"sha256": sums_of({"data": data, "dev": dev})})
    dev.unlink()  # what is gone is named when it is to be read
    assert resumed(tmp_run, config(), {"sha256": sums_of({"data": data, "dev": dev})})
    data.write_text("text,label\nanother,row")
    with pytest.raises(ConfigError, match=r"sha256\.data: \w+ before, \w+ now"):
        resumed(tmp_run, config(), {"sha256": sums_of({"data": data})})


def test_a_run_is_not_begun_twice(tmp_run: Path) -> None:
    begin(tmp_run, config(), {})
    (tmp_run / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match=r"holds a run already.*--resume.*--out"):
        begin(tmp_run, config(), {})


def test_a_run_that_never_took_a_step_may_be_begun_anew(tmp_run: Path) -> None:
    begin(tmp_run, config(steps=1), {"inputs": ["misspelt"]})
    (tmp_run / "vocab").mkdir()
    begin(tmp_run, config(steps=2), {"inputs": ["right"]})
    assert saved_config(tmp_run, PretrainConfig).train.steps == 2
    assert not (tmp_run / "vocab").exists(), "a vocabulary of other text must not be taken up"


@pytest.mark.parametrize("facts", [{"inputs": ["store"]}, {"vocab": "vocab/vocab.txt"}, {"from": "start"}])
def test_what_is_to_be_read_is_not_removed(tmp_run: Path, facts: dict[str, Any]) -> None:
    begin(tmp_run, config(steps=1), {"inputs": ["text"]})
    for name in ("store", "vocab", "start"):
        (tmp_run / name).mkdir()
    told = {
        key: [f"{tmp_run}/{one}" for one in value] if isinstance(value, list) else f"{tmp_run}/{value}"
        for key, value in facts.items()
    }
    with pytest.raises(ConfigError, match="is to be read, and lies in .*--out"):
        begin(tmp_run, config(steps=2), told)
    assert (tmp_run / "store").exists()
    begin(tmp_run, config(steps=2), {"inputs": [f"{tmp_run}-store", None]})
    assert not (tmp_run / "store").exists()


@pytest.mark.parametrize(
    ("content", "wrong"), [("{", "Expecting"), ("[]", "no JSON object"), ('{"from": null}', "without inputs")]
)
def test_damaged_facts_are_named(tmp_run: Path, content: str, wrong: str) -> None:
    begin(tmp_run, config(), {})
    (tmp_run / "run.json").write_text(content)
    with pytest.raises(DataError, match=rf"run\.json: damaged \({wrong}.*; bring it back from a copy, or start a new"):
        resumed(tmp_run, config(), {}, needed=["inputs", "from"])


def test_nothing_to_resume(tmp_run: Path) -> None:
    with pytest.raises(ConfigError, match="no run to resume here"):
        saved_config(tmp_run, PretrainConfig)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_second_insists(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


def test_sigterm_is_like_ctrl_c() -> None:
    with terminable(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_command_to_go_on_can_be_pasted() -> None:
    line = go_on("pretrain", "--out", Path("my runs/one"))
    program, *words = shlex.split(line.partition(": ")[2])
    assert Path(program).name == "bertsmith"
    assert words == ["pretrain", "--out", "my runs/one", "--resume"]
