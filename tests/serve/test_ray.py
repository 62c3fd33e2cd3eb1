"""Replicas of the service on Ray Serve: settings, what replicas do together, and a cluster that really scales."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bertsmith.core.errors import ConfigError
from bertsmith.serve.auth import add_key
from bertsmith.serve.ray import RayConfig, Replica, RequestIds, Shared, Together, app, settings
from bertsmith.serve.refusal import Refusal

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "ray_serve.yaml"


def test_a_command_and_a_file_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "reviews").mkdir(parents=True)
    typed = {"bundles": "runs/reviews,v=some/hub-name", "keys": "keys.toml", "max_replicas": "2", "batch.tokens": "16k"}
    nested = {
        "bundles": ["runs/reviews", "v=some/hub-name"],
        "keys": "keys.toml",
        "max_replicas": 2,
        "batch": {"tokens": 16_000},
    }
    found = settings(typed)
    assert found == settings(nested)
    assert found.bundles == (f"reviews={tmp_path}/runs/reviews", "v=some/hub-name")
    assert found.keys == str(tmp_path / "keys.toml"), "replicas run in another folder"
    assert (found.max_replicas, found.batch.tokens) == (2, 16_000)
    (tmp_path / "serve.toml").write_text('max_replicas = 3\nkeys = "other.toml"\nlimits.items = 50\n')
    mixed = settings({**typed, "config": "serve.toml"})
    assert (mixed.max_replicas, mixed.limits.items, mixed.keys) == (2, 50, found.keys), "what is typed goes first"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"keys": "k"}, "no bundle to serve; name one, such as bundles=runs/reviews"),
        ({"bundles": "m"}, "there are no keys, .*give keys=keys.toml, or say without_keys=true"),
        ({"bundles": "m", "keys": "k", "max_replica": "2"}, "unknown setting 'max_replica'.*max_replicas"),
        ({"bundles": "m", "keys": "k", "min_replicas": 3, "max_replicas": 2}, "max_replicas=2 is less than"),
        ({"bundles": "m", "keys": "k", "num_cpus": "none"}, "num_cpus"),
        ({"bundles": "m=", "keys": "k"}, "give a folder after the ="),
    ],
)
def test_what_cannot_be_served_is_said_before_ray_starts(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(args)


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(ConfigError, match=r"serving on Ray needs the package ray.*'bertsmith\[ray\]'"):
        app({"bundles": "m", "keys": "k"})


def test_the_file_in_deploy_is_one_that_ray_takes() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    file = yaml.safe_load(DEPLOY.read_text(encoding="utf-8"))
    read = schema.ServeDeploySchema.model_validate(file)
    assert read.http_options.host == "127.0.0.1"
    assert not read.logging_config.enable_access_log
    (application,) = read.applications
    module, name = application.import_path.split(":")
    config = settings(application.args)
    assert getattr(import_module(module), name) is app
    assert config.keys == "/keys/keys.toml"
    assert read.http_options.request_timeout_s > config.batch.deadline
    given = {key for key in application.args if key not in ("bundles", "keys")}
    defaults = RayConfig()
    assert {key for key in given if getattr(config, key) != getattr(defaults, key)} == {"num_cpus"}
    deployment = app(application.args)._bound_deployment
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (1, 4, 16)
    assert deployment.ray_actor_options["num_cpus"] == 2
    assert deployment.max_ongoing_requests == config.limits.connections


def test_one_page_has_the_figures_of_all_replicas() -> None:
    answers = []
    for tag, asked in (("one", 3), ("two", 4)):
        registry = CollectorRegistry()
        Counter("bertsmith_requests", "Requests.", ["route"], registry=registry).labels("/predict").inc(asked)
        Histogram("bertsmith_seconds", "Time.", registry=registry, buckets=(1, 2)).observe(1.5)
        answers.append((tag, list(registry.collect())))
    page = generate_latest(Together(answers)).decode()
    assert page.count("# TYPE bertsmith_requests_total counter") == 1
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    counted = {(one.labels["replica"], one.value) for one in samples if one.name == "bertsmith_requests_total"}
    assert counted == {("one", 3), ("two", 4)}
    buckets = [one for one in samples if one.name == "bertsmith_seconds_bucket"]
    assert len({(one.labels["replica"], one.labels["le"]) for one in buckets}) == 6


class Everybody:
    """Replicas that answer a broadcast as they are told."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = answers, []

    def broadcast(self, *asked: str) -> Any:
        self.asked.append(asked)
        return self

    async def results_async(self, **_: Any) -> list[Any]:
        return list(self.answers)


