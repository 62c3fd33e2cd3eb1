"""Tagging: windows, legal tag sequences, scores."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.annotations import Span, tags_to_spans
from bertsmith.tasks.base import Answer, Example
from bertsmith.tasks.flat import IGNORED, best_tags
from bertsmith.tasks.tagging import Tagging, TaggingConfig
from bertsmith.tasks.word_windows import Window, cut_windows
from bertsmith.tokenizer.load import Tokenizer

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
CONLL = "Anna B-PER\nin O\nParis B-LOC\n\nBert B-PER\nworks O\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def oracle(windows: list[Window], tags: list[list[int]], labels: int) -> list[dict[str, np.ndarray]]:
    """Logits that say the wanted tags at the places where they are read, and noise elsewhere."""
    outputs = []
    for window in windows:
        logits = np.random.default_rng(0).normal(size=(len(window), labels)).astype(np.float32)
        for word, position in zip(window.owned, window.positions, strict=True):
            logits[position] = 20 * np.eye(labels, dtype=np.float32)[tags[window.example][word]]
        outputs.append({"tag": logits})
    return outputs


def test_labels_come_from_the_first_file(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    task = Tagging(toy_tokenizer)
    examples = task.rows(write(tmp_path / "train.txt", CONLL), Tally())
    assert task.labels == LABELS
    assert examples[0].label == (Span(0, 4, "PER"), Span(8, 13, "LOC"))
    dev = write(tmp_path / "dev.txt", "Anna B-PER\n\nAcme B-ORG\n")
    with pytest.raises(DataError, match=re.escape(f"{dev}:3: type 'ORG' is not one of LOC, PER")):
        task.rows(dev, Tally())
    task.config = task.config.model_copy(update={"skip_bad_rows": True})
    tally = Tally()
    assert len(task.rows(dev, tally)) == 1
    assert tally.counts == {"unknown_label": 1}


def test_a_file_without_any_span_is_refused(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="none of its 1 texts has a marked span"):
        Tagging(toy_tokenizer).rows(write(tmp_path / "a.txt", "Anna O\n"), Tally())


def test_iob1_is_said(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    said: list[str] = []
    Tagging(toy_tokenizer, say=said.append).rows(write(tmp_path / "a.txt", "Anna I-PER\n"), Tally())
    assert "1 entities begin with an I- tag" in said[0]


def test_only_the_first_piece_of_a_word_is_labelled(toy_tokenizer: Tokenizer) -> None:
    task = Tagging(toy_tokenizer, TaggingConfig(labels=LABELS))
    example = Example({"text": "Zoe in Paris"}, (Span(0, 3, "PER"), Span(7, 12, "LOC")))
    (encoding,) = task.encode([example])
    pieces = toy_tokenizer.encode(["Zoe in Paris"])[0]
    assert len(pieces) == 5
    assert encoding.targets["tag"].tolist() == [IGNORED, 3, IGNORED, IGNORED, 0, 1, IGNORED]


@pytest.mark.parametrize("max_length", [16, 24, 64])
def test_every_word_of_a_long_text_is_answered_for_once(toy_tokenizer: Tokenizer, max_length: int) -> None:
    task = Tagging(toy_tokenizer, TaggingConfig(labels=LABELS, max_length=max_length))
    tally = Tally()
    texts = [" ".join(["anna", "zoe", "works"] * 30), "paris", "", "x" * 60 + " anna"]
    examples = [Example({"text": text}, (), f"f:{i}") for i, text in enumerate(texts)]
    windows = [window for window in task.encode(examples, tally) if isinstance(window, Window)]
    assert max(map(len, windows)) <= max_length
    owned = [sorted(word for w in windows if w.example == i for word in w.owned.tolist()) for i in range(4)]
    assert owned == [list(range(90)), [0], [], [0, 1]]
    labelled = sum(int((window.targets["tag"] != IGNORED).sum()) for window in windows)
    assert labelled == 93
    assert tally.counts["read_in_windows"] == (2 if max_length < 64 else 1)
    tags = [[i % 5 for i in range(90)], [3], [], [0, 1]]
    answers = task.decode(oracle(windows, tags, 5), windows, examples)
    legal = [["B" + LABELS[i][1:] if LABELS[i].startswith("I") else LABELS[i] for i in row] for row in tags]
    assert [[tag.replace("I-", "B-") for tag in answer["tags"]] for answer in answers] == legal


@given(st.lists(st.integers(1, 7), min_size=0, max_size=60), st.integers(3, 20), st.floats(0, 0.9, allow_nan=False))
def test_windows_cover_everything_and_keep_words_whole(words: list[int], room: int, overlap: float) -> None:
    ends = np.cumsum(words, dtype=np.int64)
    starts = ends - np.array(words, dtype=np.int64)
    length = int(ends[-1]) if words else 0
    windows = cut_windows(length, starts, room, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == length
    assert all(stop - start <= room for start, stop in windows)
    assert all(before[0] < after[0] <= before[1] < after[1] for before, after in itertools.pairwise(windows))
    if max(words, default=0) <= room:
        assert all(stop == length or stop in starts for _, stop in windows)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_best_legal_path_is_found(length: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(length, 5)).astype(np.float32)

    def legal(path: tuple[int, ...]) -> bool:
        tags = [LABELS[i] for i in path]
        return tags_to_spans(tags, [(i, i + 1) for i in range(length)])[1] == 0

    best = max(filter(legal, itertools.product(range(5), repeat=length)), key=lambda p: sum(scores[range(length), p]))
    assert tuple(map(LABELS.index, best_tags([scores], LABELS)[0][0])) == best


def test_entities_have_offsets_into_the_text_as_it_was_given(toy_tokenizer: Tokenizer) -> None:
    task = Tagging(toy_tokenizer, TaggingConfig(labels=LABELS))
    text = "  Anna  Zoe, (PARIS)!"
    examples = [Example({"text": text})]
    windows = [window for window in task.encode(examples) if isinstance(window, Window)]
    (answer,) = task.decode(oracle(windows, [[3, 4, 0, 0, 1, 0, 0]], 5), windows, examples)
    assert [(entity["text"], entity["type"]) for entity in answer["entities"]] == [
        ("Anna  Zoe", "PER"),
        ("PARIS", "LOC"),
    ]
    assert all(text[entity["start"] : entity["end"]] == entity["text"] for entity in answer["entities"])
    assert all(0.99 < entity["score"] <= 1 for entity in answer["entities"])
    assert answer["tags"] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O", "O"]


def test_words_without_pieces_are_outside(toy_tokenizer: Tokenizer) -> None:
    task = Tagging(toy_tokenizer, TaggingConfig(labels=LABELS))
    examples = [Example({"text": "anna \x07 zoe", "words": ((0, 4), (5, 6), (7, 10))}, ())]
    windows = [window for window in task.encode(examples) if isinstance(window, Window)]
    (answer,) = task.decode(oracle(windows, [[3, 3, 3]], 5), windows, examples)
    assert answer["tags"] == ["B-PER", "O", "B-PER"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.tuples(*[st.sampled_from(LABELS)] * 2), min_size=1, max_size=8), min_size=1, max_size=4))
def test_scores_equal_seqeval(toy_tokenizer: Tokenizer, rows: list[list[tuple[str, str]]]) -> None:
    task = Tagging(toy_tokenizer, TaggingConfig(labels=LABELS))
    examples: list[Example] = []
    answers: list[Answer] = []
    sides: list[list[list[str]]] = [[], []]
    for row in rows:
        words = [(2 * i, 2 * i + 1) for i in range(len(row))]
        gold, guess = (tags_to_spans([pair[side] for pair in row], words)[0] for side in (0, 1))
        legal = [["O"] * len(row) for _ in range(2)]
        for side, spans in enumerate((gold, guess)):
            for span in spans:
                for word in range(span.start // 2, span.end // 2 + 1):
                    legal[side][word] = f"{'B' if 2 * word == span.start else 'I'}-{span.type}"
            sides[side].append(legal[side])
        entities = [{"start": span.start, "end": span.end, "type": span.type} for span in guess]
        examples.append(Example({"text": "a " * len(row), "words": words}, tuple(gold)))
        answers.append({"entities": entities, "words": words, "tags": legal[1]})
    scores = task.score(answers, examples)
    strict = f1_score(*sides, mode="strict", scheme=IOB2, zero_division=0)
    assert scores["f1"] == pytest.approx(strict)
    assert scores["f1_conlleval"] == pytest.approx(f1_score(*sides, zero_division=0))


REAL = {
    "conll2003": (["train.txt.xz", "dev.txt.xz", "test.txt.xz"], [14041, 3250, 3453], 9, {}),
    "cluener": (["train.json.xz", "dev.json.xz"], [10747, 1343], 21, {"overlapping_spans": 1}),
}


@pytest.mark.parametrize("name", REAL)
def test_published_files_are_read_whole(data_dir: Path, toy_tokenizer: Tokenizer, name: str) -> None:
    files, counts, labels, skipped = REAL[name]
    task = Tagging(toy_tokenizer, TaggingConfig(skip_bad_rows=bool(skipped)))
    tally = Tally()
    read = [len(task.rows(data_dir / "tasks" / name / file, tally)) for file in files]
    assert (read, tally.counts, len(task.labels)) == (counts, skipped, labels)


def test_cluener_spans_are_the_surfaces_that_it_names(data_dir: Path, toy_tokenizer: Tokenizer) -> None:
    first = Tagging(toy_tokenizer).rows(data_dir / "tasks" / "cluener" / "dev.json.xz", Tally())[0]
    assert [first.fields["text"][span.start : span.end] for span in first.label] == ["彭小军", "台湾"]


def test_damaged_words_with_spaces_stay_one_word(data_dir: Path, toy_tokenizer: Tokenizer) -> None:
    tally = Tally()
    examples = Tagging(toy_tokenizer).rows(data_dir / "tasks" / "conll2003" / "robustness" / "keyboard.txt.xz", tally)
    assert (len(examples), tally.counts) == (3443, {"space_inside_a_word": 25})
