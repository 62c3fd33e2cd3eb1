from __future__ import annotations

import random
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval import metrics as reference
from seqeval.scheme import IOB2

from bertsmith.core.errors import DataError
from bertsmith.metrics.classification import Scores
from bertsmith.metrics.spans import conlleval_f1, entities, entity_scores, strict_f1

tags = st.sampled_from(["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-work-of-art", "I-work-of-art"])
sentences = st.lists(st.lists(st.tuples(tags, tags), min_size=1, max_size=12), min_size=1, max_size=6)


@settings(deadline=None)
@given(sentences)
def test_both_modes_equal_seqeval(pairs: list[list[tuple[str, str]]]) -> None:
    gold = [[true for true, _ in sentence] for sentence in pairs]
    predicted = [[guess for _, guess in sentence] for sentence in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns where a score is undefined and taken as 0
        for mode, options in (("strict", {"mode": "strict", "scheme": IOB2}), ("conlleval", {})):
            try:
                report = reference.classification_report(gold, predicted, output_dict=True, zero_division=0, **options)
            except ValueError:  # seqeval cannot report on no entities at all
                report = {"micro avg": {"precision": 0, "recall": 0, "f1-score": 0, "support": 0}}
            overall, by_type = entity_scores(gold, predicted, mode)  # type: ignore[arg-type]
            names = [name for name in report if not name.endswith(" avg")]
            assert sorted(by_type) == sorted(names)
            for name, ours in [("micro avg", overall), *by_type.items()]:
                expected = report[name]
                assert tuple(ours) == pytest.approx(
                    (expected["precision"], expected["recall"], expected["f1-score"], expected["support"])
                )


def conlleval(gold: list[str], predicted: list[str]) -> tuple[int, int, int]:
    """Right, predicted and gold entities by the published rules of CoNLL-2000's script, tag by tag."""
    right = offered = wanted = 0
    inside, last = False, [("O", ""), ("O", "")]
    for pair in [*zip(gold, predicted, strict=True), ("O", "O")]:
        now = [(tag.partition("-")[0], tag.partition("-")[2]) for tag in pair]
        ends, starts = [], []
        for (before, kind), (tag, other) in zip(last, now, strict=True):
            ends.append(before != "O" and (tag in ("O", "B") or kind != other))
            starts.append(tag != "O" and (tag == "B" or before == "O" or kind != other))
        if inside and all(ends):
            right, inside = right + 1, False
        elif inside and (any(ends) or now[0][1] != now[1][1]):
            inside = False
        inside = inside or (all(starts) and now[0][1] == now[1][1])
        wanted, offered = wanted + starts[0], offered + starts[1]
        last = now
    return right, offered, wanted


ADVERSARIAL = [
    (["B-A", "I-A"], ["I-A", "I-A"]),
    (["B-A", "B-A"], ["B-A", "I-A"]),
    (["I-A", "I-B", "I-B"], ["B-A", "B-B", "I-B"]),
    (["B-A", "I-B"], ["B-A", "I-A"]),
    (["O", "I-A", "O", "I-A"], ["O", "B-A", "I-A", "I-A"]),
    (["B-A", "I-A", "I-A"], ["B-A", "I-B", "I-A"]),
    (["O", "O"], ["I-A", "B-A"]),
]


def test_both_scores_equal_their_references_on_random_and_adversarial_tags() -> None:
    rng = random.Random(0)
    cases = list(ADVERSARIAL)
    while len(cases) < 1000:
        size = rng.randint(1, 12)
        true = rng.choices(["O", "B-A", "I-A", "B-B", "I-B"], k=size)
        guess = [tag if rng.random() < 0.6 else rng.choice(["O", "B-A", "I-A", "B-B", "I-B"]) for tag in true]
        cases.append((true, guess))
    for true, guess in cases:
        assert conlleval_f1([true], [guess]) == pytest.approx(Scores.of(*conlleval(true, guess)).f1), (true, guess)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            strict = reference.f1_score([true], [guess], mode="strict", scheme=IOB2, zero_division=0)
        assert strict_f1([true], [guess]) == pytest.approx(strict), (true, guess)


def test_an_entity_ends_where_the_next_begins() -> None:
    assert entities(["B-PER", "I-PER", "B-PER", "O", "B-LOC"]) == {("PER", 0, 2), ("PER", 2, 3), ("LOC", 4, 5)}


def test_an_inside_tag_without_a_beginning_counts_only_leniently() -> None:
    tags = ["I-PER", "O", "B-PER", "I-LOC", "I-LOC"]
    assert entities(tags) == {("PER", 2, 3)}
    assert entities(tags, "conlleval") == {("PER", 0, 1), ("PER", 2, 3), ("LOC", 3, 5)}


def test_the_two_modes_disagree_on_sloppy_predictions() -> None:
    gold, predicted = [["B-PER", "I-PER"]], [["I-PER", "I-PER"]]
    assert strict_f1(gold, predicted) == 0.0
    assert conlleval_f1(gold, predicted) == 1.0


def test_nothing_to_find_and_nothing_found_scores_zero() -> None:
    assert strict_f1([["O"]], [["O"]]) == 0.0


@pytest.mark.parametrize("tag", ["PER", "E-PER", "", "O-PER", "b-PER"])
def test_a_tag_that_is_not_iob2_is_named(tag: str) -> None:
    with pytest.raises(DataError, match="at position 2 is not O, B-type or I-type"):
        entities(["O", tag])


def test_unequal_lengths_name_the_sentence() -> None:
    with pytest.raises(DataError, match="sentence 2: 2 gold tags but 1 predicted"):
        strict_f1([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(DataError, match="1 gold answers but 2 predictions"):
        strict_f1([["O"]], [["O"], ["O"]])
    with pytest.raises(DataError, match="nothing to score"):
        conlleval_f1([], [])
