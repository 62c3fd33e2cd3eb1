"""Readers: every layout and every kind of bad input gives documents or a message that says what, where, what to do."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.parts import PART
from bertsmith.corpus.readers import read
from bertsmith.corpus.sentences import document_sentences


def _read(*inputs: Path | str, tally: Tally | None = None) -> list[Document]:
    return list(read([str(name) for name in inputs], tally or Tally()))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


WIKI = """<doc id="12" url="https://x.org/?curid=12" title="A "quoted" town">
A "quoted" town

It lies in the hills. It covers the
area of a small lake
Its people fish.

</doc>
<doc id="13" url="https://x.org/?curid=13" title="名所">
名所

名所是一种画。
历史.
</doc>
"""


def test_blank_lines_separate_the_documents_of_a_text(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "\n\nFirst line here is long. It goes on\nin the next line.\n\n \t\nSecond.\n")
    first, second = _read(path)
    assert (first.id, first.source) == (f"{path}:3", str(path))
    assert document_sentences(first) == ["First line here is long.", "It goes on in the next line."]
    assert (second.id, second.text) == (f"{path}:7", "Second.")


def test_one_sentence_a_line(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.txt", "Dr. Li came in early that day.\nHe sat.\n\nThe other document begins;\nit ends here.\n"
    )
    documents = _read(path)
    assert [document.meta for document in documents] == [{"layout": "sentences"}] * 2
    assert document_sentences(documents[1]) == ["The other document begins;", "it ends here."]


def test_a_corpus_of_one_sentence(tmp_path: Path) -> None:
    (document,) = _read(_write(tmp_path / "a.txt", "Just one sentence"))
    assert document_sentences(document) == ["Just one sentence"]


@pytest.mark.parametrize("name", ["wiki_00", "wiki.txt"])
def test_wikiextractor(tmp_path: Path, name: str) -> None:
    tally = Tally()
    town, art = _read(_write(tmp_path / name, WIKI), tally=tally)
    assert (town.id, town.meta["title"], town.meta["url"]) == ("12", 'A "quoted" town', "https://x.org/?curid=12")
    assert document_sentences(town) == [
        "It lies in the hills.",
        "It covers the area of a small lake",
        "Its people fish.",
    ]
    assert (art.meta["title"], document_sentences(art)) == ("名所", ["名所是一种画。", "历史."])
    assert tally.counts == {}


def test_wikiextractor_repairs_are_counted(tmp_path: Path) -> None:
    text = WIKI.replace("</doc>\n<doc", "<doc") + "stray\n"
    tally = Tally()
    assert len(_read(_write(tmp_path / "wiki_00", text), tally=tally)) == 2
    assert tally.counts == {"doc_without_end": 1, "text_outside_doc": 1}
    assert tally.first["text_outside_doc"].endswith("wiki_00:14")


def test_jsonl(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "text": "Good.<br /><br />Really good", "score": 0.5, "tags": ["x"]},
        {"text": "A title\nIts paragraph is a much longer line that ends with a stop.\nAnother one, also long enough."},
        {"text": "  "},
    ]
    path = _write(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n")
    tally = Tally()
    good, article = _read(path, tally=tally)
    assert (good.id, good.meta) == ("7", {"score": "0.5"})
    assert document_sentences(good) == ["Good.", "Really good"]
    assert (article.id, document_sentences(article)[0]) == (f"{path}:2", "A title")
    assert tally.counts == {"empty_text": 1}


def test_lone_surrogates_in_json_are_replaced_and_counted(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", '{"text": "a\\ud83dz \\ud83d\\ude00", "id": "\\udc00"}\n')
    tally = Tally()
    (document,) = _read(path, tally=tally)
    assert (document.text, document.id) == ("a\ufffdz 😀", "\ufffd")
    assert tally.first == {"lone_surrogate": f"{path}:1"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', r"a\.jsonl:2: not valid JSON: .* at column \d+; mend or delete the line"),
        ('{"body": "x", "author": "y"}', r"a\.jsonl:2: no field 'text'; the fields there are: author, body; rename"),
        ('["x"]', r"a\.jsonl:2: a JSON list"),
        ("[" * 100_000, r"a\.jsonl:2: not valid JSON"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = _write(tmp_path / "a.jsonl", '{"text": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=message):
        _read(path)


def test_a_folder_is_read_in_order_without_hidden_and_unknown_files(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/1.jsonl", "a.txt", ".git/x.txt", ".hidden.txt", "image.png", "c/wiki_00"):
        _write(tmp_path / name, '{"text": "t"}' if name.endswith("jsonl") else "some text")
    _write(tmp_path / "empty.txt", "")
    tally = Tally()
    sources = [Path(document.source).relative_to(tmp_path).as_posix() for document in _read(tmp_path, tally=tally)]
    assert sources == ["a.txt", "b/1.jsonl", "b/2.txt", "c/wiki_00"]
    assert tally.counts == {"unknown_kind_of_file": 1, "empty_file": 1}
    assert tally.first["empty_file"].endswith("empty.txt")


def test_globs_and_files_given_twice(tmp_path: Path) -> None:
    for name in ("x/1.txt", "y/2.txt"):
        _write(tmp_path / name, name)
    tally = Tally()
    documents = _read(tmp_path / "*" / "*.txt", tmp_path / "y", tally=tally)
    assert [document.text for document in documents] == ["x/1.txt", "y/2.txt"]
    assert tally.counts == {"file_given_twice": 1}


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "a[1].txt", "text"))[0].text == "text"


def test_paths_are_checked_before_the_first_document_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere/x\.txt: no such file or folder \(what exists is .*\); give a folder"):
        read([str(tmp_path / "nowhere" / "x.txt")], Tally())
    with pytest.raises(DataError, match="no text file matches"):
        read([str(tmp_path / "*.txt")], Tally())
    with pytest.raises(DataError, match="no text was given"):
        read([], Tally())
    (tmp_path / "image.png").touch()
    with pytest.raises(DataError, match=r"no text file in this folder \(1 of other kinds\)"):
        read([str(tmp_path)], Tally())
    with pytest.raises(DataError, match=r"image\.png: unknown kind of file '\.png'"):
        read([str(tmp_path / "image.png")], Tally())


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text file in this folder"):
        _read(tmp_path)


def test_a_folder_of_only_empty_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.jsonl"):
        _write(tmp_path / name, "\n \n" if name == "b.txt" else "")
    with pytest.raises(DataError, match=r"no text in 3 files; empty_file: 3 \(first: .*a\.txt\)"):
        _read(tmp_path)


def test_a_truncated_file_ends_with_an_error_after_its_whole_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.xz"
    whole = lzma.compress("".join(f"Document {number}, {number**5}.\n\n" for number in range(20_000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    documents: list[Document] = []
    with pytest.raises(DataError, match=r"a\.txt\.xz: is cut off at byte"):
        documents.extend(read([str(path)], Tally()))
    assert len(documents) > 5000
    assert documents[-1].text == f"Document {len(documents) - 1}, {(len(documents) - 1) ** 5}."


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "wiki_00"])
def test_a_long_document_comes_in_parts_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    text = "".join(
        f"Sentence {number} is here, " + ("and ends. " if number % 3 else "中文。") for number in range(90_000)
    )
    content = {
        "a.txt": text,
        "a.jsonl": json.dumps({"text": text, "id": "x"}),
        "wiki_00": f'<doc id="x" title="t">\nt\n{text}\n</doc>',
    }[name]
    documents = _read(_write(tmp_path / name, content))
    assert len(documents) == 3
    assert max(len(document.text) for document in documents) <= PART
    assert "".join("".join(document.text for document in documents).split()) == "".join(text.split())
    assert [document.id for document in documents[1:]] == [
        f"{documents[0].id}#{n}" for n in range(2, len(documents) + 1)
    ]
    assert all(document.text.endswith((".", "。")) for document in documents)


_PEAK = """
import resource, sys
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.sentences import document_sentences
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = sum(len(s) for d in read([sys.argv[1]], Tally()) for s in document_sentences(d))
print(size, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_one_line_of_50_megabytes_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("lorem ipsum dolor sit amet " * 1_900_000)
    output = subprocess.run([sys.executable, "-c", _PEAK, str(path)], check=True, capture_output=True, text=True).stdout
    size, grown = map(int, output.split())
    assert size > 49_000_000
    assert grown < 40, "MB beyond the start, for a document of 50 MB"


def test_one_blank_file_among_others_is_counted_and_said(tmp_path: Path) -> None:
    _write(tmp_path / "a.txt", "text")
    _write(tmp_path / "b.txt", " \n\n\t\n")
    _write(tmp_path / "c.jsonl", "\n\n")
    _write(tmp_path / "d.md", "\n  \n")
    tally = Tally()
    assert [document.text for document in read([str(tmp_path)], tally)] == ["text"]
    assert tally.summary() == f"empty_file: 3 (first: {tmp_path / 'b.txt'})"


def test_a_mistyped_path_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "novels").mkdir()
    _write(tmp_path / "novels" / "chapters.txt", "text")
    with pytest.raises(DataError, match=r"novel/chapters\.txt: no such file or folder; did you mean .*/novels\?"):
        read([str(tmp_path / "novel" / "chapters.txt")], Tally())
    with pytest.raises(DataError, match=r"did you mean .*/novels/chapters\.txt\?"):
        read([str(tmp_path / "novels" / "chapter.txt")], Tally())
