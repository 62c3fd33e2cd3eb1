"""Rules and dashboard: of figures that exist, tested by promtool, and once for real with Prometheus itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bertsmith.serve.auth import QUESTIONS
from bertsmith.serve.drift import ENOUGH
from bertsmith.serve.surroundings import Surroundings, certificate_end
from bertsmith.serve.telemetry import OURS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
RULE_TESTS = [RULES.with_name("rules.test.yml"), RULES.with_name("rules-days.test.yml")]
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
OF_PROMETHEUS = {"up", "ALERTS"}
TOKEN = re.compile(r'"[^"]*"|\[[^]]*\]|\d[\w.]*|[a-zA-Z_:][\w:]*|\S')


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Each of the dashboard's queries, with the panel that it belongs to."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    found = [(panel["title"], one["expr"]) for panel in board["panels"] for one in panel.get("targets", [])]
    return found + [(one["name"], one["expr"]) for one in board["annotations"]["list"]]


def used(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that a query names, with the labels by which it is chosen."""
    words = TOKEN.findall(expression)
    while words:
        word, after = words.pop(0), words[0] if words else ""
        if word in ("by", "on"):
            del words[: words.index(")") + 1]
        elif (
            re.fullmatch(r"[a-zA-Z_:][\w:]*", word) and after not in ("(", "by") and word not in ("and", "or", "offset")
        ):
            inside = words[: words.index("}") + 1] if after == "{" else []
            del words[: len(inside)]
            yield word, {label for label, value in pairwise(inside) if value in "=!"}


def figures(page: str) -> dict[str, set[str]]:
    """The series of a page of /metrics, each with its labels; a family without samples has those that it may have."""
    ends = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
    found: dict[str, set[str]] = {
        name + end: set() for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, re.M) for end in ends[kind]
    }
    for name, labels in re.findall(r"^([a-zA-Z_:]\w*)(?:\{(.*)\})? \S+$", page, re.M):
        found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


def test_rules_and_dashboard_are_of_figures_that_the_service_shows(served: Any) -> None:
    served.post("/predict", {"inputs": "good " * 60, "privacy": True})
    served.post("/predict", {"inputs": "write to ada@example.org", "privacy": True})
    served.post("/predict", {"inputs": "a", "model": "nothing"})
    # Unknown pieces are told from this many texts on, and other tests may or may not have asked before.
    served.post("/predict", {"inputs": ["good"] * ENOUGH})
    there = figures(served.get("/metrics").text)
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    by_prometheus = {"job", "instance", "alertname", "alertstate"}
    seen: set[str] = set()
    for where, expression in [*((rule.get("alert", "record"), rule["expr"]) for rule in rules()), *queries()]:
        names = list(used(expression))
        assert names or expression.startswith("vector"), expression
        for name, labels in names:
            if name in recorded | OF_PROMETHEUS:
                continue
            assert name in there, f"{where}: there is no {name}"
            # The drift of these toy bundles is not known, so its labels are not seen here.
            known = there[name] or ({"model", "statistic"} if name == "bertsmith_input_drift" else set())
            assert labels <= known | by_prometheus, f"{where}: {name} has no {labels - known - by_prometheus}"
            seen.add(name)
    assert len(seen) > 30, "the queries were not read"
    ours = {
        name for name in there if name.startswith("bertsmith_") and not name.endswith(("_bucket", "_sum", "_count"))
    }
    assert not ours - seen, "figures that nobody looks at"


def test_what_counts_as_an_error_is_the_same_in_the_code_and_in_the_rules() -> None:
    text = RULES.read_text(encoding="utf-8")
    routes = set(QUESTIONS)
    assert all(set(found.split("|")) == routes for found in re.findall(r'route=~"([^"]+)"', text))
    reasons = re.findall(r'reason=~"([^"]+)"', text)
    assert len(reasons) > 7
    assert all(set(found.split("|")) == set(OURS) for found in reasons)


