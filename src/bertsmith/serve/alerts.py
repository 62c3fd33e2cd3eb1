"""Alerts for those without Prometheus: a few rules over the service's own figures, told to a webhook."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from prometheus_client import CollectorRegistry
from pydantic import Field, field_validator

from bertsmith.core.config import Config, Count, Duration
from bertsmith.serve.auth import QUESTIONS
from bertsmith.serve.telemetry import OURS

DRIFT = {"length": 0.25, "pieces": 0.1, "unknown": 0.05}
"""Bounds of `bertsmith_input_drift`, those of deploy/prometheus/rules.yml."""
PATIENCE = 10.0
"""Seconds that the webhook may take."""
RULES = (
    "BertsmithErrors",
    "BertsmithWorkerDown",
    "BertsmithWorkerRestarts",
    "BertsmithQueueSlow",
    "BertsmithQueueFull",
    "BertsmithInputDrift",
    "BertsmithReloadRefused",
)

log = logging.getLogger("bertsmith.serve")

Form = Literal["alertmanager", "slack", "wecom", "dingtalk", "feishu"]
Figures = Mapping[str, Mapping[frozenset[tuple[str, str]], float]]
"""Of each series of /metrics its values, by their labels."""


class AlertsConfig(Config):
    """Rules that the service watches by itself, where no Prometheus does."""

    webhook: str | None = Field(None, description="http or https address that is told of alerts; none: nobody watches")
    form: Form = Field(
        "alertmanager", description="what is posted: Alertmanager's webhook, or a text for the chat program named"
    )
    every: Duration = Field(15.0, gt=0, description="time between two looks at the figures")
    window: Duration = Field(300.0, gt=0, description="shares and times are those of this long")
    hold: Duration = Field(60.0, ge=0, description="how long a rule must be broken before it is told")
    repeat: Duration = Field(14400.0, gt=0, description="an alert that lasts is told again after this time")
    failed: float = Field(0.02, gt=0, le=1, description="BertsmithErrors: share of questions that fail by our fault")
    least: Count = Field(10, ge=1, description="BertsmithErrors: fewest failures that count")
    restarts: int = Field(2, ge=0, description="BertsmithWorkerRestarts: most lost workers of a model")
    queue_time: Duration = Field(1.0, gt=0, description="BertsmithQueueSlow: longest wait of 99 in 100 items")
    queue_share: float = Field(0.8, gt=0, le=1, description="BertsmithQueueFull: fullest queue")
    off: tuple[str, ...] = Field((), description="rules that are not watched, such as BertsmithInputDrift")

    @field_validator("webhook")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        try:
            parts = urlsplit(value or "https://none")
            fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # no such port
            fine = False
        if not fine:
            raise ValueError("must be an address such as https://alerts.example/hook")
        return value

    @field_validator("off")
    @classmethod
    def _rules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(RULES)):
            raise ValueError(f"there is no rule {unknown[0]}; the rules are {', '.join(RULES)}")
        return value


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that is broken.

    Attributes:
        rule: its name.
        severity: `critical` or `warning`.
        model: that it is about; empty: the whole service.
        summary: what is the matter, in a sentence with figures and without texts.
    """

    rule: str
    severity: str
    model: str
    summary: str

    @property
    def key(self) -> tuple[str, str]:
        """By which it is known while its figures change."""
        return self.rule, self.model


