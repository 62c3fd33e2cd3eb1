"""Where labelled rows come from: a file, compressed or not, Parquet, or a data set that `datasets` loads.

Parquet and data sets become JSON lines, a row each, so that whatever reads JSON reads them, and line n is row n.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertsmith.core.errors import DataError
from bertsmith.core.extras import require
from bertsmith.core.files import sha256_file
from bertsmith.corpus.document import Tally
from bertsmith.corpus.lines import COMPRESSED, read_lines
from bertsmith.corpus.source import file_source

DATASET = "hf:"
"""What begins the name of a data set: `hf:NAME[/CONFIG][:SPLIT]`."""
PARQUET = ".parquet"
_LARGEST = 64 << 30
_BATCH = 1024
_INDEX = re.compile(r"__index_level_\d+__")
_NAME = re.compile(r"(?P<name>.+?)(?::(?P<split>[A-Za-z_]\w*(?:\[[^\]]*\])?))?")


def is_dataset(path: str | Path) -> bool:
    """Whether this names a data set, not a file."""
    return str(path).startswith(DATASET)


def shown_name(path: str | Path) -> str:
    """What others may be told of where rows came from: no folders of this machine, but a data set's whole name.

    Args:
        path: as the user gave it.
    """
    name = str(path).removeprefix(DATASET)
    return str(path) if is_dataset(path) and name[0] not in "/.~" else Path(name).name


def kind(path: Path) -> str:
    """The suffix that tells as what text is read, looking through a compression suffix: `train.csv.xz` is `.csv`.

    Parquet and data sets are `.jsonl`.
    """
    found = "" if is_dataset(path) else _suffix(path)
    return ".jsonl" if found == PARQUET or is_dataset(path) else found


def check_there(path: Path) -> None:
    """Refuse what is no file; a data set is only asked for when it is read.

    Raises:
        DataError: names the file that is called most like it.
    """
    if is_dataset(path) or path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{path}: no such file; a folder stands there, name a file in it")
    if path.exists():
        return  # a pipe
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    known = next(parent for parent in path.absolute().parents if parent.exists())
    advice = f"did you mean {path.with_name(near[0])}?" if near else f"check the path (what exists is {known})"
    raise DataError(f"{path}: no such file; {advice}")


def read_text(path: Path, tally: Tally) -> str:
    """All rows as text with line ends made one; invalid UTF-8 is counted.

    Raises:
        ConfigError: it needs a package that is not installed.
        DataError: no such file, damaged, empty, binary or in another encoding.
    """
    check_there(path)
    if is_dataset(path):
        text = _as_lines(*_dataset(path))
    elif _suffix(path) == PARQUET:
        text = _parquet(path, tally)
    else:
        text = "".join(line.text + "\n" * line.whole for line in read_lines(path, tally))
    if not text.strip():
        raise DataError(f"{path}: the file is empty; give a file with at least one labelled row")
    return text


def digest(path: str | Path) -> str:
    """The sha256 sum of a file or folder; of a data set, that of its rows.

    Args:
        path: as the user gave it.
    """
    if is_dataset(path):
        return hashlib.sha256(read_text(Path(path), Tally()).encode(errors="surrogatepass")).hexdigest()
    return sha256_file(path)


def _suffix(path: Path) -> str:
    path = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return path.suffix.lower()


def _parquet(path: Path, tally: Tally) -> str:
    pyarrow = require("pyarrow", f"reading {path}")
    from pyarrow import parquet

    with file_source(path).sought(tally, _LARGEST) as file:
        try:
            table = parquet.ParquetFile(file)
            metadata = (table.schema_arrow.metadata or {}).get(b"huggingface")
            rows = (row for batch in table.iter_batches(batch_size=_BATCH) for row in batch.to_pylist())
            return _as_lines(rows, json.loads(metadata)["info"]["features"] if metadata else {})
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError, KeyError, ValueError) as error:
            raise DataError(f"{path}: is no Parquet file, or is damaged: {error}; copy it again") from error


def _as_lines(rows: Iterable[Mapping[str, Any]], features: Mapping[str, Any]) -> str:
    """Rows as JSON lines, with names in place of the numbers of classes.

    Args:
        rows: values by column.
        features: what `datasets` says of the columns.
    """
    classes = {column: names for column, told in features.items() if (names := _class_names(told))}
    return "".join(
        json.dumps(
            {
                column: _named(value, classes[column]) if column in classes else value
                for column, value in row.items()
                if not _INDEX.fullmatch(column)
            },
            ensure_ascii=False,
            default=_plain,
        )
        + "\n"
        for row in rows
    )


def _class_names(told: Any) -> Sequence[str] | None:
    """The names of a column of classes, or of lists of them; None for other columns."""
    if isinstance(told, list) and len(told) == 1:
        told = told[0]
    if not isinstance(told, Mapping):
        return None
    if told.get("_type") == "ClassLabel":
        return told.get("names")
    return _class_names(told["feature"]) if "feature" in told else None


def _named(value: Any, names: Sequence[str]) -> Any:
    """The name of a class; None for -1, which means that nobody has said."""
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None


def _plain(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _dataset(path: Path) -> tuple[Iterator[Mapping[str, Any]], Mapping[str, Any]]:
    """The rows of a data set, and what it says of its columns."""
    datasets = require("datasets", f"reading {path}")
    found = _NAME.fullmatch(str(path).removeprefix(DATASET))
    if found is None:
        raise DataError(f"{path}: write it as hf:NAME, hf:NAME/CONFIG or hf:NAME/CONFIG:SPLIT")
    place, config = _place(found["name"], path)
    datasets.disable_progress_bars()
    try:
        if any((Path(place) / name).is_file() for name in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(place)
        else:
            loaded = datasets.load_dataset(place, config)
        parts = dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}
        split = found["split"] or (next(iter(parts)) if len(parts) == 1 else None)
        if split is not None and split not in parts and "[" in split:
            parts[split] = datasets.load_dataset(place, config, split=split)
    except Exception as error:  # offline, unknown name, no permission, a broken file: the advice is the same
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{path}: the data set cannot be loaded ({reason}); a name on the hub needs the network, and is spelled "
            "hf:ORG/NAME/CONFIG:SPLIT; a folder with its files is given as hf:FOLDER:SPLIT"
        ) from error
    if split not in parts:
        wrong = f"there is no split {split!r}" if split else "it has several splits"
        known = ", ".join(f"{DATASET}{found['name']}:{name}" for name in parts)
        raise DataError(f"{path}: {wrong}; say which: {known}")
    return iter(parts[split]), parts[split].features.to_dict()


def _place(name: str, path: Path) -> tuple[str, str | None]:
    """A folder, or a name on the hub, and the configuration after it."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder), None
    if folder.parent != Path() and folder.parent.is_dir():
        return str(folder.parent), folder.name
    parts = name.split("/")
    if len(parts) > 3 or not all(parts):
        raise DataError(f"{path}: no such folder, and no name on the hub, which is ORG/NAME or ORG/NAME/CONFIG")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
