"""Starting the ranks of a run on this machine, and watching over them: what `torchrun --standalone` does, and no more.

Ctrl-C reaches every process of a terminal by itself, so here it is only waited for; SIGTERM is passed on. Each rank
thus gets one signal, saves at the end of its step and ends with 130.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from bertsmith.core.errors import ConfigError
from bertsmith.train.run import handled

GRACE = 10.0
"""Seconds that the other ranks get to end by themselves when one has failed."""
SAVING = 60.0
"""The same when one was stopped: the first rank may still be saving."""
PAUSE = 0.1


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run `bertsmith ARGUMENTS` as so many ranks.

    Args:
        count: processes, 2 or more.
        arguments: the command's own, as they were typed but for the number of processes.

    Returns:
        0 when all ranks ended well, 130 when they were stopped, else the first bad exit code.

    Raises:
        ConfigError: a rank was killed; names it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    command = [sys.executable, "-m", "bertsmith.cli.main", *arguments]
    processes = [
        subprocess.Popen(command, env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]

    def pass_on(number: int, frame: object) -> None:
        if number == signal.SIGTERM:
            for process in processes:
                process.send_signal(signal.SIGTERM)

    with handled(pass_on, signal.SIGINT, signal.SIGTERM):
        return _watch(processes)


def _watch(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    until: float | None = None
    first: tuple[int, int] | None = None
    while any(process.poll() is None for process in processes):
        bad = [(rank, code) for rank, process in enumerate(processes) if (code := process.poll())]
        if bad and first is None:
            first, until = bad[0], time.monotonic() + (SAVING if bad[0][1] == 130 else GRACE)
        if until is not None and time.monotonic() > until:
            for process in processes:
                process.kill()
        time.sleep(PAUSE)
    first = first or next(((rank, p.returncode) for rank, p in enumerate(processes) if p.returncode), None)
    if first is None:
        return 0
    rank, code = first
    if code < 0:
        raise ConfigError(
            f"rank {rank} was killed by signal {-code} ({signal.Signals(-code).name}); go on with --resume"
        )
    return code
