"""From a folder of text to a bundle: what is in the run folder, and what the encoder has learnt."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.numpy import load_file

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.events import read_metrics
from bertsmith.corpus.store import Store
from bertsmith.predict.predictor import Predictor
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.train.pretrain import PretrainConfig, pretrain
from bertsmith.train.samples import Guess


def settings(tiny: dict[str, object], **changes: Any) -> PretrainConfig:
    values = tiny | {key.replace("__", "."): value for key, value in changes.items()}
    return load(PretrainConfig, sets=[f"{key}={value}" for key, value in values.items()])


def run(inputs: list[str], out: Path, config: PretrainConfig, **how: Any) -> Bundle:
    return pretrain(inputs, out, config, quiet=True, threads=1, **how)


def test_the_run_folder_is_as_promised(tiny_run: Path) -> None:
    names = {path.name for path in tiny_run.iterdir()}
    promised = {"config.toml", "metrics.jsonl", "scores.json", "report.html", "bundle", "run.json", "vocab", "store"}
    assert promised <= names
    bundle = Bundle.open(tiny_run)
    assert bundle.task == "pretraining"
    assert bundle.meta["lineage"]["steps"] == 60
    assert {path.name for path in bundle.path.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert json.loads((tiny_run / "scores.json").read_text())["held_out"] == bundle.meta["scores"]


def test_metrics_have_the_promised_names(tiny_run: Path) -> None:
    lines = read_metrics(tiny_run)
    assert [line["step"] for line in lines] == list(range(61))
    promised = {"step", "tokens", "seconds", "train/loss", "tokens_per_second", "lr", "grad_norm"}
    assert all(promised <= line.keys() for line in lines[1:])
    evaluated = [line for line in lines if "eval/mlm_loss" in line]
    assert [line["step"] for line in evaluated] == list(range(0, 61, 6))
    assert all({"eval/mlm_accuracy", "eval/nsp_accuracy"} <= line.keys() for line in evaluated)
    for name in ("tokens", "seconds"):
        values = [line[name] for line in lines]
        assert values == sorted(values)


def test_it_learns_to_fill_masks(tiny_run: Path) -> None:
    evaluated = [line["eval/mlm_loss"] for line in read_metrics(tiny_run) if "eval/mlm_loss" in line]
    assert evaluated[-1] < 0.9 * evaluated[0]


class Text(HTMLParser):
    """What a reader sees of a page, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attributes if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


def test_the_report_tells_the_run(tiny_run: Path) -> None:
    page = Text()
    page.feed((tiny_run / "report.html").read_text(encoding="utf-8"))
    words = " ".join(page.seen)
    score = json.loads((tiny_run / "scores.json").read_text())["held_out"]
    for expected in (
        "held-out MLM loss",
        f"{score['mlm_loss']:.3f}",
        "next sentence right",
        "Learning rate",
        "tokens per second",
        "Hidden words",
        "pieces in the vocabulary",
        "80",
        "bertsmith …",
        "hidden_size = 32",
        "torch",
    ):
        assert expected in words, expected
    assert not [link for link in page.links if not link.startswith(("#", "data:"))], "self-contained"


def test_the_bundle_answers(tiny_run: Path) -> None:
    predictor = Predictor(Bundle.open(tiny_run), device="cpu")
    assert predictor.tokenizer.vocab_size == Tokenizer.load(tiny_run / "vocab").vocab_size


def test_a_finished_run_is_not_run_again(tiny_run: Path, small_text: Path, tiny: dict[str, object]) -> None:
    before = (tiny_run / "metrics.jsonl").read_bytes()
    config = settings(tiny, train__steps=60, train__lr=1e-2)
    assert run([str(small_text)], tiny_run, config, resume=True).path == tiny_run / "bundle"
    assert (tiny_run / "metrics.jsonl").read_bytes() == before
    with pytest.raises(ConfigError, match="holds a run already"):
        run([str(small_text)], tiny_run, config)
    with pytest.raises(ConfigError, match=r"train\.steps: 60 before, 61 now"):
        run([], tiny_run, settings(tiny, train__steps=61, train__lr=1e-2), resume=True)


