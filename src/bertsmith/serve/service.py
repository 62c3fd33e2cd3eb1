"""A service's parts, and the way of a request through them: model, masking, pieces, queue, answer."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest
from pydantic import Field, field_validator

from bertsmith.core.config import Config, Duration
from bertsmith.corpus.privacy import redact
from bertsmith.serve.alerts import Alerts, AlertsConfig
from bertsmith.serve.auth import Keys
from bertsmith.serve.batcher import Answered, BatchConfig, Item, Kind
from bertsmith.serve.fleet import LONG, Fleet, Generation, Served
from bertsmith.serve.journal import Audit, AuditConfig
from bertsmith.serve.limits import LimitsConfig
from bertsmith.serve.masking import Masked, mask, privacy_of
from bertsmith.serve.note import Note
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.supervisor import WatchConfig
from bertsmith.serve.surroundings import Surroundings
from bertsmith.serve.telemetry import Telemetry, confidences
from bertsmith.serve.tracing import traces_asked
from bertsmith.serve.worker import WorkerSpec
from bertsmith.tasks.marked import parse_marks

Payload = str | tuple[str, ...]
Takes = Callable[[Mapping[str, Any]], str]
"""Says of a model's facts what it lacks to answer a request; empty text: nothing."""

WINDOW = 256
"""Items of a stream that are in the queue at once."""
PART = 64
"""Items of a stream that are prepared together."""


class ServeConfig(Config):
    """How bundles are served."""

    batch: BatchConfig = BatchConfig()
    watch: WatchConfig = WatchConfig()
    limits: LimitsConfig = LimitsConfig()
    audit: AuditConfig = AuditConfig()
    alerts: AlertsConfig = AlertsConfig()
    privacy: bool = Field(False, description="mask personal data in all requests before a model sees it")
    cors: tuple[str, ...] = Field((), description="origins whose pages may call the service, such as https://a.example")

    @field_validator("cors")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin):
                raise ValueError(
                    f"{origin!r} is no origin: https://a.example, with no / behind it, as browsers send it"
                )
        return value

    drain_delay: Duration = Field(
        1.0, ge=0, description="after SIGTERM, time for which new requests are still taken, so that balancers notice"
    )
    drain: Duration = Field(30.0, gt=0, description="after that, longest time for the requests under way")


