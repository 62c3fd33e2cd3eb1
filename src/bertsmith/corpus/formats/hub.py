"""Datasets of the Hugging Face hub, or folders of that shape, by the package datasets: rows as they stream in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from bertsmith.core.errors import BertsmithError, DataError
from bertsmith.core.extras import require
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.fields import cell_documents, choose_columns
from bertsmith.corpus.source import Source

PREFIX = "hf:"
SPLIT = "train"
_SHARD = re.compile(r"\[(\d+)/(\d+)\]$")


class Address(NamedTuple):
    """What `hf:NAME@REVISION,CONFIG,SPLIT[SHARD/SHARDS]` says.

    Attributes:
        name: on the hub, or a folder.
        revision: a branch, a tag or a commit of the hub's.
        config: which of its configurations.
        split: which of its splits.
        shard: which of its parts; the first is 0.
        shards: how many parts there are.
    """

    name: str
    revision: str | None
    config: str | None
    split: str
    shard: int
    shards: int


def is_hub(name: str) -> bool:
    """Whether an input names a dataset; `hf://…` is a file on the hub, by fsspec."""
    return name.startswith(PREFIX) and not name.startswith("hf://")


def find_hub(name: str, columns: tuple[str, ...]) -> list[Source]:
    """The parts of a dataset, which are the files that it consists of; each has a name of its own.

    Args:
        name: `hf:NAME`, `hf:NAME,CONFIG` or `hf:NAME,CONFIG,SPLIT`.
        columns: what the user named: the column of the text, then the column of the title.

    Raises:
        ConfigError: the package datasets is not installed.
        DataError: there is no such dataset, configuration or split.
    """
    count = max(1, _opened(name).num_shards)
    names = [name] if count == 1 else [f"{name}[{number}/{count}]" for number in range(count)]
    return [hub_source(one, columns) for one in names]


def hub_source(name: str, columns: tuple[str, ...] = ()) -> Source:
    """A dataset, or a part of one, as a Source; it has rows and no bytes.

    Args:
        name: as `find_hub` gives them.
        columns: what the user named.
    """
    return Source(name, _no_bytes, None, columns)


def read_hub(source: Source, tally: Tally) -> Iterator[Document]:
    """The rows of a dataset or of a part of one: the column that the user named, else as in other tables.

    Args:
        source: one of `find_hub`.
        tally: counts rows without text.

    Raises:
        ConfigError: the package datasets is not installed.
        DataError: no such dataset or column, a column that holds no text, or the hub does not answer.
    """
    name = source.name
    address, rows = _parsed(name), _opened(name)
    if address.shards > 1:
        rows = rows.shard(num_shards=address.shards, index=address.shard)
    roles: dict[str, str] = {}
    for number, row in enumerate(_each(name, rows), start=1):
        if not roles:
            names = list(row)
            text, title = choose_columns(names, source)
            roles = {"text": names[text]} | ({} if title is None else {"title": names[title]})
            roles |= {"id": "id"} if "id" in names and "id" not in roles.values() else {}
        cells = {role: row[column] for role, column in roles.items() if row.get(column) is not None}
        where = f"{name}:{number}"
        if not isinstance(cells.get("text", ""), str):
            kind = type(cells["text"]).__name__
            raise DataError(f"{where}: column '{roles['text']}' holds {kind}, not text; name another one")
        if not cells.get("text", "").strip():
            tally.add("empty_text", where)
            continue
        meta = {"title": str(cells["title"])} if "title" in cells else {}
        yield from cell_documents(cells["text"], str(cells.get("id", where)), source, meta)


def _parsed(name: str) -> Address:
    rest = name.removeprefix(PREFIX)
    shard, shards = 0, 1
    if found := _SHARD.search(rest):
        shard, shards = int(found[1]), int(found[2])
        rest = rest[: found.start()]
    path, *more = (part.strip() for part in rest.split(","))
    revision = None
    if not Path(path).expanduser().exists():
        path, _, revision = path.partition("@")
    if not path or len(more) > 2:
        raise DataError(f"{name}: write it as hf:NAME, hf:NAME,CONFIG or hf:NAME,CONFIG,SPLIT")
    config, split = [*more, "", ""][:2]
    return Address(path, revision or None, config or None, split or SPLIT, shard, shards)


def _opened(name: str) -> Any:
    """The rows as something to iterate over that knows its parts."""
    datasets = require("datasets", f"reading {name}")
    address = _parsed(name)
    folder = Path(address.name).expanduser()
    datasets.disable_progress_bars()
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(str(folder))
            saved = saved[address.split] if isinstance(saved, dict) else saved
            return saved.to_iterable_dataset(num_shards=max(1, min(len(saved), len(saved.cache_files))))
        return datasets.load_dataset(
            str(folder) if folder.exists() else address.name,
            address.config,
            split=address.split,
            revision=address.revision,
            streaming=True,
        )
    except Exception as error:
        _refuse(name, error)


def _each(name: str, rows: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except BertsmithError:
        raise
    except Exception as error:
        _refuse(name, error)


def _refuse(name: str, error: Exception) -> NoReturn:
    detail = " ".join(str(error).split())[:400]
    raise DataError(
        f"{name}: cannot be read ({type(error).__name__}: {detail}); check name, configuration and split, "
        "and the network; without one, name the folder of a copy: hf:FOLDER"
    ) from error


def _no_bytes() -> BinaryIO:
    raise NotImplementedError
