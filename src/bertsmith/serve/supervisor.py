"""The front's side of a worker process: starting it, asking it, noticing that it is dead or hung."""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import pickle
import socket
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any, Self
from weakref import WeakSet

from pydantic import Field

from bertsmith.core.config import Config, Duration
from bertsmith.core.errors import BundleError
from bertsmith.serve.batcher import Item, Reply
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.worker import HEAD, WorkerSpec, work

LOOK = 0.2
"""Seconds between looks at a worker's signs of life."""


class WatchConfig(Config):
    """When a worker counts as hung, and is replaced."""

    silence: Duration = Field(10.0, gt=0, description="longest time without a sign of life from a worker's process")
    batch: Duration = Field(30.0, gt=0, description="longest time for one batch")
    start: Duration = Field(120.0, gt=0, description="longest time for a worker to load its model and to answer once")


STARTED: WeakSet[BaseProcess] = WeakSet()
"""Processes that this one has started and that may be alive."""


@atexit.register
def _end_all() -> None:
    """Before multiprocessing waits for its children, which do not heed SIGTERM."""
    for process in STARTED:
        if process.is_alive():
            process.kill()


class WorkerLost(Refusal):
    """The worker is gone; what it was asked is not answered."""

    def __init__(self, why: str) -> None:
        super().__init__(503, f"the model's worker {why}; try again in a moment", headers={"Retry-After": "1"})
        self.why = why


def _context() -> Any:
    """Workers are forked from a process that has imported all they need, so a new one is there in a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bertsmith.serve.worker"])
    return context


class Worker:
    """A worker process, ready to be asked. Made by `Worker.start`.

    Attributes:
        facts: what it said about its model.
        lost: done when the process is gone, with the reason.
    """

    def __init__(self, process: BaseProcess, watch: WatchConfig) -> None:
        self.facts: dict[str, Any] = {}
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process, self._watch = process, watch
        self._pending: dict[int, asyncio.Future[Reply]] = {}
        self._number = 0
        self._why = "ended by itself"
        self._seen = self._began = asyncio.get_running_loop().time()
        self._tasks: list[asyncio.Task[None]] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def start(cls, spec: WorkerSpec, watch: WatchConfig) -> Self:
        """Start a worker and wait until it has answered once.

        Args:
            spec: what it is to be.
            watch: how long that may take, and when it counts as hung.

        Raises:
            BundleError: it says that the bundle cannot be served.
            WorkerLost: it died or took too long.
        """
        mine, its = socket.socketpair()
        mine.setblocking(False)
        process = _context().Process(target=work, args=(its, spec), daemon=True, name=f"worker {spec.path}")
        try:
            await asyncio.to_thread(process.start)
        except BaseException:
            mine.close()
            raise
        finally:
            its.close()
        worker = cls(process, watch)
        STARTED.add(process)
        worker._reader, worker._writer = await asyncio.open_connection(sock=mine)
        try:
            async with asyncio.timeout(watch.start):
                message = await worker._receive()
                while message is not None and message[0] == "alive":
                    message = await worker._receive()
            if message is None:
                raise WorkerLost("died while it started")
            if message[0] == "refused":
                raise BundleError(message[1])
        except BaseException as error:
            worker.kill("did not start")
            worker._writer.close()
            if isinstance(error, TimeoutError):
                raise WorkerLost("did not start in time") from None
            raise
        worker.facts = message[1]
        worker._seen = asyncio.get_running_loop().time()
        worker._tasks = [asyncio.create_task(worker._listen()), asyncio.create_task(worker._look())]
        return worker

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    async def ask(self, items: Sequence[Item]) -> Reply:
        """Compute a batch.

        Args:
            items: of any kinds.

        Raises:
            WorkerLost: the process died or hung over it.
        """
        if self.lost.done():
            raise WorkerLost(self._why)
        loop = asyncio.get_running_loop()
        if not self._pending:
            self._began = loop.time()
        self._number += 1
        reply: asyncio.Future[Reply] = loop.create_future()
        self._pending[self._number] = reply
        data = pickle.dumps((self._number, list(items)), pickle.HIGHEST_PROTOCOL)
        self._writer.write(HEAD.pack(len(data)) + data)
        return await reply

    def kill(self, why: str) -> None:
        """End the process at once.

        Args:
            why: as told to those who wait for it: `the model's worker … `.
        """
        self._why = why
        if self._process.is_alive():
            self._process.kill()

    async def stop(self) -> None:
        """End the process; what it was asked is not waited for."""
        for task in self._tasks:
            task.cancel()
        self._why = "was stopped"
        self._lose()
        self._writer.close()
        await asyncio.to_thread(self._process.join, 2.0)
        self.kill("was stopped")

    async def _receive(self) -> Any:
        try:
            (size,) = HEAD.unpack(await self._reader.readexactly(HEAD.size))
            return pickle.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError, OSError):
            return None

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while (message := await self._receive()) is not None:
            self._seen = loop.time()
            if message[0] == "done":
                _, number, seconds, outcomes = message
                self._began = loop.time()
                reply = self._pending.pop(number)
                if not reply.done():
                    reply.set_result(Reply(outcomes, seconds))
        self._lose()

    async def _look(self) -> None:
        """Kill the process when it is silent or its batch takes too long; `_listen` then sees its end."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(LOOK)
            now = loop.time()
            if now - last > 5 * LOOK:  # this process itself was stopped or starved: nobody else is to blame
                self._seen = self._began = now
            last = now
            if now - self._seen > self._watch.silence:
                self.kill("gave no sign of life and was replaced")
            elif self._pending and now - self._began > self._watch.batch:
                self.kill("took too long over a batch and was replaced")
            else:
                continue
            self._lose()
            return

    def _lose(self) -> None:
        if not self.lost.done():
            self.lost.set_result(self._why)
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(WorkerLost(self._why))
                reply.exception()
        self._pending.clear()
