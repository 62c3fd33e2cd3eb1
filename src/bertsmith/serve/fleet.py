"""The models that are served: each with its worker, its queue and its tokenizer, replaced as one."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bertsmith.core.errors import ConfigError
from bertsmith.serve.batcher import BatchConfig, Batcher, Meter
from bertsmith.serve.drift import Drift
from bertsmith.serve.masking import privacy_of
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.supervisor import WatchConfig, Worker, WorkerLost
from bertsmith.serve.worker import WorkerSpec
from bertsmith.tokenizer.load import Tokenizer

LONG = 20_000
"""Characters from which texts are counted beside the loop, so that others need not wait."""
PROBE_EVERY = 1.0
"""Seconds for which a live answer counts; liveness is open to all, and must not cost more than that."""
ALIVE_SECONDS = 10.0
"""Within which a worker must answer for it to count as alive."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a worker is started again, the first time after it was lost and then each time that it fails."""

log = logging.getLogger("bertsmith.serve")


def named_bundle(text: str) -> tuple[str, str]:
    """A model's name and its folder; without a name, that of the folder or of the run around it.

    Args:
        text: `NAME=BUNDLE` or `BUNDLE`.

    Raises:
        ConfigError: there is a name and no folder.
    """
    name, equals, path = text.partition("=")
    if equals and name and "/" not in name:
        if not path:
            raise ConfigError(f"{text}: give a folder after the =")
        return name, path
    parts = [part for part in Path(text).expanduser().absolute().parts if part != "bundle"]
    return parts[-1], text


