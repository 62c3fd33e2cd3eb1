"""Figures for Prometheus, named by its conventions; labels only ever hold names that the service itself gave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from bertsmith.serve.auth import QUESTIONS
from bertsmith.serve.fleet import Served

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PIECES = (8, 32, 128, 512, 1024, 2048, 4096, 8192, 16384, 65536)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
OTHER = "other"
OURS = ("failed", "unavailable", "deadline_passed", "overloaded")
"""Reasons for which the service is to blame, not the client: what alert rules count against its error budget."""

disable_created_metrics()  # when a counter began is of no use here, and doubles the page


class Telemetry:
    """All figures of a service.

    Args:
        models: by name; their state is read when somebody asks.
    """

    def __init__(self, models: Mapping[str, Served]) -> None:
        self.registry = registry = CollectorRegistry()
        self._models = models
        self.requests = Counter(
            "bertsmith_requests_total",
            "Requests by route, model and status.",
            ["route", "model", "status"],
            registry=registry,
        )
        self.duration = Histogram(
            "bertsmith_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.errors = Counter(
            "bertsmith_errors_total",
            "Requests that were not answered, by reason.",
            ["route", "reason"],
            registry=registry,
        )
        for route in QUESTIONS:
            for reason in OURS:  # a counter that only appears with its first error hides that one from rate()
                self.errors.labels(route, reason)
        self.in_progress = Gauge("bertsmith_requests_in_progress", "Requests being answered.", registry=registry)
        self.queue_time = Histogram(
            "bertsmith_queue_time_seconds",
            "Time that an item waited for its batch.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.compute_time = Histogram(
            "bertsmith_compute_time_seconds",
            "Time that a batch was computed in.",
            ["model"],
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_tokens = Histogram(
            "bertsmith_batch_tokens", "Pieces in a batch.", ["model"], buckets=PIECES, registry=registry
        )
        self.batch_items = Histogram(
            "bertsmith_batch_items",
            "Items in a batch.",
            ["model"],
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
            registry=registry,
        )
        self.tokens = Counter("bertsmith_tokens_total", "Pieces that were asked about.", ["model"], registry=registry)
        self.truncated = Counter(
            "bertsmith_truncated_items_total", "Items of which the end was cut off.", ["model"], registry=registry
        )
        self.confidence = Histogram(
            "bertsmith_prediction_confidence",
            "Probability of the answer that was given.",
            ["model"],
            buckets=SHARES,
            registry=registry,
        )
        self.masked = Counter(
            "bertsmith_masked_findings_total",
            "Personal data that was masked before the model, by kind.",
            ["model", "kind"],
            registry=registry,
        )
        registry.register(_States(models))
        ProcessCollector(namespace="", registry=registry)

    def meter(self, model: str) -> Meter:
        """What takes down the batches of a model.

        Args:
            model: its name.
        """
        return Meter(self, model)

    def finished(self, route: str, model: str, status: int, reason: str | None, seconds: float) -> None:
        """Take down a request.

        Args:
            route: as it is declared; anything else counts as `other`.
            model: its name, or empty.
            status: of the answer.
            reason: why there was no answer; None: there was.
            seconds: that it took.
        """
        name = model if model in self._models else OTHER if model else ""
        self.requests.labels(route, name, str(status)).inc()
        self.duration.labels(route).observe(seconds)
        if reason is not None:
            self.errors.labels(route, reason).inc()


class Meter:
    """Figures of one model's batches.

    Args:
        telemetry: where they go.
        model: its name.
    """

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        self._queue = telemetry.queue_time.labels(model)
        self._compute = telemetry.compute_time.labels(model)
        self._tokens = telemetry.batch_tokens.labels(model)
        self._items = telemetry.batch_items.labels(model)

    def batch(self, tokens: int, queued: Sequence[float], seconds: float) -> None:
        """Take down one batch.

        Args:
            tokens: pieces in it.
            queued: seconds that each item waited.
            seconds: that it took to compute.
        """
        for wait in queued:
            self._queue.observe(max(0.0, wait))
        self._compute.observe(seconds)
        self._tokens.observe(tokens)
        self._items.observe(len(queued))


class _States:
    """What models are like at the moment of asking."""

    def __init__(self, models: Mapping[str, Served]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """The families, as prometheus_client wants them."""
        up = GaugeMetricFamily("bertsmith_worker_up", "Whether a model's worker can be asked.", labels=["model"])
        waiting = GaugeMetricFamily("bertsmith_queue_items", "Items that wait.", labels=["model"])
        limit = GaugeMetricFamily("bertsmith_queue_limit_items", "Items that may wait.", labels=["model"])
        restarts = CounterMetricFamily("bertsmith_worker_restarts", "Workers that were replaced.", labels=["model"])
        dropped = CounterMetricFamily(
            "bertsmith_dropped_items", "Items that were not computed, by reason.", labels=["model", "reason"]
        )
        reloads = CounterMetricFamily("bertsmith_reloads", "Reloads of a bundle.", labels=["model", "result"])
        info = GaugeMetricFamily(
            "bertsmith_model_info", "1, and what the model is.", labels=["model", "version", "task", "precision"]
        )
        drift = GaugeMetricFamily(
            "bertsmith_input_drift",
            "How far the last texts are from those of the training, by lengths, by pieces, by unknown pieces.",
            labels=["model", "statistic"],
        )
        unknown = GaugeMetricFamily(
            "bertsmith_input_unknown_share", "Share of unknown pieces in the last texts.", labels=["model"]
        )
        for name, model in self._models.items():
            generation = model.generation
            figures = generation.drift.figures() if generation is not None else {}
            if "unknown_share" in figures:
                unknown.add_metric([name], figures.pop("unknown_share"))
            for statistic, value in figures.items():
                drift.add_metric([name, statistic], value)
            alive = generation is not None and not generation.worker.lost.done()
            up.add_metric([name], float(alive))
            waiting.add_metric([name], generation.batcher.waiting if generation is not None else 0)
            limit.add_metric([name], model.batch.queue_items)
            restarts.add_metric([name], model.restarts)
            for reason in ("client_gone", "deadline_passed", "overload"):
                dropped.add_metric([name, reason], model.dropped[reason])
            for result in ("done", "refused"):
                reloads.add_metric([name, result], model.reloads[result])
            facts = model.facts
            if facts:
                info.add_metric([name, facts["version"], facts["task"], facts["precision"].partition(" ")[0]], 1)
        return [up, waiting, limit, restarts, dropped, reloads, info, drift, unknown]


def confidences(answer: Any) -> Iterator[float]:
    """The probabilities of what an answer says.

    Args:
        answer: a predictor's.
    """
    if not isinstance(answer, Mapping):
        return
    if "entities" in answer:
        yield from (entity["score"] for entity in answer["entities"])
    elif "masks" in answer:
        yield from (options[0]["score"] for options in answer["masks"] if options)
    elif isinstance(answer.get("score"), float):
        yield answer["score"]
