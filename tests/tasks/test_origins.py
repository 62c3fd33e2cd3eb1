"""Rows from Parquet and from data sets that `datasets` loads, by every task's own reader."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example
from bertsmith.tasks.classification import Classification
from bertsmith.tasks.origins import check_there, digest, read_text, shown_name
from bertsmith.tasks.questions import Questions
from bertsmith.tasks.rows import read_table
from bertsmith.tasks.tagging import Tagging
from bertsmith.tokenizer.load import Tokenizer

ROWS = {"text": ["good film", "bad film", "坏,\n电影"], "label": [1, 0, 0]}
CLASSES = {
    "info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}}
}


def parquet(path: Path, columns: dict[str, list[object]], said: object = None) -> Path:
    table = pa.table(columns)
    if said is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(said)})
    pq.write_table(table, path)
    return path


def rows(path: Path | str) -> list[list[str]]:
    return [list(row.cells) for row in read_table(Path(path), Tally()).rows]


def test_parquet_is_read_as_rows(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ROWS | {"when": [date(2020, 1, 2)] * 3, "__index_level_0__": [0, 1, 2]})
    found = read_table(path, Tally())
    assert found.columns == ("text", "label", "when")
    assert list(found.rows[2].cells) == ["坏,\n电影", "0", "2020-01-02"]
    assert found.rows[2].where == f"{path}:3"


def test_text_stored_as_bytes_is_text(tmp_path: Path) -> None:
    assert rows(parquet(tmp_path / "a.parquet", {"text": ["坏".encode()], "label": ["x"]})) == [["坏", "x"]]


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_parquet_is_unpacked(tmp_path: Path, suffix: str) -> None:
    data = parquet(tmp_path / "plain.parquet", ROWS).read_bytes()
    packed = tmp_path / f"a.parquet{suffix}"
    packed.write_bytes(COMPRESSORS[suffix](data))
    assert rows(packed) == rows(tmp_path / "plain.parquet")


def test_numbers_of_classes_become_their_names(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ROWS | {"label": [1, 0, -1]}, CLASSES)
    assert [cells[1] for cells in rows(path)] == ["pos", "neg", ""]


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.parquet: is no Parquet file, or is damaged"):
        read_table(path, Tally())


def test_the_extra_is_named_where_its_package_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    path = parquet(tmp_path / "a.parquet", ROWS)
    with pytest.raises(ConfigError, match=r"pyarrow.*bertsmith\[parquet\]"):
        read_table(path, Tally())
    with pytest.raises(ConfigError, match=r"datasets.*bertsmith\[hf\]"):
        read_table(Path("hf:imdb:train"), Tally())


def test_tagged_words_and_answers_are_read_from_parquet(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    names = {"feature": {"names": ["O", "B-PER", "I-PER"], "_type": "ClassLabel"}, "_type": "Sequence"}
    words = parquet(
        tmp_path / "tags.parquet",
        {"tokens": [["Anna", "Lind", "left"], ["Bert", "works"]], "ner_tags": [[1, 2, 0], [2, 0]]},
        {"info": {"features": {"ner_tags": names}}},
    )
    tally = Tally()
    found = Tagging(toy_tokenizer).rows(words, tally)
    assert [[(span.start, span.end, span.type) for span in example.label] for example in found] == [
        [(0, 9, "PER")],
        [(0, 4, "PER")],
    ]
    assert tally.counts == {"inside_tag_read_as_beginning": 1}
    bare = parquet(tmp_path / "bare.parquet", {"tokens": [["Anna"]], "ner_tags": [[1]]})
    with pytest.raises(DataError, match=r"bare\.parquet:1: 1 is not a tag.*numbers need the names"):
        Tagging(toy_tokenizer).rows(bare, Tally())
    asked = parquet(
        tmp_path / "squad.parquet",
        {
            "question": ["who?"],
            "context": ["it is anna"],
            "answers": [{"text": ["anna"], "answer_start": [6]}],
        },
    )
    (example,) = Questions(toy_tokenizer).rows(asked, Tally())
    assert [(gold.text, gold.start) for gold in example.label] == [("anna", 6)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data without a script, as people keep them for `datasets`; nothing is fetched and nothing is left at home."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = tmp_path / "reviews"
    found.mkdir()
    (found / "train.csv").write_text("text,label\ngood film,pos\nbad film,neg\n", encoding="utf-8")
    (found / "test.csv").write_text("text,label\n坏电影,neg\n", encoding="utf-8")
    return found


def test_a_split_of_a_folder_is_read(folder: Path, toy_tokenizer: Tokenizer) -> None:
    assert rows(f"hf:{folder}:train") == [["good film", "pos"], ["bad film", "neg"]]
    assert rows(f"hf:{folder}:train[:1]") == [["good film", "pos"]]
    task = Classification(toy_tokenizer, say=lambda text: None)
    assert task.rows(Path(f"hf:{folder}:train"), Tally())[1] == Example(
        {"text": "bad film"}, "neg", f"hf:{folder}:train:2"
    )


def test_the_split_must_be_said_where_there_are_several(folder: Path) -> None:
    with pytest.raises(DataError, match=rf"several splits; say which: hf:{folder}:train, hf:{folder}:test"):
        read_text(Path(f"hf:{folder}"), Tally())
    with pytest.raises(DataError, match=r"no split 'dev'; say which: .*:train"):
        read_text(Path(f"hf:{folder}:dev"), Tally())
    (folder / "test.csv").unlink()
    assert len(rows(f"hf:{folder}")) == 2


def test_a_configuration_is_the_last_part_of_the_name(folder: Path) -> None:
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: few\n  data_files: test.csv\n- config_name: many\n  data_files: train.csv\n---\n"
    )
    assert len(rows(f"hf:{folder}/few")) == 1
    assert len(rows(f"hf:{folder}/many:train")) == 2
    with pytest.raises(DataError, match=r"cannot be loaded \(.*[Cc]onfig"):
        rows(f"hf:{folder}")


def test_a_saved_data_set_with_classes_is_read(folder: Path, tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    saved = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    saved.save_to_disk(str(tmp_path / "one"))
    assert rows(f"hf:{tmp_path / 'one'}") == [["a", "yes"], ["b", "no"]]
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(str(tmp_path / "two"))
    assert rows(f"hf:{tmp_path / 'two'}:test") == [["a", "yes"], ["b", "no"]]
    saved.to_parquet(tmp_path / "three.parquet")
    assert rows(tmp_path / "three.parquet") == [["a", "yes"], ["b", "no"]]


def test_a_name_that_cannot_be_loaded_says_what_to_write(folder: Path) -> None:
    for name in ("hf:some-org/no-such-data:train", "hf:some-org/no-such-data/config:train"):
        with pytest.raises(DataError, match=r"cannot be loaded .*hf:ORG/NAME/CONFIG:SPLIT; a folder"):
            read_text(Path(name), Tally())
    with pytest.raises(DataError, match="no name on the hub"):
        read_text(Path("hf:a/b/c/d"), Tally())


def test_the_sum_of_rows_follows_their_content(folder: Path) -> None:
    before = digest(f"hf:{folder}:train")
    assert digest(f"hf:{folder}:train") == before != digest(f"hf:{folder}:test")
    assert len(digest(folder / "train.csv")) == len(digest(folder)) == 64


def test_a_mistyped_path_names_the_nearest(folder: Path) -> None:
    with pytest.raises(DataError, match=r"trian\.csv: no such file; did you mean .*train\.csv\?"):
        check_there(folder / "trian.csv")
    with pytest.raises(DataError, match=r"no such file; check the path \(what exists is .*reviews\)"):
        check_there(folder / "deeper" / "zzz.csv")


def test_names_for_others_hold_no_folders_of_this_machine() -> None:
    assert shown_name("/home/ada/rows/train.csv") == "train.csv"
    assert shown_name("hf:/home/ada/rows:train") == "rows:train"
    assert shown_name("hf:some-org/reviews/small:train") == "hf:some-org/reviews/small:train"
