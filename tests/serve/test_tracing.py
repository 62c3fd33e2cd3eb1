"""Spans of the real application: whose child they are, what they say, and what they never say."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from bertsmith.core.errors import ConfigError
from bertsmith.serve.app import build_app
from bertsmith.serve.service import ServeConfig, Service
from bertsmith.serve.supervisor import WatchConfig
from bertsmith.serve.tracing import COUNTS, Traces, traces_asked

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
TEXTS = ["a good film", "write to ada.lovelace@example.org or 13812345678"]
Ask = Callable[[httpx.AsyncClient, Service], Awaitable[None]]


def traced(bundle: Path, ask: Ask) -> list[Any]:
    """The spans that a service of a bundle writes while it is asked."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def run() -> None:
        config = ServeConfig(watch=WatchConfig(silence=600, batch=600, start=600))
        service = Service([("m", str(bundle))], config, device="cpu", precision="fp32", threads=1)
        service.traces = Traces(provider)
        await service.start()
        try:
            transport = httpx.ASGITransport(build_app(service))
            async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=300) as client:
                await ask(client, service)
        finally:
            await service.stop()

    asyncio.run(run())
    return list(exporter.get_finished_spans())


def parents(spans: list[Any]) -> list[Any]:
    return [span for span in spans if span.name not in ("queue", "compute")]


def children(spans: list[Any], parent: Any) -> list[Any]:
    return [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]


def test_a_span_a_request_with_its_wait_and_its_computation_and_without_its_texts(bundles: Path) -> None:
    answers: list[httpx.Response] = []

    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "mine", "baggage": "user=ada"}
        answers.append(
            await client.post("/predict?who=ada", json={"inputs": [[text] for text in TEXTS]}, headers=headers)
        )

    spans = traced(bundles / "classify", ask)
    (span,) = parents(spans)
    assert answers[0].status_code == 200
    assert (span.name, span.kind.name, span.status.status_code.name) == ("POST /predict", "SERVER", "UNSET")
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == CALLER
    tokens = int(answers[0].headers["x-compute-tokens"])
    characters = sum(map(len, TEXTS))
    counts = {"items": 2, "characters": characters, "tokens": tokens, "truncated": 1, "masked": 0}
    assert set(counts) == set(COUNTS)
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "bertsmith.request_id": "mine",
        "bertsmith.model": "m",
        "bertsmith.model.version": answers[0].headers["x-model-version"],
        **{f"bertsmith.{name}": count for name, count in counts.items()},
    }
    queue, compute = children(spans, span)
    assert (queue.name, compute.name) == ("queue", "compute")
    assert span.start_time <= queue.start_time <= queue.end_time
    assert abs(queue.end_time - compute.start_time) < 1e6, "what is not waited for is computed"
    assert compute.start_time < compute.end_time <= span.end_time
    assert (compute.end_time - compute.start_time) / 1e6 == pytest.approx(
        float(answers[0].headers["x-inference-time"]), abs=0.1
    )
    told = "".join(one.to_json() for one in spans)
    assert not [word for text in (*TEXTS, "who=ada") for word in text.split() if len(word) > 3 and word in told]


