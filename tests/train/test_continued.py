"""Going on from a model: words of a field, old text mixed in, and the table of what was forgotten."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.events import read_metrics
from bertsmith.evaluate.text import evaluate_text
from bertsmith.model.convert import load_model
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train import course, loop
from bertsmith.train import pretrain as pretraining
from bertsmith.train.continued import ContinuedConfig, enlarged, grown
from bertsmith.train.pretrain import PretrainConfig, pretrain
from bertsmith.train.report import by_source
from bertsmith.train.run import saved_config

TERMS = ("cardiology", "angioplasty", "thrombosis")


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of a field, some of whose words are cut to shreds by the vocabulary of `small_text`."""
    draw = random.Random(1)
    people = ("Anna", "Bert", "Clara", "David")
    documents = [
        " ".join(f"{draw.choice(people)} reads the {draw.choice(TERMS)} book in Rome." for _ in range(6))
        for _ in range(40)
    ]
    path = tmp_path_factory.mktemp("field") / "field.txt"
    path.write_text("\n\n".join(documents) + "\n")
    return path


def settings(tiny: dict[str, object], **changes: Any) -> PretrainConfig:
    values = tiny | {"train.lr": 1e-3} | {key.replace("__", "."): value for key, value in changes.items()}
    return load(PretrainConfig, sets=[f"{key}={json.dumps(value)}" for key, value in values.items()])


def run(inputs: list[Path], out: Path, config: PretrainConfig, **how: Any) -> Bundle:
    return pretrain([str(item) for item in inputs], out, config, quiet=True, threads=1, **how)


def test_new_pieces_replay_and_watch(
    tiny_run: Path, small_text: Path, field: Path, tmp_run: Path, tiny: dict[str, object]
) -> None:
    config = settings(
        tiny, train__steps=10, train__evaluations=2, continued__new_pieces=3,
        continued__replay=[str(small_text / "en.txt")], continued__watch=[str(small_text / "zh.txt")],
    )  # fmt: skip
    bundle = run([field], tmp_run, config, start=tiny_run)
    old, new = Tokenizer.load(tiny_run / "vocab"), Tokenizer.load(tmp_run / "vocab")
    assert new.tokens[: old.vocab_size] == old.tokens
    assert sorted(new.tokens[old.vocab_size :]) == sorted(TERMS)
    assert bundle.config["vocab_size"] == new.vocab_size
    assert Predictor(bundle, device="cpu").tokenizer.hash == new.hash

    scores = json.loads((tmp_run / "scores.json").read_text())
    rows = scores["forgetting"]
    assert [(row["role"], Path(row["corpus"]).name) for row in rows] == [
        ("new", "field.txt"), ("replay", "en.txt"), ("watch", "zh.txt"),
    ]  # fmt: skip
    assert all(row[when].keys() == {"mlm_loss", "mlm_accuracy"} for row in rows for when in ("before", "after"))
    assert rows[0]["after"] == {name: scores["held_out"][name] for name in ("mlm_loss", "mlm_accuracy")}
    assert rows[0]["before"]["mlm_loss"] == read_metrics(tmp_run)[0]["eval/mlm_loss"]
    assert rows[0]["after"]["mlm_loss"] < rows[0]["before"]["mlm_loss"], "it learns the field"
    page = (tmp_run / "report.html").read_text()
    assert "Learned and forgotten" in page
    assert f"{rows[2]['after']['mlm_loss']:.3f}" in page
    lines = read_metrics(tmp_run)
    assert {line["source"] for line in lines[1:]} == {0, 1}
    learned = by_source(lines, ["own", "replayed"])
    assert [row[0] for row in learned] == ["own", "replayed"]
    assert sum(float(row[1].rstrip("%")) for row in learned) == pytest.approx(100, abs=0.2)
    assert "Corpora learned from" in page
    assert learned[0][1] in page

    replayed = tmp_run / "others" / "0"
    assert evaluate_text(Predictor(bundle, device="cpu"), str(replayed), say=print).part.endswith("left out")
    assert rows[1]["after"]["mlm_loss"] == pytest.approx(
        evaluate_text(Predictor(bundle, device="cpu", precision="fp32"), str(replayed), say=print).scores["mlm_loss"],
        rel=0.2,
    )


def test_without_new_pieces_the_figures_before_are_those_of_the_model(
    tiny_run: Path, field: Path, tmp_run: Path, tiny: dict[str, object]
) -> None:
    run([field], tmp_run, settings(tiny, train__steps=2, continued__watch=str(tiny_run / "store")), start=tiny_run)
    row = json.loads((tmp_run / "scores.json").read_text())["forgetting"][1]
    assert row["role"] == "watch"
    ended = json.loads((tiny_run / "scores.json").read_text())["held_out"]
    assert row["before"]["mlm_loss"] == pytest.approx(ended["mlm_loss"], rel=1e-5)
    assert not (tmp_run / "others").exists(), "a store is read where it lies"