def figures_of(registry: CollectorRegistry) -> Figures:
    """All series as they are now.

    Args:
        registry: of a service's telemetry.
    """
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def broken(before: Figures, now: Figures, config: AlertsConfig) -> Iterator[Alert]:
    """The rules that do not hold.

    Args:
        before: the figures at the window's begin.
        now: those at its end.
        config: the bounds.
    """

    def grown(name: str, **labels: frozenset[str]) -> float:
        """By how much a counter grew, over all series whose labels are among those given."""
        return sum(
            value - before.get(name, {}).get(key, 0.0)
            for key, value in now.get(name, {}).items()
            if all(dict(key).get(label, "") in among for label, among in labels.items())
        )

    asked = grown("bertsmith_requests_total", route=frozenset(QUESTIONS))
    failed = grown("bertsmith_errors_total", route=frozenset(QUESTIONS), reason=frozenset(OURS))
    if failed >= config.least and failed > config.failed * asked:
        yield Alert("BertsmithErrors", "critical", "", f"{failed / max(asked, failed):.1%} of questions fail")
    for model, up in _values(now, "bertsmith_worker_up", "model").items():
        if not up:
            yield Alert("BertsmithWorkerDown", "critical", model, f"{model} has no worker")
        lost = grown("bertsmith_worker_restarts_total", model=frozenset({model}))
        if lost > config.restarts:
            yield Alert("BertsmithWorkerRestarts", "warning", model, f"{model} lost its worker {lost:.0f} times")
        if grown("bertsmith_reloads_total", model=frozenset({model}), result=frozenset({"refused"})):
            yield Alert("BertsmithReloadRefused", "warning", model, f"a new bundle for {model} was not taken")
        earlier = _values(before, "bertsmith_queue_time_seconds_bucket", "le", model=model)
        waits = _values(now, "bertsmith_queue_time_seconds_bucket", "le", model=model)
        wait = quantile({float(le): count - earlier.get(le, 0.0) for le, count in waits.items()}, 0.99)
        if wait > config.queue_time:
            yield Alert("BertsmithQueueSlow", "warning", model, f"{model}: 1 in 100 items waits {wait:.2g} s or longer")
        waiting = _values(now, "bertsmith_queue_items", "model")[model]
        full = waiting / _values(now, "bertsmith_queue_limit_items", "model")[model]
        if full > config.queue_share:
            yield Alert("BertsmithQueueFull", "warning", model, f"the queue of {model} is {full:.0%} full")
        drift = _values(now, "bertsmith_input_drift", "statistic", model=model)
        far = ", ".join(f"{name}: {value:.2g}" for name, value in drift.items() if value > DRIFT[name])
        if far:
            text = f"{model} is asked other texts than it was trained on ({far})"
            yield Alert("BertsmithInputDrift", "warning", model, text)


def _values(figures: Figures, name: str, label: str, **labels: str) -> dict[str, float]:
    """The values of a series with these labels, by another label."""
    return {
        dict(key)[label]: value for key, value in figures.get(name, {}).items() if labels.items() <= dict(key).items()
    }


def quantile(buckets: Mapping[float, float], share: float) -> float:
    """A quantile of a histogram, linear within a bucket as Prometheus has it.

    Args:
        buckets: how many were at most so much, by the bound; the last bound is infinite.
        share: 0 to 1.

    Returns:
        0 where there is nothing in the buckets; the last finite bound where the quantile is above it.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return 0.0
    wanted, low, below = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds[:-1]:
        if buckets[bound] >= wanted:
            return low + (bound - low) * (wanted - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return low


@dataclass(slots=True)
class _State:
    alert: Alert
    since: float
    told: float | None = None
    over: bool = False


class Alerts:
    """Looks at a service's figures now and then, and tells a webhook which rules begin and cease to be broken.

    Args:
        registry: where the figures are.
        config: rules and webhook.
    """

    def __init__(self, registry: CollectorRegistry, config: AlertsConfig) -> None:
        self._registry, self._config = registry, config
        self._seen: deque[tuple[float, Figures]] = deque()
        self._states: dict[tuple[str, str], _State] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch, if there is somebody to tell."""
        if self._config.webhook is not None:
            self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Cease to watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def due(self, time: float, now: Figures) -> list[_State]:
        """Take in figures; what the webhook is to be told.

        Args:
            time: of the figures, in seconds since 1970.
            now: the figures.
        """
        config = self._config
        self._seen.append((time, now))
        while len(self._seen) > 2 and self._seen[1][0] <= time - config.window:
            self._seen.popleft()
        found = {one.key: one for one in broken(self._seen[0][1], now, config) if one.rule not in config.off}
        for key, alert in found.items():
            self._states.setdefault(key, _State(alert, time)).alert = alert
        for key, state in list(self._states.items()):
            state.over = key not in found
            if state.over and state.told is None:  # nobody ever heard of it
                del self._states[key]
        return [
            state
            for state in self._states.values()
            if state.over
            or (time - state.since >= config.hold and (state.told is None or time - state.told >= config.repeat))
        ]

    def told(self, states: Sequence[_State], time: float) -> None:
        """Take down that the webhook knows.

        Args:
            states: that it was told.
            time: when, in seconds since 1970.
        """
        for state in states:
            state.told = time
            if state.over:
                self._states.pop(state.alert.key, None)

    async def _watch(self) -> None:
        config = self._config
        assert config.webhook is not None
        where = urlsplit(config.webhook).hostname  # the path is often a secret
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            while True:
                time = datetime.now(UTC).timestamp()
                due = self.due(time, figures_of(self._registry))
                if due:
                    try:
                        answer = await client.post(config.webhook, json=BODIES[config.form](due, time))
                        answer.raise_for_status()
                        if refused := _refusal(config.form, answer):
                            self._not_told(where, refused)
                        else:
                            self.told(due, time)
                    except httpx.HTTPStatusError as error:
                        self._not_told(where, f"status {error.response.status_code}")
                    except Exception as error:  # whatever it is, the next alert must be told
                        self._not_told(where, type(error).__name__)
                await asyncio.sleep(config.every)

    def _not_told(self, where: str | None, why: str) -> None:
        log.error("alerts not told", extra={"facts": {"webhook": where, "why": why}})


