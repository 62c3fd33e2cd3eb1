"""Readers: files, folders, URLs, datasets and `pydoc:` to Documents, in memory that does not grow with the corpus."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from bertsmith.core.errors import DataError
from bertsmith.core.extras import present, require
from bertsmith.corpus import pydoc
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.finding import find
from bertsmith.corpus.formats.archive import tar_members, zip_members
from bertsmith.corpus.formats.delimited import read_delimited
from bertsmith.corpus.formats.epub import read_epub
from bertsmith.corpus.formats.html import read_html
from bertsmith.corpus.formats.hub import is_hub, read_hub
from bertsmith.corpus.formats.jsonl import read_jsonl
from bertsmith.corpus.formats.markdown import read_markdown
from bertsmith.corpus.formats.mediawiki import read_dump
from bertsmith.corpus.formats.parquet import read_parquet
from bertsmith.corpus.formats.pdf import read_pdf
from bertsmith.corpus.formats.plain import read_plain
from bertsmith.corpus.formats.word import read_word
from bertsmith.corpus.source import Source

FORMATS: dict[str, Callable[[Source, Tally], Iterator[Document]]] = {
    # WikiExtractor calls its files wiki_00; a version such as wiki.2023 is no known suffix and must be renamed.
    "": read_plain,
    ".txt": read_plain,
    ".text": read_plain,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".xhtml": read_html,
    ".xml": read_dump,
    ".parquet": read_parquet,
    ".epub": read_epub,
    ".pdf": read_pdf,
    ".docx": read_word,
}
"""Suffix, below one of compression, to reader."""

ARCHIVES: dict[str, Callable[[Source, Tally], Iterator[Source]]] = {".zip": zip_members, ".tar": tar_members}
"""Suffix to what lists the members, each read by the table above."""

NEEDS = {
    ".html": "trafilatura",
    ".htm": "trafilatura",
    ".xhtml": "trafilatura",
    ".xml": "mwparserfromhell",
    ".parquet": "pyarrow",
    ".pdf": "pypdf",
    ".docx": "docx",
}
"""Suffix to the optional package that its reader cannot do without."""

BY_LINES = (".jsonl", ".ndjson")
"""Suffixes of files each line of which is a document, so that one can be read in parts."""

_SUFFIXES = " ".join(filter(None, [*FORMATS, *ARCHIVES]))
_KNOWN = (
    f"a folder, a URL, hf:DATASET, - for standard input, pydoc:, or a file of text ({_SUFFIXES}), "
    "also as .gz .xz .zst .bz2"
)


def read(inputs: Sequence[str], tally: Tally) -> Iterator[Document]:
    """Yield the documents of all inputs, in order, folders sorted.

    Args:
        inputs: files, folders (recursive; hidden files are left out), globs, URLs of fsspec's, `hf:NAME,CONFIG,SPLIT`,
            `-`, `pydoc:` or `pydoc:PACKAGE,PACKAGE`; what follows a `#` names the columns of text and title.
        tally: receives everything that is skipped or repaired.

    Returns:
        An iterator; paths are checked before the first document is asked for.

    Raises:
        ConfigError: a file needs an optional package that is not installed; names the command that installs it.
        DataError: a path that does not exist, no text at all, or a file that cannot be read; names the place.
    """
    return _documents(listed(inputs, tally), inputs, tally)


def listed(inputs: Sequence[str], tally: Tally) -> list[Source | str]:
    """The files that inputs mean, in the order in which they are read; `pydoc:` stays a string.

    Args:
        inputs: as for `read`.
        tally: receives the files that are passed over.

    Raises:
        ConfigError: a file needs an optional package that is not installed; names the command that installs it.
        DataError: a path that does not exist, or nothing in it that can be read.
    """
    if not inputs:
        raise DataError(f"no text was given; name {_KNOWN}")
    sources: list[Source | str] = []
    seen: set[str] = set()
    for name in inputs:
        if name.startswith(pydoc.PREFIX):
            sources.append(name)
            continue
        for source in find(name, {*FORMATS, *ARCHIVES}, _KNOWN, tally):
            real = os.path.realpath(source.name)
            if real in seen:
                tally.add("file_given_twice", source.name)
            else:
                seen.add(real)
                sources.append(source)
                if not is_hub(source.name) and (module := NEEDS.get(source.kind)) and not present(module):
                    require(module, f"reading {source.name}")
    return sources


def _documents(sources: Sequence[Source | str], inputs: Sequence[str], tally: Tally) -> Iterator[Document]:
    count = 0
    for source in sources:
        for document in documents_of(source, tally):
            count += 1
            yield document
    if not count:
        raise no_text(inputs, len(sources), tally)


def no_text(inputs: Sequence[str], files: int, tally: Tally) -> DataError:
    """The error that says that there is no document in all of the inputs.

    Args:
        inputs: as they were given.
        files: how many they are.
        tally: what was skipped.
    """
    what = f"{files} file" + "s" * (files != 1)
    return DataError(f"{', '.join(inputs)}: no text in {what}; {tally.summary() or 'every one is empty'}")


def documents_of(source: Source | str, tally: Tally) -> Iterator[Document]:
    """The documents of one of `listed`.

    Args:
        source: a file, or `pydoc:`.
        tally: receives everything that is skipped or repaired.

    Raises:
        DataError: the file cannot be read; names the place.
    """
    if isinstance(source, str):
        yield from pydoc.read_docstrings(source, tally)
        return
    noticed, empty = tally.total, True
    for document in _read_source(source, tally):
        empty = False
        yield document
    if empty and tally.total == noticed and source.part is None:
        tally.add("empty_file", source.name)


def _read_source(source: Source, tally: Tally) -> Iterator[Document]:
    if is_hub(source.name):
        yield from read_hub(source, tally)
        return
    if source.kind not in ARCHIVES:
        yield from FORMATS[source.kind](source, tally)
        return
    empty = True
    for member in ARCHIVES[source.kind](source, tally):
        empty = False
        if member.kind in FORMATS:
            yield from FORMATS[member.kind](member, tally)
        else:
            tally.add("archive_in_archive" if member.kind in ARCHIVES else "unknown_kind_of_file", member.name)
    if empty:
        tally.add("empty_archive", source.name)
