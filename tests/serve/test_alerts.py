"""Rules that the service watches by itself: what breaks them, when it is told, and a webhook that hears of it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bertsmith.core.config import load
from bertsmith.core.errors import ConfigError
from bertsmith.serve.alerts import (
    BODIES,
    DRIFT,
    RULES,
    Alerts,
    AlertsConfig,
    _refusal,
    broken,
    figures_of,
    quantile,
)
from bertsmith.serve.service import ServeConfig


class Toy:
    """The series that the rules look at, of one model, to be set by hand."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("bertsmith_requests_total", "", ["route", "model", "status"], registry=registry)
        self.errors = Counter("bertsmith_errors_total", "", ["route", "reason"], registry=registry)
        self.up = Gauge("bertsmith_worker_up", "", ["model"], registry=registry).labels("m")
        self.restarts = Counter("bertsmith_worker_restarts", "", ["model"], registry=registry).labels("m")
        self.reloads = Counter("bertsmith_reloads", "", ["model", "result"], registry=registry)
        self.waits = Histogram(
            "bertsmith_queue_time_seconds", "", ["model"], buckets=(0.5, 1, 2), registry=registry
        ).labels("m")
        self.queue = Gauge("bertsmith_queue_items", "", ["model"], registry=registry).labels("m")
        Gauge("bertsmith_queue_limit_items", "", ["model"], registry=registry).labels("m").set(100)
        self.drift = Gauge("bertsmith_input_drift", "", ["model", "statistic"], registry=registry)
        self.up.set(1)

    def ask(self, number: int, failed: int, route: str = "/predict", reason: str = "failed") -> None:
        self.requests.labels(route, "m", "200").inc(number - failed)
        self.requests.labels(route, "m", "500").inc(failed)
        self.errors.labels(route, reason).inc(failed)


def broken_by(toy: Toy, config: AlertsConfig | None = None) -> list[str]:
    return [one.rule for one in broken({}, figures_of(toy.registry), config or AlertsConfig())]


def test_nothing_is_broken_by_a_healthy_service_or_by_its_clients() -> None:
    toy = Toy()
    toy.ask(1000, 9)
    toy.ask(1000, 900, reason="invalid")
    toy.ask(1000, 900, route="/health/ready", reason="unavailable")
    toy.waits.observe(0.1)
    toy.queue.set(80)
    toy.drift.labels("m", "length").set(DRIFT["length"])
    toy.restarts.inc(2)
    assert broken_by(toy) == []


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_broken_by_what_it_is_about(rule: str) -> None:
    toy = Toy()
    match rule:
        case "BertsmithErrors":
            toy.ask(400, 10)
        case "BertsmithWorkerDown":
            toy.up.set(0)
        case "BertsmithWorkerRestarts":
            toy.restarts.inc(3)
        case "BertsmithQueueSlow":
            [toy.waits.observe(1.5) for _ in range(100)]
        case "BertsmithQueueFull":
            toy.queue.set(81)
        case "BertsmithInputDrift":
            toy.drift.labels("m", "pieces").set(0.11)
        case "BertsmithReloadRefused":
            toy.reloads.labels("m", "refused").inc()
    assert broken_by(toy) == [rule]


def test_only_what_happened_within_the_window_counts() -> None:
    toy = Toy()
    alerts = Alerts(toy.registry, AlertsConfig(window=100, hold=0))
    toy.ask(100, 50)
    assert alerts.due(0, figures_of(toy.registry)) == [], "before the first look nothing is known to be new"
    toy.ask(100, 50)
    (state,) = alerts.due(50, figures_of(toy.registry))
    assert state.alert.summary == "50.0% of questions fail"
    alerts.told([state], 50)
    assert alerts.due(99, figures_of(toy.registry)) == []
    (state,) = alerts.due(151, figures_of(toy.registry))
    assert state.over


def test_an_alert_is_told_when_it_has_held_again_after_a_while_and_when_it_ends() -> None:
    toy = Toy()
    alerts = Alerts(toy.registry, AlertsConfig(hold=60, repeat=1000))

    def look(time: float) -> list[tuple[str, bool]]:
        due = alerts.due(time, figures_of(toy.registry))
        alerts.told(due, time)
        return [(one.alert.rule, one.over) for one in due]

    toy.up.set(0)
    assert look(0) == look(59) == []
    assert look(60) == [("BertsmithWorkerDown", False)]
    assert look(1059) == []
    assert look(1060) == [("BertsmithWorkerDown", False)]
    toy.up.set(1)
    assert look(1061) == [("BertsmithWorkerDown", True)]
    assert look(1062) == []
    toy.up.set(0)
    assert look(2000) == []
    toy.up.set(1)
    assert look(2010) == [], "what was over before anybody heard of it is not told"


