"""Settings of methods: what a method does not read is refused, and each has the learning rate that suits it."""

from __future__ import annotations

import pytest

from bertsmith.core.config import load, to_toml
from bertsmith.core.errors import ConfigError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.peft.base import counts, insert
from bertsmith.peft.config import LEARNING_RATES, READS, PeftConfig
from bertsmith.train.finetune import FinetuneConfig, config_class

SHAPE = ModelConfig(
    vocab_size=50, hidden_size=48, num_hidden_layers=2, intermediate_size=96, max_position_embeddings=32
)


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["peft.rank=4"], "rank is a setting of lora or adalora, but no method is chosen; choose with --peft METHOD"),
        (["peft.method=bitfit", "peft.rank=4"], "rank is a setting of lora or adalora, but the method is bitfit"),
        (["peft.method=lora", "peft.width=4"], "width is a setting of houlsby or pfeiffer, but the method is lora"),
        (["peft.method=adalora", "peft.rank=16"], r"start_rank \(12\) must be at least rank \(16\)"),
        (["peft.method=adalora", "peft.warmup=0.6", "peft.settle=0.4"], "warmup \\+ settle is 1; leave steps"),
        (["peft.method=loar"], "setting 'peft.method': input should be 'houlsby', 'pfeiffer', 'lora'"),
        (["peft.method=lora", "train.init=random"], "lora stands on the bundle's weights, and train.init=random drops"),
        (["peft.method=lora", "peft.targets=['querry']"], r"peft\.targets"),
    ],
)
def test_what_makes_no_sense_is_refused(sets: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(FinetuneConfig, sets=sets)


def test_every_setting_is_read_by_some_method() -> None:
    assert {name for names in READS.values() for name in names} == set(PeftConfig.model_fields) - {"method"}


@pytest.mark.parametrize("method", READS)
def test_the_learning_rate_suits_the_method_unless_it_is_given(method: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    kind = config_class("classify")
    chosen = load(kind, sets=[f"peft.method={method}", "train.steps=3"])
    assert chosen.train.lr == LEARNING_RATES[method]
    assert load(kind, sets=[f"peft.method={method}", "train.lr=7e-5"]).train.lr == 7e-5
    assert load(kind, options={"peft.method": method}).train.lr == LEARNING_RATES[method]
    (tmp_path / "config.toml").write_text(to_toml(chosen))
    assert load(kind, file=tmp_path / "config.toml") == chosen


def test_without_a_method_nothing_changes() -> None:
    assert load(FinetuneConfig).train.lr == 3e-4
    model = Model(SHAPE, Heads(classify=2))
    assert counts(model)["encoder"] + counts(model)["head"] == counts(model)["all"]


def test_parameters_are_counted_as_the_formulas_say() -> None:
    def moving(**settings: object) -> int:
        model = Model(SHAPE, Heads(tag=3))
        insert(model, PeftConfig.model_validate(settings))
        assert counts(model)["head"] == 48 * 3 + 3
        return counts(model)["encoder"]

    bottleneck = 2 * 48 * 8 + 8 + 48
    assert moving(method="pfeiffer", width=8) == 2 * bottleneck
    assert moving(method="houlsby", width=8) == 2 * 2 * (bottleneck + 2 * 48)
    assert moving(method="lora", rank=4) == 2 * 2 * 4 * (48 + 48)
    assert moving(method="lora", rank=4, targets=["up"]) == 2 * 4 * (48 + 96)
    assert moving(method="adalora", start_rank=9, targets=["out"]) == 2 * 9 * (48 + 48 + 1)
    assert moving(method="prefix", length=5) == 2 * 5 * 2 * 48
    assert moving(method="bitfit") == 48 + 2 * (3 * 48 + 48 + 48 + 96 + 48 + 48)


def test_matrices_that_a_shape_lacks_are_named() -> None:
    with pytest.raises(
        ConfigError, match="layers of bert have no matrix qkv; they have query, key, value, out, up, down"
    ):
        insert(Model(SHAPE, Heads(tag=2)), PeftConfig(method="lora", targets=("qkv",)))


def test_a_prefix_leaves_room_for_text() -> None:
    model = Model(SHAPE, Heads(tag=2))
    insert(model, PeftConfig(method="prefix", length=20))
    assert model.encoder.max_length == 12
    with pytest.raises(ConfigError, match="a prefix of 30 leaves no room for text in the model's 32 positions"):
        insert(Model(SHAPE, Heads(tag=2)), PeftConfig(method="prefix", length=30))
