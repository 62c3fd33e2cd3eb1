"""Jobs shared out to ranks: steps that are pure functions of a folder, a rank and the number of ranks.

A step begins when all ranks have done the one before it; empty files in the job's folder note that, so a job that was
killed goes on where it stopped, and the ranks need nothing in common but a file system. They are processes of this
machine (one, or a pool), tasks of a Ray cluster, or processes that somebody else starts, each with RANK and WORLD_SIZE
in its environment: a Slurm array, an indexed Job of Kubernetes.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, NamedTuple

from bertsmith.core.device import usable_cores
from bertsmith.core.errors import BertsmithError, ConfigError
from bertsmith.core.extras import require
from bertsmith.core.files import disk_errors
from bertsmith.core.lock import run_lock

Engine = Literal["local", "ray"]
Work = Callable[[Path, int, int], None]
Say = Callable[[str], None]

DONE = "done"
POLL = 0.2
PATIENCE = 60.0
"""Seconds after which a rank that waits for others says so."""
FAREWELL = 2.0
"""Seconds that the processes of a pool get to end by themselves."""
ANSWER = 10.0
"""Seconds that a Ray address gets to answer."""


class Step(NamedTuple):
    """A part of a job.

    Attributes:
        name: of the step; letters and hyphens.
        work: called with the job's folder, the rank and the number of ranks; a function of a module, for it is sent to
            other processes. It may be called again after it was killed, and must then end with the same files.
        alone: whether one rank does it while the others wait.
    """

    name: str
    work: Work
    alone: bool = False


@dataclass(frozen=True)
class Crew:
    """Who works on a job.

    Attributes:
        ranks: how many share it.
        engine: what starts them.
        rank: which of them this process is; None when this process starts them all.
    """

    ranks: int = 1
    engine: Engine = "local"
    rank: int | None = None


def crew(ranks: int | None, engine: str, default: int, environment: Mapping[str, str] | None = None) -> Crew:
    """Who works on a job: what was asked for, or what RANK and WORLD_SIZE in the environment say.

    Args:
        ranks: asked for; None: not.
        engine: `local` or `ray`.
        default: ranks of this machine, when nothing else is said.
        environment: other than this process's.

    Raises:
        ConfigError: an unknown engine, no number of ranks, or contradicting ones.
    """
    if engine not in ("local", "ray"):
        raise ConfigError(f"--engine {engine}: the engines are local and ray")
    if ranks is not None and ranks < 1:
        raise ConfigError(f"--nproc {ranks}: must be 1 or more")
    environment = os.environ if environment is None else environment
    rank, size = environment.get("RANK", ""), environment.get("WORLD_SIZE", "")
    if not rank and not size:
        return Crew(ranks or (0 if engine == "ray" else default), "ray" if engine == "ray" else "local")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ConfigError(
            f"RANK={rank} and WORLD_SIZE={size}: in the environment, WORLD_SIZE is the number of ranks and RANK is "
            "from 0 to one less; set both, or neither"
        )
    if engine == "ray" or ranks is not None:
        raise ConfigError("RANK and WORLD_SIZE are set, so this is one rank of several; leave --engine and --nproc out")
    return Crew(int(size), "local", int(rank))


def run(steps: Sequence[Step], job: Path, crew: Crew, say: Say, watch: Callable[[str], str] | None = None) -> None:
    """Do the steps of a job that are not done yet.

    Args:
        steps: in order.
        job: the folder, on a file system that all ranks see; what the steps need to know lies in it.
        crew: who works on it.
        say: takes lines for the user.
        watch: called now and then with the name of the step in progress; says how far it is, or nothing.

    Raises:
        BertsmithError: what a step raised, or what became of a rank.
    """
    with disk_errors(job):
        (job / DONE).mkdir(parents=True, exist_ok=True)
    if crew.rank is not None:
        with run_lock(job / "ranks" / f"{crew.rank}-of-{crew.ranks}"):
            for step in steps:
                _take_part(step, job, crew.rank, crew.ranks, say)
        return
    with run_lock(job):
        if crew.engine == "ray":
            _on_ray(steps, job, crew.ranks, say)
        elif crew.ranks == 1:
            for step in steps:
                if not is_done(job, step.name):
                    step.work(job, 0, 1)
                    _note(job, step.name)
        else:
            _in_pool(steps, job, crew.ranks, say, watch)


def boot() -> str:
    """Which start of this machine it is; empty where the system does not say."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else ""


