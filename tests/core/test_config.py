from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from bertsmith.core.config import Cadence, Config, Count, Duration, fields, load, parse_count, parse_duration, to_toml
from bertsmith.core.errors import ConfigError


class Optimiser(Config):
    lr: float = Field(1e-3, gt=0, description="learning rate")
    name: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)


class Training(Config):
    batch_tokens: Count = 32_000
    budget: Duration | None = None
    checkpoint_every: Cadence = Cadence(seconds=600)
    text: str = ""
    inputs: list[str] = []
    train: Optimiser = Optimiser()
    weights: dict[str, float] = {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("32k", 32_000),
        ("50M", 50_000_000),
        ("1.5M", 1_500_000),
        ("7", 7),
        ("2_000", 2000),
        ("1B", 10**9),
        (f"{2**53 - 1}", 2**53 - 1),
    ],
)
def test_counts_read_like_people_write_them(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("90s", 90), ("2h", 7200), ("1h30m", 5400), ("45", 45)])
def test_durations_read_like_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "k", "1.5", "-3", "12q", "1 2", "٣"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a count"):
        parse_count(text)


@pytest.mark.parametrize("text", [f"{2**53 + 1}", "9" * 400, "9007199254741k"])
def test_a_count_is_one_that_a_float_can_hold(text: str) -> None:
    with pytest.raises(ConfigError, match="'batch_tokens': input should be less than or equal to 9007199254740992"):
        load(Training, sets=[f"batch_tokens={text}"])
    with pytest.raises(ConfigError, match="batch_tokens"):
        load(Training, options={"batch_tokens": text})


def test_cadence_is_time_or_steps() -> None:
    assert load(Training, sets=["checkpoint_every=500steps"]).checkpoint_every == Cadence(steps=500)
    assert load(Training, sets=["checkpoint_every=10m"]).checkpoint_every == Cadence(seconds=600)
    assert Cadence(steps=10).due(steps=10, seconds=0)
    assert not Cadence(seconds=10).due(steps=999, seconds=9.9)
    for wrong in ("0steps", "soon", "0"):
        with pytest.raises(ConfigError, match="checkpoint_every"):
            load(Training, sets=[f"checkpoint_every={wrong}"])


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("batch_tokens = '2k'\n[train]\nlr = 0.5\nname = 'sgd'\n")
    base, preset = {"batch_tokens": 1, "text": "base"}, {"batch_tokens": 2, "train": {"lr": 9.0, "betas": [0.1, 0.2]}}
    config = load(Training, base=base, preset=preset, file=file, sets=["train.lr=2e-3"], options={"budget": "30m"})
    assert config.text == "base"
    assert config.train.betas == (0.1, 0.2)
    assert config.batch_tokens == 2000
    assert config.train.name == "sgd"
    assert config.train.lr == 2e-3
    assert config.budget == 1800
    assert load(Training, sets=["text=a"], options={"text": None}).text == "a"


def test_set_reads_toml_or_else_text() -> None:
    assert load(Training, sets=['text="true"']).text == "true"
    assert load(Training, sets=["text=a = b"]).text == "a = b"
    assert load(Training, sets=['inputs=["x", "y"]']).inputs == ["x", "y"]
    with pytest.raises(ConfigError, match="key=value"):
        load(Training, sets=["text"])


@pytest.mark.parametrize(
    ("given_key", "right"),
    [
        ("train.lrr", "train.lr"),
        ("lr", "train.lr"),
        ("batch_token", "batch_tokens"),
        ("trian.lr", "train.lr"),
        ("train.learning_rate", "train.lr"),
        ("train.lerning_rate", "train.lr"),
        ("trian.lerning_rate", "train.lr"),
        ("train.nam", "train.name"),
    ],
)
def test_a_misspelt_key_suggests_the_right_one(given_key: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"--set {given_key}=1: unknown setting .*did you mean '{right}'"):
        load(Training, sets=[f"{given_key}=1"])


def test_an_unknown_key_unlike_any_lists_the_keys() -> None:
    with pytest.raises(ConfigError, match=r"the settings here are batch_tokens, budget, .*train\.lr"):
        load(Training, sets=["zzzzzz=1"])
    with pytest.raises(ConfigError, match=r"unknown setting 'train\.xyz'; the settings here are train\.lr, "):
        load(Training, sets=["train.xyz=1"])


def test_a_section_is_no_value(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("text = 'x'\ntrain = 3\n")
    later = {"preset": {"train": {"name": "sgd"}}, "options": {"train.lr": 1e-2}}
    with pytest.raises(ConfigError, match=r"run\.toml:2: 'train' is a section, not a setting; write train\.NAME=…"):
        load(Training, file=file, **later)
    with pytest.raises(ConfigError, match=r"^--set train=3: 'train' is a section"):
        load(Training, sets=["train=3"], **later)
    assert load(Training, sets=["train={lr=0.5}"], **later).train.name == "sgd"


def test_errors_name_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("text = 'x'\n\n[train]\n# rate\nlr = -1\nspeed = 3\n")
    with pytest.raises(ConfigError) as caught:
        load(Training, file=file)
    message = str(caught.value)
    assert f"{file}:5: setting 'train.lr': input should be greater than 0 (it is -1)" in message
    assert f"{file}:6: unknown setting 'train.speed'" in message


def test_errors_name_where_a_value_came_from() -> None:
    with pytest.raises(ConfigError, match="--batch-tokens: setting 'batch_tokens': 'many' is not a count"):
        load(Training, options={"batch_tokens": "many"})
    with pytest.raises(ConfigError, match="the preset: setting 'train.name'"):
        load(Training, preset={"train": {"name": "lion"}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text = ", "not valid TOML"),
        (b"text = '\xff'", "not a UTF-8 text file"),
        (None, "cannot read this config file"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load(Training, file=file)
    assert str(file) in str(caught.value)


@given(
    text=st.text(st.characters(exclude_categories=["Cs"])),
    inputs=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    lr=st.floats(min_value=1e-300, allow_infinity=True, exclude_min=True),
    weights=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.floats(allow_nan=False)),
    every=st.one_of(
        st.integers(1, 10**9).map(lambda n: Cadence(steps=n)),
        st.integers(1, 10**6).map(lambda n: Cadence(seconds=n / 8)),
    ),
)
def test_what_is_saved_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    inputs: list[str],
    lr: float,
    weights: dict[str, float],
    every: Cadence,
) -> None:
    config = Training(text=text, inputs=inputs, train=Optimiser(lr=lr), weights=weights, checkpoint_every=every)
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    file.write_text(to_toml(config), encoding="utf-8", newline="")
    assert load(Training, file=file) == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Training().text = "other"  # type: ignore[misc]


def test_fields_lists_nested_settings_by_dotted_name() -> None:
    listed = dict(fields(Training))
    assert list(listed)[-4:] == ["train.lr", "train.name", "train.betas", "weights"]
    assert listed["train.lr"].description == "learning rate"
