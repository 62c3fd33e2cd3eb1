"""One contract for every option of training: it is used, and a run that was cut goes on to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import load
from bertsmith.core.events import read_metrics
from bertsmith.train.finetune import config_class, finetune
from bertsmith.train.loop import Step, steps

COLOURS = ("red", "old", "new", "green")
CLASSES = "text,label\n" + "".join(f"{n} reads the {c} book,{n.lower()}\n" for n in ("Anna", "Bert") for c in COLOURS)
CLASSES += "Clara reads it,clara\n"
SETS = "".join(
    f'{{"text": "{text}", "label": {label}}}\n'
    for text, label in (("Anna reads", '["a", "r"]'), ("Bert reads", '["r"]'), ("Bert", "[]"))
)
TAGS = "\n\n".join(f"{n} B-PER\nis O\nin O\n{p} B-LOC" for n in ("Anna", "Bert") for p in ("London", "Paris")) + "\n"
NUMBERS = "text,label\n" + "".join(f"{c} books,{i + 0.5}\n" for i, c in enumerate(COLOURS))
PAIRS = "text,pair,label\n" + "".join(f"{a} reads,{b} reads,{'ny'[a == b]}\n" for a in COLOURS for b in COLOURS)
CHOICES = "".join(
    f'{{"context": "the book is {c}", "choices": ["{c}", "blue", "white"], "label": 0}}\n' for c in COLOURS
)
ANSWERS = "".join(
    f'{{"question": "Where is {n}?", "context": "{n} is in {p}, not in Oslo.", "answers": ["{p}"]}}\n'
    for n in ("Anna", "Bert")
    for p in ("London", "Paris")
)
WRITTEN = "".join(f'{{"source": "the {c} book", "target": "{c} it is"}}\n' for c in COLOURS)


@dataclass(frozen=True)
class Case:
    """A task with its rows, what is switched on, and the figure by which that can be seen in metrics.jsonl."""

    task: str
    rows: str
    sets: tuple[str, ...]
    seen: str = "train/loss"


CASES = {
    "contrast": Case("classify", CLASSES, ("train.contrastive=true", "task.pooling=mean"), "train/same"),
    "contrast in parts": Case(
        "classify", CLASSES, ("train.contrastive=true", "task.pooling=mean", "train.accumulation=2"), "train/other"
    ),
    "a rise in steps": Case("classify", CLASSES, ("train.warmup=2steps",), "lr"),
    "balanced classes": Case("classify", CLASSES, ("train.class_weights=balanced",), "train/cross_entropy"),
    "weighed tags": Case("tag", TAGS, ("train.class_weights={LOC=3}", "train.focal_gamma=2"), "train/cross_entropy"),
    "weighed sets": Case("classify", SETS, ("train.class_weights=balanced", "train.label_smoothing=0.1")),
    "focal loss": Case("answer", ANSWERS, ("train.focal_gamma=2",), "train/cross_entropy"),
    "smoothed labels": Case("choose", CHOICES, ("train.label_smoothing=0.1",), "train/cross_entropy"),
    "R-Drop": Case("classify", CLASSES, ("train.r_drop=1", "train.accumulation=2"), "train/r_drop"),
    "R-Drop of sets": Case("classify", SETS, ("train.r_drop=1",), "train/r_drop"),
    "R-Drop of numbers": Case("classify", NUMBERS, ("train.r_drop=1",), "train/r_drop"),
    "R-Drop of choices": Case("choose", CHOICES, ("train.r_drop=1", "train.accumulation=2"), "train/r_drop"),
    "R-Drop of answers": Case("answer", ANSWERS, ("train.r_drop=1",), "train/r_drop"),
    "R-Drop in writing": Case("generate", WRITTEN, ("train.r_drop=1", "task.max_target=8"), "train/r_drop"),
    "FGM": Case("classify", CLASSES, ("train.adversarial=fgm",), "train/adversarial_loss"),
    "FGM of a chain, a small part": Case(
        "tag", TAGS, ("train.adversarial=fgm", "task.head=crf", "peft.method=lora"), "train/adversarial_loss"
    ),
    "PGD of vectors": Case("match", PAIRS, ("train.adversarial=pgd", "task.mode=bi"), "train/adversarial_loss"),
    "FreeLB": Case("tag", TAGS, ("train.adversarial=freelb", "train.accumulation=2"), "train/adversarial_loss"),
    "everything": Case(
        "classify",
        CLASSES,
        (
            *("train.class_weights=balanced", "train.label_smoothing=0.1", "train.r_drop=0.5"),
            *("train.adversarial=pgd", "train.ema=0.9", "train.layer_decay=0.9"),
        ),
        "train/adversarial_loss",
    ),
    "a moving average": Case("classify", CLASSES, ("train.ema=0.9",)),
    "layer decay": Case("classify", CLASSES, ("train.layer_decay=0.8",)),
}


def run(case: Case, out: Path, start: Path, *sets: str, **how: Any) -> Bundle:
    kind = "txt" if case.task == "tag" else "jsonl" if case.rows.startswith("{") else "csv"
    data = out.parent / f"rows.{kind}"
    data.write_text(case.rows, encoding="utf-8")
    fast = ["train.lr=5e-3", "train.batch_size=6", "task.max_length=32", "train.steps=5", "train.evaluations=2"]
    config = load(config_class(case.task), sets=[*fast, "train.checkpoint_every=2steps", "train.doctor=off", *sets])
    return finetune(case.task, data, out, config, start=start, dev=data, quiet=True, threads=1, **how)


@pytest.mark.parametrize("name", CASES)
def test_it_is_used_and_goes_on_to_the_bit(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = CASES[name]
    whole = run(case, tmp_path / "whole", tiny_run, *case.sets)
    assert case.seen in read_metrics(tmp_path / "whole")[-1]
    necessary = tuple(item for item in case.sets if item.startswith(("task.", "peft.")))
    plain = run(case, tmp_path / "plain", tiny_run, *necessary)
    assert plain.hash != whole.hash, "it changes what is learned"
    real = steps

    def stops(*arguments: Any, **how: Any) -> Iterator[Step]:
        for step in real(*arguments, **how):
            yield step
            if step.number == 3:
                raise OSError("no power")

    with monkeypatch.context() as patch:
        patch.setattr("bertsmith.train.practice.steps", stops)
        with pytest.raises(OSError, match="no power"):
            run(case, tmp_path / "cut", tiny_run, *case.sets)
    resumed = run(case, tmp_path / "cut", tiny_run, *case.sets, resume=True)
    assert resumed.hash == whole.hash
    mine, theirs = read_metrics(tmp_path / "cut"), read_metrics(tmp_path / "whole")
    for figure in ("train/loss", case.seen):
        assert [line[figure] for line in mine] == [line[figure] for line in theirs]
