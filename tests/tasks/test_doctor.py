"""What the data doctor finds, and where it says that it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.core.config import load
from bertsmith.core.errors import DataError
from bertsmith.tasks.doctor import Examination
from bertsmith.tasks.noise import doubtful
from bertsmith.train.finetune import check, config_class


def examined(folder: Path, task: str, train: str, dev: str = "", name: str = "train.csv") -> Examination:
    path, other = folder / name, folder / f"dev-{name}"
    path.write_text(train, encoding="utf-8")
    other.write_text(dev, encoding="utf-8")
    return check(task, path, load(config_class(task)), dev=other if dev else None)


def places(found: Examination, kind: str) -> list[str]:
    one = next(finding for finding in found.findings if finding.kind == kind)
    assert one.count >= len(one.places)
    return list(one.places)


ROWS = [f"the {colour} {thing} is what i wanted today,{'ab'[i % 2]}" for i, colour in enumerate(("red", "old", "new"))
        for thing in ("house", "book", "bridge", "river", "lamp", "desk")]  # fmt: skip


def test_repeats_within_a_split_and_across_splits_have_two_places(tmp_path: Path) -> None:
    train = "\n".join(["text,label", *ROWS, ROWS[0], "a long line of words about one house by the sea,a"])
    dev = f"text,label\n{ROWS[3]}\nA long line of words about one house by the sea!,a\n{ROWS[5][:-1]}c\n{ROWS[4]}"
    found = examined(tmp_path, "classify", train, dev.replace("c\n", "b\n"))
    assert [Path(place.split(" and ")[0]).name for place in places(found, "duplicate")] == ["train.csv:20"]
    assert [Path(place.split(" and ")[1]).name for place in places(found, "leak")] == [
        "train.csv:5", "train.csv:7", "train.csv:6"
    ]  # fmt: skip
    assert "dev-train.csv:3" in places(found, "near_leak")[0]
    with pytest.raises(DataError, match=r"train\.csv:\d+"):
        found.strict()


def test_clean_rows_have_nothing_amiss(tmp_path: Path) -> None:
    words = ["apple", "river", "stone", "cloud", "table", "glass", "horse", "paper", "light", "music", "bread", "clock"]
    train = "text,label\n" + "".join(f"{w} {words[i - 5]} {words[i - 3]},{'ab'[i % 2]}\n" for i, w in enumerate(words))
    found = examined(tmp_path, "classify", train)
    assert found.serious == 0
    assert "nothing amiss" in found.text()
    found.strict()


def test_bad_rows_are_findings_and_a_misspelt_label_is_named(tmp_path: Path) -> None:
    rows = [f"text number {i} about {i * 7},positive" for i in range(20)] + [f"row {i},negative" for i in range(12)]
    found = examined(tmp_path, "classify", "\n".join(["text,label", *rows, "another thing,postive", ",negative"]))
    assert places(found, "label_misspelt")[0].endswith("train.csv:34")
    assert places(found, "empty_text")[0].endswith("train.csv:35")


def test_a_label_for_each_row_is_doubted_at_once(tmp_path: Path) -> None:
    rows = "text,label\n" + "".join(f"text {n},class {n}\n" for n in range(30_000))
    found = {finding.kind: finding.message for finding in examined(tmp_path, "classify", rows).findings}
    assert "30,000 rows have 30,000 labels" in found["many_classes"]
    assert "label_misspelt" not in found


def test_an_entity_that_begins_inside_and_an_answer_that_is_elsewhere(tmp_path: Path) -> None:
    tags = examined(tmp_path, "tag", "Anna B-PER\nsleeps O\n\nin O\nParis I-LOC\n", name="train.conll")
    assert places(tags, "inside_tag_read_as_beginning")[0].endswith("train.conll:4")
    asked = '{"question": "Who?", "context": "It is Anna.", "answers": [{"text": "%s", "answer_start": %d}]}\n'
    rows = asked % ("Anna", 2) + asked % ("Bert", 6)
    answers = examined(tmp_path, "answer", rows, name="train.jsonl")
    assert ":1" in places(answers, "answer_start_mended")[0]
    assert ":2" in places(answers, "answer_not_in_context")[0]


def test_labels_that_were_swapped_are_doubted_first() -> None:
    good, bad = ["lovely", "great", "fine", "superb"], ["awful", "dull", "boring", "poor"]
    texts = [f"{a} {b} film {i}" for words in (good, bad) for i in range(10) for a in words for b in words]
    labels = ["good"] * 160 + ["bad"] * 160
    swapped = [3, 77, 200, 301]
    for i in swapped:
        labels[i] = "bad" if labels[i] == "good" else "good"
    assert sorted(i for i, _ in doubtful(texts, labels)[:4]) == swapped