def is_done(job: Path, step: str) -> bool:
    """Whether all ranks have done a step.

    Args:
        job: the folder.
        step: its name.
    """
    return (job / DONE / step).exists()


def _note(job: Path, name: str) -> None:
    with disk_errors(job):
        (job / DONE / name).touch()


def _take_part(step: Step, job: Path, rank: int, ranks: int, say: Say) -> None:
    """Do this rank's share of a step, and wait for the others."""
    if is_done(job, step.name):
        return
    ours = [f"{step.name}.{one}-of-{ranks}" for one in range(1 if step.alone else ranks)]
    failed = job / DONE / f"{step.name}.{rank}-of-{ranks}.failed"
    failed.unlink(missing_ok=True)
    if rank < len(ours) and not (job / DONE / ours[rank]).exists():
        try:
            step.work(job, rank, ranks)
        except BaseException as error:
            with suppress(OSError):
                failed.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
            raise
        _note(job, ours[rank])
    began = said = time.monotonic()
    while not is_done(job, step.name):
        missing = [name for name in ours if not (job / DONE / name).exists()]
        if not missing:
            _note(job, step.name)
            return
        for other in missing:
            if (trouble := job / DONE / f"{other}.failed").exists():
                text = trouble.read_text(encoding="utf-8")
                raise ConfigError(f"rank {_rank_of(other)} failed in the step {step.name}: {text}; start it again")
        if time.monotonic() - said > PATIENCE:
            said = time.monotonic()
            waiting = ", ".join(map(_rank_of, missing[:10]))
            say(f"{step.name}: rank {rank} has waited {said - began:.0f} s for rank {waiting} of {ranks}")
        time.sleep(POLL)


def _rank_of(marker: str) -> str:
    return marker.rpartition(".")[2].partition("-")[0]


def _todo(step: Step, job: Path, ranks: int) -> list[int]:
    """The ranks that have something to do in a step."""
    if is_done(job, step.name):
        return []
    all_ranks = range(1 if step.alone else ranks)
    return [rank for rank in all_ranks if not (job / DONE / f"{step.name}.{rank}-of-{ranks}").exists()]


