"""A large file of JSON lines in parts: together they are the file, and each line keeps its number."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertsmith.core.errors import DataError
from bertsmith.corpus.blocks import Plan, all_blocks, documents, find_boilerplate, make_blocks
from bertsmith.corpus.clean import CleanConfig
from bertsmith.corpus.document import Document, Tally
from bertsmith.corpus.findings import Findings
from bertsmith.corpus.readers import documents_of, read
from bertsmith.corpus.source import file_source

ROWS = st.sampled_from(
    [
        *('{"text": "Rain fell."}', '{"text": "雨。", "id": "7"}', '{"text": ""}', '{"text": null}', "", " "),
        '{"text": "Of a line as long as this one, a single byte is wrong: \ufffd"}',  # of much more a file is refused
    ]
)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@given(
    st.lists(st.tuples(ROWS, ENDS), max_size=30), st.booleans(), st.lists(st.integers(1, 600), max_size=6), st.data()
)
@settings(deadline=None)
def test_parts_are_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    marked: bool,
    places: list[int],
    data: st.DataObject,
) -> None:
    text = "".join(row + end for row, end in rows)
    if rows and data.draw(st.booleans()):
        text = text.removesuffix(rows[-1][1])
    path = tmp_path_factory.mktemp("parts") / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * marked + text.encode().replace("\ufffd".encode(), b"\xff"))
    whole, mine = Tally(), Tally()
    expected = list(documents_of(file_source(path), whole))
    found: list[Document] = []
    borders = [0, *sorted(set(places)), 1 << 40]
    for part in pairwise(borders):
        found += documents_of(replace(file_source(path), part=part), mine)
    assert found == expected
    whole.counts.pop("empty_file", None)
    assert (mine.counts, mine.first) == (whole.counts, {key: whole.first[key] for key in whole.counts})


def test_a_line_longer_than_a_part_is_in_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "word " * size}) + "\n" for size in (1, 500, 1)))
    parts = [(begin, begin + 100) for begin in range(0, 3000, 100)]
    found = [list(documents_of(replace(file_source(path), part=part), Tally())) for part in parts]
    assert [(at, one.id) for at, many in enumerate(found) for one in many] == [
        (0, f"{path}:1"),
        (0, f"{path}:2"),
        (25, f"{path}:3"),
    ]


def test_a_large_file_is_cut_and_its_errors_name_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.corpus.blocks.SMALLEST", 1000)
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": f"Number {number} fell on the stone. " * 5}) for number in range(200)]
    path.write_text("\n".join(lines))
    plan, key = Plan.make([str(path)], CleanConfig(), {})
    assert len(plan.parts) > 10
    job = tmp_path / "job"
    plan.write(job)
    for rank in range(3):
        make_blocks(job, rank, 3)
    find_boilerplate(job, 0, 1)
    found = [one for block in all_blocks(job)[0] for _, one in documents(job, block, Findings())]
    assert [(one.id, one.text) for one in found] == [(one.id, one.text) for one in read([str(path)], Tally())]

    for number, name in ((150, "b.jsonl"), (0, "c.jsonl")):
        (tmp_path / name).write_text("\n".join([*lines[:number], "no JSON", *lines[number:]]))
        plan, other = Plan.make([str(tmp_path / name)], CleanConfig(), {})
        assert other != key
        plan.write(tmp_path / name[0])
        with pytest.raises(DataError, match=rf"{name}:{number + 1}: not valid JSON"):
            make_blocks(tmp_path / name[0], 0, 1)


def test_a_large_text_beside_one_in_parts_is_shared_by_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertsmith.corpus.blocks.SMALLEST", 1000)
    monkeypatch.setattr("bertsmith.corpus.blocks.LARGEST", 1000)
    (tmp_path / "a.txt").write_text("Rain fell on the stone of the house.\n\n" * 1000)
    (tmp_path / "b.jsonl").write_text((json.dumps({"text": "Rain fell. " * 9}) + "\n") * 400)
    plan, _ = Plan.make([str(tmp_path)], CleanConfig(), {})
    assert plan.parts.count(None) == 1
    plan.write(tmp_path / "job")
    made = []
    for rank in range(2):
        make_blocks(tmp_path / "job", rank, 2)
        made.append(len(list((tmp_path / "job" / "blocks").glob("000000-*.jsonl"))))
    assert made[1] in (2 * made[0], 2 * made[0] - 1, 2 * made[0] + 1)


def test_what_has_no_lines_of_its_own_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.corpus.blocks.SMALLEST", 1000)
    (tmp_path / "a.txt").write_text("Rain fell on the stone.\n" * 1000)
    row = json.dumps({"text": "雨落在石頭上。" * 9}, ensure_ascii=False) + "\n"
    (tmp_path / "b.jsonl").write_bytes((row * 200).encode("gb18030"))
    (tmp_path / "small.jsonl").write_text(row)
    plan, _ = Plan.make([str(tmp_path)], CleanConfig(), {})
    assert set(plan.parts) == {None}
