"""Writing a text from a text, and choosing a summary's sentences."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import ModelConfig
from bertsmith.model.heads import Model
from bertsmith.predict.engine import answer
from bertsmith.tasks.base import Example, collate
from bertsmith.tasks.extraction import choose, encode_sentences, oracle, sentence_spans
from bertsmith.tasks.generation import Generation, GenerationConfig
from bertsmith.tokenizer.load import Tokenizer

TEN = [
    ("anna in paris", "安 娜 在 巴 黎 not london"),
    ("anna in london", "anna is good, bert is not."),
    ("bert in paris", "he works for acme in london"),
    ("bert in london", "the film was a great film!"),
    ("he is bad", "我在北京很好"),
    ("she is bad", "她 lives in 上海, not in 北京"),
    ("is it good?", "it is not good: it is great"),
    ("boring, not bad", "a film in london; a film in paris"),
    ("acme", "acme works for bert, bert works for acme"),
    ("我在北京", "he lives in paris (in paris)"),
]


def task_of(tokenizer: Tokenizer, **settings: Any) -> Generation:
    said: list[str] = []
    task = Generation(tokenizer, GenerationConfig(**settings), say=said.append)
    task.said = said  # type: ignore[attr-defined]
    return task


def write(path: Path, rows: Any) -> Path:
    path.write_text(rows if isinstance(rows, str) else "\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "settings", [{"mode": "unilm"}, {"mode": "decoder", "decoder_layers": 2}], ids=["unilm", "own"]
)
def test_ten_examples_are_learnt_to_the_letter(
    settings: dict[str, Any], toy_tokenizer: Tokenizer, toy_shape: ModelConfig, tmp_path: Path
) -> None:
    task = task_of(toy_tokenizer, max_length=16, max_target=24, label_smoothing=0, **settings)
    known = [(a, b.replace("安", "上").replace("娜", "海").replace("巴", "北").replace("黎", "京").replace("她", "我"))
             for a, b in TEN]  # fmt: skip
    examples = task.rows(write(tmp_path / "a.tsv", "\n".join("\t".join(row) for row in known)), Tally())
    model = Model(toy_shape, task.head(toy_shape), seed=0)
    optimizer = torch.optim.AdamW(model.parameters())
    batch = collate(task.encode(examples))
    torch.manual_seed(0)
    steps = 250
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 6e-3 * (1 - step / steps)
        loss = task.loss(model(batch), batch)
        optimizer.zero_grad()
        (loss.total / loss.count).backward()
        optimizer.step()
    expected = [task._readable.normal(text) for _, text in known]
    greedy = answer(task, model.eval(), examples)
    assert [one["generated"] for one in greedy] == expected
    task.config = task.config.model_copy(update={"num_beams": 4})
    assert [one["generated"] for one in answer(task, model, examples)] == expected
    scores = task.score(greedy, examples)
    assert scores["exact"] == 1
    assert min(one["score"] for one in greedy) > 0.9


def test_what_is_written_and_what_is_learnt(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = task_of(toy_tokenizer, max_length=8, max_target=5)
    path = write(
        tmp_path / "a.csv", "text,summary\nanna lives in paris . not in london,anna . paris . a . film\nhe,she\n"
    )
    tally = Tally()
    first, second = task.encode(task.rows(path, tally), tally)
    words = toy_tokenizer.tokens
    assert [words[i] for i in first.input_ids] == ["[CLS]", "anna", "lives", "in", "paris", ".", "not", "[SEP]"]
    assert [words[i] for i in first.targets["target_ids"]] == ["[CLS]", "anna", ".", "paris", "."]
    assert [words[i] for i in first.targets["target_labels"]] == ["anna", ".", "paris", ".", "[SEP]"]
    assert second.targets["target_length"] == 2
    assert dict(tally.counts) == {"cut_to_max_length": 1, "target_cut_to_max_target": 1}
    batch = collate([first, second])
    assert batch.targets["target_ids"].shape == (7,)  # packed: nothing is padded


def test_forms_of_files(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows = [("anna is good", "bert is bad"), ("he is good", "she is bad")]
    forms: dict[str, Any] = {
        "a.tsv": "\n".join("\t".join(row) for row in rows),
        "b.csv": "source,target\n" + "\n".join(",".join(row) for row in rows),
        "c.csv": "summary,article\n" + "\n".join(",".join(row[::-1]) for row in rows),
        "d.jsonl": [{"document": a, "summary": b} for a, b in rows],
        "e.jsonl": [{"translation": {"en": a, "de": b}} for a, b in rows],
        "f.json": json.dumps([list(row) for row in rows]),
        "g.jsonl": [{"source": [a], "target": [b, "", "other"]} for a, b in rows],
    }
    for name, content in forms.items():
        path = write(tmp_path / name, content)
        examples = task_of(toy_tokenizer).rows(path, Tally())
        assert [(one.fields["text"], one.label[0]) for one in examples] == rows, name
        assert examples[0].where == f"{path}:{1 + (path.suffix == '.csv')}"
    assert examples[0].label == ("bert is bad", "other")
    assert examples[0].fields["sentences"] == ((0, 12),)
    (tmp_path / "h.en.xz").write_bytes(lzma.compress("\n".join(a for a, _ in rows).encode()))
    (tmp_path / "h.de.xz").write_bytes(lzma.compress("\n".join(b for _, b in rows).encode()))
    examples = task_of(toy_tokenizer, parallel="de").rows(tmp_path / "h.en.xz", Tally())
    assert [(one.fields["text"], one.label[0]) for one in examples] == rows
    plain = task_of(toy_tokenizer).unlabelled(write(tmp_path / "i.txt", "anna, bert\n\nhe\n"), Tally())
    assert [(one.fields["text"], one.where.rpartition(":")[2]) for one in plain] == [("anna, bert", "1"), ("he", "3")]


def test_dialogues_keep_their_last_turns(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    text = "is anna good? __eou__ she is. __eou__ is bert? __eou__ no. __eou__\t1\t1 2 3 4\n"
    chats = [{"messages": [{"role": "user", "content": "is anna good?"}, {"content": "she is."}, {"content": "bad"}]}]
    task = task_of(toy_tokenizer, max_length=11, max_turns=2)
    examples = task.rows(write(tmp_path / "a.txt", text), Tally())
    assert [one.fields["text"] for one in examples] == ["is anna good?", "is anna good?\nshe is.", "she is.\nis bert?"]
    assert [one.label for one in examples] == [("she is.",), ("is bert?",), ("no.",)]
    assert task.config.turns is True
    words = [" ".join(toy_tokenizer.tokens[i] for i in one.input_ids) for one in task.encode(examples)]
    assert words[1] == "[CLS] is anna good ? [SEP] she is . [SEP]"
    task.config = task.config.model_copy(update={"max_length": 8})
    cut = task.encode(examples)[1]
    assert " ".join(toy_tokenizer.tokens[i] for i in cut.input_ids) == "[CLS] good ? [SEP] she is . [SEP]"
    again = task_of(toy_tokenizer).rows(write(tmp_path / "b.jsonl", chats), Tally())
    assert [one.fields["text"] for one in again] == ["is anna good?", "is anna good?\nshe is."]
    (typed,) = task.encode([Example({"text": "a [SEP] b\nhe"})])
    assert (typed.input_ids == toy_tokenizer.sep_id).sum() == 2  # the written [SEP] stays text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text\nanna\nbert\n", r"only one column \(text\); a row is a text and what is to be written"),
        ("a.csv", "source,target\nanna,\nbert,he\n", r"a\.csv:2: there is nothing to be written"),
        ("a.csv", "source,target\n ,he\nbert,he\n", r"a\.csv:2: the text is empty"),
        ("a.csv", "source,target\nanna,he\nbert,he\n", "all 2 rows have the same text to be written, 'he'"),
        ("a.jsonl", '{"x": "anna"}', r"a\.jsonl:1: there is no field of the text; the fields are x"),
        ("a.jsonl", '{"source": "anna", "target": "he"}\n"anna"', r"a\.jsonl:2: a row must be a JSON object"),
        ("a.txt", "anna __eou__\nhe __eou__ she __eou__", r"a\.txt:1: a dialogue has two turns or more, not 1"),
        ("a.csv", "", "the file is empty"),
    ],
)
def test_bad_files(name: str, content: str, message: str, toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        task_of(toy_tokenizer).rows(write(tmp_path / name, content), Tally())


def test_bad_rows_are_counted_where_that_is_asked(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    tally = Tally()
    path = write(tmp_path / "a.csv", "source,target\nanna,\nbert,he\nhe,she\n")
    assert len(task_of(toy_tokenizer, skip_bad_rows=True).rows(path, tally)) == 2
    assert dict(tally.counts) == {"empty_target": 1}


def test_parallel_files_must_fit(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = task_of(toy_tokenizer, parallel="de")
    path = write(tmp_path / "a.en", "anna\nbert")
    with pytest.raises(DataError, match=r"there is no a\.de beside it"):
        task.rows(path, Tally())
    write(tmp_path / "a.de", "anna")
    with pytest.raises(DataError, match=r"a\.en has 2 lines and .*a\.de 1"):
        task.rows(path, Tally())


def test_a_model_without_room_is_refused(toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> None:
    with pytest.raises(ConfigError, match=r"max_length 60 and max_target 16 do not fit .* 64 positions.*max_length=48"):
        task_of(toy_tokenizer, max_length=60, max_target=16).head(toy_shape)
    assert task_of(toy_tokenizer, max_length=60, max_target=16, mode="decoder").head(toy_shape).decoder == 1


def test_the_first_file_settles_how_texts_are_scored(toy_tokenizer: Tokenizer, tmp_path: Path) -> None:
    translations = task_of(toy_tokenizer)
    translations.rows(write(tmp_path / "a.tsv", "he is a good film\t我在北京\nshe is not in it\t他很好\n"), Tally())
    assert (translations.headline, translations.config.bleu, translations.config.turns) == ("bleu", "zh", False)
    summaries = task_of(toy_tokenizer, mode="extract")
    rows = [{"text": "He is good. " * 9, "summary": f"He is {w}. It is so."} for w in ("good", "bad")]
    summaries.rows(write(tmp_path / "a.jsonl", rows), Tally())
    assert (summaries.headline, summaries.config.bleu, summaries.config.sentences) == ("rougeL", "13a", 2)
    assert "2 sentences a summary" in summaries.said[0]  # type: ignore[attr-defined]


TEXT = "Anna is good.  Bert works\nfor Acme. 我在北京。上海很好！"


def test_sentences_know_their_places() -> None:
    spans = sentence_spans(TEXT)
    assert [TEXT[start:end] for start, end in spans] == [
        "Anna is good.", "Bert works\nfor Acme.", "我在北京。", "上海很好！",
    ]  # fmt: skip
    assert sentence_spans("") == sentence_spans(" \n ") == ()


def test_the_oracle_takes_what_raises_rouge() -> None:
    text = "the cat sat.\n\na dog ran off.\n\nbirds sing.\n\nthe cat slept."
    spans = sentence_spans(text)
    assert len(spans) == 4
    assert oracle(text, spans, ["birds sing and a dog ran"], 3) == {1, 2}
    assert oracle(text, spans, ["birds sing and a dog ran"], 1) == {1}
    assert oracle(text, spans, ["nothing of it"], 3) == set()
    assert oracle(text, spans, ["nothing of it", "the cat slept"], 3) == {3}


def test_no_trigram_twice() -> None:
    text = "anna lives in paris now.\n\nyes anna lives in paris.\n\nbert does not."
    spans = sentence_spans(text)
    scored = list(zip(spans, [0.9, 0.8, 0.3], strict=True))
    blocked = choose(text, scored, 2, block=True)
    assert blocked["generated"] == "anna lives in paris now. bert does not."
    assert choose(text, scored, 2, block=False)["generated"] == "anna lives in paris now. yes anna lives in paris."
    assert [part["start"] for part in blocked["sentences"]] == [0, 52]
    assert choose(text, [], 2, block=True) == {"generated": "", "score": 0.0, "sentences": []}


def test_a_long_text_is_read_in_parts(toy_tokenizer: Tokenizer) -> None:
    text = "anna is good. " * 6 + "he is not a great film in paris or in london or in acme."
    spans = (*((n * 14, n * 14 + 13) for n in range(6)), (84, len(text)))
    parts, cut = encode_sentences(toy_tokenizer, 7, text, spans, {0, 6}, 12)
    assert cut  # the last sentence is longer than a sequence
    assert [len(part) for part in parts] == [11, 11, 11, 12]
    assert sum((part.spans for part in parts), ()) == spans
    for part in parts:
        assert part.example == 7
        assert all(part.input_ids[end] == toy_tokenizer.sep_id for end in part.ends)
        assert np.flatnonzero(part.targets["gold"] >= 0).tolist() == list(part.ends)
    assert parts[0].targets["gold"][list(parts[0].ends)].tolist() == [1, 0]
    assert parts[3].targets["gold"][-1] == 1
