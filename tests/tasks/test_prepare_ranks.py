"""Preparation shared out: the same bytes however many ranks, whoever starts them, and however often it was killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bertsmith.core.runner import Crew, run
from bertsmith.corpus import blocks, copies
from bertsmith.corpus.store import Store
from bertsmith.tasks import preparation
from bertsmith.tasks.preparation import CorpusConfig, prepare
from bertsmith.tokenizer.train import VocabConfig

CONFIG = CorpusConfig.model_validate({"clean": {"mode": "filter"}, "dedup": {"mode": "near"}})
VOCAB = VocabConfig(size=400, min_frequency=1)
WORDS = ["".join(random.Random(n).choices("abcdefghijklmnoprstuvw", k=2 + n % 7)) for n in range(300)]
HAN = [chr(0x4E00 + 7 * n) for n in range(300)]
FOOTER = "Printed on paper from well managed forests."


def silent(line: str) -> None:
    pass


def article(chance: random.Random) -> str:
    if chance.random() < 0.3:
        return "\n".join("，这是".join("".join(chance.choices(HAN, k=9)) for _ in range(3)) + "。" for _ in range(6))
    sentences = [
        " ".join(["the", *chance.choices(WORDS, k=5), "and", *chance.choices(WORDS, k=4)]).capitalize() + "."
        for _ in range(8)
    ]
    return "\n".join([*sentences, *([FOOTER] if chance.random() < 0.5 else [])])


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of different sizes, with copies, near copies, boilerplate, rubbish, HTML and one that is empty."""
    folder = tmp_path_factory.mktemp("texts")
    chance = random.Random(1)
    made: list[str] = []
    for number, count in enumerate([60, 1, 0, 25, 3, 40]):
        rows = []
        for _ in range(count):
            draw = chance.random()
            if made and draw < 0.1:
                rows.append(chance.choice(made))
            elif made and draw < 0.2:
                rows.append(chance.choice(made).replace(" and", " or", 1))
            elif draw < 0.3:
                rows.append("# → harbour " * 60)
            else:
                rows.append(article(chance) + (" <em>Again.</em>" if draw < 0.4 else ""))
                made.append(rows[-1])
        lines = [f'{{"id": "{number}-{n}", "text": {repr_json(row)}}}' for n, row in enumerate(rows)]
        (folder / f"{number}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return folder


def repr_json(text: str) -> str:
    return json.dumps(text)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many units, blocks and shares of a small corpus."""
    monkeypatch.setattr(blocks, "UNIT_BYTES", 1 << 14)
    monkeypatch.setattr(blocks, "SMALLEST", 1 << 11)
    monkeypatch.setattr(blocks, "LARGEST", 1 << 11)
    monkeypatch.setattr(copies, "SHARES", 3)


def contents(store: Path) -> dict[str, bytes]:
    return {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The store that one process makes."""
    out = tmp_path_factory.mktemp("whole") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "UNIT_BYTES", 1 << 14)
        patch.setattr(blocks, "SMALLEST", 1 << 11)
        patch.setattr(blocks, "LARGEST", 1 << 11)
        patch.setattr(copies, "SHARES", 3)
        prepare([str(texts)], None, out, silent, CONFIG, vocab=VOCAB)
    assert [path.name for path in out.parent.iterdir()] == ["store"], "nothing is left behind"
    return contents(out)