def test_what_could_not_be_told_stays_due_also_when_it_is_over() -> None:
    toy = Toy()
    alerts = Alerts(toy.registry, AlertsConfig(hold=0))
    toy.up.set(0)
    first = alerts.due(0, figures_of(toy.registry))
    assert alerts.due(1, figures_of(toy.registry)) == first
    alerts.told(first, 1)
    toy.up.set(1)
    assert [one.over for one in alerts.due(2, figures_of(toy.registry))] == [True]
    assert [one.over for one in alerts.due(3, figures_of(toy.registry))] == [True]
    toy.up.set(0)
    assert alerts.due(4, figures_of(toy.registry)) == [], "it goes on, and its end was never told"


def test_quantiles_are_those_of_prometheus() -> None:
    inf = float("inf")
    assert quantile({0.5: 50, 1.0: 100, inf: 100}, 0.75) == 0.75
    assert quantile({0.5: 0, 1.0: 0, inf: 10}, 0.99) == 1.0
    assert quantile({0.5: 0, inf: 0}, 0.99) == quantile({}, 0.99) == 0.0


def test_rules_that_prometheus_has_as_well_are_called_the_same() -> None:
    rules = (Path(__file__).resolve().parents[2] / "deploy/prometheus/rules.yml").read_text(encoding="utf-8")
    assert set(RULES) - set(re.findall(r"- alert: (\w+)", rules)) == {"BertsmithErrors"}
    for statistic, bound in DRIFT.items():
        assert f'bertsmith_input_drift{{statistic="{statistic}"}} > {bound}' in rules


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("webhook=ftp://a", "https://alerts"),
        ("webhook=alerts", "https://alerts"),
        ("webhook=http://127.0.0.1:99999/x", "https://alerts"),
        ("off=['Errors']", "BertsmithErrors"),
    ],
)
def test_a_wrong_setting_is_refused(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(ServeConfig, sets=[f"alerts.{setting}"])


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook that refuses the first thing it is told, and keeps the rest."""
    heard: list[dict[str, Any]] = []
    refused = threading.Event()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if refused.is_set():
                heard.append(body)
            self.send_response(200 if refused.is_set() else 503)
            self.end_headers()
            refused.set()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/secret", heard
    server.shutdown()
    server.server_close()


def test_a_webhook_hears_of_a_staged_incident_and_of_its_end(
    start: Any, bundles: Path, hook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, heard = hook
    sets = {"webhook": url, "every": "0.1", "window": "1", "hold": "0", "least": "3", "off": "['BertsmithInputDrift']"}
    words = [word for key, value in sets.items() for word in ("--set", f"alerts.{key}={value}")]
    service = start(bundles / "classify", *words)

    def fail() -> bool:
        status = service.post("/predict", {"inputs": "good"}, **{"x-request-timeout": "0.000001"}).status_code
        assert status == 504
        return bool(heard)

    service.until(fail)
    (alert,) = heard[0]["alerts"]
    assert heard[0]["version"] == "4"
    assert (heard[0]["status"], alert["status"]) == ("firing", "firing")
    assert alert["labels"]["alertname"] == "BertsmithErrors"
    assert alert["annotations"]["summary"].endswith("of questions fail")
    service.until(lambda: heard[-1]["status"] == "resolved")
    assert heard[-1]["alerts"][0]["endsAt"] > heard[-1]["alerts"][0]["startsAt"] == alert["startsAt"]
    (line,) = [line for line in service.lines() if line["message"] == "alerts not told"]
    assert line["why"] == "status 503"
    assert "secret" not in service.log.read_text()


@pytest.mark.parametrize(
    ("form", "answer", "why"),
    [
        ("dingtalk", {"errcode": 310000, "errmsg": "keywords not in content"}, "code 310000"),
        ("wecom", {"errcode": 93000}, "code 93000"),
        ("feishu", {"code": 19024}, "code 19024"),
        ("feishu", {"StatusCode": 0, "code": 0}, ""),
        ("dingtalk", {"errcode": 0}, ""),
        ("slack", "ok", ""),
        ("wecom", "no JSON", ""),
    ],
)
def test_a_chat_program_that_refuses_with_status_200_is_told_again(form: Any, answer: Any, why: str) -> None:
    content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
    assert _refusal(form, httpx.Response(200, content=content)) == why


@pytest.mark.parametrize("form", BODIES)
def test_every_chat_program_gets_the_summary(form: Any) -> None:
    toy = Toy()
    toy.up.set(0)
    due = Alerts(toy.registry, AlertsConfig(hold=0)).due(0, figures_of(toy.registry))
    assert "m has no worker" in json.dumps(BODIES[form](due, 0.0))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_settings_of_the_documentation_are_settings(language: str, tmp_path: Path) -> None:
    chapter = Path(__file__).resolve().parents[2] / "docs" / language / "operations.md"
    (block,) = re.findall(r"```toml\n(# alerts\.toml.*?)```", chapter.read_text(encoding="utf-8"), re.S)
    (tmp_path / "alerts.toml").write_text(block, encoding="utf-8")
    alerts = load(ServeConfig, file=tmp_path / "alerts.toml").alerts
    assert (alerts.form, alerts.failed, alerts.off) == ("alertmanager", 0.01, ("BertsmithInputDrift",))