@dataclass
class Generation:
    """One worker with what belongs to it. A request keeps to one generation, so its answers are of one version.

    Attributes:
        worker: the process.
        batcher: the queue before it.
        tokenizer: the model's.
        drift: whether its texts still look like those of its training.
        users: streams that still need it.
    """

    worker: Worker
    batcher: Batcher
    tokenizer: Tokenizer
    drift: Drift
    users: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """What the worker said about its model."""
        return self.worker.facts

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """A piece's id."""
        return {piece: number for number, piece in enumerate(self.tokenizer.tokens)}

    async def count(self, texts: Sequence[str]) -> list[int]:
        """How many pieces each text has, [CLS] and [SEP] not among them.

        Args:
            texts: any strings.
        """
        if sum(map(len, texts)) < LONG:
            found = self.tokenizer.encode_ids(texts)
        else:
            found = await asyncio.to_thread(self.tokenizer.encode_ids, texts)
        self.drift.add([ids for ids, _ in found])
        return [len(ids) for ids, _ in found]

    async def drain(self, seconds: float) -> None:
        """Wait until nothing needs it any more, then end its process.

        Args:
            seconds: longest wait.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (self.batcher.busy or self.users) and loop.time() < end and not self.worker.lost.done():
            await asyncio.sleep(0.05)
        self.batcher.close(WorkerLost("was stopped"))
        await self.worker.stop()


@dataclass
class Served:
    """A model by its name: answered by one generation, replaced when its worker is lost or its bundle changes.

    Attributes:
        name: in requests.
        spec: of its workers.
        meter: of its batches.
        generation: the one that answers; None while there is none.
        facts: what the last worker said about the model.
        restarts: workers that were lost and replaced.
        trouble: why there is no worker; empty when there is one.
    """

    name: str
    spec: WorkerSpec
    batch: BatchConfig
    watch: WatchConfig
    meter: Meter | None = None
    generation: Generation | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0
    trouble: str = ""
    reloads: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    _keeper: asyncio.Task[None] | None = None
    _old: set[asyncio.Task[None]] = field(default_factory=set)
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _probe: asyncio.Task[float] | None = None
    _alive_at: float = float("-inf")

    async def start(self) -> None:
        """Start the first worker, and keep one from then on.

        Raises:
            BundleError: the bundle cannot be served.
            WorkerLost: the worker died or took too long.
        """
        self._adopt(await self._generation())
        self._keeper = asyncio.create_task(self._keep())

    def current(self) -> Generation:
        """The generation that answers.

        Raises:
            Refusal: 503 while the worker is being replaced.
        """
        if self.generation is None or self.generation.worker.lost.done():
            why = self.trouble or "is being replaced"
            raise Refusal(
                503, f"{self.name}: the model's worker {why}; try again in a moment", headers={"Retry-After": "2"}
            )
        return self.generation

    async def probe(self) -> float:
        """Have the worker compute an answer, before all that waits; one a second, however many ask.

        Returns:
            Seconds that it took.

        Raises:
            Refusal: 503 when there is no answer.
        """
        now = asyncio.get_running_loop().time()
        if now - self._alive_at < PROBE_EVERY and self._probe is not None:
            return await asyncio.shield(self._probe)
        if self._probe is None or self._probe.done():
            self._alive_at = now
            self._probe = asyncio.create_task(self._ask_probe())
            self._probe.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._probe)

    async def reload(self, path: str | None = None, drain: float = 60.0) -> str:
        """Start a worker on the bundle as it is now; once it has answered, it takes over, and the old one ends.

        Args:
            path: another bundle; None: the same folder.
            drain: longest time for the old one, in seconds.

        Returns:
            The version that answers now.

        Raises:
            BundleError: the new bundle cannot be served; the old one goes on.
            Refusal: 503: the new worker failed; the old one goes on.
        """
        async with self._reloading:
            before = self.spec
            self.spec = before if path is None else replace(before, path=path)
            try:
                fresh = await self._generation()
                await self._canary(fresh)
            except BaseException:
                self.spec = before
                self.reloads["refused"] += 1
                raise
            old = self.generation
            self._adopt(fresh)
            self.trouble = ""
            self.reloads["done"] += 1
            if old is not None:
                self._retire(old, drain)
            self._restart_keeper()
            log.info("model reloaded", extra={"facts": {"model": self.name, "version": fresh.facts["version"]}})
            return str(fresh.facts["version"])

    async def stop(self, seconds: float) -> None:
        """End the worker when its work is done.

        Args:
            seconds: longest wait.
        """
        if self._keeper is not None:
            self._keeper.cancel()
        if self.generation is not None:
            self._retire(self.generation, seconds)
        await asyncio.gather(*self._old, return_exceptions=True)
        self.generation = None

    async def _generation(self) -> Generation:
        worker = await Worker.start(self.spec, self.watch)
        try:
            privacy_of(worker.facts, None, False)
            tokenizer = await asyncio.to_thread(Tokenizer.load, Path(worker.facts["tokenizer"]))
        except BaseException:
            await worker.stop()
            raise
        batcher = Batcher(worker, self.batch, self.meter, self.dropped, worker.facts["speed"])
        drift = Drift(tokenizer.vocab_size, tokenizer.unk_id, worker.facts["inputs_seen"])
        return Generation(worker, batcher, tokenizer, drift)

    def _adopt(self, fresh: Generation) -> None:
        """Let a generation answer from now on."""
        self.generation, self.facts = fresh, fresh.facts

    async def _canary(self, fresh: Generation) -> None:
        """Ask what the old one is asked; a model of another kind does not take over."""
        reply = await fresh.worker.ask(fresh.facts["probes"])
        failed = next((value for state, value in reply.outcomes if state != "ok"), None)
        if failed is None and self.facts["task"] != fresh.facts["task"]:
            failed = f"it is a model for {fresh.facts['task']}, not for {self.facts['task']}"
        if failed is not None:
            await fresh.worker.stop()
            raise Refusal(503, f"{self.name}: the new bundle was not taken: {failed}; the old one goes on")

    async def _ask_probe(self) -> float:
        worker = self.current().worker
        reply = await worker.ask(worker.facts["probes"][:1])
        if reply.outcomes[0][0] != "ok":
            raise Refusal(503, f"{self.name}: the model cannot answer")
        return reply.seconds

    def _retire(self, old: Generation, seconds: float) -> None:
        task = asyncio.create_task(old.drain(seconds))
        self._old.add(task)
        task.add_done_callback(self._old.discard)

    def _restart_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Replace the worker each time that it is lost."""
        while self.generation is not None:
            lost = self.generation
            self.trouble = await asyncio.shield(lost.worker.lost)
            log.error("worker lost", extra={"facts": {"model": self.name, "why": self.trouble}})
            lost.batcher.close(WorkerLost(self.trouble))
            await lost.worker.stop()
            self.restarts += 1
            failures = 0
            while True:
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                try:
                    fresh = await self._generation()
                    await self._canary(fresh)
                    self._adopt(fresh)
                    break
                except Exception as error:  # whatever it was, somebody must try again
                    failures += 1
                    self.trouble = "could not be replaced, the log says why"
                    log.error("worker not replaced", extra={"facts": {"model": self.name, "why": str(error)}})
            self.trouble = ""
            log.warning("worker replaced", extra={"facts": {"model": self.name, "restarts": self.restarts}})


