"""Responses and the turns before them, for models that compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics.ranking import ranking_scores
from bertsmith.tasks.base import Example
from bertsmith.tasks.candidates import among_drawn
from bertsmith.tasks.dialogue import is_dialogue, turn_ids
from bertsmith.tasks.matching import Matching, MatchingConfig
from bertsmith.tokenizer.load import Tokenizer

TALKS = """is anna good? __eou__ she is. __eou__ is bert? __eou__\t1\t1 2 3
where is he? __eou__ in paris! __eou__ it is great. __eou__
"""


def task_of(tokenizer: Tokenizer, path: Path, **settings: object) -> tuple[Matching, list[Example]]:
    (path / "a.txt").write_text(TALKS)
    task = Matching(tokenizer, MatchingConfig.model_validate(settings), say=lambda line: None)
    return task, task.rows(path / "a.txt", Tally())


def text_of(tokenizer: Tokenizer, ids: np.ndarray) -> str:
    return " ".join(tokenizer.tokens[i] for i in ids)


def test_each_turn_goes_with_those_before_it(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    task, examples = task_of(toy_tokenizer, tmp_path, mode="bi", max_turns=1)
    assert [(one.fields["text"], one.fields["pair"], one.fields["article"]) for one in examples] == [
        ("is anna good?", "she is.", 0),
        ("she is.", "is bert?", 0),
        ("where is he?", "in paris!", 1),
        ("in paris!", "it is great.", 1),
    ]
    assert {one.label for one in examples} == {True}
    assert examples[2].where == f"{tmp_path / 'a.txt'}:2"
    assert task.config.turns


def test_a_bi_encoder_reads_the_last_turns(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    task, examples = task_of(toy_tokenizer, tmp_path, mode="bi", max_length=9)
    tally = Tally()
    history, response = task.encode(examples[1:2], tally)
    assert text_of(toy_tokenizer, history.input_ids) == "[CLS] anna good ? [SEP] she is . [SEP]"
    assert text_of(toy_tokenizer, response.input_ids) == "[CLS] is bert ? [SEP]"
    assert dict(tally.counts) == {"cut_to_max_length": 1}


def test_a_cross_encoder_reads_the_last_turns_with_the_response(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    task, examples = task_of(toy_tokenizer, tmp_path, max_length=12, drawn=2)
    right = next(one for one in examples if one.fields["pair"] == "is bert?" and one.label == "1")
    (encoding,) = task.encode([right])
    assert text_of(toy_tokenizer, encoding.input_ids) == "[CLS] good ? [SEP] she is . [SEP] is bert ? [SEP]"
    assert encoding.segment_ids.tolist() == [0] * 8 + [1] * 4
    assert [one.label for one in examples].count("1") == 4
    assert len(examples) == 4 * 3
    assert all("article" in one.fields for one in examples)


def test_a_cross_encoder_of_plain_pairs_still_loses_the_end(toy_tokenizer: Tokenizer) -> None:
    task = Matching(toy_tokenizer, MatchingConfig(labels=("0", "1"), max_length=8))
    (encoding,) = task.encode([Example({"text": "anna lives in paris is good", "pair": "he is"})])
    assert text_of(toy_tokenizer, encoding.input_ids) == "[CLS] anna lives in [SEP] he is [SEP]"


def test_responses_are_ranked_among_so_many(toy_tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    examples = [Example({"text": f"query {n}", "pair": f"text {n}"}, True, f"row {n}") for n in range(30)]
    unit = np.eye(30, dtype=np.float32)
    right = [{"vectors": np.stack([unit[n], unit[n]])} for n in range(30)]
    queries = list(among_drawn(right, examples, 20))
    assert [len(scores) for _, scores in queries] == [20] * 30
    assert ranking_scores(queries)["hits@1"] == 1
    same = [{"vectors": np.ones((2, 4), np.float32)} for _ in range(30)]
    assert ranking_scores(among_drawn(same, examples, 20))["hits@1"] == pytest.approx(1 / 20)
    noise = [{"vectors": rng.normal(size=(2, 8)).astype(np.float32)} for _ in range(30)]
    again = [[scores.tolist() for _, scores in among_drawn(noise, examples, 20)] for _ in range(2)]
    assert again[0] == again[1]
    task = Matching(toy_tokenizer, MatchingConfig(mode="bi", candidates=20))
    assert task.score(same, examples)["hits@1"] == pytest.approx(1 / 20)


def test_what_is_a_dialogue() -> None:
    assert is_dialogue('{"dialogue": ["a", "b"]}\n')
    assert is_dialogue('[{"id": 1, "messages": [{"content": "a"}]}]')
    assert not is_dialogue('{"text": "the dialogue: [a]"}')
    assert not is_dialogue("text,label\na,b\n")
    assert not is_dialogue("")


def test_the_written_separator_stays_text(toy_tokenizer: Tokenizer) -> None:
    ids, none = turn_ids(toy_tokenizer, ["he [SEP] is\n\nshe", "\n"])
    assert (ids == toy_tokenizer.sep_id).sum() == 1
    assert len(none) == 0


def test_dialogues_of_one_turn_are_refused_or_counted(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"turns": ["he is"]}\n{"turns": ["is he?", "he is", "good"]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: a dialogue has two turns or more, not 1"):
        Matching(toy_tokenizer, MatchingConfig(mode="bi"), say=lambda line: None).rows(path, Tally())
    tally = Tally()
    task = Matching(toy_tokenizer, MatchingConfig(mode="bi", skip_bad_rows=True), say=lambda line: None)
    assert len(task.rows(path, tally)) == 2
    assert dict(tally.counts) == {"no_response": 1}
