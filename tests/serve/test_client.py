"""The client and the load test, against a service that runs."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.core.errors import ConfigError
from bertsmith.predict.predictor import Predictor
from bertsmith.serve.client import Client, ServiceError
from bertsmith.serve.loadtest import Load, LoadConfig, Shot, corrected_for_omission, load_test, percentiles


def test_the_client_asks_as_the_predictor_answers(served: Any, bundles: Path) -> None:
    def opened(name: str) -> Predictor:
        return Predictor.open(bundles / name, device="cpu", precision="fp32")

    with Client(served.url) as client:
        assert client.ready()
        assert {model["name"] for model in client.models()} >= {"classify", "tag"}
        found = client.predict(["a good film", "bad"])
        assert [one[0]["label"] for one in found] == [
            one["label"] for one in opened("classify")(["a good film", "bad"])
        ]
        assert client.predict("a good film")[0]["score"] == pytest.approx(found[0][0]["score"], abs=1e-6)
        vectors = client.embed(["anna", "bert"])
        assert np.abs(vectors - opened("vectors").encode(["anna", "bert"])).max() < 1e-6
        assert client.rerank("a", ["a", "b"], top_n=1)[0]["index"] in (0, 1)
        assert len(client.fill_mask("a [MASK]", top_k=2)) == 2
        assert client.ner("") == []
        assert client.qa("where?", "anna lives in paris")["answer"]
        assert len(client.qa("where?", "anna lives in paris", top_k=2)) == 2
        with pytest.raises(ServiceError, match="422: .*no \\[MASK\\]") as error:
            client.fill_mask("a")
        assert error.value.request_id
    with Client(served.url, model="vectors") as client:
        assert client.similarity("a", ["a"]) == pytest.approx([1], abs=1e-5)
    with Client(served.url, model="match") as client:
        assert client.predict(("a", "b"))[0]["label"] == client.predict([("a", "b")])[0][0]["label"]


def test_the_client_streams(served: Any) -> None:
    with Client(served.url, model="relate") as client:
        found = list(client.stream("/predict", ["<e1>a</e1> <e2>b</e2>", "nothing"] * 80))
        assert [isinstance(one, ServiceError) for one in found] == [False, True] * 80
        with pytest.raises(ServiceError, match="422"):
            list(client.stream("/embed", ["a"]))


def test_the_client_says_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("bertsmith.serve.client.time.sleep", waits.append)
    with Client("http://127.0.0.1:9", tries=3) as client:
        assert not client.ready()
        with pytest.raises(ServiceError, match="no service answers"):
            client.predict("a")
    assert len(waits) == 2
    assert waits[1] > waits[0] > 0


def test_a_call_s_own_wishes_come_before_the_client_s(served: Any) -> None:
    with Client(served.url, model="pretraining", privacy=False) as client:
        (told,) = [model for model in client.models() if model["name"] == "classify"]
        labels = {one["label"] for one in client.predict("a", model="classify")}
        assert labels == {"bad", "good"}, told
        text = "mail the good ada@example.org about a call's own wishes"
        client.predict(text, model="classify", privacy=True)
        client.predict(text, model="classify")

        def masked() -> list[int]:
            return [line["masked"] for line in served.lines() if line.get("characters") == len(text)]

        served.until(lambda: len(masked()) >= 2)
        assert masked() == [1, 0]


def test_one_text_has_one_vector(served: Any) -> None:
    with Client(served.url) as client:
        assert client.embed("anna").shape == client.embed(["anna"])[0].shape
        assert client.embed([]).shape == (0, 0)


@pytest.fixture
def answering() -> Iterator[Callable[[list[bytes]], str]]:
    """Starts a service that gives a connection each of some answers, and gives its address."""
    listening: list[socket.socket] = []

    def start(answers: list[bytes]) -> str:
        found = socket.create_server(("127.0.0.1", 0))
        listening.append(found)

        def run() -> None:
            for answer in answers:
                connection, _ = found.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{found.getsockname()[1]}"

    yield start
    for one in listening:
        one.close()


ANSWERED = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\n[[1]]"
BUSY = b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\nconnection: close\r\nretry-after: %s\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "least", "most"),
    [
        (BUSY % b"7", 7, 9),
        (BUSY % b"Wed, 21 Oct 2015 07:28:00 GMT", 0.1, 1),
        (BUSY % b"nan", 0.1, 1),
        (BUSY % b"soon", 0.1, 1),
        (b"", 0.1, 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n[", 0.1, 1),
    ],
)
def test_the_client_tries_again(
    answering: Any, monkeypatch: pytest.MonkeyPatch, first: bytes, least: float, most: float
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("bertsmith.serve.client.time.sleep", waits.append)
    with Client(answering([first, ANSWERED]), tries=2) as client:
        assert client.embed(["a"]).tolist() == [[1]]
    assert len(waits) == 1
    assert least <= waits[0] <= most
    line = b'{"answer": 3}\n{"done": true}\n'
    streamed = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(line), line)
    with Client(answering([BUSY % b"0", streamed]), tries=2) as client:
        assert list(client.stream("/embed", ["a"])) == [3]


@pytest.mark.parametrize("rest", [b"", b"0\r\n\r\n", b'7\r\n{"answe\r\n0\r\n\r\n'])
def test_a_stream_that_is_cut_off_is_told(answering: Any, rest: bytes) -> None:
    line = b'{"answer": 3}\n'
    begun = CHUNKED + b"%x\r\n%s\r\n" % (len(line), line)
    with Client(answering([begun + rest]), tries=1) as client:
        answers = client.stream("/embed", ["a", "b"])
        assert next(answers) == 3
        with pytest.raises(ServiceError, match="ended before the last one") as error:
            next(answers)
    assert error.value.reason == "cut_off"


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"timeout": 0}, {"timeout": float("inf")}])
def test_a_client_that_could_not_ask_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="give seconds above 0"):
        Client("http://127.0.0.1:9", **wrong)


def test_omitted_latencies_are_put_in() -> None:
    measured = np.array([0.1] * 99 + [1.0])
    found = corrected_for_omission(measured)
    assert len(found) == 100 + 9
    assert found[-9:] == pytest.approx(np.arange(0.2, 1.01, 0.1))
    assert percentiles(found)["p95"] > percentiles(measured)["p95"] == 100
    assert len(corrected_for_omission(np.array([]))) == 0
    steady = np.array([0.1, 0.11, 0.12])
    assert corrected_for_omission(steady).tolist() == steady.tolist()


def test_only_answers_count_as_latencies() -> None:
    shots = [Shot(0, 0.1, 200), Shot(0, 9.0, 503), Shot(0, 5.0, 0), Shot(1.9, 0.2, 200)]
    load = Load(LoadConfig(rate=10), shots, seconds=2.0)
    told = load.as_dict()
    assert told["statuses"] == {"200": 2, "503": 1, "none": 1}
    assert told["latency_ms"]["p100"] == 200
    assert told["answered_per_second"] == 0.5, "what came after the time is not counted"
    assert load.picture().startswith("<svg")
    assert Load(LoadConfig()).as_dict()["latency_ms"] == {}


@pytest.mark.parametrize("how", [["--connections", "3"], ["--rate", "20"]])
def test_load_from_the_command_line(
    served: Any, in_process: Callable[..., tuple[int, str, str]], tmp_path: Path, how: list[str]
) -> None:
    (tmp_path / "texts").write_text('good "film"\n\nbad\n')
    words = ["--file", tmp_path / "texts", "--duration", "2s", "--set", "warm_up=0.2", "--out", tmp_path / "out", *how]
    start = time.monotonic()
    code, out, _ = in_process("loadtest", served.url + "/predict", "--json", *words)
    assert code == 0
    found = json.loads(out)
    assert found == json.loads((tmp_path / "out" / "loadtest.json").read_text())
    assert "<svg" in (tmp_path / "out" / "loadtest.svg").read_text()
    assert set(found["statuses"]) == {"200"}
    assert found["loop"] == ("open" if "--rate" in how else "closed")
    if "--rate" in how:
        assert 15 <= found["requests"] <= 75
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p100"] < (time.monotonic() - start) * 1000
    code, out, _ = in_process("loadtest", served.url + "/predict", *words)
    assert (code, "p99.9" in out, "200: " in out) == (0, True, True)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{url}/predict", "--body", "{{"], 2, "--body {: not JSON"),
        (["{url}/predict", "--body", '{{"input": "$TEXT"}}'], 2, "not one request was answered 200"),
        (["{url}/predict", "--file", "absent"], 2, "absent: no such file"),
        (["http://127.0.0.1:9/embed"], 2, "nothing answers there"),
        (["localhost"], 2, "not an address of a route"),
        (["http://127.0.0.1:99999/x"], 2, "not an address of a route"),
        (["http://[::1/x"], 2, "not an address of a route"),
        (["http://a..b/x"], 2, "nothing answers there"),
        (["{url}/predict", "--rate", "inf"], 2, "rate"),
        (["{url}/predict", "--rate", "-1"], 2, "--rate"),
    ],
)
def test_a_load_that_cannot_be_put_on(
    served: Any, in_process: Callable[..., tuple[int, str, str]], words: list[str], code: int, told: str
) -> None:
    found = in_process("loadtest", *(word.format(url=served.url) for word in words), "--duration", "0.5", "--quiet")
    assert found[0] == code
    assert told in found[2]


def test_a_connection_that_the_service_closed_when_it_was_idle_is_not_used_again() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1000):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await asyncio.sleep(0.01)
        writer.close()

    async def test() -> Load:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as service:
            port = service.sockets[0].getsockname()[1]
            config = LoadConfig(rate=10, duration=2, connections=1, seed=1, warm_up=0)
            load = await load_test(f"http://127.0.0.1:{port}/", [{}], config)
            await asyncio.sleep(0.1)  # for all connections to be closed
            return load

    found = asyncio.run(test()).as_dict()
    assert found["statuses"]["200"] > 10
    assert found["statuses"].get("none", 0) <= 2, "only those that were sent as it was closed"
