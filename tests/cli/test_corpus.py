from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.tasks.preparation import prepare
from bertsmith.tasks.vocabulary import save_vocabulary
from bertsmith.tokenizer.load import Tokenizer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def store(small_text: Path, toy_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    save_vocabulary(toy_tokenizer, folder / "vocab")
    prepare([str(small_text)], toy_tokenizer, folder / "store", lambda line: None)
    return folder / "store"


def test_stats_print_tables_and_write_a_page(store: Path, tmp_path: Path, in_process: Run) -> None:
    page = tmp_path / "page.html"
    code, out, err = in_process("corpus", "stats", store, "--out", page)
    assert code == 0
    for expected in ("documents", "80", "en.txt", "zh.txt", "latin", "han", "most frequent lines"):
        assert expected in out
    assert err == f"the page is {page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    code, out, err = in_process("corpus", "stats", store, "--out", page, "--json", "--quiet")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["counts"]["documents"] == 80
    assert [source["documents"] for source in found["sources"]] == [60, 20]
    assert found["scripts"].keys() == {"latin", "han"}


def test_a_sample_is_drawn_and_printed_a_sentence_a_line(store: Path, in_process: Run) -> None:
    first, again = (in_process("corpus", "sample", store, "-n", 3, "--seed", 4) for _ in range(2))
    assert first == again
    assert in_process("corpus", "sample", store, "-n", 3, "--seed", 5) != first
    assert first[1].count("── ") == 3
    code, out, _ = in_process("corpus", "sample", store, "-n", 3, "--seed", 4, "--sentences", 2, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(lines) == 3
    for line in lines:
        assert len(line["sentences"]) == 2
        assert line["left_out"] == 4
        assert f"── {line['document']}: {line['id']}\n{line['sentences'][0]}" in first[1]


def test_search_prints_place_and_context_and_counts_the_rest(store: Path, in_process: Run) -> None:
    code, out, err = in_process("corpus", "search", store, "in Paris.", "-n", 4, "--context", 6)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert all("in paris." in line and "en.txt:" in line for line in out.splitlines())
    total = int(err.split()[0])
    assert total > 4
    assert err.endswith("of 80 documents; the first 4 are shown, --count shows more\n")
    _, out, _ = in_process("corpus", "search", store, r"(?:in )?北京", "--regex", "--json", "-n", 1000)
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines
    assert {line["text"] for line in lines} == {"北京"}
    assert all("zh.txt" in line["id"] for line in lines)
    code, out, err = in_process("corpus", "search", store, "zebra")
    assert (code, out) == (0, "")
    assert "0 times in 0 of 80 documents" in err


def test_diff_prints_both_sides(store: Path, small_text: Path, tmp_path: Path, in_process: Run) -> None:
    prepare([str(small_text / "en.txt")], Tokenizer.load(store.parent / "vocab"), tmp_path / "half", lambda line: None)
    code, out, err = in_process("corpus", "diff", store, tmp_path / "half")
    assert (code, err) == (0, "")
    for expected in ("documents in both", "settings that differ", "sources: ", "zh.txt"):
        assert expected in out
    _, out, _ = in_process("corpus", "diff", store, tmp_path / "half", "--json")
    found = json.loads(out)
    assert found["overlap"]["shared"] == [60, 60]
    assert found["counts"]["documents"] == [80, 60]
    code, _, err = in_process("corpus", "diff", store, store, *["--vocab", store.parent / "vocab"] * 3)
    assert code == 2
    assert "--vocab: given 3 times" in err


def test_a_store_of_another_vocabulary_is_compared_as_far_as_it_goes(
    store: Path, small_text: Path, tmp_path: Path, toy_tokenizer: Tokenizer, in_process: Run
) -> None:
    cased = Tokenizer.from_tokens([*toy_tokenizer.tokens, "A"], lowercase=False)
    save_vocabulary(cased, tmp_path / "vocab")
    prepare([str(small_text)], cased, tmp_path / "cased", lambda line: None)
    code, out, err = in_process("corpus", "diff", store, tmp_path / "cased")
    assert code == 0
    assert "documents in both" not in out
    assert "documents  " in out
    assert "equal documents have different tokens and cannot be recognised" in err


def test_help_of_the_group_lists_its_commands(in_process: Run) -> None:
    code, out, _ = in_process("corpus", "--help")
    assert code == 0
    for verb in ("stats", "sample", "diff", "search"):
        assert f"  {verb} " in out
