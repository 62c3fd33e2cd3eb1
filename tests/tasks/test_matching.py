"""Matching: what its files may look like, what a bi-encoder's losses are, and how answers are scored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.tasks.base import Example, Member, collate
from bertsmith.tasks.matching import Matching, MatchingConfig
from bertsmith.tokenizer.load import Tokenizer

TOGETHER = [
    ("q.csv", "query,positive,negative\nq one,p one,n one\nq two,p two,\n"),
    ("q.csv", "anchor,positive,negative_1,negative_2\nq one,p one,n one,\nq two,p two,,\n"),
    (
        "q.jsonl",
        '{"query": "q one", "pos": ["p one"], "neg": ["n one", "n one"]}\n{"query": "q two", "pos": ["p two"]}\n',
    ),
    ("q.tsv", "q one\tp one\tn one\nq two\tp two\t\n"),
]


@pytest.fixture
def said() -> list[str]:
    return []


def matching(tokenizer: Tokenizer, said: list[str] | None = None, **sets: Any) -> Matching:
    return Matching(tokenizer, MatchingConfig(**sets), say=(said if said is not None else []).append)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(("name", "text"), TOGETHER)
def test_rows_without_labels_are_texts_that_go_together(
    tmp_path: Path, toy_tokenizer: Tokenizer, said: list[str], name: str, text: str
) -> None:
    path = write(tmp_path / name, text)
    sets: dict[str, Any] = {"labelled": False} if name == "q.tsv" else {}
    task = matching(toy_tokenizer, said, mode="bi", **sets)
    one, two = task.rows(path, Tally())
    assert (one.fields, one.label) == ({"text": "q one", "pair": "p one", "negatives": ("n one",)}, True)
    assert (two.fields, two.label) == ({"text": "q two", "pair": "p two"}, True)
    assert two.where == f"{path}:{2 if name in ('q.jsonl', 'q.tsv') else 3}"
    assert "no labels: each row is two texts that go together; text = column" in said[0]
    assert task.headline == "ndcg@10"


def test_each_of_several_right_texts_makes_a_row(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "q.jsonl", '{"query": "q", "pos": ["a", "b"], "neg": ["c"]}\n')
    rows = matching(toy_tokenizer, mode="bi").rows(path, Tally())
    assert [(row.fields["pair"], row.fields["negatives"]) for row in rows] == [("a", ("c",)), ("b", ("c",))]


def test_two_columns_are_two_texts_and_columns_can_be_named(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "a.csv", "context,response\nhow are you,fine\nwho is it,me\n")
    assert matching(toy_tokenizer, mode="bi").rows(path, Tally())[0].fields == {"text": "how are you", "pair": "fine"}
    path = write(tmp_path / "b.csv", "id,ask,good,wrong\n1,who is it,me,you\n2,where,here,there\n")
    named = matching(toy_tokenizer, mode="bi", text_column="ask", pair_column="good", negative_column="wrong")
    assert named.rows(path, Tally())[0].fields == {"text": "who is it", "pair": "me", "negatives": ("you",)}


def test_a_cross_encoder_sets_other_texts_against_rows_without_labels(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "a.csv", "query,positive\n" + "".join(f"q{i % 4},p{i}\n" for i in range(12)))
    task = matching(toy_tokenizer, drawn=5)
    rows = task.rows(path, Tally())
    assert (len(rows), task.labels, task.headline) == (12 * 6, ("0", "1"), "ap")
    own: dict[str, set[str]] = {}
    for row in rows:
        if row.label == "1":
            own.setdefault(row.fields["text"], set()).add(row.fields["pair"])
    assert {query: len(texts) for query, texts in own.items()} == {f"q{i}": 3 for i in range(4)}
    assert not any(row.label == "0" and row.fields["pair"] in own[row.fields["text"]] for row in rows)
    again = matching(toy_tokenizer, drawn=5).rows(path, Tally())
    assert [row.fields for row in again] == [row.fields for row in rows]


@pytest.mark.parametrize("mode", ["cross", "bi"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text\na\nb\n", "only one column|which column holds"),
        ("a good film,1\na bad film,0\na great film,1\n", "which column holds the second text"),
        ("query,positive\na,same\nb,same\n", "all 2 rows have the same second text"),
        ("query,positive,negative\na,b,b\nc,d,e\n", r"a\.csv:2: 'b' is both the right text and a wrong one"),
        ("query,positive\na,b\n,c\nd,e\n", r"a\.csv:3: the text is empty"),
        ("query,positive\na,b\nd,\nf,g\n", r"a\.csv:3: the text is empty"),
        ("text_a,text_b,label\na,b,1\na,b,1\n", "all 2 rows have the label '1'"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, toy_tokenizer: Tokenizer, mode: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        matching(toy_tokenizer, mode=mode).rows(write(tmp_path / "a.csv", text), Tally())


def test_bad_rows_are_counted_once_where_they_may_be_skipped(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    tally = Tally()
    path = write(tmp_path / "a.csv", "query,positive,negative\na,b,b\nc,d,e\nf,,e\ng,h\n")
    assert len(matching(toy_tokenizer, mode="bi", skip_bad_rows=True).rows(path, tally)) == 1
    assert tally.counts == {"negative_is_positive": 1, "empty_text": 1, "too_few_columns": 1}
    tally = Tally()
    path = write(tmp_path / "b.csv", "text_a,text_b,label\na,b,1\nc,d,0\nf,,1\ng,h\n")
    assert len(matching(toy_tokenizer, skip_bad_rows=True).rows(path, tally)) == 2
    assert tally.counts == {"empty_text": 1, "too_few_columns": 1}


def test_a_bi_encoder_takes_two_labels_or_numbers(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    head = "text_a,text_b,label\n"
    nli = write(tmp_path / "nli.csv", head + "a,b,yes\nc,d,no\ne,f,maybe\n")
    with pytest.raises(DataError, match=r"two labels or from numbers; here are 3 labels \(maybe, no, yes"):
        matching(toy_tokenizer, mode="bi").rows(nli, Tally())
    assert matching(toy_tokenizer).rows(nli, Tally())[2].label == "maybe"
    task = matching(toy_tokenizer, mode="bi")
    whole = task.rows(write(tmp_path / "sts.csv", head + "a,b,0\nc,d,5\ne,f,3\n"), Tally())
    assert ([row.label for row in whole], task.headline) == ([0.0, 5.0, 3.0], "spearman")
    with pytest.raises(DataError, match="all 2 rows have the score"):
        matching(toy_tokenizer, mode="bi").rows(write(tmp_path / "one.csv", head + "a,b,2.5\nc,d,2.5\n"), Tally())


@pytest.mark.parametrize("mode", ["cross", "bi"])
def test_texts_are_not_taken_for_labels(tmp_path: Path, toy_tokenizer: Tokenizer, mode: str) -> None:
    rows = "".join(f"query {n},an answer {n},wrong {n}\n" for n in range(60))
    path = write(tmp_path / "a.csv", "question,answer,category\n" + rows)
    with pytest.raises(DataError, match="60 different labels in 60 rows; .*task.negative_column"):
        matching(toy_tokenizer, mode=mode).rows(path, Tally())
    named = matching(toy_tokenizer, mode="bi", negative_column="category").rows(path, Tally())
    assert (len(named), named[7].fields["negatives"]) == (60, ("wrong 7",))


def test_which_label_means_together_can_be_said(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "a.csv", "text_a,text_b,label\na,b,equal\nc,d,other\n")
    task = matching(toy_tokenizer, mode="bi", positive="equal")
    encodings = task.encode(task.rows(path, Tally()))
    assert [encoding.targets["similar"] for encoding in encodings] == [1.0, 1.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="'same' is not one of the labels equal, other"):
        matching(toy_tokenizer, positive="same").rows(path, Tally())


def test_trained_on_rows_without_labels_measured_on_scores(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, mode="bi")
    task.rows(write(tmp_path / "train.csv", "query,positive\na,b\nc,d\n"), Tally())
    dev = task.rows(write(tmp_path / "dev.csv", "sentence1,sentence2,score\na,b,1.5\nc,d,2.0\ne,f,4.5\n"), Tally())
    assert (task.headline, [row.label for row in dev]) == ("spearman", [1.5, 2.0, 4.5])
    found = task.score([{"similarity": value} for value in (0.1, 0.3, 0.2)], dev)
    assert found["spearman"] == pytest.approx(0.5)


def test_texts_are_sequences_of_their_own_and_cut_ones_are_counted(toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, mode="bi", max_length=8, prompt="the ")
    tally = Tally()
    example = Example({"text": "a " * 50, "pair": "bad [SEP]", "negatives": ("good", "")}, True, "f:1")
    encodings = task.encode([Example({"text": "film"}), example], tally)
    assert [(e.example, e.role) for e in encodings if isinstance(e, Member)] == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert [len(e) for e in encodings] == [4, 8, 8, 4, 3]
    assert tally.counts == {"cut_to_max_length": 2}
    for encoding in encodings:
        assert (encoding.input_ids == toy_tokenizer.sep_id).sum() == 1  # a [SEP] that is written stays text
        assert encoding.segment_ids.sum() == 0
    assert task.head(ModelConfig(max_position_embeddings=64)) == Heads(embed="mean")
    with pytest.raises(ConfigError, match="only 64 positions"):
        matching(toy_tokenizer, mode="bi").head(ModelConfig(max_position_embeddings=64))


def outputs_for(task: Matching, examples: list[Example], width: int = 6) -> tuple[Any, Any]:
    encodings = task.encode(examples)
    order = np.random.default_rng(1).permutation(len(encodings))
    batch = collate([encodings[i] for i in order])
    vectors = torch.randn(len(encodings), width, generator=torch.Generator().manual_seed(3))
    return batch, vectors[torch.from_numpy(order)]


def test_negatives_from_the_batch_equal_a_plain_loop(toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, mode="bi", temperature=0.1)
    examples = [
        Example({"text": "a", "pair": "good", "negatives": ("bad", "film")}, True),
        Example({"text": "the", "pair": "great"}, True),
        Example({"text": "it", "pair": "good"}, True),  # the first one's partner, so no wrong text for it
        Example({"text": "the", "pair": "london", "negatives": ("paris",)}, True),  # an equal query
        Example({"text": "film", "pair": "anna"}, True),  # whose query is another's negative: not its own wrong text
    ]
    batch, vectors = outputs_for(task, examples)
    loss = task.loss({"embed": vectors}, batch)

    plain = torch.randn(13, 6, generator=torch.Generator().manual_seed(3))
    names = [t for e in examples for t in (e.fields["text"], e.fields["pair"], *e.fields.get("negatives", ()))]
    rows, start = [], 0
    for example in examples:
        rows.append(start)
        start += 2 + len(example.fields.get("negatives", ()))
    candidates = [i for i in range(13) if i not in rows]
    total = 0.0
    for row, example in zip(rows, examples, strict=True):
        right = {e.fields["pair"] for e in examples if e.fields["text"] == example.fields["text"]}
        wrong = [i for i in candidates if i != row + 1 and names[i] not in right | {example.fields["text"]}]
        scores = [float(F.cosine_similarity(plain[row], plain[i], dim=0)) / 0.1 for i in (row + 1, *wrong)]
        total += math.log(sum(math.exp(score) for score in scores)) - scores[0]
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert loss.count == 5


def test_cosent_equals_its_formula(toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, mode="bi", regression=True)
    gold = [0.5, 3.0, 3.0, 4.5]
    examples = [Example({"text": f"{a}", "pair": f"{a} b"}, label) for a, label in zip("abcd", gold, strict=True)]
    batch, vectors = outputs_for(task, examples)
    plain = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))
    cosines = [float(F.cosine_similarity(plain[2 * i], plain[2 * i + 1], dim=0)) / 0.05 for i in range(4)]
    terms = [math.exp(cosines[i] - cosines[j]) for i in range(4) for j in range(4) if gold[i] < gold[j]]
    loss = task.loss({"embed": vectors}, batch)
    assert float(loss.total) / float(loss.count) == pytest.approx(math.log(1 + sum(terms)), rel=1e-5)


def answers_of(task: Matching, examples: list[Example], vectors: dict[str, list[float]]) -> list[dict[str, Any]]:
    encodings = task.encode(examples)
    texts = [t for e in examples for t in (e.fields["text"], e.fields["pair"], *e.fields.get("negatives", ()))]
    return task.decode([{"embed": np.array(vectors[text], np.float32)} for text in texts], encodings, examples)


def test_rows_that_go_together_are_ranked_among_all_texts_of_the_file(toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, mode="bi")
    vectors = {"q": [1.0, 0], "p": [2, 0.2], "r": [0, 3], "o": [0.1, 1], "n": [1, 0.01], "s": [-1.0, 0]}
    examples = [
        Example({"text": "q", "pair": "p", "negatives": ("n",)}, True),  # n before p: rank 2
        Example({"text": "o", "pair": "r"}, True),  # rank 1
        Example({"text": "q", "pair": "s"}, True),  # the same query's second partner: rank 4
    ]
    found = task.score(answers_of(task, examples, vectors), examples)
    assert found["mrr"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["hits@1"] == found["recall@1"] == 0.5
    gained = 1 / math.log2(3) + 1 / math.log2(5)
    ideal = 1 + 1 / math.log2(3)
    assert found["ndcg@10"] == pytest.approx((gained / ideal + 1) / 2)


def test_a_model_whose_vectors_are_all_the_same_gets_what_chance_gets(toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, mode="bi")
    examples = [Example({"text": f"q{i}", "pair": f"p{i}"}, True) for i in range(50)]
    same = np.random.default_rng(0).normal(size=384).tolist()
    vectors = {text: same for example in examples for text in (example.fields["text"], example.fields["pair"])}
    found = task.score(answers_of(task, examples, vectors), examples)
    assert found["hits@1"] == pytest.approx(1 / 50)
    assert found["recall@10"] == pytest.approx(10 / 50)


def test_the_threshold_is_chosen_on_dev_and_used_elsewhere(toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, mode="bi", labels=("no", "yes"), regression=False)
    dev = [Example({"text": f"a{i}", "pair": "b"}, label) for i, label in enumerate(["yes", "yes", "no", "no"])]
    answers = [{"similarity": value} for value in (0.9, 0.7, 0.5, 0.1)]
    assert set(task.score(answers, dev)) == {"ap"}  # nothing that a threshold of its own would flatter
    tuned = task.tune(answers, dev)
    assert task.config.threshold == pytest.approx(0.6)
    assert [answer["label"] for answer in tuned] == ["yes", "yes", "no", "no"]
    test = [Example({"text": f"a{i}", "pair": "b"}, label) for i, label in enumerate(["no", "yes"])]
    decided = answers_of(task, test, {"a0": [1.0, 0], "a1": [0.0, 1], "b": [1.0, 0.1]})
    found = task.score(decided, test)
    assert (found["accuracy"], found["f1"]) == (0.0, 0.0)
    assert found["ap"] == pytest.approx(average_precision_score([0, 1], [a["similarity"] for a in decided]))


@pytest.mark.parametrize("label", ["yes", "no"])
def test_no_threshold_is_chosen_by_rows_of_one_label(toy_tokenizer: Tokenizer, label: str) -> None:
    said: list[str] = []
    task = matching(toy_tokenizer, said, mode="bi", labels=("no", "yes"), regression=False)
    answers = [{"similarity": value} for value in (0.9, 0.7)]
    assert task.tune(answers, [Example({"text": f"a{i}", "pair": "b"}, label) for i in range(2)]) == answers
    assert task.config.threshold is None
    assert said[0].startswith("all 2 dev rows have one label")


def test_labelled_rows_are_ranked_where_every_query_has_both_kinds(toy_tokenizer: Tokenizer) -> None:
    task = matching(toy_tokenizer, labels=("0", "1"), regression=False)
    rows = [("a", "1", 0.4), ("a", "0", 0.6), ("b", "0", 0.1), ("b", "1", 0.2)]
    examples = [Example({"text": query, "pair": f"p{n}"}, label) for n, (query, label, _) in enumerate(rows)]
    answers = [
        {"label": str(int(p > 0.5)), "score": max(p, 1 - p), "probabilities": {"0": 1 - p, "1": p}} for *_, p in rows
    ]
    found = task.score(answers, examples)
    assert (found["mrr"], found["hits@1"]) == (0.75, 0.5)
    assert found["ap"] == pytest.approx(average_precision_score([1, 0, 0, 1], [p for *_, p in rows]))
    assert found["accuracy"] == 0.25
    assert "mrr" not in task.score(answers[:3], examples[:3])


def test_single_texts_get_their_vectors(toy_tokenizer: Tokenizer) -> None:
    examples = [Example({"text": "a"})]
    for normalize, expected in ((True, [0.6, 0.8]), (False, [3.0, 4.0])):
        task = matching(toy_tokenizer, mode="bi", normalize=normalize)
        (answer,) = task.decode([{"embed": np.array([3, 4], np.float32)}], task.encode(examples), examples)
        assert answer == {"embedding": pytest.approx(expected)}