def test_everything_has_happened_that_should_not_depend_on_ranks(whole: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in whole.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    store = Store.open(tmp_path, verify=True)
    skipped = store.manifest["skipped"]
    reasons = "duplicate near_duplicate too_many_symbols boilerplate_line html_remains empty_file"
    assert set(reasons.split()) <= set(skipped)
    cleaning = store.manifest["cleaning"]
    assert cleaning["documents"] == 129
    left = store.num_documents + skipped["duplicate"] + skipped["near_duplicate"]
    assert left == cleaning["kept_documents"] == 129 - skipped["too_many_symbols"]
    assert FOOTER in str(cleaning["rules"]["boilerplate_line"]["samples"])
    pair = store.manifest["duplicates"]["near_duplicate"][0]
    assert pair["similarity"] >= 0.8
    assert pair["id"] != pair["kept"]
    assert pair["text"] != pair["kept_text"]


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_pool_makes_the_same_bytes(texts: Path, tmp_path: Path, whole: dict[str, bytes], ranks: int) -> None:
    prepare([str(texts)], None, tmp_path / "store", silent, CONFIG, vocab=VOCAB, crew=Crew(ranks))
    assert contents(tmp_path / "store") == whole


def command(texts: Path, out: Path, *more: str) -> list[str]:
    settings = ["--set", "vocab.size=400", "--set", "vocab.min_frequency=1", "--quiet"]
    return [
        sys.executable,
        "-m",
        "bertsmith.cli.main",
        "corpus",
        "prepare",
        str(texts),
        "--out",
        str(out),
        *settings,
        *more,
    ]


def test_ranks_of_an_array_make_the_same_store(texts: Path, tmp_path: Path) -> None:
    """Each is a command of its own, as a Slurm array or an indexed Job starts them; one comes late."""
    alone = subprocess.run(
        command(texts, tmp_path / "alone" / "store", "--nproc", "1"), capture_output=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    ranks = []
    for rank in (1, 2, 0):
        environment = os.environ | {"RANK": str(rank), "WORLD_SIZE": "3"}
        ranks.append(subprocess.Popen(command(texts, tmp_path / "array" / "store"), env=environment))
        time.sleep(0.5)
    assert [rank.wait(240) for rank in ranks] == [0, 0, 0]
    assert contents(tmp_path / "array" / "store") == contents(tmp_path / "alone" / "store")


def test_a_job_that_is_killed_five_times_makes_the_same_store(texts: Path, tmp_path: Path) -> None:
    alone = subprocess.run(
        command(texts, tmp_path / "alone" / "store", "--nproc", "1"), capture_output=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    out = tmp_path / "killed" / "store"
    chance = random.Random()
    for turn in range(5):
        began = time.monotonic()
        started = subprocess.Popen(command(texts, out, "--nproc", str(1 + turn % 2)), stderr=subprocess.DEVNULL)
        moment = chance.uniform(0.5, 5)
        while started.poll() is None and time.monotonic() - began < moment:
            time.sleep(0.01)
        started.send_signal(signal.SIGKILL)
        started.wait()
    done = subprocess.run(command(texts, out, "--nproc", "2"), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(tmp_path / "alone" / "store")
    assert [path.name for path in out.parent.iterdir()] == ["store"]


def test_what_a_killed_job_has_done_is_used(
    texts: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    made: list[Path] = []
    write, most = blocks.atomic_write, 4

    def counted(path: Path, data: bytes, *, durable: bool = True) -> None:
        if path.suffix == ".jsonl":
            if len(made) == most:
                raise Killed
            made.append(path)
        write(path, data, durable=durable)

    monkeypatch.setattr(blocks, "atomic_write", counted)
    with pytest.raises(Killed):
        prepare([str(texts)], None, tmp_path / "store", silent, CONFIG, vocab=VOCAB)
    most = 10**6
    said: list[str] = []
    prepare([str(texts)], None, tmp_path / "store", said.append, CONFIG, vocab=VOCAB)
    assert contents(tmp_path / "store") == whole
    assert said[0].startswith("going on with what ")
    assert len(made) == len({path.name for path in made}) > 8, "no block was made twice"


def test_a_job_begins_anew_when_the_machine_was_started_anew(
    texts: Path, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files were left to the system to write, so after a loss of power nobody knows what they hold."""

    def lost(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, "boot", lambda: "before")
    monkeypatch.setattr(preparation, "run", lost)
    with pytest.raises(KeyboardInterrupt):
        prepare([str(texts)], None, tmp_path / "store", silent, CONFIG, vocab=VOCAB)
    monkeypatch.setattr(preparation, "run", run)
    said: dict[str, list[str]] = {"before": [], "after": []}
    for now, lines in said.items():
        monkeypatch.setattr(preparation, "boot", lambda now=now: now)
        prepare([str(texts)], None, tmp_path / "store", lines.append, CONFIG, vocab=VOCAB)
        assert contents(tmp_path / "store") == whole
        if now == "before":
            with pytest.raises(KeyboardInterrupt):
                monkeypatch.setattr(preparation, "run", lost)
                prepare([str(texts)], None, tmp_path / "store", silent, CONFIG, vocab=VOCAB)
            monkeypatch.setattr(preparation, "run", run)
    assert said["before"][0].startswith("going on with what ")
    assert not said["after"][0].startswith("going on with what ")
    assert not list(tmp_path.glob(".store.job-*"))


def test_other_text_or_settings_begin_anew(texts: Path, tmp_path: Path) -> None:
    stale = tmp_path / ".store.job-0123456789abcdef"
    (stale / "blocks").mkdir(parents=True)
    prepare([str(texts)], None, tmp_path / "store", silent, CONFIG, vocab=VOCAB)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.slow
def test_ray_makes_the_same_bytes(
    texts: Path, tmp_path: Path, command_line: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    pytest.importorskip("ray")
    alone = subprocess.run(
        command(texts, tmp_path / "alone" / "store", "--nproc", "1"), capture_output=True, check=False
    )
    assert alone.returncode == 0, alone.stderr
    out = tmp_path / "ray" / "store"
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    words = command(texts, out, "--engine", "ray", "--nproc", "3")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert contents(out) == contents(tmp_path / "alone" / "store")