class Fleet:
    """The served models by name, in the order in which they were given.

    Args:
        named: name and worker of each.
        batch: of all queues.
        watch: of all workers.

    Raises:
        ConfigError: two have the same name, or there is none.
    """

    def __init__(self, named: Sequence[tuple[str, WorkerSpec]], batch: BatchConfig, watch: WatchConfig) -> None:
        if not named:
            raise ConfigError("no bundle to serve; give the folder of one")
        self.models: dict[str, Served] = {}
        for name, spec in named:
            if name in self.models:
                raise ConfigError(f"two models are called {name!r}; name them, such as first={spec.path}")
            self.models[name] = Served(name, spec, batch, watch)

    async def start(self) -> None:
        """Start all workers, one after another.

        Raises:
            BundleError: a bundle cannot be served.
            WorkerLost: a worker died or took too long.
        """
        for model in self.models.values():
            await model.start()

    async def stop(self, seconds: float) -> None:
        """End all workers when their work is done.

        Args:
            seconds: longest wait.
        """
        await asyncio.gather(*(model.stop(seconds) for model in self.models.values()))

    def overloaded(self) -> Refusal | None:
        """The answer to any question now, where all models have more to do than they may; else None."""
        batchers = [model.generation.batcher for model in self.models.values() if model.generation is not None]
        if not batchers or not all(batcher.late for batcher in batchers):
            return None
        refusals = [batcher.refuse() for batcher in batchers]
        return refusals[0]

    async def probe(self) -> dict[str, float]:
        """Have every worker compute an answer.

        Returns:
            Seconds that each model took.

        Raises:
            Refusal: 503 when one gives no answer in time.
        """
        try:
            async with asyncio.timeout(ALIVE_SECONDS):
                times = await asyncio.gather(*(model.probe() for model in self.models.values()))
        except TimeoutError:
            raise Refusal(503, f"a model did not answer within {ALIVE_SECONDS:g} s") from None
        return dict(zip(self.models, times, strict=True))

    def find(self, name: str | None, takes: Any, allowed: Collection[str] = ()) -> Served:
        """The model that a request means.

        Args:
            name: as in the request; None: the first that can answer.
            takes: says of a model's facts what it lacks to answer; empty text: it can.
            allowed: names among which is chosen where none is asked for; empty: all.

        Raises:
            Refusal: 404 for a name that is not served, 422 when the model, or none of them, can answer this.
        """
        if name is not None and name not in self.models:
            raise Refusal(404, f"there is no model of that name; the models here are {', '.join(self.models)}")
        open_to = [model for model in self.models.values() if not allowed or model.name in allowed]
        models = (open_to or list(self.models.values())) if name is None else [self.models[name]]
        lacking = [takes(model.facts) for model in models]
        if "" not in lacking:
            raise Refusal(
                422, f"{models[0].name}: {lacking[0]}" if len(models) == 1 else f"no model here: {lacking[0]}"
            )
        return models[lacking.index("")]
