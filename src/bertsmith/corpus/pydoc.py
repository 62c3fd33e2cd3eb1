"""`pydoc:` - the prose in the documentation strings of the standard library and of the installed packages.

Sources are parsed, never imported. Real text, by many hands, that is on every machine.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Document, Tally

PREFIX = "pydoc:"

_SKIPPED_FOLDERS = frozenset({"__pycache__", "test", "tests", "testing", "site-packages", "dist-packages"})
_LARGEST_SOURCE = 4 << 20
_BLANK = re.compile(r"\n\s*\n")
_UNDERLINE = re.compile(r"^\s*([-=~^*_+#\"'`.])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"^\s*(?:\.\. |:(?!\w+:`)[\w ]+:|@\w+)")
# A bullet, a number, or the name before an argument's description.
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)]|\*{0,2}\w+(?: \([^()]*\))?:)\s+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_SENTENCE_END = re.compile(r"[.!?]['\")`]*$")
_NO_LETTER = re.compile(r"(?:[\d_]|[^\w\s])+")


def read_docstrings(source: str, tally: Tally, roots: Sequence[Path] | None = None) -> Iterator[Document]:
    """One Document a module, sorted by root and path; a paragraph that has been seen before is left out.

    Doctests, tables, code, section underlines and field lists are left out; the ``backticks`` in the prose stay.

    Args:
        source: `pydoc:` for everything, or `pydoc:json,numpy` for these top-level modules and packages.
        tally: counts what was left out, by reason.
        roots: folders to search; the standard library and site-packages by default.

    Raises:
        DataError: no such package is installed.
    """
    wanted = {name for name in source.removeprefix(PREFIX).split(",") if name}
    missing = set(wanted)
    seen: set[bytes] = set()
    for root in _default_roots() if roots is None else roots:
        for path in _sources(root, wanted):
            module = _module_name(path.relative_to(root))
            package = module.split(".")[0]
            missing.discard(package)
            paragraphs = [text for text in _prose(path, tally) if _is_new(text, seen)]
            if paragraphs:
                yield Document("\n\n".join(paragraphs), module, PREFIX, {"package": package, "module": module})
    if missing:
        names = ", ".join(sorted(missing))
        raise DataError(f"{source}: no Python sources of {names} are installed; check the name or use {PREFIX} for all")


def _default_roots() -> list[Path]:
    paths = sysconfig.get_paths()
    folders = dict.fromkeys(Path(paths[name]) for name in ("stdlib", "purelib", "platlib"))
    return [folder for folder in folders if folder.is_dir()]


def _sources(root: Path, wanted: set[str]) -> Iterator[Path]:
    found: list[Path] = []
    for parent, folders, names in os.walk(root):
        top = Path(parent) == root
        folders[:] = sorted(
            name
            for name in folders
            if name.isidentifier() and name not in _SKIPPED_FOLDERS and not (top and wanted and name not in wanted)
        )
        for name in names:
            if name.endswith(".py") and not (top and wanted and name.removesuffix(".py") not in wanted):
                found.append(Path(parent, name))
    yield from sorted(found)


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _is_new(paragraph: str, seen: set[bytes]) -> bool:
    mark = hashlib.blake2b(paragraph.encode(), digest_size=10).digest()
    if mark in seen:
        return False
    seen.add(mark)
    return True


def _prose(path: Path, tally: Tally) -> Iterator[str]:
    """The prose paragraphs of all docstrings of one source file, in order."""
    try:
        if path.stat().st_size > _LARGEST_SOURCE:
            tally.add("pydoc_source_too_large", str(path))
            return
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return
        with warnings.catch_warnings(), _without_collector():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        tally.add("pydoc_source_unreadable", str(path))
        return
    for docstring in _docstrings(tree.body):
        # A lone surrogate written as an escape is no character.
        text = inspect.cleandoc(docstring).encode(errors="replace").decode()
        for block in _BLANK.split(text):
            kept = 0
            for paragraph in _prose_of_block(block):
                kept += 1
                yield paragraph
            if not kept:
                tally.add("pydoc_not_prose", str(path))


@contextmanager
def _without_collector() -> Iterator[None]:
    """A syntax tree is many objects and no cycles: looking for cycles while it grows takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _docstrings(body: list[ast.stmt]) -> Iterator[str]:
    """The docstring of this body and, in order, of the classes and functions in it, however deep."""
    match body:
        case [ast.Expr(value=ast.Constant(value=str(docstring))), *_]:
            yield docstring
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(statement.body)
        elif isinstance(statement, ast.If | ast.Try | ast.With):
            # The string that opens an `if` is no docstring, so its first statement is protected by a pass.
            yield from _docstrings([ast.Pass(), *statement.body, *getattr(statement, "orelse", [])])


def _prose_of_block(block: str) -> Iterator[str]:
    """Paragraphs of a block: its lines grouped by indentation and list items, if they read like prose."""
    if ">>>" in block:
        return
    group: list[str] = []
    indent = 0
    for line in block.split("\n"):
        if _UNDERLINE.match(line) or _DIRECTIVE.match(line):
            yield from _if_prose(group)
            group = []
            continue
        depth = len(line) - len(line.lstrip())
        if _LIST_ITEM.match(line) or depth != indent:
            hanging = bool(group) and depth > indent and bool(_LIST_ITEM.match(group[0]))
            if not (hanging or _runs_on(group, line)):
                yield from _if_prose(group)
                group = []
        group.append(line)
        indent = depth
    yield from _if_prose(group)


def _runs_on(group: list[str], line: str) -> bool:
    """Whether `line` continues the sentence of the lines before it, although it is indented otherwise."""
    words = len(_WORD.findall(" ".join(group)))
    return words > 4 and line.lstrip()[:1].islower() and not _SENTENCE_END.search(group[-1])


def _if_prose(group: list[str]) -> Iterator[str]:
    text = " ".join(_LIST_ITEM.sub("", "\n".join(group), count=1).split())
    if len(_WORD.findall(text)) < 5 or not _SENTENCE_END.search(text):
        return
    if len(_NO_LETTER.sub("", text)) >= 0.8 * len(text):
        yield text
