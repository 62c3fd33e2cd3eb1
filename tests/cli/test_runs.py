"""`bertsmith runs`: the list, the comparison, and what is said when there is nothing to show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from bertsmith.cli.main import build


def run(*arguments: object) -> Result:
    return CliRunner().invoke(build("runs"), ["runs", *map(str, arguments)])


@pytest.fixture
def here(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `runs/`: a finished run, a copy of it with another learning rate that stopped, a foreign one."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    shutil.copytree(tiny_run, runs / "first")
    shutil.copytree(tiny_run, runs / "more" / "second", ignore=shutil.ignore_patterns("bundle"))
    settings = runs / "more" / "second" / "config.toml"
    settings.write_text(settings.read_text().replace("lr = 0.01", "lr = 0.02"))
    lines = (runs / "more" / "second" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (runs / "more" / "second" / "metrics.jsonl").write_text("".join(lines[:41]))
    (runs / "foreign").mkdir()
    (runs / "foreign" / "run.json").write_text("{}")
    return tmp_path


def test_a_line_a_run_and_the_foreign_ones_are_named_and_counted(here: Path) -> None:
    result = run()
    assert result.exit_code == 0
    header, first, second = result.stdout.splitlines()
    assert header.split()[:3] == ["run", "kind", "state"]
    assert first.split()[:4] == ["first", "pretrain", "finished", "60"]
    assert "MLM loss" in first
    assert second.split()[0] == "more/second"
    assert "stopped at step 40 of 60" in second
    assert "runs/foreign/run.json" in result.stderr
    assert "1 folder not listed" in result.stderr


def test_json_lines(here: Path) -> None:
    result = run("runs", "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["name"], first["state"], first["step"], first["steps"]) == ("first", "finished", 60, 60)
    assert (second["name"], second["state"], second["step"]) == ("more/second", "stopped", 40)
    assert first["headline"] == ["mlm_loss", "mlm_accuracy"]
    assert 0 < first["scores"]["mlm_loss"] < second["scores"]["mlm_loss"]
    assert first["tokens_per_second"] > 0


@pytest.mark.parametrize(
    "sort", ["name", "kind", "state", "steps", "tokens", "time", "speed", "score", "written"]
)  # fmt: skip
def test_every_column_sorts(here: Path, sort: str) -> None:
    lines = run("--json", "--sort", sort).stdout.splitlines()
    names = [json.loads(line)["name"] for line in lines]
    assert set(names) == {"first", "more/second"}
    if sort in ("name", "steps", "tokens", "time", "score"):
        assert names[0] == "first"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--compare", "first", "more/second"],
        ["runs", "first", "more/second"],
        ["runs/first", "runs/more/second"],
        ["runs", "--compare"],
        ["--compare"],
    ],
)
def test_a_comparison_can_be_asked_for_in_several_ways(here: Path, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["train.lr", "0.01", "0.02"] in rows
    assert not any(row[0] == "train.steps" for row in rows)
    assert any(row[:2] == ["held-out", "mlm_loss"] for row in rows)
    page = (here / "runs-compare.html").read_text()
    assert "Held-out MLM loss" in page
    assert "train.lr" in page
    assert "first" in page


def test_the_picture_alone_and_one_document(here: Path) -> None:
    result = run("--compare", "first", "more/second", "--x", "seconds", "--out", "curves.svg", "--json")
    assert result.exit_code == 0, result.stderr
    ElementTree.parse(here / "curves.svg")
    document = json.loads(result.stdout)
    assert document["differences"] == {"train.lr": {"first": 0.01, "more/second": 0.02}}
    assert [one["name"] for one in document["runs"]] == ["first", "more/second"]
    assert document["written"] == "curves.svg"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["empty"], "empty: no run here; make one with `bertsmith pretrain TEXT --out empty/first`"),
        (["runs/foreign"], "no run here that can be listed"),
        (["--sort", "loss"], "choose one of name, kind"),
        (["--out", "x.html"], "--compare"),
        (["runs", "first", "absent"], "absent: no run here or in runs; `bertsmith runs runs` lists"),
        (["--compare", "first"], "one run alone"),
        (["--compare", "first", "foreign"], "foreign/run.json"),
        (["--compare", "first", "more/second", "--x", "hours"], "tokens, steps, seconds"),
        (["--compare", "first", "more/second", "--out", "x.pdf"], "ends in .html"),
        (["empty", "--compare"], "empty: no run here"),
    ],
)
def test_requests_that_cannot_be_met_end_with_2(here: Path, arguments: list[str], message: str) -> None:
    (here / "empty").mkdir()
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
