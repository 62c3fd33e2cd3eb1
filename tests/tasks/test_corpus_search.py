from __future__ import annotations

import pytest

from bertsmith.core.errors import ConfigError
from bertsmith.tasks.corpus_search import sample, search
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.stored import StoredText
from bertsmith.tokenizer.load import Tokenizer

TEXT = """The film was good. London is great!

Anna lives in Paris, not in London. The films: a film.

我在北京。我 在 北京 很好！

He is not boring.
"""


@pytest.fixture(scope="module")
def small(toy_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> StoredText:
    folder = tmp_path_factory.mktemp("searched")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    made = prepare([str(folder / "text.txt")], toy_tokenizer, folder / "store", lambda line: None)
    return StoredText(made, toy_tokenizer)


def found(small: StoredText, query: str, **options: object) -> list[tuple[int, int, str]]:
    hits = search(small, query, say=pytest.fail, **options)  # type: ignore[arg-type]
    return [(hit.document, hit.offset, hit.text) for hit in hits]


def test_every_place_is_found_with_what_stands_around(small: StoredText) -> None:
    texts = list(small.texts())
    hits = list(search(small, "film", context=4, say=pytest.fail))
    assert [(hit.document, hit.offset) for hit in hits] == [(0, 4), (1, 40), (1, 49)]
    assert [(hit.before, hit.text, hit.after) for hit in hits] == [
        ("the ", "film", " was"),
        ("the ", "film", "s: a"),
        (": a ", "film", "."),
    ]
    for hit in hits:
        assert texts[hit.document][hit.offset :].startswith(hit.text)


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("FILM  was\tgood", (0, 4, "film was good")),
        ("good. London", (0, 13, "good. london")),
        ("Paris ,not", (1, 14, "paris, not")),
        ("北 京 很", (2, 11, "北京很")),
        ("ori", (3, 11, "ori")),
    ],
)
def test_a_literal_is_found_however_it_is_typed(small: StoredText, query: str, place: tuple[int, int, str]) -> None:
    assert found(small, query) == [place]


def test_what_looks_like_a_pattern_is_literal_unless_asked(small: StoredText) -> None:
    assert found(small, "f.lm") == []
    assert [hit[:2] for hit in found(small, "F.LMS?", regex=True)] == [(0, 4), (1, 40), (1, 49)]
    assert found(small, r"\b(?:he|she) is", regex=True) == [(3, 0, "he is")]
    assert found(small, "x*", regex=True) == []


def test_a_character_that_the_vocabulary_lacks_is_named(small: StoredText) -> None:
    said: list[str] = []
    assert list(search(small, "好！", say=said.append)) == []
    assert said == ["！: not in the vocabulary of this store, which has [UNK] in its place; such text cannot be found"]


def test_a_query_that_finds_nothing_by_itself_is_refused(small: StoredText) -> None:
    with pytest.raises(ConfigError, match="nothing to look for; type a word"):
        search(small, " \u200b ", say=pytest.fail)
    with pytest.raises(ConfigError, match=r"--regex '\(a': .* at character 1; leave --regex out"):
        search(small, "(a", regex=True, say=pytest.fail)


def test_the_draw_follows_from_the_seed(small: StoredText) -> None:
    assert sample(small, 2, seed=0) == sample(small, 2, seed=0)
    assert sample(small, 99, seed=0) == [0, 1, 2, 3]
    draws = [tuple(sample(small, 1, seed=seed)) for seed in range(40)]
    assert set(draws) == {(0,), (1,), (2,), (3,)}
