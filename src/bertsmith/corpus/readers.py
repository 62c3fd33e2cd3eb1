"""Readers: files, folders, globs and `pydoc:` to Documents, streaming, in memory that does not grow with the corpus."""

from __future__ import annotations

import glob
import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.corpus import layout, pydoc
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.lines import COMPRESSED, Line, read_lines

PART = 1_000_000
"""Characters; a longer document is yielded in consecutive parts."""

_JSON_LIMIT = 1 << 29
_SNIFF_LINES, _SNIFF_CHARACTERS = 2000, 1 << 16
_JSONL = (".jsonl", ".ndjson")
_PLAIN = (".txt", ".text", "")
_KNOWN = "a folder, .txt, .jsonl or WikiExtractor output, each also as .gz .xz .zst .bz2, or pydoc:"
_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
_OPEN = re.compile(r"<doc (.*)>\s*")
_ATTRIBUTE = re.compile(r"(\w+)=\"(.*?)\"(?=\s+\w+=\"|\s*$)")


def read(inputs: Sequence[str], tally: Tally) -> Iterator[Document]:
    """Yield the documents of all inputs, in order, folders sorted.

    Args:
        inputs: files, folders (recursive; hidden files are left out), globs, `pydoc:` or `pydoc:PACKAGE,PACKAGE`.
        tally: receives everything that is skipped or repaired.

    Returns:
        An iterator; paths are checked before the first document is asked for.

    Raises:
        DataError: a path that does not exist, no text at all, or a file that cannot be read; names the place.
    """
    if not inputs:
        raise DataError(f"no text was given; name {_KNOWN}")
    sources: list[Path | str] = []
    seen: set[Path] = set()
    for name in inputs:
        if name.startswith(pydoc.PREFIX):
            sources.append(name)
            continue
        for path in _find(name, tally):
            if path.resolve() in seen:
                tally.add("file_given_twice", str(path))
            else:
                seen.add(path.resolve())
                sources.append(path)
    return _documents(sources, inputs, tally)


def _documents(sources: Sequence[Path | str], inputs: Sequence[str], tally: Tally) -> Iterator[Document]:
    count = 0
    for source in sources:
        documents = pydoc.read_docstrings(source, tally) if isinstance(source, str) else _read_file(source, tally)
        for document in documents:
            count += 1
            yield document
    if not count:
        what = f"{len(sources)} file" + "s" * (len(sources) != 1)
        raise DataError(f"{', '.join(inputs)}: no text in {what}; {tally.summary() or 'every one is empty'}")


def _find(name: str, tally: Tally) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        return _walk(path, tally)
    if path.is_file():
        if not _readable(path):
            raise DataError(f"{path}: unknown kind of file '{path.suffix}'; give {_KNOWN}")
        return [path]
    if path.exists():
        raise DataError(f"{path}: is neither a file nor a folder; save it to a file first")
    if glob.has_magic(name):
        found: list[Path] = []
        # Path.glob takes no absolute pattern.
        for match in map(Path, sorted(glob.glob(str(path), recursive=True))):  # noqa: PTH207
            if match.is_dir():
                found += _walk(match, tally)
            elif _readable(match):
                found.append(match)
            else:
                tally.add("unknown_kind_of_file", str(match))
        if found:
            return found
        raise DataError(f"{name}: no text file matches; give {_KNOWN}")
    near = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    raise DataError(f"{path}: no such file or folder (what exists is {near}); give {_KNOWN}")


def _walk(folder: Path, tally: Tally) -> list[Path]:
    files: list[Path] = []
    others = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(parent, name)
            if not _readable(path):
                others += 1
                tally.add("unknown_kind_of_file", str(path))
            elif path.is_file():
                files.append(path)
    if not files:
        raise DataError(f"{folder}: no text file in this folder ({others} of other kinds); give {_KNOWN}")
    return sorted(files)


def _kind(path: Path) -> str:
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return plain.suffix.lower()


def _readable(path: Path) -> bool:
    # WikiExtractor calls its files wiki_00; a version such as wiki.2023 is no known suffix and must be renamed.
    return _kind(path) in (*_JSONL, *_PLAIN)


def _read_file(path: Path, tally: Tally) -> Iterator[Document]:
    lines = read_lines(path, tally)
    head: list[Line] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line.text)
        if len(head) >= _SNIFF_LINES or size >= _SNIFF_CHARACTERS:
            break
    first = next((line.text for line in head if line.text.strip()), None)
    if first is None and not size:
        tally.add("empty_file", str(path))
        return
    stream = chain(head, lines)
    opening = (first or "").lstrip()
    if _kind(path) in _JSONL or (_kind(path) == "" and opening.startswith("{")):
        yield from _read_jsonl(path, stream, tally)
    elif opening.startswith("<doc "):
        yield from _read_wiki(path, stream, tally)
    else:
        yield from _read_text(path, stream, layout.detect([line.text for line in head]))


def _read_text(path: Path, lines: Iterable[Line], shape: layout.Layout) -> Iterator[Document]:
    """Blank lines separate documents."""
    meta = {"layout": "sentences"} if shape == "sentences" else {}
    parts: _Parts | None = None
    last, whole = "", True
    for line in lines:
        if whole and not line.text.strip():
            if parts:
                yield from parts.end()
            parts = None
            whole = line.whole
            continue
        if parts is None:
            parts = _Parts(f"{path}:{line.number}", str(path), meta)
        elif whole:
            yield from parts.add(layout.joint(last, line.text, shape))
        yield from parts.add(line.text)
        last, whole = line.text, line.whole
    if parts:
        yield from parts.end()


