"""The parts of a service that need no service: reading bodies, logs, masking, folders, drift, load."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.corpus.privacy import PrivacyConfig
from bertsmith.serve.drift import ENOUGH, WINDOW, Drift
from bertsmith.serve.encoding import numbers, to_json
from bertsmith.serve.journal import Audit, AuditConfig, JsonLines, Lines
from bertsmith.serve.limits import LimitsConfig, parse_json, read_body
from bertsmith.serve.masking import Masked, mask, placed, privacy_of
from bertsmith.serve.note import Note
from bertsmith.serve.refusal import Refusal
from bertsmith.serve.server import bind
from bertsmith.serve.shapes import predicted
from bertsmith.serve.telemetry import confidences
from bertsmith.serve.trust import check_folder


def body(parts: list[bytes], limits: LimitsConfig, **headers: str) -> bytes:
    left = list(parts)

    async def receive() -> Any:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return asyncio.run(read_body(receive, {name.replace("_", "-"): value for name, value in headers.items()}, limits))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 400))
def test_a_body_arrives_whole_in_any_parts_compressed_or_not(data: bytes, size: int) -> None:
    packed = zlib.compress(data, wbits=31)
    for sent, coding in ((data, "identity"), (packed, "gzip")):
        parts = [sent[at : at + size] for at in range(0, len(sent), size)] or [b""]
        assert body(parts, LimitsConfig(), content_encoding=coding) == data


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        found = parse_json(data, LimitsConfig())
    except Refusal:
        return
    assert found == json.loads(data.decode())


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(JSON_VALUES)
def test_json_is_read_as_python_reads_it(value: Any) -> None:
    assert parse_json(json.dumps(value).encode(), LimitsConfig()) == value


def test_a_slow_body_is_not_waited_for() -> None:
    async def receive() -> Any:
        await asyncio.sleep(10)

    with pytest.raises(Refusal) as refused:
        asyncio.run(read_body(receive, {}, LimitsConfig(receive_seconds=0.05)))
    assert refused.value.status_code == 408


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8))
def test_vectors_keep_eight_digits(row: list[float]) -> None:
    vector = np.array([row], np.float32)
    error = np.abs(np.array(numbers(vector)) - vector.astype(np.float64)).max()
    assert error <= 5.1e-8 * max(float(np.abs(vector).max()), 1e-30)


def test_answers_are_json_whatever_is_in_them() -> None:
    assert json.loads(to_json({"a": float("nan"), "b": "\ud800x"})) == {"a": None, "b": "\ufffdx"}


def record(message: str, **facts: Any) -> logging.LogRecord:
    found = logging.LogRecord("bertsmith.serve", logging.ERROR, "", 0, message, None, None)
    found.facts = facts
    return found


def test_a_log_line_is_json_without_personal_data() -> None:
    line = JsonLines().format(record("x\ny", why="mail ada@example.org", key="138 1234 5678", request_id="ab"))
    assert "\n" not in line
    assert "ada@" not in line
    assert json.loads(line) | {"time": ""} == {
        "time": "",
        "level": "error",
        "logger": "bertsmith.serve",
        "message": "x\ny",
        "why": "mail [EMAIL]",
        "key": "[PHONE]",
        "request_id": "ab",
    }
    assert "why=mail [EMAIL]" in Lines().format(record("lost", why="mail ada@example.org"))


def test_an_audit_is_rotated_and_hashes_are_of_its_run(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    audit = Audit(AuditConfig(file=str(file), bytes=10_000, keep=2))
    for number in range(500):
        audit.write({"number": number, "texts": audit.hash(["a"])})
    audit.close()
    files = sorted(tmp_path.glob("audit.jsonl*"))
    assert len(files) == 3
    assert all(path.stat().st_size <= 10_000 for path in files)
    assert json.loads(file.read_text().splitlines()[-1])["number"] == 499
    assert audit.hash(["ab", "c"]) != audit.hash(["a", "bc"]) == audit.hash(["a", "bc"])
    another = Audit(AuditConfig(file=str(file)))
    assert another.hash(["a"]) != audit.hash(["a"]) == audit.hash([("a",)])
    another.close()
    assert Audit(AuditConfig()).hash(["a"]) == ""


def test_masking_keeps_places_in_the_text_as_it_was_asked() -> None:
    text = "Call Ada at +1 415 555 2671 or ada@example.org, she lives in Paris."
    one = mask(text, PrivacyConfig())
    assert isinstance(one.payload, str)
    start = one.payload.index("Paris")
    found = placed({"start": start, "end": start + 5, "x": 1}, one.parts[0])
    assert text[found["start"] : found["end"]] == "Paris"
    assert one.kinds["email"] == 1
    pair = mask(("where?", text), PrivacyConfig())
    assert "example.org" not in "".join(pair.payload)
    assert mask(text, None).payload == text
    assert placed({"start": None, "end": None}, one.parts[0]) == {"start": None, "end": None}


def test_what_a_model_decided_comes_before_what_is_probable() -> None:
    """Labels by thresholds of their own, and the class below the most probable branch of a tree."""
    one = Masked("a text")
    several = {"labels": ["b"], "probabilities": {"a": 0.45, "b": 0.42, "c": 0.1}}
    assert predicted(several, one) == [
        {"label": "b", "score": 0.42, "given": True},
        {"label": "a", "score": 0.45, "given": False},
        {"label": "c", "score": 0.1, "given": False},
    ]
    assert predicted({**several, "labels": []}, one, top_k=1) == [{"label": "a", "score": 0.45, "given": False}]
    tree = {"label": "a/x", "score": 0.35, "probabilities": {"b": 0.4, "a/x": 0.35, "a/y": 0.25}}
    assert [found["label"] for found in predicted(tree, one)] == ["a/x", "b", "a/y"]


def test_a_bundle_trained_on_masked_text_is_asked_masked_text() -> None:
    assert privacy_of({"privacy": None}, None, False) is None
    assert privacy_of({"privacy": True}, False, False) == PrivacyConfig()
    assert privacy_of({"privacy": {"how": "mask"}}, None, False) == PrivacyConfig(how="mask")
    assert privacy_of({}, True, False) == privacy_of({}, False, True) == PrivacyConfig()
    with pytest.raises(ConfigError, match=r"makes no sense: kinds\."):
        privacy_of({"privacy": {"kinds": ["nope"]}}, None, False)
    with pytest.raises(ConfigError, match="cannot be served without its key"):
        privacy_of({"privacy": {"how": "hash"}}, None, False)


def test_a_bundle_that_reaches_outside_its_folder_is_refused(write_bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", "classify")
    check_folder(folder)
    (folder / "same.txt").symlink_to(folder / "vocab.txt")
    check_folder(folder)
    (tmp_path / "secret").write_text("x")
    (folder / "notes").symlink_to(tmp_path / "secret")
    with pytest.raises(BundleError, match=r"notes: a link that leads outside"):
        check_folder(folder)
    (folder / "notes").unlink()
    for named in ("../secret", "/etc/passwd", "C:\\x"):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": named}}))
        with pytest.raises(BundleError, match="outside of the bundle; it is refused"):
            check_folder(folder)


def test_a_cache_of_the_hub_is_links_into_its_own_blobs(write_bundle: Callable[..., Path], tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    folder = write_bundle(cache / "snapshots" / "abc", "classify")
    (cache / "blobs").mkdir()
    (folder / "vocab.txt").rename(cache / "blobs" / "1")
    (folder / "vocab.txt").symlink_to("../../blobs/1")
    check_folder(folder)


def test_a_graph_whose_weights_are_elsewhere_is_refused(write_bundle: Callable[..., Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = write_bundle(tmp_path / "bundle", "classify")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    for location, fine in (("weights.bin", True), ("../weights.bin", False)):
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
        graph.initializer[0].CopyFrom(tensor)
        (folder / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
        if fine:
            check_folder(folder)
        else:
            with pytest.raises(BundleError, match="outside"):
                check_folder(folder)


def test_a_name_in_any_script_fits_into_a_header() -> None:
    for name, written in (("minilm", "minilm"), ("评论", "%E8%AF%84%E8%AE%BA")):
        assert Note("1", model=name, version="2").named == {"x-model": written, "x-model-version": "2"}
    assert all(value.isascii() for value in Note("1", model="评论").headers().values())


def test_drift_looks_at_the_last_texts_only() -> None:
    trained = {"lengths": [0, 0, 1.0] + [0] * 11, "unknown": 0.0, "pieces": {"2": 1.0}}
    drift = Drift(5, 1, trained)
    one, other = np.array([2, 2], np.int32), np.array([1] * 9, np.int32)
    drift.add([one] * (ENOUGH - 1))
    assert drift.figures() == {}
    drift.add([one] * 5)
    assert drift.figures() == {"unknown_share": 0.0, "length": 0.0, "pieces": 0.0, "unknown": 0.0}
    for _ in range(2):
        drift.add([other] * WINDOW)
    found = drift.figures()
    assert (found["unknown_share"], found["unknown"], found["pieces"]) == pytest.approx((1.0, 1.0, 1.0))
    assert found["length"] > 1


def test_confidence_is_what_an_answer_says() -> None:
    assert list(confidences({"label": "a", "score": 0.9, "probabilities": {}})) == [0.9]
    assert list(confidences({"entities": [{"score": 0.5}, {"score": 0.7}]})) == [0.5, 0.7]
    assert list(confidences({"masks": [[{"score": 0.3}, {"score": 0.1}]]})) == [0.3]
    assert list(confidences({"value": 3.0})) == list(confidences(np.zeros(3))) == []


def test_accepted_connections_do_not_wait_for_acknowledgements() -> None:
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
