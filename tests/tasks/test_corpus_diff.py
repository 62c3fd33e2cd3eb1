from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.dedup import DedupConfig
from bertsmith.tasks.corpus_diff import corpus_diff
from bertsmith.tasks.preparation import CorpusConfig, prepare
from bertsmith.tasks.vocabulary import save_vocabulary
from bertsmith.tokenizer.load import Tokenizer

FIRST = {"a.txt": "The film was good.\n\nAnna lives in Paris.\n\nNot bad!\n\nNot bad!", "b.txt": "我在北京。\n\nHe is."}
SECOND = {"a.txt": "The film was good.\n\nNot bad!", "c.txt": "She is great.\n\n我在北京。"}


def made(folder: Path, texts: dict[str, str], tokenizer: Tokenizer, config: CorpusConfig | None = None) -> Path:
    (folder / "text").mkdir(parents=True)
    for name, text in texts.items():
        (folder / "text" / name).write_text(text, encoding="utf-8")
    save_vocabulary(tokenizer, folder / "vocab")
    prepare([str(folder / "text")], tokenizer, folder / "store", lambda line: None, config)
    shutil.rmtree(folder / "store" / "vocab", ignore_errors=True)  # found beside it all the same
    return folder / "store"


def names(paths: object) -> list[str]:
    return [str(path).rpartition("/")[2] for path in paths]  # type: ignore[attr-defined]


def test_what_two_stores_share(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    config = CorpusConfig(dedup=DedupConfig(mode="exact"))
    one = made(tmp_path / "one", FIRST, toy_tokenizer)
    two = made(tmp_path / "two", SECOND, toy_tokenizer, config)
    found = corpus_diff(one, two)
    assert found.paths == (str(one), str(two))
    assert found.counts["documents"] == (6, 4)
    assert found.same_vocabulary
    assert found.overlap is not None
    assert found.overlap.compared == "tokens"
    assert found.overlap.shared == (4, 3)
    assert [names(some) for some in found.overlap.only] == [["a.txt:3", "b.txt:3"], ["c.txt:1"]]
    assert [names(some) for some in found.sources] == [["a.txt", "b.txt"], ["a.txt", "c.txt"]]
    assert found.settings["dedup.mode"] == ("off", "exact")
    assert found.pieces["shared"] == toy_tokenizer.vocab_size
    assert found.remark == ""


def test_another_vocabulary_with_the_same_splitting_is_compared_by_text(
    tmp_path: Path, toy_tokenizer: Tokenizer
) -> None:
    longer = Tokenizer.from_tokens([*toy_tokenizer.tokens, "##ood", "。"], lowercase=True)
    one, two = made(tmp_path / "one", FIRST, toy_tokenizer), made(tmp_path / "two", SECOND, longer)
    found = corpus_diff(one, two)
    assert not found.same_vocabulary
    assert found.overlap is not None
    assert (found.overlap.compared, found.overlap.shared, found.overlap.unknown) == ("text", (3, 2), (1, 0))
    assert names(found.overlap.only[1]) == ["c.txt:1", "c.txt:3"]
    assert found.pieces["only_second"] == ["##ood", "。"]
    assert found.typical == ((), ())


def test_where_documents_cannot_be_recognised_it_is_said(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    cased = Tokenizer.from_tokens(toy_tokenizer.tokens, lowercase=False)
    one, two = made(tmp_path / "one", FIRST, toy_tokenizer), made(tmp_path / "two", SECOND, cased)
    found = corpus_diff(one, two)
    assert found.overlap is None
    assert "treat text differently (case, accents or splitting)" in found.remark
    assert found.counts["documents"] == (6, 4)
    (two.parent / "vocab").rename(two.parent / "moved")
    found = corpus_diff(one, two)
    assert found.overlap is None
    assert found.pieces == {}
    assert f"that of {two} is not in or beside it" in found.remark
    named = corpus_diff(one, two, [one.parent / "vocab", two.parent / "moved"])
    assert named.pieces["shared"] == toy_tokenizer.vocab_size
    with pytest.raises(DataError, match="two/store: made with another vocabulary than the one given"):
        corpus_diff(one, two, [one.parent / "vocab"])


def test_the_same_store_needs_no_vocabulary(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    one = made(tmp_path / "one", FIRST, toy_tokenizer)
    (one.parent / "vocab").rename(one.parent / "moved")
    for vocabulary in (one.parent / "vocab", one / "vocab"):
        assert not vocabulary.exists()
    found = corpus_diff(one, one)
    assert found.overlap is not None
    assert found.overlap.shared == (6, 6)
    assert found.overlap.only == ([], [])
    assert found.settings == {}


def test_pieces_far_more_frequent_in_one_are_typical_of_it(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    one = made(tmp_path / "one", {"a.txt": "the film was good. " * 50 + "london"}, toy_tokenizer)
    two = made(tmp_path / "two", {"a.txt": "the paris was bad. " * 50 + "anna"}, toy_tokenizer)
    typical = corpus_diff(one, two).typical
    assert [set(some) for some in typical] == [{"film", "good"}, {"paris", "bad"}]
