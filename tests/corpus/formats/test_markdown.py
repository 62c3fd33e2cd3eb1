"""Markdown: prose in, code and tables out, and memory bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.readers import read

PAGE = """---
title: "The tide"
tags: [a, b]
---
# Tides and *moons*

The [tide](https://x.org "t") rose
before **noon**.[^1] It was `high`. ![a boat](boat.png)

- First item
- Second <b>item</b>

```python
print("no prose")
```

    indented = code

| a | b |
|---|---|
| 1 | 2 |

> 潮水在中午
> 上涨。

<div>
html
</div>

Last ~~words~~ \\*here\\*.

[^1]: A note.

[link]: https://x.org
"""


def _read(path: Path, text: str, tally: Tally | None = None) -> list[Document]:
    path.write_bytes(text.encode())
    return list(read([str(path)], tally or Tally()))


def test_prose_only(tmp_path: Path) -> None:
    tally = Tally()
    (document,) = _read(tmp_path / "a.md", PAGE, tally)
    assert document.meta == {"title": "The tide"}
    assert document.text.split("\n\n") == [
        "Tides and moons",
        "The tide rose before noon. It was high.",
        "First item",
        "Second item",
        "潮水在中午上涨。",
        "Last words *here*.",
        "A note.",
    ]
    assert tally.counts == {"markdown_code": 2, "markdown_table": 1, "markdown_html": 1}
    assert tally.first["markdown_code"] == f"{tmp_path / 'a.md'}:13"


def test_a_rule_at_the_top_is_no_front_matter(tmp_path: Path) -> None:
    (document,) = _read(tmp_path / "a.md", "---\nSome words.\n\nMore words.\n")
    assert document.text == "Some words.\n\nMore words."


def test_a_long_file_is_parsed_in_sections_and_nothing_is_lost(tmp_path: Path) -> None:
    tally = Tally()
    section = "# Part {}\n\nIt has words.\n\n```\n# no heading\n\ncode\n```\n\n"
    documents = _read(tmp_path / "a.md", "".join(section.format(n) for n in range(8_000)), tally)
    paragraphs = [paragraph for document in documents for paragraph in document.text.split("\n\n")]
    assert paragraphs == [text for n in range(8_000) for text in (f"Part {n}", "It has words.")]
    assert tally.counts == {"markdown_code": 8_000}


@pytest.mark.parametrize("text", ["word " * 1_000_000, "[" * 300_000, "> " * 200_000])
def test_what_never_ends(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(text + "\n\nend\n")
    documents = list(read([str(path)], Tally()))
    assert len("".join(document.text for document in documents)) < len(text) + 10


def test_a_block_of_code_without_end_is_code_to_the_end(tmp_path: Path) -> None:
    tally = Tally()
    (document,) = _read(tmp_path / "a.md", "words\n```\n" + "code\n\n" * 400_000, tally)
    assert document.text == "words"
    assert tally.counts == {"markdown_code": 2}


def test_only_code_is_no_text(tmp_path: Path) -> None:
    tally = Tally()
    _read(tmp_path / "b.txt", "text")
    (tmp_path / "a.md").write_text("```\ncode\n```\n")
    (tmp_path / "c.markdown").touch()
    assert [document.text for document in read([str(tmp_path)], tally)] == ["text"]
    assert tally.counts == {"markdown_code": 1, "empty_file": 1}


def test_without_the_parser_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(ConfigError, match=r"reading .*a\.md needs the package markdown_it.*bertsmith\[web\]"):
        _read(tmp_path / "a.md", "text")