def _refusal(form: Form, answer: httpx.Response) -> str:
    """Why a chat program did not take what it answered with status 200; empty where it did.

    WeCom and DingTalk say so in `errcode`, Feishu in `code` (once `StatusCode`); 0 is success.
    """
    try:
        told = answer.json() if form in ("wecom", "dingtalk", "feishu") else {}
    except ValueError:
        return ""
    codes = [told.get(name) for name in ("errcode", "code", "StatusCode")] if isinstance(told, dict) else []
    return next((f"code {code}" for code in codes if code), "")


def _alertmanager(states: Sequence[_State], time: float) -> dict[str, Any]:
    """The body of Alertmanager's webhook, version 4."""

    def moment(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    host, alerts = socket.gethostname(), []
    for state in states:
        alert = state.alert
        labels = {"alertname": alert.rule, "severity": alert.severity, "instance": host}
        labels |= {"model": alert.model} if alert.model else {}
        alerts.append(
            {
                "status": "resolved" if state.over else "firing",
                "labels": labels,
                "annotations": {"summary": alert.summary},
                "startsAt": moment(state.since),
                "endsAt": moment(time) if state.over else "0001-01-01T00:00:00Z",
                "generatorURL": "",
                "fingerprint": hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:16],
            }
        )
    return {
        "version": "4",
        "groupKey": f"{{}}:{{instance={json.dumps(host)}}}",
        "truncatedAlerts": 0,
        "status": "resolved" if all(state.over for state in states) else "firing",
        "receiver": "bertsmith",
        "groupLabels": {},
        "commonLabels": {"instance": host},
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": alerts,
    }


def _text(states: Sequence[_State]) -> str:
    lines = [
        f"[{'resolved' if state.over else state.alert.severity}] {state.alert.rule}: {state.alert.summary}"
        for state in states
    ]
    return "\n".join([f"bertsmith at {socket.gethostname()}", *lines])


BODIES: Mapping[Form, Callable[[Sequence[_State], float], dict[str, Any]]] = {
    "alertmanager": _alertmanager,
    "slack": lambda states, time: {"text": _text(states)},
    "wecom": lambda states, time: {"msgtype": "text", "text": {"content": _text(states)}},
    "dingtalk": lambda states, time: {"msgtype": "text", "text": {"content": _text(states)}},
    "feishu": lambda states, time: {"msg_type": "text", "content": {"text": _text(states)}},
}
"""What each kind of receiver wants to be posted."""
