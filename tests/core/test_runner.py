"""Ranks: steps in order, each rank once, whoever starts them; what was done is not done again; a dead rank is named."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.runner import Crew, Step, crew, is_done, run

STEPS = '''
"""Steps that a process which was started afresh can import."""
import os
from pathlib import Path

from bertsmith.core.errors import DataError


def count(job: Path, rank: int, ranks: int) -> None:
    (job / f"count-{rank}").write_text(str(sum(range(rank, 100, ranks))))


def add(job: Path, rank: int, ranks: int) -> None:
    parts = sorted(job.glob("count-*"))
    (job / "sum").write_text(f"{len(parts)} {sum(int(part.read_text()) for part in parts)}")


def again(job: Path, rank: int, ranks: int) -> None:
    with (job / f"again-{rank}").open("a") as file:
        file.write(f"{(job / 'sum').read_text()};")


def die(job: Path, rank: int, ranks: int) -> None:
    if rank == 1 and not (job / "mended").exists():
        os._exit(9)
    count(job, rank, ranks)


def refuse(job: Path, rank: int, ranks: int) -> None:
    if rank == 1:
        raise DataError("a.txt:3: cannot be read; mend it")


def stumble(job: Path, rank: int, ranks: int) -> None:
    raise KeyError("no such thing")
'''


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "steps_of_a_test.py").write_text(STEPS)
    monkeypatch.syspath_prepend(folder)
    return import_module("steps_of_a_test")


def job_steps(steps: ModuleType) -> list[Step]:
    return [Step("count", steps.count), Step("add", steps.add, alone=True), Step("again", steps.again)]


def silent(line: str) -> None:
    pass


@pytest.mark.parametrize("ranks", [1, 3])
def test_each_step_waits_for_all_ranks_of_the_one_before(tmp_path: Path, steps: ModuleType, ranks: int) -> None:
    job = tmp_path / "job"
    run(job_steps(steps), job, Crew(ranks), silent)
    assert (job / "sum").read_text() == f"{ranks} 4950"
    assert [(job / f"again-{rank}").read_text() for rank in range(ranks)] == [f"{ranks} 4950;"] * ranks
    assert is_done(job, "again")
    run(job_steps(steps), job, Crew(ranks), silent)
    assert (job / "again-0").read_text() == f"{ranks} 4950;", "what is done is not done again"


def test_ranks_that_somebody_else_starts_meet_in_the_folder(tmp_path: Path, steps: ModuleType) -> None:
    job = tmp_path / "job"
    threads = [
        threading.Thread(target=run, args=(job_steps(steps), job, Crew(3, rank=rank), silent)) for rank in (2, 0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (job / "sum").read_text() == "3 4950"
    assert [(job / f"again-{rank}").read_text() for rank in range(3)] == ["3 4950;"] * 3


def test_who_waits_for_a_rank_that_failed_hears_of_it(tmp_path: Path, steps: ModuleType) -> None:
    job = tmp_path / "job"
    with pytest.raises(DataError, match="a.txt:3"):
        run([Step("refuse", steps.refuse)], job, Crew(2, rank=1), silent)
    with pytest.raises(ConfigError, match=r"rank 1 failed in the step refuse: DataError: a.txt:3"):
        run([Step("refuse", steps.refuse)], job, Crew(2, rank=0), silent)
    # Started again, the rank that failed is given another chance.
    threads = [
        threading.Thread(target=run, args=([Step("refuse", steps.count)], job, Crew(2, rank=rank), silent))
        for rank in (1, 0)
    ]
    for thread in threads:
        thread.start()
        thread.join(0.3)
    for thread in threads:
        thread.join(60)
    assert is_done(job, "refuse")


def test_a_process_that_dies_is_named_and_the_rest_is_kept(tmp_path: Path, steps: ModuleType) -> None:
    job = tmp_path / "job"
    with pytest.raises(ConfigError, match=r"rank 1 of 3 died in the step die \(exit code 9\)"):
        run([Step("die", steps.die)], job, Crew(3), silent)
    assert not is_done(job, "die")
    (job / "mended").touch()
    run([Step("die", steps.die), Step("add", steps.add, alone=True)], job, Crew(3), silent)
    assert (job / "sum").read_text() == "3 4950"


def test_an_error_comes_back_from_a_process(tmp_path: Path, steps: ModuleType) -> None:
    with pytest.raises(DataError, match="a.txt:3: cannot be read; mend it"):
        run([Step("refuse", steps.refuse)], tmp_path / "one", Crew(2), silent)
    with pytest.raises(RuntimeError, match="rank [01]: KeyError: 'no such thing'"):
        run([Step("stumble", steps.stumble)], tmp_path / "two", Crew(2), silent)


def test_one_job_at_a_time_works_in_a_folder(tmp_path: Path, steps: ModuleType) -> None:
    job = tmp_path / "job"

    def second(line: object, rank: int, ranks: int) -> None:
        with pytest.raises(ConfigError, match="already working in this folder"):
            run([], job, Crew(), silent)

    run([Step("second", second)], job, Crew(), silent)
    assert is_done(job, "second")


def test_the_environment_says_which_rank_this_is() -> None:
    assert crew(None, "local", 2, {}) == Crew(2)
    assert crew(5, "local", 2, {}) == Crew(5)
    assert crew(None, "local", 2, {"RANK": "3", "WORLD_SIZE": "4"}) == Crew(4, rank=3)
    assert crew(7, "ray", 2, {}) == Crew(7, "ray")
    for environment in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "0"}, {"WORLD_SIZE": "two", "RANK": "0"}):
        with pytest.raises(ConfigError, match="RANK is from 0 to one less"):
            crew(None, "local", 2, environment)
    with pytest.raises(ConfigError, match="leave --engine and --nproc out"):
        crew(3, "local", 2, {"RANK": "0", "WORLD_SIZE": "4"})
    with pytest.raises(ConfigError, match="the engines are local and ray"):
        crew(None, "spark", 2, {})
    with pytest.raises(ConfigError, match="--nproc 0"):
        crew(0, "local", 2, {})


def test_a_ray_address_that_does_not_answer_is_refused_at_once(
    tmp_path: Path, steps: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="RAY_ADDRESS=127.0.0.1:1 does not answer"):
        run(job_steps(steps), tmp_path / "job", Crew(2, "ray"), silent)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(ConfigError, match="write it like"):
        run(job_steps(steps), tmp_path / "job", Crew(2, "ray"), silent)
