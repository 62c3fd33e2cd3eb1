"""Datasets as the package datasets reads them, from folders on this machine: a hub cannot be reached in a test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.runner import Crew
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import listed, read
from bertsmith.corpus.source import Source
from bertsmith.tasks.preparation import prepare
from bertsmith.tokenizer.load import Tokenizer

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As on the hub: two files of one split and one of another, with a column that holds no text."""
    from pyarrow import parquet

    made = tmp_path / "dataset"
    (made / "data").mkdir(parents=True)
    rows = [
        {"id": f"r-{number}", "title": f"Title {number}", "text": f"Row {number} has words.", "stars": number}
        for number in range(7)
    ]
    rows[2]["text"] = " "
    for name, part in (("train-0", rows[:3]), ("train-1", rows[3:5]), ("test-0", rows[5:])):
        parquet.write_table(pyarrow.Table.from_pylist(part), made / "data" / f"{name}.parquet")
    return made


def _texts(name: str, tally: Tally | None = None) -> list[str]:
    return [document.text for document in read([name], tally or Tally())]


def test_rows_of_a_split_with_title_and_id(folder: Path) -> None:
    tally = Tally()
    found = list(read([f"hf:{folder}"], tally))
    assert [(document.id, document.text, document.meta["title"]) for document in found] == [
        ("r-0", "Row 0 has words.", "Title 0"),
        ("r-1", "Row 1 has words.", "Title 1"),
        ("r-3", "Row 3 has words.", "Title 3"),
        ("r-4", "Row 4 has words.", "Title 4"),
    ]
    assert found[0].source == f"hf:{folder}[0/2]"
    assert tally.first == {"empty_text": f"hf:{folder}[0/2]:3"}
    assert _texts(f"hf:{folder},,test") == ["Row 5 has words.", "Row 6 has words."]
    assert _texts(f"hf:{folder},default,test#title") == ["Title 5", "Title 6"]


def test_each_file_of_a_dataset_is_a_part_that_ranks_share(
    folder: Path, toy_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    names = [source.name for source in listed([f"hf:{folder}"], Tally()) if isinstance(source, Source)]
    assert names == [f"hf:{folder}[0/2]", f"hf:{folder}[1/2]"]
    stores = [prepare([f"hf:{folder}"], toy_tokenizer, tmp_path / str(n), print, crew=Crew(n)) for n in (1, 2)]
    assert stores[0].hash == stores[1].hash
    assert stores[0].num_documents == 4


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"content": ["One sentence here.", "Another one."]})
    rows.save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict(train=rows, test=rows.select([1])).save_to_disk(str(tmp_path / "splits"))
    assert _texts(f"hf:{tmp_path / 'plain'}") == ["One sentence here.", "Another one."]
    assert _texts(f"hf:{tmp_path / 'splits'},,test") == ["Another one."]


def test_json_lines_without_a_schema(tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    lines = [json.dumps({"body": f"Line {number} of text."}) for number in range(3)]
    (tmp_path / "lines" / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(_texts(f"hf:{tmp_path / 'lines'}")) == 3


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (",,dev", "cannot be read .*dev.*check name, configuration and split"),
        (",other", "cannot be read .*other.*check name, configuration and split"),
        ("#words", "there is no column 'words'; the columns are id, title, text, stars"),
        ("#stars", "column 'stars' holds int, not text; name another one"),
        (",a,b,c", "write it as hf:NAME, hf:NAME,CONFIG or hf:NAME,CONFIG,SPLIT"),
    ],
)
def test_what_is_not_in_it_is_said(folder: Path, suffix: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        _texts(f"hf:{folder}{suffix}")


def test_a_hub_that_does_not_answer_and_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"hf:nobody/nothing: cannot be read .*name the folder of a copy: hf:FOLDER"):
        _texts("hf:nobody/nothing")
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: module != "datasets")
    with pytest.raises(ConfigError, match=r"reading hf:nobody/nothing needs the package datasets.*bertsmith\[hf\]"):
        _texts("hf:nobody/nothing")