def _read_wiki(path: Path, lines: Iterable[Line], tally: Tally) -> Iterator[Document]:
    """`<doc id="1" url="..." title="...">` blocks, a paragraph a line; the first repeats the title and is left out."""
    parts: _Parts | None = None
    last, title, whole = "", "", True
    for line in lines:
        text = line.text
        if whole and text.startswith("<doc ") and (match := _OPEN.fullmatch(text)):
            if parts:
                tally.add("doc_without_end", parts.id)
                yield from parts.end()
            meta = dict(_ATTRIBUTE.findall(match.group(1)))
            parts = _Parts(meta.pop("id", f"{path}:{line.number}"), str(path), meta)
            last, title = "", meta.get("title", "").strip()
        elif whole and text.strip() == "</doc>":
            if parts:
                yield from parts.end()
            parts = None
        elif parts is None:
            if text.strip():
                tally.add("text_outside_doc", f"{path}:{line.number}")
        elif not whole or text.strip():
            if title and line.whole and not last and text.strip() == title:
                title = ""
            else:
                if whole and last:
                    yield from parts.add(layout.joint(last, text, "paragraphs"))
                yield from parts.add(text)
                last = text
        whole = line.whole
    if parts:
        tally.add("doc_without_end", parts.id)
        yield from parts.end()


def _read_jsonl(path: Path, lines: Iterable[Line], tally: Tally) -> Iterator[Document]:
    """One JSON object a line, its text in `text`; `<br>`, frequent in text from the web, is read as a line break."""
    pieces: list[str] = []
    size = 0
    for line in lines:
        pieces.append(line.text)
        size += len(line.text)
        where = f"{path}:{line.number}"
        if size > _JSON_LIMIT:
            raise DataError(f"{where}: a line of more than {_JSON_LIMIT >> 20} MB; JSON lines hold one object a line")
        if not line.whole:
            continue
        row, size = "".join(pieces), 0
        pieces.clear()
        if row.strip():
            yield from _read_row(row, where, str(path), tally)


def _read_row(row: str, where: str, source: str, tally: Tally) -> Iterator[Document]:
    try:
        value: Any = json.loads(row)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{where}: not valid JSON: {reason}; mend or delete the line") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a JSON {type(value).__name__}; each line must be an object with a field 'text'")
    if "text" not in value:
        fields = ", ".join(sorted(value)) or "none"
        raise DataError(f"{where}: no field 'text'; the fields there are: {fields}; rename the one that holds the text")
    if not isinstance(value["text"], str):
        raise DataError(f"{where}: 'text' is {json.dumps(value['text'])[:40]}, not a string; mend or delete the line")
    if "\\ud" in row or "\\uD" in row:
        value = {key: _mend(item, where, tally) for key, item in value.items()}
    text = value.pop("text")
    if not text.strip():
        tally.add("empty_text", where)
        return
    meta = {key: str(item) for key, item in value.items() if key != "id" and isinstance(item, str | int | float)}
    parts = _Parts(str(value.get("id", where)), source, meta)
    yield from parts.add(_paragraphs(_BREAK.sub("\n", text) if "<" in text else text))
    yield from parts.end()


def _mend(item: Any, where: str, tally: Tally) -> Any:
    if isinstance(item, str):
        joined = item.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if joined != item:
            tally.add("lone_surrogate", where)
        return joined
    return item


def _paragraphs(text: str) -> str:
    """The text with its single newlines judged: wrapped lines stay together, paragraphs get a blank line."""
    text = text.replace("\r\n", "\n")
    if "\n" not in text:
        return text
    lines = text.split("\n")
    shape = layout.detect(lines[:_SNIFF_LINES])
    if shape == "wrapped":
        return text
    joints = (
        layout.joint(line, after, "paragraphs") if line.strip() and after.strip() else "\n"
        for line, after in pairwise(lines)
    )
    return "".join(chain.from_iterable(zip(lines, chain(joints, [""]), strict=True)))


class _Parts:
    """Gathers the text of one document and gives it back in parts of at most PART characters."""

    def __init__(self, id: str, source: str, meta: Mapping[str, str]) -> None:
        self.id, self._source, self._meta = id, source, meta
        self._pieces: deque[str] = deque()
        self._size = self._count = 0

    def add(self, text: str) -> Iterator[Document]:
        self._pieces.append(text)
        self._size += len(text)
        if self._size > PART:
            whole = "".join(self._pieces)
            begin = 0
            while len(whole) - begin > PART:
                cut = _boundary(whole, begin + PART)
                yield from self._document(whole[begin:cut])
                begin = cut
            self._pieces = deque([whole[begin:]])
            self._size = len(whole) - begin

    def end(self) -> Iterator[Document]:
        yield from self._document("".join(self._pieces))

    def _document(self, text: str) -> Iterator[Document]:
        if text := text.strip():
            self._count += 1
            yield Document(text, self.id if self._count == 1 else f"{self.id}#{self._count}", self._source, self._meta)


def _boundary(text: str, limit: int) -> int:
    """The best place to cut at or before `limit`: a paragraph's end, a sentence's end, whitespace, anywhere."""
    low = limit - PART // 10
    for marks in (("\n\n",), ("\n",), (". ", "! ", "? ", "。", "！", "？"), (" ",)):
        cut = max(text.rfind(mark, low, limit) + len(mark) for mark in marks)
        if cut > low:
            return cut
    return limit