def test_a_stopped_run_with_replay_ends_the_same(
    tiny_run: Path, field: Path, small_text: Path, tmp_path: Path, tiny: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = settings(
        tiny, train__steps=8, train__checkpoint_every="2steps", continued__new_pieces=2,
        continued__replay=str(small_text), continued__replay_share=0.5,
    )  # fmt: skip
    run([field], tmp_path / "whole", config, start=tiny_run)

    def cut_off(*arguments: Any, **how: Any) -> Any:
        for step in loop.steps(*arguments, **how):
            yield step
            if step.number == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(course, "steps", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run([field], tmp_path / "cut", config, start=tiny_run)
    facts = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert facts["before"]
    assert facts["others"]
    run([], tmp_path / "cut", saved_config(tmp_path / "cut", PretrainConfig), resume=True)
    whole, cut = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    tables = [json.loads((tmp_path / name / "scores.json").read_text()) for name in ("whole", "cut")]
    assert tables[0] == tables[1]


def test_replay_is_learned_from_by_its_share(
    tiny_run: Path, field: Path, tmp_run: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    encode = Pretraining.encode

    def noted(self: Pretraining, store: Any, *arguments: Any, **how: Any) -> Any:
        if "parts" in how:
            read.append(store.path)
        return encode(self, store, *arguments, **how)

    monkeypatch.setattr(Pretraining, "encode", noted)
    other = tiny_run / "store"
    config = settings(
        tiny, train__steps=20, train__evaluations=1, continued__replay=str(other), continued__replay_share=0.25
    )
    run([field], tmp_run, config, start=tiny_run)
    assert len(read) == 20
    assert read.count(other) in (5, 6)


def test_what_makes_no_sense_is_refused(
    tiny_run: Path, field: Path, small_text: Path, tmp_run: Path, tmp_path: Path, tiny: dict[str, object]
) -> None:
    for name, value in (("new_pieces", 5), ("watch", str(field))):
        with pytest.raises(ConfigError, match=rf"continued\.{name} is about a model .*; name it with --from"):
            run([field], tmp_run, settings(tiny, **{f"continued__{name}": value}))
    store = tiny_run / "store"
    for inputs, changes in (([store], {}), ([field], {"continued__replay": str(store)})):
        with pytest.raises(ConfigError, match="give the text that it was made of instead"):
            run(inputs, tmp_run, settings(tiny, continued__new_pieces=5, **changes), start=tiny_run)
    assert not (tmp_run / "run.json").exists(), "a refused request does not occupy the folder"
    foreign = Tokenizer.from_tokens([*Tokenizer.load(tiny_run / "vocab").tokens, "zebra"], lowercase=True)
    prepare([str(small_text)], foreign, tmp_path / "foreign", lambda line: None)
    with pytest.raises(DataError, match=r"foreign: made with another vocabulary than this one"):
        run([field], tmp_run, settings(tiny, continued__replay=str(tmp_path / "foreign")), start=tiny_run)


def test_a_replayed_store_that_changed_is_refused(
    tiny_run: Path, field: Path, tmp_run: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.load(tiny_run / "vocab")
    place = tmp_run.parent / "other"
    prepare([str(field)], tokenizer, place, lambda line: None)
    config = settings(tiny, train__steps=2, continued__replay=str(place))
    with monkeypatch.context() as patched:
        patched.setattr(pretraining, "learn", lambda *arguments, **how: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run([field], tmp_run, config, start=tiny_run)
    longer = field.read_text() + "\n\nBert reads the red book."
    (tmp_run.parent / "more.txt").write_text(longer)
    shutil.rmtree(place)
    prepare([str(tmp_run.parent / "more.txt")], tokenizer, place, lambda line: None)
    with pytest.raises(DataError, match="other: has changed since this run began"):
        run([], tmp_run, saved_config(tmp_run, PretrainConfig), resume=True)


def test_nothing_new_to_learn_leaves_vocabulary_and_model_alone(
    tiny_run: Path, small_text: Path, toy_tokenizer: Tokenizer
) -> None:
    old = Tokenizer.load(tiny_run / "vocab")
    said: list[str] = []
    names = ContinuedConfig(new_pieces=5)
    assert enlarged(old, [str(small_text)], names, said.append) is old
    assert "0 new pieces of the 5 asked for" in said[-1]
    model = load_model(Bundle.open(tiny_run))
    assert grown(model, tiny_run, old) is model
    with pytest.raises(ConfigError, match="does not begin with the pieces of the old one"):
        grown(model, tiny_run, toy_tokenizer)