class Service:
    """All parts of a running service.

    Args:
        named: name and bundle of each model.
        config: how they are served.
        keys: file of API keys; None: all may ask.
        worker: device, precision and threads of the workers, as for `WorkerSpec`.

    Raises:
        ConfigError: two models have one name, the file of keys or of the audit cannot be used, or the environment asks
            for traces that cannot be written.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, str]],
        config: ServeConfig | None = None,
        *,
        keys: str | None = None,
        **worker: Any,
    ) -> None:
        self.config = config = config or ServeConfig()
        self.keys = None if keys is None else Keys(Path(keys))
        specs = [(name, WorkerSpec(path, batch_tokens=config.batch.tokens, **worker)) for name, path in named]
        self.fleet = Fleet(specs, config.batch, config.watch)
        self.telemetry = Telemetry(self.fleet.models)
        for model in self.fleet.models.values():
            model.meter = self.telemetry.meter(model.name)
        self.audit = Audit(config.audit)
        self.surroundings = Surroundings(None if config.audit.file is None else Path(config.audit.file).parent)
        self.telemetry.registry.register(self.surroundings)
        self.alerts = Alerts(self.telemetry.registry, config.alerts)
        self.traces = traces_asked()
        self.draining = False

    async def start(self) -> None:
        """Start the workers.

        Raises:
            BundleError: a bundle cannot be served.
            Refusal: a worker died or took too long.
        """
        await self.fleet.start()
        self.alerts.start()

    async def stop(self) -> None:
        """End the workers, when what they were asked is answered."""
        await self.alerts.stop()
        await self.fleet.stop(self.config.drain)
        self.audit.close()
        if self.traces is not None:
            await self.traces.close()

    async def page(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.telemetry.registry)

    async def reload(self, name: str) -> str:
        """Take a bundle as it is now on disk.

        Args:
            name: of a model that is served.

        Returns:
            The version that answers now.

        Raises:
            BundleError: the new bundle cannot be served; the old one goes on.
            Refusal: 503: the new worker failed; the old one goes on.
        """
        return await self.fleet.models[name].reload(drain=self.config.drain)

    def choose(self, note: Note, name: str | None, takes: Takes) -> tuple[Served, Generation]:
        """The model that a request means, and the generation that will answer all of it.

        Args:
            note: of the request.
            name: as asked; None: the first that can answer.
            takes: what a model lacks.

        Raises:
            Refusal: 403, 404, 422 or 503.
        """
        model = self.fleet.find(name, takes, note.caller.key.models if note.caller is not None else ())
        note.model = model.name
        if note.caller is not None:
            note.caller.may_ask(model.name)
        generation = model.current()
        note.version = generation.facts["version"]
        return model, generation

    async def prepare(
        self,
        note: Note,
        generation: Generation,
        payloads: Sequence[Payload],
        *,
        kind: Kind,
        options: Mapping[str, Any],
        privacy: bool | None = None,
        truncate: bool | None = None,
    ) -> tuple[list[Masked], list[Item]]:
        """Mask texts and count their pieces.

        Args:
            note: of the request; takes down the counts.
            generation: whose tokenizer and facts count.
            payloads: texts or pairs.
            kind: what the model is asked.
            options: of the question; those that are None are left out.
            privacy: whether to mask.
            truncate: False refuses texts that are too long.

        Raises:
            Refusal: 413 for too many pieces, or a text that is too long and may not be cut.
        """
        facts = generation.facts
        config = privacy_of(facts, privacy, self.config.privacy)
        characters = sum(len(text) for payload in payloads for text in _texts(payload))
        if config is not None and characters >= LONG:
            masked = await asyncio.to_thread(lambda: [mask(payload, config) for payload in payloads])
        else:
            masked = [mask(payload, config) for payload in payloads]
        self.count_masked(note, masked)
        began = time.perf_counter()
        lengths = await self._lengths(generation, kind, [one.payload for one in masked])
        note.counted += time.perf_counter() - began
        if not facts["windows"]:
            longest = facts["max_length"]
            too_long = [number for number, sequences in enumerate(lengths) if max(sequences) > longest]
            if too_long and truncate is False:
                number = too_long[0]
                raise Refusal(
                    413,
                    f"inputs[{number}] has {max(lengths[number]):,} pieces; the model reads {longest:,}: shorten it, "
                    "or leave truncate out",
                )
            note.truncated += len(too_long)
            if too_long:
                self.telemetry.truncated.labels(note.model).inc(len(too_long))
            lengths = [[min(length, longest) for length in sequences] for sequences in lengths]
        note.items += len(payloads)
        note.characters += characters
        totals = [sum(sequences) for sequences in lengths]
        note.tokens += sum(totals)
        chosen = tuple(sorted((name, value) for name, value in options.items() if value is not None))
        items = [Item(kind, one.payload, length, chosen) for one, length in zip(masked, totals, strict=True)]
        return masked, items

    async def answer(
        self, note: Note, generation: Generation, items: Sequence[Item], gone: asyncio.Task[None], seconds: float | None
    ) -> list[Any]:
        """Have items answered, all or none.

        Args:
            note: of the request; takes down the times.
            generation: that answers.
            items: of one request.
            gone: ends when the client has left.
            seconds: to the deadline.

        Raises:
            Refusal: 413, 422, 429, 499, 500, 503 or 504; names the first item that failed.
        """
        limit = self.config.limits.tokens
        if note.tokens > limit:
            raise Refusal(413, f"the request has {note.tokens:,} pieces; at most {limit:,} are taken at once")
        if not items:
            return []
        if self.traces is not None:
            note.submitted = asyncio.get_running_loop().time()
        waiting = asyncio.gather(*generation.batcher.submit(items, seconds), return_exceptions=True)
        either: set[asyncio.Future[Any]] = {waiting, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise Refusal(499, "the client left before its answer was there")
        finally:
            if not waiting.done():
                waiting.cancel()
        found: list[Answered] = []
        for number, result in enumerate(waiting.result()):
            if isinstance(result, Refusal):
                raise result if len(items) == 1 else named(result, number)
            if isinstance(result, BaseException):
                raise result
            found.append(result)
        if self.traces is not None:
            note.took(found)
        note.queued = max(one.queued for one in found)
        note.computed = max(one.computed for one in found)
        self.count(note, [one.value for one in found])
        return [one.value for one in found]

    def count_masked(self, note: Note, masked: Sequence[Masked]) -> None:
        """Take down what was masked.

        Args:
            note: of the request.
            masked: its texts.
        """
        for one in masked:
            for what, times in one.kinds.items():
                self.telemetry.masked.labels(note.model, what).inc(times)
                note.masked += times

    def count(self, note: Note, values: Sequence[Any]) -> None:
        """Take down answers.

        Args:
            note: of the request.
            values: as the predictor gave them.
        """
        histogram = self.telemetry.confidence.labels(note.model)
        for value in values:
            for share in confidences(value):
                histogram.observe(share)

    async def stream(
        self,
        note: Note,
        generation: Generation,
        payloads: Sequence[Payload],
        seconds: float | None,
        **how: Any,
    ) -> AsyncIterator[tuple[int, Masked, Any]]:
        """Have many items answered, some at a time, in their order.

        A full queue is waited for; an item that fails, fails alone.

        Args:
            note: of the request.
            generation: that answers all of them, also when another has taken over meanwhile.
            payloads: texts or pairs.
            seconds: to the deadline of each item, from when it is queued.
            how: as for `prepare`.

        Yields:
            Number, what the model saw, and the answer or a `Refusal`.
        """
        pending: deque[tuple[int, Masked, asyncio.Future[Answered]]] = deque()
        generation.users += 1
        done, batches = 0, set[tuple[float, float]]()
        prepared: tuple[list[Masked], list[Item]] | None = None
        try:
            while done < len(payloads) or pending:
                while done < len(payloads) and len(pending) < WINDOW:
                    if prepared is None:
                        prepared = await self.prepare(note, generation, payloads[done : done + PART], **how)
                    masked, items = prepared
                    while not generation.batcher.room(items, patient=True):
                        if pending:
                            break
                        await asyncio.sleep(0.02)
                    if not generation.batcher.room(items, patient=True):
                        break
                    futures = generation.batcher.submit(items, seconds, patient=True)
                    pending.extend(zip(range(done, done + len(items)), masked, futures, strict=True))
                    done += len(items)
                    prepared = None
                number, one, future = pending.popleft()
                try:
                    answered = await future
                except Refusal as refusal:
                    yield number, one, refusal
                    continue
                if self.traces is not None:
                    note.took([answered])
                note.queued = max(note.queued, answered.queued)
                if (batch := (answered.ended, answered.computed)) not in batches:
                    batches.add(batch)
                    note.computed += answered.computed
                self.count(note, [answered.value])
                yield number, one, answered.value
        finally:
            generation.users -= 1
            for _, _, future in pending:
                future.cancel()

    async def _lengths(self, generation: Generation, kind: Kind, payloads: Sequence[Payload]) -> list[list[int]]:
        """Pieces of the sequences that each payload is read as: one, or the first text with each of the others."""
        texts = [text for payload in payloads for text in _texts(payload)]
        added = 2
        if kind == "answer" and generation.facts["task"] == "relate":  # reads a sign instead of each tag
            texts, added = [(parse_marks(text) or {"text": text})["text"] for text in texts], 6
        counts = iter(await generation.count(texts))
        lengths = []
        for payload in payloads:
            first, *others = [next(counts) for _ in _texts(payload)]
            lengths.append([first + other + 3 for other in others] or [first + added])
        return lengths


def _texts(payload: Payload) -> tuple[str, ...]:
    return (payload,) if isinstance(payload, str) else payload


def named(refusal: Refusal, number: int) -> Refusal:
    """The same refusal, which also says which of several inputs it is about.

    Args:
        refusal: of one item.
        number: of that item, from 0.
    """
    message = f"inputs[{number}]: {refusal.detail}"
    return Refusal(refusal.status_code, message, headers=refusal.headers, reason=refusal.reason)


def without_personal_data(refusal: Refusal) -> Refusal:
    """The same refusal with personal data in its message masked; a message may quote what was asked.

    Args:
        refusal: any.
    """
    return Refusal(
        refusal.status_code, redact(str(refusal.detail)).text, headers=refusal.headers, reason=refusal.reason
    )
