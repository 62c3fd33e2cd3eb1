"""Finding: a path, folder or glob to the Sources in it."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.formats.hub import find_hub, is_hub
from bertsmith.corpus.remote import find_remote, is_url
from bertsmith.corpus.source import Source, file_source, standard_input


def find(name: str, kinds: Collection[str], known: str, tally: Tally) -> list[Source]:
    """All files that `name` means; `name#COLUMN` and `name#COLUMN,TITLE` also name columns of the tables among them.

    Folders are searched to the bottom, sorted, without hidden files. Links to files are followed, links to folders
    below the one that was named are not, so a loop of links has no way in.

    Args:
        name: a file, folder, glob or URL, `hf:` and a dataset, or `-` for standard input.
        kinds: the suffixes that can be read.
        known: what can be read, for messages.
        tally: counts what is passed over.

    Raises:
        DataError: there is no such path, nothing in it that can be read, or no permission to look.
    """
    try:
        return _find(name, kinds, known, tally)
    except PermissionError as error:
        raise DataError(f"{name}: may not look at {error.filename}; check the permissions of its folder") from error


def _find(name: str, kinds: Collection[str], known: str, tally: Tally) -> list[Source]:
    name, columns = _columns_of(name)
    if name == "-":
        return [replace(standard_input(), columns=columns)]
    if is_hub(name):
        return find_hub(name, columns)
    if is_url(name):
        return find_remote(name, columns, kinds, known, tally)
    path = Path(name).expanduser()
    if path.is_dir():
        return _walk(path, columns, kinds, known, tally)
    if path.is_file():
        source = file_source(path, columns)
        if source.kind not in kinds:
            raise DataError(f"{path}: unknown kind of file '{path.suffix}'; give {known}")
        return [source]
    if path.exists():
        raise DataError(f"{path}: is neither a file nor a folder; save it to a file first")
    if path.is_symlink():
        raise DataError(f"{path}: is a link that leads nowhere, or in a circle ({path.readlink()}); mend the link")
    if glob.has_magic(name):
        found: list[Source] = []
        # Path.glob takes no absolute pattern.
        for match in map(Path, sorted(glob.glob(str(path), recursive=True))):  # noqa: PTH207
            if match.is_dir():
                found += _walk(match, columns, kinds, known, tally)
            elif (source := file_source(match, columns)).kind in kinds:
                found.append(source)
            else:
                tally.add("unknown_kind_of_file", str(match))
        if found:
            return found
        raise DataError(f"{name}: no text file matches; give {known}")
    raise DataError(f"{path}: no such file or folder{_advice(path)}; give {known}")


def _advice(path: Path) -> str:
    """What was perhaps meant by a path that is not there, else how much of it is there."""
    whole = path.absolute()
    near, missing = next(
        ((parent, whole.relative_to(parent).parts[0]) for parent in whole.parents if parent.is_dir()), (Path("/"), "")
    )
    try:
        names = [name for name in os.listdir(near) if not name.startswith(".")]
    except OSError:
        names = []
    if found := difflib.get_close_matches(missing, names, n=1, cutoff=0.7):
        return f"; did you mean {near / found[0]}?"
    return f" (what exists is {near})"


def _columns_of(name: str) -> tuple[str, tuple[str, ...]]:
    path, mark, rest = name.rpartition("#")
    columns = tuple(column.strip() for column in rest.split(","))
    if not mark or not path or not all(columns) or os.path.lexists(Path(name).expanduser()):
        return name, ()
    return path, columns


def _walk(folder: Path, columns: tuple[str, ...], kinds: Collection[str], known: str, tally: Tally) -> list[Source]:
    files: list[Path] = []
    others = 0

    def refused(error: OSError) -> None:
        nonlocal others
        others += 1
        tally.add("folder_not_readable", str(error.filename))

    for parent, folders, names in os.walk(folder, onerror=refused):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if Path(parent, name).is_symlink():
                others += 1
                tally.add("linked_folder_not_followed", str(Path(parent, name)))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(parent, name)
            if file_source(path).kind not in kinds:
                others += 1
                tally.add("unknown_kind_of_file", str(path))
            elif path.is_file():
                files.append(path)
            else:
                others += 1
                tally.add("link_without_file" if path.is_symlink() else "not_a_file", str(path))
    if not files:
        why = f"; {tally.summary()}" if "folder_not_readable" in tally.counts else ""
        raise DataError(f"{folder}: no text file in this folder ({others} of other kinds{why}); give {known}")
    return [file_source(path, columns) for path in sorted(files)]