def shared(*answers: Any) -> Shared:
    config = settings({"bundles": "m=nowhere", "without_keys": True})
    return Shared(config, Everybody(*answers), "one", threads=1)


def test_a_reload_is_done_when_all_replicas_have_done_it() -> None:
    both = shared(("one", "v2", ""), ("two", "v2", ""))
    assert asyncio.run(both.reload("m")) == "v2"
    assert both._everybody.asked == [("take", "m")]
    for answers, message in [
        ([("one", "v2", ""), ("two", "v1", "damaged")], "replica two: damaged"),
        ([("one", "v2", ""), RuntimeError("gone")], "1 of 2 replicas ended meanwhile"),
        ([("one", "v2", ""), ("two", "v3", "")], "replicas have read different bundles: v2, v3"),
    ]:
        with pytest.raises(Refusal) as found:
            asyncio.run(shared(*answers).reload("m"))
        assert found.value.status_code == 503
        assert message in found.value.detail


def test_replicas_of_one_machine_write_audits_of_their_own(tmp_path: Path) -> None:
    config = settings({"bundles": "m=nowhere", "without_keys": True, "audit": {"file": str(tmp_path / "audit.jsonl")}})
    for tag in ("one", "two"):
        Shared(config, Everybody(), tag, threads=1).audit.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit-one.jsonl", "audit-two.jsonl"]


def test_a_replica_is_healthy_when_its_models_answer() -> None:
    replica: Any = SimpleNamespace(service=shared())
    with pytest.raises(RuntimeError, match="m: the model's worker is being replaced"):
        asyncio.run(Replica.check_health(replica))

    async def answers() -> dict[str, float]:
        return {"m": 0.1}

    replica.service.fleet.probe = answers
    asyncio.run(Replica.check_health(replica))


def test_an_answer_has_one_request_id() -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-request-id", b"ours"), (b"x-model", b"m")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(RequestIds(inner)({"type": "http"}, send, send))  # type: ignore[arg-type]
    assert sent[0]["headers"] == [(b"x-model", b"m")]


QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # A machine on which much else runs is no reason to give up.
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "300",
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def cluster(folder: Path, **args: Any) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`serve run` with the file in deploy/, with a free port and other `args`; gives its address."""
    file, port = yaml.safe_load(DEPLOY.read_text(encoding="utf-8")), free_port()
    file["http_options"]["port"] = port
    file["applications"][0]["args"] = args
    (folder / "ray_serve.yaml").write_text(yaml.safe_dump(file))
    words = [str(Path(sys.executable).with_name("serve")), "run", str(folder / "ray_serve.yaml")]
    own = tempfile.mkdtemp(prefix="ray")  # the names of sockets in it must stay short
    inherited = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env=inherited | QUICK | {"RAY_TMPDIR": own})
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 900

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/health/live", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    try:
        while not ready():
            assert process.poll() is None, (folder / "log").read_text()[-4000:]
            assert time.monotonic() < end, (folder / "log").read_text()[-4000:]
            time.sleep(0.5)
        yield url, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(own, ignore_errors=True)


class Load:
    """Threads that ask without pause, and what they were answered: status, version, scores."""

    def __init__(self, url: str, key: str, texts: list[str], pause: float = 0.0) -> None:
        self.answers: list[tuple[int, str, str]] = []
        self.url, self.texts, self.pause = url, texts, pause
        self.headers = {"authorization": f"Bearer {key}"}
        self.stop = threading.Event()

    def ask(self) -> None:
        with httpx.Client(timeout=120, headers=self.headers) as client:
            while not self.stop.is_set():
                answer = client.post(f"{self.url}/predict", json={"inputs": [[text] for text in self.texts]})
                assert len(answer.headers.get_list("x-request-id")) == 1
                scores = "".join(f"{text[0]['label']}{text[0]['score']:.4f} " for text in answer.json())
                self.answers.append((answer.status_code, answer.headers.get("x-model-version", ""), scores))
                time.sleep(self.pause)

    @contextmanager
    def by(self, threads: int) -> Iterator[None]:
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(self.ask) for _ in range(threads)]
            try:
                yield
            finally:
                self.stop.set()
            for future in futures:
                future.result()


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_replicas_come_and_go_with_the_load_and_nothing_fails(
    write_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("ray.serve")
    bundle = write_bundle(tmp_path / "bundle", "classify")
    key = add_key(tmp_path / "keys.toml", "all", scopes=("predict", "metrics", "admin"))
    bearer = {"authorization": f"Bearer {key}"}
    scaling = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 4, "num_cpus": 0.5}
    delays = {"upscale_delay_s": 1, "downscale_delay_s": 5, "look_back_period_s": 11}
    patient = {"watch": {"silence": 120, "batch": 240, "start": 480}, "batch": {"deadline": 240, "queue_seconds": 240}}
    audit = {"audit": {"file": str(tmp_path / "audit" / "lines.jsonl")}}
    keys = {"bundles": [f"m={bundle}"], "keys": str(tmp_path / "keys.toml"), "precision": "fp32"}
    began = time.monotonic()
    with cluster(tmp_path, **keys, **scaling, **delays, **patient, **audit) as (url, process):
        print(f"one replica answers {time.monotonic() - began:.1f} s after `serve run`")

        def answering() -> dict[str, float]:
            """Requests answered by each replica that is there."""
            page = httpx.get(f"{url}/metrics", headers=bearer, timeout=120)
            assert page.status_code == 200, page.text
            families = {family.name: family for family in text_string_to_metric_families(page.text)}
            up = {one.labels["replica"]: 0.0 for one in families["bertsmith_worker_up"].samples}
            for one in families["bertsmith_requests"].samples:
                if one.labels["route"] == "/predict" and one.labels["replica"] in up:
                    up[one.labels["replica"]] += one.value
            return up

        def until(condition: Callable[[dict[str, float]], bool], what: str) -> float:
            since = time.monotonic()
            while not condition(answering()):
                assert process.poll() is None, (tmp_path / "log").read_text()[-4000:]
                assert time.monotonic() - since < 600, f"not within 600 s: {what}"
                time.sleep(0.25)
            return time.monotonic() - since

        assert httpx.post(f"{url}/predict", json={"inputs": "a"}).status_code == 401
        assert len(answering()) == 1
        texts = ["a good film", "a bad film was boring"]
        heavy, light = Load(url, key, texts), Load(url, key, texts, pause=0.2)
        with heavy.by(24):
            up = until(lambda found: len(found) == 2 and all(found.values()), "two replicas answer")
            print(f"two replicas answer {up:.1f} s after the load began")
            write_bundle(bundle, "classify", shift=0.1)
            taken = httpx.post(f"{url}/models/m/reload", headers=bearer, timeout=600)
            assert taken.status_code == 200, taken.text
            new = taken.json()["version"]
            after, before = len(heavy.answers), answering()
            until(lambda found: all(found[one] > count for one, count in before.items()), "both answer anew")
        with light.by(1):
            down = until(lambda found: len(found) == 1, "one replica is left")
            print(f"one replica is left {down:.1f} s after the load ended")
            count = len(light.answers)
            until(lambda found: len(light.answers) > count + 5, "it answers")
    answers = heavy.answers + light.answers
    print(f"{len(heavy.answers)} and {len(light.answers)} requests under load and while a replica went")
    assert {status for status, _, _ in answers} == {200}
    # Each version has one answer, whichever replica gave it and in whatever batch; both were given.
    assert (
        len({(version, scores) for _, version, scores in answers}) == len({version for _, version, _ in answers}) == 2
    )
    # What was asked once all replicas had the new one is answered by it.
    assert {version for _, version, _ in heavy.answers[after + 24 :] + light.answers} == {new}
    audits = [path.read_text() for path in (tmp_path / "audit").glob("lines-*.jsonl")]
    assert len(audits) == 2
    assert not any("boring" in text for text in audits)