def test_each_alert_says_what_to_do_and_has_a_test_in_which_it_fires() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    tests = "".join(path.read_text(encoding="utf-8") for path in RULE_TESTS)
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith((".", "?"))
        fires = rf'alertname="{rule["alert"]}", severity="{rule["labels"]["severity"]}"|alertname: {rule["alert"]}\n'
        assert re.search(fires, tests), rule["alert"]
    for language in ("en", "zh"):
        document = DEPLOY.parent / "docs" / language / "operations.md"
        missing = {rule["alert"] for rule in alerts} - set(re.findall(r"Bertsmith\w+", document.read_text("utf-8")))
        assert not missing, document


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here; Debian's packages prometheus and prometheus-alertmanager have it")
    return found


def checked(*words: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_and_amtool_accept_the_files(tmp_path: Path) -> None:
    assert f"{len(rules())} rules found" in checked(program("promtool"), "check", "rules", RULES)
    (tmp_path / "key").write_text("x")
    config = RULES.with_name("prometheus.yml").read_text("utf-8").replace("/etc/prometheus/key", f"{tmp_path}/key")
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(RULES, tmp_path)
    checked(program("promtool"), "check", "config", tmp_path / "prometheus.yml")
    checked(program("amtool"), "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert checked(program("promtool"), "test", "rules", *RULE_TESTS).count("SUCCESS") == len(RULE_TESTS)


@pytest.mark.parametrize(("days", "year"), [(30, 2020), (365 * 40, 2050)])
def test_the_end_of_a_certificate_is_read_from_it(tmp_path: Path, days: int, year: int) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", str(days)]
    checked(*words, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem")
    shown = checked("openssl", "x509", "-in", tmp_path / "cert.pem", "-noout", "-enddate", "-dateopt", "iso_8601")
    end = certificate_end(tmp_path / "cert.pem")
    assert end is not None
    assert time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(end)) == shown.strip().partition("=")[2]
    assert time.gmtime(end).tm_year > year


def test_the_disk_of_the_audit_is_measured_as_long_as_it_is_there(tmp_path: Path) -> None:
    def shown(folder: Path | None) -> dict[str, list[float]]:
        return {family.name: [one.value for one in family.samples] for family in Surroundings(folder).collect()}

    usage = shutil.disk_usage(tmp_path)
    assert shown(tmp_path)["bertsmith_audit_disk_size_bytes"] == [usage.total]
    assert 0 < shown(tmp_path)["bertsmith_audit_disk_free_bytes"][0] < usage.total
    for nothing in (None, tmp_path / "gone"):
        assert not any(shown(nothing).values())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)
    return found


@contextmanager
def running(log: Path, *words: object) -> Iterator[None]:
    with open(log, "wb") as file:
        process = subprocess.Popen([*map(str, words)], stderr=file, stdout=file)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def told() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """Address of a receiver of Alertmanager's messages, and what it got: path and alert each."""
    got: list[tuple[str, dict[str, Any]]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            got.extend((self.path, alert) for alert in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


@contextmanager
def watched(folder: Path, port: int, key: str, receiver: str) -> Iterator[Callable[[str], list[Any]]]:
    """Prometheus and Alertmanager with the configuration of deploy/, only quicker; gives a way to ask Prometheus."""
    prometheus, alertmanager = program("prometheus"), program("prometheus-alertmanager")
    ports = free_port(), free_port()
    config = yaml.safe_load(RULES.with_name("prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES)]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{ports[1]}"]
    config["scrape_configs"][0]["authorization"]["credentials_file"] = str(folder / "key")
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    (folder / "key").write_text(key)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    routes = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text("utf-8").replace("http://hooks.example", receiver)
    routes = re.sub(r"group_wait: \w+", "group_wait: 1s", routes)
    (folder / "alertmanager.yml").write_text(re.sub(r"group_interval: \w+", "group_interval: 2s", routes))
    url = f"http://127.0.0.1:{ports[0]}"

    def ask(query: str) -> list[Any]:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=60).json()
        assert answer["status"] == "success", (query, answer)
        result: list[Any] = answer["data"]["result"]
        return result

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/-/ready", timeout=10).status_code == 200 and bool(ask("up == 1"))
        except httpx.TransportError:
            return False

    store, listen = f"--storage.tsdb.path={folder}/store", f"--web.listen-address=127.0.0.1:{ports[0]}"
    with (
        running(folder / "alertmanager.log", alertmanager, f"--config.file={folder}/alertmanager.yml",
                f"--storage.path={folder}/state", f"--web.listen-address=127.0.0.1:{ports[1]}",
                "--cluster.listen-address="),
        running(folder / "prometheus.log", prometheus, f"--config.file={folder}/prometheus.yml", store, listen),
    ):  # fmt: skip
        until(ready, 120, "Prometheus scrapes the service")
        yield ask


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_incident_is_noticed_told_and_over(
    start: Any, write_bundle: Callable[..., Path], tmp_path: Path, told: tuple[str, list[tuple[str, dict[str, Any]]]]
) -> None:
    receiver, messages = told
    command = [sys.executable, "-m", "bertsmith.cli.main", "keys", "add", "all", str(tmp_path / "keys.toml")]
    scopes = [word for scope in ("predict", "metrics") for word in ("--scope", scope)]
    key = subprocess.run([*command, *scopes], capture_output=True, text=True, check=True).stdout.strip()
    folder = write_bundle(tmp_path / "bundle", "classify")
    served = start(f"m={folder}", "--keys", tmp_path / "keys.toml", "--audit", tmp_path / "audit.jsonl")
    bearer = {"authorization": f"Bearer {key}"}

    def asked() -> int:
        return int(served.post("/predict", {"inputs": ["good film"] * 3}, **bearer).status_code)

    with watched(tmp_path, served.port, key, receiver) as ask:

        def firing() -> set[str]:
            return {one["metric"]["alertname"] for one in ask('ALERTS{alertstate="firing"}')}

        for _ in range(60):
            assert asked() == 200
            time.sleep(0.1)
        assert not firing()

        folder.rename(tmp_path / "away")
        os.kill(served.workers()[0], signal.SIGKILL)
        until(lambda: asked() == 503, 60, "questions are refused")
        began = time.monotonic()
        until(lambda: asked() and "BertsmithErrorBudgetFast" in firing(), 120, "the error budget burns")
        print(f"BertsmithErrorBudgetFast fires after {time.monotonic() - began:.0f} s")
        until(lambda: asked() and "BertsmithWorkerDown" in firing(), 180, "the worker is missed")
        print(f"BertsmithWorkerDown fires after {time.monotonic() - began:.0f} s")

        def got(name: str, status: str) -> bool:
            return any(
                where == "/on-call" and one["status"] == status and one["labels"]["alertname"] == name
                for where, one in list(messages)
            )

        for name in ("BertsmithErrorBudgetFast", "BertsmithWorkerDown"):
            until(lambda name=name: got(name, "firing"), 60, f"Alertmanager tells of {name}")  # type: ignore[misc]
        summaries = {one["annotations"]["summary"] for _, one in messages}
        assert f"m at 127.0.0.1:{served.port} has no worker" in summaries
        assert not any("error" in text for text in summaries), summaries  # a template that fails says so there

        (tmp_path / "away").rename(folder)
        until(lambda: asked() == 200, 120, "the worker is back")
        until(lambda: got("BertsmithWorkerDown", "resolved"), 120, "Alertmanager tells that it is over")

        empty = []
        for title, query in queries():
            for name, value in (("job", "bertsmith"), ("instance", ".*"), ("model", ".*"), ("__rate_interval", "1m")):
                query = query.replace(f"${name}", value)
            if not ask(query):
                empty.append(title)
        # There is no certificate, nothing was masked, no text was compared, and no bundle reloaded.
        assert set(empty) == {"Drift", "Unknown, cut, masked", "Open files, certificate, disk", "Versions"}