def test_going_on_from_a_bundle(tiny_run: Path, small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    bundle = run([str(small_text)], tmp_run, settings(tiny, train__steps=4, train__lr=1e-5), start=tiny_run)
    assert bundle.meta["lineage"]["parent"] == Bundle.open(tiny_run).hash
    first, last = read_metrics(tiny_run), read_metrics(tmp_run)
    assert last[0]["eval/mlm_loss"] == pytest.approx(first[-1]["eval/mlm_loss"], rel=1e-2)
    assert (tmp_run / "vocab" / "vocab.txt").read_bytes() == (tiny_run / "vocab" / "vocab.txt").read_bytes()


def test_a_published_vocabulary(small_text: Path, tmp_run: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    han = sorted({c for c in (small_text / "zh.txt").read_text() if "\u4e00" <= c <= "\u9fff"})
    pieces = [
        "[PAD]", *(f"[unused{n}]" for n in range(9)), *SPECIAL_TOKENS[1:], *letters, *(f"##{c}" for c in letters),
        *han, *".。,，", "the", "reads",
    ]  # fmt: skip
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    bundle = run([str(small_text)], tmp_run, settings(tiny, train__steps=2), vocab=tmp_path / "vocab.txt")
    assert bundle.config["vocab_size"] == len(pieces)
    assert (bundle.path / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == pieces


def test_a_vocabulary_that_is_not_the_bundles_is_refused(
    tiny_run: Path, small_text: Path, tmp_run: Path, toy_tokenizer: Tokenizer, tmp_path: Path, tiny: dict[str, object]
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(toy_tokenizer.tokens) + "\n", encoding="utf-8")
    config = settings(tiny, train__steps=2)
    with pytest.raises(ConfigError, match=r"made with another vocabulary; leave --vocab out"):
        run([str(small_text)], tmp_run, config, start=tiny_run, vocab=tmp_path / "vocab.txt")
    assert run([str(small_text)], tmp_run, config, start=tiny_run), "a refused request does not occupy the folder"


def test_a_store_stands_for_its_text(tiny_run: Path, tmp_run: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    config = settings(tiny, train__steps=60, train__lr=1e-2)
    bundle = run([str(tiny_run / "store")], tmp_run, config)
    assert not (tmp_run / "store").exists()
    same, other = (load_file(path / "model.safetensors") for path in (bundle.path, tiny_run / "bundle"))
    assert all((same[name] == other[name]).all() for name in other)
    with pytest.raises(ConfigError, match="several stores cannot be read as one"):
        run([str(tiny_run / "store"), str(tiny_run / "store")], tmp_path / "b", config)


def test_a_damaged_store_is_refused(tiny_run: Path, tmp_path: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    for part in ("store", "vocab"):
        shutil.copytree(tiny_run / part, tmp_path / part)
    tokens = tmp_path / "store" / "tokens-00000.bin"
    content = bytearray(tokens.read_bytes())
    content[100] ^= 1
    tokens.write_bytes(content)
    with pytest.raises(DataError, match=r"tokens-00000\.bin: damaged"):
        run([str(tmp_path / "store")], tmp_run, settings(tiny, train__steps=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"model__architecture": "modernbert", "task__pairs": "none", "task__mask_rate": 0.3},
        {"task__masking": "whole-word", "task__pairs": "sop", "task__mask_rate": 0.3, "task__mask_rate_end": 0.15},
        {"task__masking": "span"},
        {"train__name": "sgd"},
        {"train__accumulation": 3},
        {"model__hidden_dropout": 0.1, "model__attention_dropout": 0.1},
    ],
    ids=["modern", "words", "spans", "sgd", "accumulation", "dropout"],
)
def test_other_ways_to_train(small_text: Path, tmp_run: Path, tiny: dict[str, object], changes: dict[str, Any]) -> None:
    bundle = run([str(small_text)], tmp_run, settings(tiny, train__steps=4, **changes))
    assert bundle.config["model_type"] == ("modernbert" if "model__architecture" in changes else "bert")
    assert 0 < bundle.meta["scores"]["mlm_loss"] < 10
    pairs = changes.get("task__pairs", "nsp")
    assert {name for name in bundle.meta["scores"] if name.endswith("accuracy")} == {
        "mlm_accuracy",
        *((f"{pairs}_accuracy",) if pairs != "none" else ()),
    }
    report = (tmp_run / "report.html").read_text(encoding="utf-8")
    assert ("next sentence right" in report, "sentence order right" in report) == (pairs == "nsp", pairs == "sop")


def test_the_old_name_of_a_setting_is_an_unknown_one(tiny: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'task\.nsp'"):
        settings(tiny, task__nsp=False)


def test_a_store_says_once_that_its_chinese_words_are_not_marked(
    tiny_run: Path, small_text: Path, tmp_path: Path, tiny: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tiny_run / "store")

    def said(out: str, **changes: Any) -> str:
        pretrain([store], tmp_path / out, settings(tiny, train__steps=1, **changes), threads=1)
        return capsys.readouterr().err

    assert said("words", task__masking="whole-word").count("Chinese words are not marked") == 1
    assert "Chinese words" not in said("pieces")
    with pytest.raises(ConfigError, match=r"prepared without Chinese words.*give the text"):
        said("late", corpus__chinese_words="true")


def test_a_store_says_that_its_duplicates_stay(
    tiny_run: Path, tmp_path: Path, tiny: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    for mode, told in (("near", 1), ("off", 0)):
        changes = {"corpus__dedup__mode": mode, "train__steps": 1}
        pretrain([str(tiny_run / "store")], tmp_path / mode, settings(tiny, **changes), threads=1)
        assert capsys.readouterr().err.count("prepared with corpus.dedup.mode=off, and stays as it is") == told


def test_chinese_words_are_marked_and_noted_in_the_store(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    cut = SimpleNamespace(cut=lambda text: [text[at : at + 2] for at in range(0, len(text), 2)])
    monkeypatch.setitem(sys.modules, "rjieba", cut)
    changes = {"corpus__chinese_words": "true", "task__masking": "whole-word", "train__steps": 2}
    pretrain([str(small_text)], tmp_run, settings(tiny, **changes), threads=1)
    store, plain = Store.open(tmp_run / "store"), tmp_run.parent / "plain"
    assert store.manifest["settings"]["chinese_words"] is True
    run([str(small_text)], plain, settings(tiny, train__steps=1))
    other = Store.open(plain / "store")
    assert other.manifest["settings"]["chinese_words"] is False
    assert store.read(0, store.num_tokens).tolist() == other.read(0, other.num_tokens).tolist()
    assert store.manifest["counts"]["words"] < other.manifest["counts"]["words"]
    assert "not marked" not in capfd.readouterr().err


def test_chinese_words_without_a_segmenter_name_the_extra(
    small_text: Path, tmp_run: Path, tiny: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(ConfigError, match=r"bertsmith\[fast\]"):
        run([str(small_text)], tmp_run, settings(tiny, corpus__chinese_words="true", train__steps=1))


def test_tokens_and_epochs_become_steps(small_text: Path, tmp_path: Path, tiny: dict[str, object]) -> None:
    for name, changes in (("tokens", {"train__tokens": 2000}), ("epochs", {"train__epochs": 0.5})):
        run([str(small_text)], tmp_path / name, settings(tiny, **changes))
    seen = read_metrics(tmp_path / "tokens")[-1]["tokens"]
    assert seen == pytest.approx(2000, rel=0.15)
    facts = json.loads((tmp_path / "epochs" / "run.json").read_text())
    share = read_metrics(tmp_path / "epochs")[-1]["tokens"] / facts["tokens_per_epoch"]
    assert 0.4 < share < 0.75, "special tokens count as tokens seen, not as text"


def test_a_budget_is_turned_into_steps_once(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    run([str(small_text)], tmp_run, settings(tiny, train__budget="4s"))
    steps = json.loads((tmp_run / "run.json").read_text())["steps"]
    lines = read_metrics(tmp_run)
    assert lines[-1]["step"] == steps
    assert lines[-1]["seconds"] < 30


def test_a_run_that_gets_no_better_stops(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    changes = {"train__steps": 100, "train__evaluations": 100, "train__patience": 2, "train__lr": 30.0}
    bundle = run([str(small_text)], tmp_run, settings(tiny, **changes))
    lines = read_metrics(tmp_run)
    assert lines[-1]["step"] < 100
    losses = [line["eval/mlm_loss"] for line in lines[1:]]
    assert min(losses[-2:]) >= min(losses[:-2])
    assert bundle.meta["scores"]["mlm_loss"] == min(losses), "the best weights are kept, not the last"
    assert bundle.meta["lineage"]["steps"] == 1 + losses.index(min(losses))


def test_the_best_by_a_chosen_score(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    changes = {"train__steps": 20, "train__evaluations": 20, "train__metric": "nsp_accuracy", "task__eval_share": 0.3}
    bundle = run([str(small_text)], tmp_run, settings(tiny, **changes))
    found = [line["eval/nsp_accuracy"] for line in read_metrics(tmp_run)[1:]]
    assert bundle.meta["scores"]["nsp_accuracy"] == max(found)
    assert bundle.meta["lineage"]["steps"] == 1 + found.index(max(found))


def test_a_score_that_is_not_measured_cannot_choose(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"train\.metric 'nsp_loss' is not measured here; use one of mlm_loss"):
        run([str(small_text)], tmp_run, settings(tiny, task__pairs="none", train__metric="nsp_loss", train__steps=2))


def test_the_caller_can_watch_masks_being_filled(small_text: Path, tmp_run: Path, tiny: dict[str, object]) -> None:
    seen: list[tuple[int, list[Guess]]] = []
    run(
        [str(small_text)],
        tmp_run,
        settings(tiny, train__steps=4, train__evaluations=2, task__eval_share=0.2),
        watch=lambda step, guesses: seen.append((step, guesses)),
    )
    assert [step for step, _ in seen] == [2, 4]
    for guess in seen[0][1]:
        assert re.fullmatch(r"\w+", guess.sample.word)
        assert 0 <= guess.true <= guess.best[0][1] <= 1


def test_no_text_is_no_request(tmp_run: Path, tiny: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="no text to learn from"):
        run([], tmp_run, settings(tiny))


def test_probes_are_answered_between_the_evaluations_and_change_nothing(
    small_text: Path, tiny: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    names = {"UID": "order", "linguistics_term": "syntax"}
    pairs.write_text(json.dumps({"sentence_good": "Anna reads.", "sentence_bad": "Reads Anna anna.", **names}))
    kept = []
    for name, probe in (("plain", {}), ("probed", {"probe__minimal_pairs": pairs, "probe__every": "2steps"})):
        config = settings(tiny, train__steps=10, train__evaluations=2, **probe)
        pretrain([str(small_text)], tmp_path / name, config, threads=1)
        kept.append((tmp_path / name / "bundle" / "model.safetensors").read_bytes())
    assert kept[0] == kept[1]
    asked = {line["step"]: line for line in read_metrics(tmp_path / "probed") if "probe/minimal_pairs" in line}
    assert list(asked) == [2, 4, 5, 7, 9, 10]
    assert all(line["probe/minimal_pairs"] in (0.0, 1.0) for line in asked.values())
    assert [step for step, line in asked.items() if "eval/mlm_loss" in line] == [5, 10]
    assert "minimal pairs told apart" in capsys.readouterr().err
    assert "minimal pairs" in (tmp_path / "probed" / "report.html").read_text(encoding="utf-8")


def test_a_probe_without_pairs_stops_before_the_first_step(
    small_text: Path, tiny: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such file"):
        run([str(small_text)], tmp_path / "run", settings(tiny, train__steps=2, probe__minimal_pairs="nowhere"))