def test_whose_child_a_span_is_and_which_requests_have_none(bundles: Path) -> None:
    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        body = {"inputs": "a"}
        for traceparent in (f"00-{TRACE}-{CALLER}-00", "00-nonsense-01", None):
            headers = {} if traceparent is None else {"traceparent": traceparent}
            assert (await client.post("/predict", json=body, headers=headers)).status_code == 200
        for path in ("/health/live", "/health/ready", "/metrics", "/"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/13812345678")).status_code == 404
        assert (await client.request("ADA", "/predict")).status_code == 405
        assert (await client.post("/predict", json={"inputs": 1})).status_code == 422

    spans = traced(bundles / "classify", ask)
    found = parents(spans)
    # Of the first three, one caller samples nothing, and one is not understood; then come those that go wrong.
    assert [span.name for span in found] == ["POST /predict", "POST /predict", "GET", "HTTP /predict", "POST /predict"]
    assert not any(span.parent for span in found)
    assert len({span.context.trace_id for span in found}) == 5
    reasons = [span.attributes.get("error.type") for span in found]
    assert reasons == [None, None, "not_found", "method_not_allowed", "invalid"]
    assert {span.status.status_code.name for span in found} == {"UNSET"}, (
        "a client's mistake is no error of the service"
    )
    assert not any(word in span.to_json() for span in found for word in ("13812345678", "ADA"))


def test_a_stream_has_its_batches_and_a_passed_deadline_its_wait(bundles: Path) -> None:
    async def ask(client: httpx.AsyncClient, service: Service) -> None:
        lines = {"accept": "application/x-ndjson"}
        streamed = await client.post("/predict", json={"inputs": [["a good film"]] * 600}, headers=lines)
        assert streamed.status_code == 200
        assert len(streamed.text.splitlines()) == 601
        generation = service.fleet.models["m"].generation
        assert generation is not None
        assert generation.worker.pid is not None
        os.kill(generation.worker.pid, signal.SIGSTOP)
        try:
            first = [asyncio.create_task(client.post("/predict", json={"inputs": "a"})) for _ in range(2)]
            while not generation.batcher.busy or generation.batcher.waiting:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            late = asyncio.create_task(
                client.post("/predict", json={"inputs": "a"}, headers={"x-request-timeout": "0.3"})
            )
            await asyncio.sleep(0.5)
        finally:
            os.kill(generation.worker.pid, signal.SIGCONT)
        assert [(await one).status_code for one in (*first, late)] == [200, 200, 504]

    spans = traced(bundles / "classify", ask)
    found = parents(spans)
    streamed = children(spans, found[0])
    batches = [span for span in streamed if span.name == "compute"]
    assert 2 <= len(batches) <= 64
    assert len(streamed) == 2 * len(batches)
    (failed,) = [span for span in found if span.attributes["http.response.status_code"] == 504]
    assert failed.status.status_code.name == "ERROR"
    assert failed.attributes["error.type"] == "deadline_passed"
    (queue,) = children(spans, failed)
    assert queue.name == "queue"
    assert (queue.end_time - queue.start_time) / 1e9 >= 0.3


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "search", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"},
    ],
)
def test_nobody_asks_for_traces(environment: dict[str, str]) -> None:
    assert traces_asked(environment) is None


def test_what_is_not_asked_for_is_not_imported() -> None:
    code = (
        "import sys; from bertsmith.serve.app import build_app; from bertsmith.serve.service import Service; "
        "build_app(Service([('m', 'none')])); print([name for name in sys.modules if 'opentelemetry.sdk' in name])"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin: traces are sent by otlp"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: traces are sent by http/protobuf; collectors take it at port 4318",
        ),
    ],
)
def test_what_cannot_be_done_is_said(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        traces_asked(environment)


def test_an_absent_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(ConfigError, match=r"OTEL_.*needs the package opentelemetry\.sdk.*'bertsmith\[otel\]'"):
        traces_asked({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"})


@pytest.fixture
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Address of what takes spans as a collector does, and what it got: path and body each."""
    got: list[tuple[str, bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


def test_a_service_sends_its_spans_where_the_environment_says(
    start: Any, bundles: Path, collector: tuple[str, list[tuple[str, bytes]]]
) -> None:
    service_pb2 = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    address, got = collector
    served = start(
        bundles / "classify",
        OTEL_EXPORTER_OTLP_ENDPOINT=address,
        OTEL_SERVICE_NAME="reviews",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=staging",
        OTEL_BSP_SCHEDULE_DELAY="3600000",
        FASTAPI_OTEL_AUTO_CONFIGURE="true",  # whose spans hold paths and addresses, and are not wanted
    )
    traceparent = f"00-{TRACE}-{CALLER}-01"
    assert served.post("/predict", {"inputs": "a"}, traceparent=traceparent).status_code == 200
    served.until(lambda: any(line.get("trace_id") == TRACE for line in served.lines()))
    assert not got, "spans are gathered"
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 0
    ((path, body),) = got
    assert path == "/v1/traces"
    ((resource,),) = [list(service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans)]
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (attributes["service.name"], attributes["deployment.environment"]) == ("reviews", "staging")
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["POST /predict", "compute", "queue"]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
