"""Whatever is sent, the answer is defined, and the worker goes on."""

from __future__ import annotations

import gzip
import json
import random
import re
import socket
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

JSON = b"content-type: application/json\r\n"


def raw(served: Any, data: bytes, wait: float = 60) -> bytes:
    """What comes back for bytes as they are."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=wait) as connection:
        connection.sendall(data)
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def post(served: Any, body: bytes, path: str = "/predict", **headers: str) -> httpx.Response:
    headers = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return httpx.post(served.url + path, content=body, headers=headers, timeout=60)


@pytest.fixture(autouse=True)
def _workers_go_on(served: Any) -> Any:
    yield
    assert served.figure("bertsmith_worker_restarts_total") == 0
    assert served.post("/predict", {"inputs": "good"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON at line 1"),
        (b"{", "not JSON at line 1, column 2"),
        (b'{"inputs": "a",}', "not JSON"),
        (b'{"inputs": "a"} {}', "not JSON"),
        (b'{"inputs": NaN}', "NaN"),
        (b'{"inputs": -Infinity}', "-Infinity"),
        (b'{"inputs": 1e999}', "too large"),
        (b'{"inputs": 123456789012345678901234567890}', "too large"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper"),
        (b'{"inputs": "a", "inputs": "b"}', "a key occurs twice"),
        (b'{"inputs": "\xff"}', "not UTF-8 at byte 12"),
        ('{"inputs": "a"}'.encode("utf-16"), "not UTF-8"),
    ],
    ids=range(14),
)
def test_what_is_no_json(served: Any, body: bytes, told: str) -> None:
    if body == b"":
        body = b" "
    answer = post(served, body)
    long = len(body) > 100_000
    assert answer.status_code == (413 if long else 400)
    assert ("more than" if long else told) in answer.json()["error"]


@pytest.fixture(scope="module")
def usual(start: Any, bundles: Path) -> Any:
    """A service with the limits that it has when none are given."""
    return start(bundles / "vectors")


MANY = b'{"inputs": [' + b'"a",' * 999_999 + b'"a"]}'
LONG = b'{"inputs": "' + b"a" * 10_000_000 + b'"}'


@pytest.mark.parametrize(
    ("body", "coding", "status", "told"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "identity", 400, "nested deeper than 32 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "identity", 400, "nested deeper than 32 levels"),
        (MANY, "identity", 413, "a list has 1,000,000 items"),
        (LONG, "identity", 413, "the body has more than 8,000,000 bytes"),
        (gzip.compress(LONG), "gzip", 413, "more than 2,000,000 characters"),
        (gzip.compress(LONG * 2), "gzip", 413, "decompressed, the body has more than 16,000,000 bytes"),
    ],
    ids=["nested lists", "nested objects", "a million items", "characters", "compressed characters", "a bomb"],
)
def test_the_usual_limits(usual: Any, body: bytes, coding: str, status: int, told: str) -> None:
    answer = post(usual, body, "/embed", content_encoding=coding)
    assert (answer.status_code, told in answer.json()["error"]) == (status, True), answer.text
    assert usual.figure("bertsmith_tokens_total") == 0  # nothing of it was cut into pieces
    assert usual.figure("bertsmith_worker_restarts_total") == 0


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"inputs": 3}, "body.inputs"),
        ({"inputs": None}, "body.inputs"),
        ({"inputs": ["a", 3]}, "body.inputs"),
        ({}, "body.inputs"),
        ({"inputs": "a", "imputs": "b"}, "body.imputs"),
        ({"inputs": "a", "truncate": "yes"}, "body.truncate"),
        ({"inputs": "a", "truncation_direction": "left"}, "body.truncation_direction"),
        ({"inputs": "a", "parameters": {"top_k": 0}}, "body.parameters.top_k"),
        ([1], "body"),
        ("a", "body"),
    ],
)
def test_a_wrong_type_is_named_by_its_path(served: Any, body: Any, path: str) -> None:
    answer = served.post("/predict", body)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "invalid")
    assert path in answer.json()["error"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_is_not_called_json(served: Any, kind: str) -> None:
    assert post(served, b'{"inputs": "a"}', content_type=kind).status_code == 415


def test_a_body_over_the_limit_by_its_length_or_while_it_is_read(served: Any) -> None:
    def chunks() -> Any:
        yield b'{"inputs": "'
        for _ in range(30):
            yield b"a" * 10_000

    whole = b'{"inputs": "' + b"a" * 150_000 + b'"}'
    assert post(served, whole).status_code == 413
    chunked = httpx.post(
        served.url + "/predict", content=chunks(), headers={"content-type": "application/json"}, timeout=60
    )
    assert (chunked.status_code, chunked.json()["error_type"]) == (413, "too_large")
    head = b"POST /predict HTTP/1.1\r\nhost: a\r\n" + JSON + b"content-length: 99999999999\r\n"
    waiting = raw(served, head + b"expect: 100-continue\r\nconnection: close\r\n\r\n")
    assert waiting.startswith(b"HTTP/1.1 413 ")  # and no leave to send


def test_compressed_bodies_and_bombs(served: Any) -> None:
    body = json.dumps({"inputs": "a good film"}).encode()
    expected = post(served, body).json()
    assert post(served, gzip.compress(body), content_encoding="gzip").json() == expected
    assert post(served, zlib.compress(body), content_encoding="deflate").json() == expected
    bomb = gzip.compress(b'{"inputs": "' + b"a" * 50_000_000 + b'"}')
    assert len(bomb) < 100_000
    answer = post(served, bomb, content_encoding="gzip")
    assert (answer.status_code, "decompressed" in answer.json()["error"]) == (413, True)
    assert post(served, body, content_encoding="gzip").status_code == 400
    assert post(served, gzip.compress(body)[:-9], content_encoding="gzip").status_code == 400
    assert post(served, gzip.compress(body) * 2, content_encoding="gzip").status_code == 400
    assert post(served, body, content_encoding="br").status_code == 415


def test_too_much_is_refused_before_it_is_cut_into_pieces(served: Any) -> None:
    many = served.post("/embed", {"inputs": ["a"] * 101})
    assert (many.status_code, "101 items" in many.json()["error"]) == (413, True)
    assert served.post("/embed", {"inputs": "a " * 30_000}).status_code == 413
    tokens = served.post("/ner", {"inputs": "a " * 6_000})
    assert (tokens.status_code, "pieces" in tokens.json()["error"]) == (413, True)


@pytest.mark.parametrize(
    "text",
    [
        "\\ud800",
        "a\\udc00b",
        "\\u0000",
        "\\u202eabc\\u202c",
        "שלום",
        "👩‍👩‍👧‍👦",
        "e\\u0301",
        "a" * 3000,
        "\\ufeff",
        " \\n\\t",
    ],
)
def test_odd_texts_are_texts(served: Any, text: str) -> None:
    for path, field in (("/predict", "inputs"), ("/embed", "inputs"), ("/ner", "inputs")):
        answer = post(served, f'{{"{field}": "{text}"}}'.encode(), path)
        assert answer.status_code == 200, answer.text
    answer = post(served, f'{{"question": "{text}", "context": "{text}"}}'.encode(), "/qa")
    assert answer.status_code == 200


def test_special_pieces_in_a_text_stay_text(served: Any) -> None:
    plain = served.post("/embed", {"inputs": "a film"}).json()
    assert served.post("/embed", {"inputs": "a [SEP] film"}).json() != plain
    tokens = served.post("/embed", {"inputs": "[SEP][MASK]"}).headers["x-compute-tokens"]
    assert int(tokens) > 4  # were they recognised, it would be two and the two around them


def begun(served: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=60)


def test_slow_heads_and_slow_bodies_are_not_waited_for(served: Any) -> None:
    with begun(served) as silent, begun(served) as head, begun(served) as body:
        start = time.monotonic()
        head.sendall(b"POST /predict HTTP/1.1\r\nhost:")
        body.sendall(b"POST /predict HTTP/1.1\r\nhost: a\r\n" + JSON + b"content-length: 20\r\n\r\n{")
        # A byte now and then buys no time. The last is sent well before the end, however slow this machine is: what
        # comes after the end resets the connection, and the answer with it.
        while time.monotonic() - start < 2:
            time.sleep(0.2)
            head.sendall(b"a")
            body.sendall(b" ")
        assert rest(head).startswith(b"HTTP/1.1 408 ")
        assert rest(silent) == b""
        assert body.recv(20).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - start >= 4.9


@pytest.mark.parametrize("flood", [b"x: " + b"a" * 20_000, b"\r\n".join(b"x%d: a" % n for n in range(200))])
def test_a_flood_of_headers(served: Any, flood: bytes) -> None:
    found = raw(served, b"GET /models HTTP/1.1\r\nhost: a\r\n" + flood + b"\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 431 ")


def test_a_wish_for_another_protocol_loses_no_body(served: Any) -> None:
    body = b'{"inputs": "a", "model": "classify"}'
    for wish in (b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA", b"uPgrade : websocket"):
        head = b"POST /predict HTTP/1.1\r\nhost: a\r\nConnection: close, Upgrade, HTTP2-Settings\r\n" + wish + b"\r\n"
        found = raw(served, head + JSON + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert found.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 ") if b" :" in wish else b"HTTP/1.1 200 ")


def test_a_wish_for_lines_opens_no_limit_where_there_are_none(served: Any) -> None:
    lines = {"accept": "application/x-ndjson"}
    many = {"inputs": {"source_sentence": "a", "sentences": ["a"] * 5_000}}
    assert served.post("/similarity", many, **lines).status_code == 413
    assert served.post("/tokenize", {"inputs": ["a"] * 5_000}, **lines).status_code == 413
    assert served.post("/v1/embeddings", {"input": ["a"] * 5_000, "model": "embed"}, **lines).status_code == 413


def test_what_is_no_http(served: Any) -> None:
    assert raw(served, b"hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_random_paths_and_models_add_no_labels(served: Any) -> None:
    for n in range(20):
        assert served.get(f"/nothing/{n}").status_code == 404
        assert served.post("/predict", {"inputs": "a", "model": f"m{n}"}).status_code == 404
        # httptools, where it is installed, refuses such a header before anything of ours sees it.
        odd = served.post("/predict", {"inputs": "a"}, **{"x-request-id": f"\x7f{n}"})
        assert odd.status_code == 400 or odd.headers["x-request-id"][0] != "\x7f"
    page = served.get("/metrics").text
    assert "nothing" not in page
    assert not re.search(r'model="m\d', page)
    assert served.get("/predict").status_code == 405


def test_personal_data_is_in_no_message_and_no_log(served: Any) -> None:
    secret, card = "ada.private@example.org", "13812345678"
    relation = served.post("/predict", {"model": "relate", "inputs": f"{secret} and {card}"})
    key = served.post("/predict", {"inputs": "a", secret: card})
    model = served.post("/predict", {"inputs": "a", "model": secret})
    for answer, status in ((relation, 422), (key, 422), (model, 404)):
        assert answer.status_code == status
        assert secret not in answer.text
        assert card not in answer.text
    assert "[EMAIL]" in key.text
    served.post("/predict", {"inputs": f"write to {secret}"})
    last = served.get(f"/{secret}?q={card}")
    served.until(lambda: last.headers["x-request-id"] in served.log.read_text())
    log = served.log.read_text()
    assert secret not in log
    assert card not in log


def test_a_deadline_in_the_past_of_the_queue(served: Any) -> None:
    assert served.post("/predict", {"inputs": "a"}, **{"x-request-timeout": "nan"}).status_code == 400
    assert served.post("/predict", {"inputs": "a"}, **{"x-request-timeout": "-1"}).status_code == 400
    assert served.post("/predict", {"inputs": "a"}, **{"x-request-timeout": "1e-9"}).status_code in (200, 504)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_bodies_are_refused_or_answered(served: Any, count: int) -> None:
    """Valid bodies with bytes changed, cut, repeated or put in; never a failure of the service."""
    draw = random.Random(0)
    whole = [
        ("/predict", {"inputs": ["a good film", "我在北京"]}),
        ("/embed", {"inputs": "a film", "normalize": False, "pooling": "mean"}),
        ("/rerank", {"query": "a", "texts": ["b", "c"], "return_text": True}),
        ("/fill-mask", {"inputs": "a [MASK]", "parameters": {"top_k": 2}}),
        ("/ner", {"inputs": ["anna"]}),
        ("/qa", {"question": "who?", "context": "anna lives in paris"}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
        ("/v1/embeddings", {"input": ["a"], "model": "vectors"}),
    ]
    odd = [
        b'"',
        b"{",
        b"[",
        b"}",
        b"null",
        b"-1",
        b"1e9",
        b"\\u0000",
        b"\\ud800",
        b"\xff",
        b"\x00",
        b",",
        b":",
        b"true",
    ]
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=served.url, headers={"content-type": "application/json"}, timeout=60) as client:
        for _ in range(count):
            path, body = draw.choice(whole)
            data = bytearray(json.dumps(body, ensure_ascii=draw.random() < 0.5).encode())
            for _ in range(draw.randint(1, 4)):
                at, size = draw.randrange(len(data) + 1), draw.randint(0, 6)
                data[at : at + size] = draw.choice([draw.choice(odd), draw.randbytes(2), bytes(data[at : at + 9]), b""])
            statuses[client.post(path, content=bytes(data)).status_code] += 1
    print(dict(statuses))
    assert set(statuses) <= {200, 400, 404, 413, 422}
    assert sum(statuses.values()) == count
    assert statuses[200] >= count / 200
    assert statuses[400] > count / 5
    assert statuses[422] > count / 50
