"""The whole journey as a user walks it: a folder of text, an encoder, two tasks, scores and answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

NAMES, PLACES = ["Anna", "Bert", "Clara", "David"], ["London", "Paris", "Rome"]


def test_from_raw_text_to_an_answer(
    small_text: Path,
    tmp_path: Path,
    tiny: dict[str, object],
    command_line: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    def bertsmith(*arguments: object) -> str:
        done = command_line(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sets = [word for key, value in tiny.items() for word in ("--set", f"{key}={value}")]
    encoder = tmp_path / "encoder"
    bertsmith("pretrain", small_text, "--out", encoder, "--steps", 40, *sets)

    colours = tmp_path / "classify.jsonl"
    colours.write_text(
        "".join(json.dumps({"text": f"{n} reads in {p}.", "label": n}) + "\n" for n in NAMES[:2] for p in PLACES)
    )
    names = tmp_path / "tag.conll"
    names.write_text("\n\n".join(f"{n} B-PER\nreads O\nin O\n{p} B-LOC" for n in NAMES for p in PLACES) + "\n")
    for task, data in (("classify", colours), ("tag", names)):
        rest = ["--steps", 120, "--set", "train.lr=5e-3", "--set", "train.batch_size=8", "--set", "task.max_length=32"]
        bertsmith("finetune", task, "--data", data, "--dev", data, "--from", encoder, "--out", tmp_path / task, *rest)
        scores = json.loads(bertsmith("evaluate", tmp_path / task, "--data", data, "--json"))
        assert max(value for value in scores.get("scores", scores).values() if isinstance(value, float)) > 0.9
        assert (tmp_path / task / "report.html").exists()

    answer = json.loads(bertsmith("predict", tmp_path / "classify", "Bert reads in Rome.", "--json"))
    assert answer["label"] == "Bert"
    found = json.loads(bertsmith("predict", tmp_path / "tag", "Clara reads in Paris", "--json"))["entities"]
    assert [(entity["text"], entity["type"]) for entity in found] == [("Clara", "PER"), ("Paris", "LOC")]
    filled = json.loads(bertsmith("predict", encoder, "Anna reads the [MASK] book in London.", "--json"))
    assert filled