def _in_pool(steps: Sequence[Step], job: Path, ranks: int, say: Say, watch: Callable[[str], str] | None) -> None:
    """A process a rank, for all steps; ended when this process ends, however it ends."""
    context = get_context("spawn")
    pool: list[tuple[BaseProcess, Connection]] = []
    try:
        for step in steps:
            todo = _todo(step, job, ranks)
            if step.alone and todo:
                step.work(job, 0, ranks)
                todo = []
            while todo and len(pool) < ranks:
                mine, theirs = context.Pipe()
                process: BaseProcess = context.Process(
                    target=_serve, args=(theirs, max(1, usable_cores() // ranks)), daemon=True
                )
                process.start()
                theirs.close()
                pool.append((process, mine))
            for rank in todo:
                pool[rank][1].send((step.work, job, rank, ranks))
            _gather(step.name, job, ranks, {pool[rank][1]: (rank, pool[rank][0]) for rank in todo}, say, watch)
            _note(job, step.name)
    finally:
        for _, pipe in pool:
            pipe.close()
        until = time.monotonic() + FAREWELL
        for process, _ in pool:
            # One that waits for work ends by itself, and gives back what its libraries took.
            process.join(max(0.0, until - time.monotonic()))
            process.terminate()
            process.join()


def _gather(
    step: str,
    job: Path,
    ranks: int,
    busy: dict[Connection, tuple[int, BaseProcess]],
    say: Say,
    watch: Callable[[str], str] | None,
) -> None:
    said = time.monotonic()
    while busy:
        for pipe in wait(list(busy), 1.0):
            assert isinstance(pipe, Connection)
            rank, process = busy.pop(pipe)
            try:
                trouble = pipe.recv()
            except (EOFError, OSError):
                process.join(5)
                raise ConfigError(
                    f"rank {rank} of {ranks} died in the step {step} (exit code {process.exitcode}), perhaps for want "
                    "of memory; run the same command again to go on, with a smaller --nproc if it was memory"
                ) from None
            if trouble is not None:
                raise trouble
            _note(job, f"{step}.{rank}-of-{ranks}")
        if watch and time.monotonic() - said > 10:
            said = time.monotonic()
            if line := watch(step):
                say(line)


def _serve(pipe: Connection, threads: int) -> None:
    """A rank of a pool: does what it is sent until the other end is closed."""
    # Ctrl-C in a terminal reaches every process; the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries with threads of their own read these when they are imported, which is with the first step.
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            work, job, rank, ranks = pipe.recv()
        except EOFError:
            return
        try:
            work(job, rank, ranks)
        except BertsmithError as error:
            _tell(pipe, error)
        except BaseException as error:
            _tell(pipe, RuntimeError(f"rank {rank}: {type(error).__name__}: {error}"))
            raise
        else:
            _tell(pipe, None)


def _tell(pipe: Connection, trouble: Exception | None) -> None:
    """What became of the work; where another rank failed in the meantime, nobody listens any more."""
    with suppress(OSError):
        pipe.send(trouble)


def _end_with_parent() -> None:
    """A killed parent closes no pipe while its child computes; two jobs at once must not write the same folder."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _on_ray(steps: Sequence[Step], job: Path, ranks: int, say: Say) -> None:
    """The same ranks as tasks of a Ray cluster: the one of RAY_ADDRESS, or one that is started here."""
    ray = require("ray", "--engine ray")
    address = os.environ.get("RAY_ADDRESS") or None
    if address and address not in ("auto", "local"):
        _must_answer(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"Ray at {address or 'this machine'} does not start or answer ({error}); set RAY_ADDRESS to a cluster that "
            "runs, or leave --engine out"
        ) from error
    try:
        ranks = ranks or max(1, int(ray.cluster_resources().get("CPU", 1)))
        say(f"Ray at {address or 'this machine'}: {ranks} ranks")
        remote = ray.remote(max_retries=3)(_ray_task)
        for step in steps:
            todo = _todo(step, job, ranks)
            tasks = {remote.remote(step.work, str(job.absolute()), str(Path.cwd()), rank, ranks): rank for rank in todo}
            pending = list(tasks)
            while pending:
                ready, pending = ray.wait(pending)
                trouble = ray.get(ready[0])
                if trouble is not None:
                    raise trouble
                _note(job, f"{step.name}.{tasks[ready[0]]}-of-{ranks}")
            _note(job, step.name)
    except ray.exceptions.RayError as error:
        raise ConfigError(f"Ray: {error}; run the same command again to go on") from error
    finally:
        ray.shutdown()


def _ray_task(work: Work, job: str, folder: str, rank: int, ranks: int) -> BertsmithError | None:
    """A step on a machine of the cluster; the error comes back as a value, for Ray would wrap it."""
    if not Path(job).is_dir():
        return ConfigError(f"{job}: a machine of the Ray cluster does not see this folder; put --out on a shared disk")
    # Paths that were typed are relative to where they were typed.
    os.chdir(folder if Path(folder).is_dir() else job)
    try:
        work(Path(job), rank, ranks)
    except BertsmithError as error:
        return error
    return None


def _must_answer(address: str) -> None:
    """Refuse an address at which nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER):
            return
    except ValueError:
        raise ConfigError(f"RAY_ADDRESS={address}: write it like 10.0.0.1:6379 or ray://10.0.0.1:10001") from None
    except OSError as error:
        raise ConfigError(
            f"RAY_ADDRESS={address} does not answer ({error}); start the cluster, correct the address, "
            "or leave --engine out"
        ) from error
