from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.tasks import vocabulary
from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.vocabulary import extend_vocabulary, train_vocabulary
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.train import VocabConfig, train_wordpiece


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def store(small_text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the small text, its vocabulary beside it."""
    folder = tmp_path_factory.mktemp("stored")
    made = train_vocabulary([str(small_text)], folder / "vocab", VocabConfig(size=200), say=quiet)
    prepare([str(small_text)], made.tokenizer, folder / "store", quiet)
    return folder / "store"


def test_the_folder_holds_a_vocabulary_its_figures_and_a_page(small_text: Path, tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "v"
    asked: dict[str, Any] = {"cover": ["pydoc:json"], "command": "bertsmith vocab …"}
    made = train_vocabulary([str(small_text)], out, VocabConfig(size=120), say=said.append, **asked)
    assert Tokenizer.load(out).hash == made.tokenizer.hash
    assert Tokenizer.load(out / "vocab.txt").hash == made.tokenizer.hash
    assert said[-1].startswith("text: 80 documents, ")
    facts = json.loads((out / "vocabulary.json").read_text(encoding="utf-8"))
    assert facts == json.loads(json.dumps(made.facts))
    assert facts["pieces"] == facts["sizes"][-1]["size"] == made.tokenizer.vocab_size
    own, other = facts["measured"][str(small_text)], facts["measured"]["pydoc:json"]
    assert own["all"]["unknown"] == 0
    assert own["all"]["fertility"] == facts["sizes"][-1]["fertility"]
    assert {"latin", "han"} <= set(own["scripts"])
    assert other["all"]["fertility"] > own["all"]["fertility"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for expected in ("Coverage of pydoc:json", "Pieces by script", "<pre>bertsmith vocab …</pre>", "advised"):
        assert expected in page
    assert "<script" not in page


def test_auto_takes_the_size_that_is_advised(small_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bertsmith.tokenizer import advice

    for module in (advice, vocabulary):
        monkeypatch.setattr(module, "SIZES", (105, 115, 125, 1000))
    said: list[str] = []
    made = train_vocabulary([str(small_text)], tmp_path / "v", VocabConfig(), auto=True, say=said.append)
    sizes = [row["size"] for row in made.facts["sizes"]]
    assert made.tokenizer.vocab_size == made.facts["advised"] == made.facts["settings"]["size"]
    assert made.facts["advised"] in sizes[:-1]
    assert sizes[:3] == [105, 115, 125]
    assert not any("supports only" in line for line in said)
    alone = train_vocabulary([str(small_text)], tmp_path / "alone", VocabConfig(size=made.facts["advised"]), say=quiet)
    assert alone.tokenizer.hash == made.tokenizer.hash


def test_only_a_part_of_much_text_is_measured(
    small_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_vocabulary([str(small_text)], tmp_path / "a", VocabConfig(size=120), say=quiet)
    monkeypatch.setattr(vocabulary, "MEASURED_BYTES", 4000)
    part = train_vocabulary([str(small_text)], tmp_path / "b", VocabConfig(size=120), say=quiet)
    again = train_vocabulary([str(small_text)], tmp_path / "c", VocabConfig(size=120), say=quiet)
    words = [made.facts["measured"][str(small_text)]["all"]["words"] for made in (whole, part, again)]
    assert words[0] / 5 < words[1] == words[2] < words[0] / 2
    assert part.tokenizer.hash == whole.tokenizer.hash
    assert part.facts["sizes"][0]["learnable"] == pytest.approx(whole.facts["sizes"][0]["learnable"], abs=0.15)


def test_a_store_gives_the_words_that_it_holds(store: Path, small_text: Path, tmp_path: Path) -> None:
    of_store = train_vocabulary([str(store)], tmp_path / "a", VocabConfig(size=120), say=quiet)
    of_text = train_vocabulary([str(small_text)], tmp_path / "b", VocabConfig(size=120), say=quiet)
    assert of_store.tokenizer.tokens == of_text.tokenizer.tokens
    assert of_store.facts["measured"][str(store)]["all"] == of_text.facts["measured"][str(small_text)]["all"]


def test_what_a_store_has_forgotten_is_not_asked_of_it(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no capital letters any more; give the text itself"):
        train_vocabulary([str(store)], tmp_path / "v", VocabConfig(lowercase=False), say=quiet)
    with pytest.raises(ConfigError, match=r"no accents any more"):
        train_vocabulary([str(store)], tmp_path / "v", VocabConfig(strip_accents=False), say=quiet)
    with pytest.raises(ConfigError, match=r"store: a token store is given alone"):
        train_vocabulary([str(store), "pydoc:json"], tmp_path / "v", VocabConfig(), say=quiet)
    assert not (tmp_path / "v").exists()


def test_what_is_there_already_is_not_replaced(small_text: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="already there; choose a new folder"):
        train_vocabulary([str(small_text)], tmp_path, VocabConfig(size=120), say=quiet)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_size_smaller_than_the_alphabet_names_one_that_would_do(small_text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"size=20: .* ask for at least (\d+) pieces") as refused:
        train_vocabulary([str(small_text)], tmp_path / "v", VocabConfig(size=20), say=quiet)
    wanted = int(re.search(r"at least ([\d,]+)", str(refused.value))[1].replace(",", ""))  # type: ignore[index]
    made = train_vocabulary([str(small_text)], tmp_path / "v", VocabConfig(size=wanted), say=quiet)
    assert made.facts["measured"][str(small_text)]["all"]["unknown"] == 0


def test_a_text_without_words_to_cover_is_refused(small_text: Path, tmp_path: Path) -> None:
    (tmp_path / "blank.txt").write_text("\x07\x07 \x07\n")
    with pytest.raises(DataError, match=r"blank\.txt: no word in 1 documents"):
        train_vocabulary(
            [str(small_text)], tmp_path / "v", VocabConfig(size=120), cover=[str(tmp_path / "blank.txt")], say=quiet
        )


def field(folder: Path) -> Path:
    text = "Cardiomyopathy and angioplasty. The stent in the aorta of Anna.\n\n" * 6
    (folder / "field.txt").write_text(text, encoding="utf-8")
    return folder / "field.txt"


def test_words_of_a_field_come_behind_the_pieces_that_are_there(
    small_text: Path, tmp_path: Path, toy_tokenizer: Tokenizer
) -> None:
    base = tmp_path / "base" / "vocab.txt"
    vocabulary.save_vocabulary(toy_tokenizer, base.parent)
    text = str(field(tmp_path))
    said: list[str] = []
    made = extend_vocabulary([text], tmp_path / "v", base, 3, cover=[str(small_text)], say=said.append)
    assert made.tokenizer.tokens[: toy_tokenizer.vocab_size] == toy_tokenizer.tokens
    assert made.facts["added"] == made.tokenizer.tokens[toy_tokenizer.vocab_size :]
    assert made.facts["added"] == ["and", "angioplasty", "aorta"]
    before, after = (made.facts[when][text]["all"]["fertility"] for when in ("before", "measured"))
    assert after < before
    assert set(made.facts["before"]) == {text, str(small_text)}
    assert "3 new pieces of the 3 asked for: and, angioplasty, aorta" in said[0]
    assert "angioplasty" in (tmp_path / "v" / "report.html").read_text(encoding="utf-8")
    more = extend_vocabulary([text], tmp_path / "more", base, 50, say=quiet)
    with pytest.raises(ConfigError, match="it needs no extension"):
        extend_vocabulary([text], tmp_path / "none", more.path, 50, say=quiet)


def test_a_published_vocabulary_is_extended(data_dir: Path, tmp_path: Path) -> None:
    import lzma

    base = tmp_path / "vocab.txt"
    base.write_bytes(lzma.decompress((data_dir / "vocab" / "bert-base-uncased.txt.xz").read_bytes()))
    made = extend_vocabulary([str(field(tmp_path))], tmp_path / "v", base, 10, say=quiet)
    assert made.tokenizer.vocab_size == 30_522 + len(made.facts["added"])
    assert set(made.facts["added"]) == {"cardiomyopathy", "angioplasty"}
    (pieces,) = made.tokenizer.encode(["Cardiomyopathy"])
    assert len(pieces) == 1


def test_every_han_character_of_chinese_text_has_a_piece(data_dir: Path) -> None:
    from bertsmith.corpus.document import Tally
    from bertsmith.corpus.readers import read

    documents = [
        document.text
        for document, _ in zip(read([str(data_dir / "corpus" / "zhwiki.txt.xz")], Tally()), range(300), strict=False)
    ]
    tokenizer = train_wordpiece(documents, VocabConfig(size=12_000), at_most=True, say=quiet)
    counts: dict[str, int] = {}
    for character in "".join(documents):
        if "\u4e00" <= character <= "\u9fff":
            counts[character] = counts.get(character, 0) + 1
    often = {character for character, count in counts.items() if count >= 5}
    assert len(often) > 1500
    assert often <= set(tokenizer.tokens)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_files_are_the_same_with_any_number_of_threads(
    threads: str, small_text: Path, tmp_path: Path, command_line: Callable[..., object]
) -> None:
    made = train_vocabulary([str(small_text)], tmp_path / "here", VocabConfig(size=120), say=quiet)
    there = tmp_path / "there"
    command_line("vocab", small_text, "--size", "120", "--out", there, "--threads", threads, "--quiet")
    for name in made.tokenizer.files():
        assert (there / name).read_bytes() == (made.path / name).read_bytes()
