"""Workers that are killed or hang, bundles that change, signals: nothing that was taken is lost, nothing is mixed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

WriteBundle = Callable[..., Path]


@pytest.fixture(scope="module")
def one(start: Any, write_bundle: WriteBundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A service of one classifier, and its folder."""
    folder = write_bundle(tmp_path_factory.mktemp("one") / "model", "classify")
    return start(f"m={folder}", "--set", "watch.silence=2", "--set", "watch.batch=5"), folder


def until(condition: Callable[[], bool], seconds: float = 120) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds
        time.sleep(0.02)
    return time.monotonic() - begin


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_hung_worker_is_replaced_and_meanwhile_it_is_503(one: Any, number: signal.Signals) -> None:
    served, _ = one
    before = served.figure("bertsmith_worker_restarts_total")
    (worker,) = served.workers()
    os.kill(worker, number)
    states: Counter[tuple[str, int]] = Counter()

    def back() -> bool:
        answer = httpx.post(served.url + "/predict", json={"inputs": "a"}, timeout=30)
        states["predict", answer.status_code] += 1
        states["ready", served.get("/health/ready").status_code] += 1
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
        return answer.status_code == 200 and worker not in served.workers()

    took = until(back)
    print(f"{number.name}: back after {took:.1f} s; {dict(states)}")
    assert {status for _, status in states} <= {200, 503}
    assert states["predict", 503] >= 1
    assert served.figure("bertsmith_worker_restarts_total") == before + 1
    assert served.get("/health/ready").status_code == served.get("/health/live").status_code == 200
    # Five seconds on a machine with nothing else to do (and two until a silent one counts as hung); a share of one that
    # is busy takes as much longer.
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert took < (5 if number == signal.SIGKILL else 7) * busy
    lines = [line for line in served.lines() if line["message"] in ("worker lost", "worker replaced")]
    assert [line["message"] for line in lines][-2:] == ["worker lost", "worker replaced"]


def test_a_reload_under_load_mixes_no_versions_and_loses_nothing(one: Any, write_bundle: WriteBundle) -> None:
    served, folder = one
    stop = threading.Event()
    answers: list[tuple[int, str, str]] = []
    texts = ["good film"] * 20

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while not stop.is_set():
                answer = client.post(served.url + "/predict", json={"inputs": texts})
                scores = {f"{classes[0]['label']} {classes[0]['score']:.4f}" for classes in answer.json()}
                assert len(scores) == 1, "two versions in one answer"
                answers.append((answer.status_code, answer.headers["x-model-version"], scores.pop()))

    old = served.get("/models").json()[0]["version"]
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(ask) for _ in range(3)]
        try:
            until(lambda: len(answers) > 10)
            write_bundle(folder, "classify", shift=0.1)
            served.process.send_signal(signal.SIGHUP)
            until(lambda: served.get("/models").json()[0]["version"] != old)
            after = len(answers)
            until(lambda: len(answers) > after + 10)
        finally:
            stop.set()
        for future in futures:
            future.result()
    assert {status for status, _, _ in answers} == {200}
    assert (
        len({(version, scores) for _, version, scores in answers}) == len({version for _, version, _ in answers}) == 2
    )


@pytest.mark.parametrize("how", ["damaged", "other task", "gone", "a link"])
def test_a_bundle_that_cannot_answer_does_not_take_over(
    one: Any, write_bundle: WriteBundle, tmp_path: Path, how: str
) -> None:
    served, folder = one
    version = served.get("/models").json()[0]["version"]
    shutil.copytree(folder, tmp_path / "kept")
    if how == "damaged":
        write_bundle(folder, "classify", damaged=True)
    elif how == "other task":
        write_bundle(folder, "tag")
    elif how == "gone":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "vocab.txt").rename(tmp_path / "vocab.txt")
        (folder / "vocab.txt").symlink_to(tmp_path / "vocab.txt")
    answer = served.post("/models/m/reload", None)
    assert answer.status_code in (422, 503)
    assert "the old one goes on" in answer.json()["error"]
    assert served.post("/predict", {"inputs": "a"}).headers["x-model-version"] == version
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)
    answer = served.post("/models/m/reload", None)
    assert answer.json() == {"name": "m", "version": version}


def test_a_worker_is_not_replaced_by_a_model_of_another_kind(
    one: Any, write_bundle: WriteBundle, tmp_path: Path
) -> None:
    served, folder = one
    shutil.copytree(folder, tmp_path / "kept")
    write_bundle(folder, "tag")
    (worker,) = served.workers()
    os.kill(worker, signal.SIGKILL)
    served.until(lambda: "it is a model for tag, not for classify" in served.log.read_text())
    assert served.post("/predict", {"inputs": "a"}).status_code == 503
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "kept", folder)
    served.until(lambda: served.post("/predict", {"inputs": "a"}).status_code == 200)
    assert served.get("/models").json()[0]["task"] == "classify"


@pytest.fixture(scope="module")
def patient(start: Any, bundles: Path) -> Any:
    """A service that leaves a stopped worker alone and lets three items wait."""
    settings = ("watch.silence=600", "watch.batch=600", "batch.queue_items=3")
    return start(bundles / "classify", *(word for setting in settings for word in ("--set", setting)))


def test_a_full_queue_is_429_and_a_passed_deadline_504(patient: Any) -> None:
    (worker,) = patient.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(5) as pool:
            headers = {"x-request-timeout": "0.5"}
            futures = [pool.submit(patient.post, "/predict", {"inputs": "a"}, **headers) for _ in range(5)]
            until(lambda: patient.figure("bertsmith_queue_items") == 3)  # two more are on their way to the worker
            full = patient.post("/predict", {"inputs": "a"})
            time.sleep(0.6)
            os.kill(worker, signal.SIGCONT)
            found = sorted(future.result().status_code for future in futures)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert (full.status_code, full.json()["error_type"]) == (429, "overloaded")
    assert int(full.headers["retry-after"]) >= 1
    assert found == [200, 200, 504, 504, 504]
    assert patient.figure('bertsmith_dropped_items_total{model="classify",reason="deadline_passed"}') == 3


def test_a_client_that_leaves_is_not_computed_for(patient: Any) -> None:
    dropped = 'bertsmith_dropped_items_total{model="classify",reason="client_gone"}'
    (worker,) = patient.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(5) as pool:
            futures = [pool.submit(patient.post, "/predict", {"inputs": "a"}, 3) for _ in range(5)]
            until(lambda: patient.figure("bertsmith_queue_items") == 3)
        assert {type(future.exception()) for future in futures} == {httpx.ReadTimeout}
        until(lambda: patient.figure('bertsmith_errors_total{reason="client_gone"') == 5)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert patient.post("/predict", {"inputs": "a"}).status_code == 200
    assert patient.figure(dropped) == 3


def test_sigterm_under_load_answers_all_that_was_taken(start: Any, bundles: Path) -> None:
    served = start(bundles / "classify", "--set", "drain_delay=2")
    answers: list[int] = []
    ready: list[int] = []

    def ask() -> None:
        with httpx.Client(timeout=60) as client:
            while True:
                try:
                    answers.append(client.post(served.url + "/predict", json={"inputs": ["good"] * 30}).status_code)
                except httpx.ConnectError:
                    return

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask) for _ in range(4)]
        try:
            until(lambda: len(answers) > 10)
        finally:
            before = len(answers)
            served.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        ready.append(served.get("/health/ready").status_code)
        lost = [type(error).__name__ for future in futures if (error := future.exception()) is not None]
    assert served.process.wait(30) == 0
    assert (lost, set(answers), ready) == ([], {200}, [503])
    assert len(answers) > before  # the load went on until nobody listened
    assert not served.workers()


def test_ctrl_c_ends_with_130(start: Any, bundles: Path) -> None:
    served = start(bundles / "classify")
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(30) == 130
    assert "Traceback" not in served.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "nothing: no such folder"),
        (["{m}", "{m}"], "two models are called 'classify'"),
        (["{m}", "--host", "0.0.0.0"], "there are no keys"),
        (["{m}", "--keys", "absent.toml"], "absent.toml: no such file"),
        (["{m}", "--tls-cert", "a.pem"], "needs both"),
        (["{m}", "--tls-cert", "a.pem", "--tls-key", "b.pem"], "not a certificate"),
        (["{m}", "--host", "192.0.2.1", "--without-keys"], "cannot listen at 192.0.2.1"),
        (["{m}", "--set", "batch.token=3"], "did you mean 'batch.tokens'"),
        (["{m}", "--audit", "/proc/none/audit"], "audit cannot be written"),
        (["x="], "give a folder after the ="),
    ],
)
def test_a_request_that_cannot_work_says_why(
    bundles: Path, in_process: Callable[..., tuple[int, str, str]], arguments: list[str], told: str
) -> None:
    words = [word.format(m=bundles / "classify") for word in arguments]
    code, out, err = in_process("serve", *words, "--port", "0", "--device", "cpu")
    assert (code, out) == (2, "")
    assert told in err


def test_a_service_with_too_much_to_do_does_not_even_read_what_is_asked(start: Any, bundles: Path) -> None:
    settings = ("watch.silence=600", "watch.batch=600", "batch.queue_seconds=1e-9", "batch.tokens=600")
    service = start(bundles / "classify", *(word for setting in settings for word in ("--set", setting)))
    texts = {"inputs": ["good " * 40] * 10}
    for _ in range(2):  # so that the worker's speed is known
        assert service.post("/predict", {"inputs": ["good " * 40] * 90}).status_code == 200
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(service.post, "/predict", texts) for _ in range(3)]
            until(lambda: service.figure("bertsmith_queue_items") > 0)
            answer = httpx.post(service.url + "/predict", content=b"not JSON")
            assert (answer.status_code, answer.json()["error_type"]) == (429, "overloaded")
            assert service.post("/nothing", {}).status_code == 404
            counted = 'bertsmith_errors_total{reason="overloaded",route="/predict"}'
            assert service.figure(counted) == 2, "the one that waited behind two batches is refused, too"
            os.kill(worker, signal.SIGCONT)
            assert sorted(one.result().status_code for one in asked) == [200, 200, 429]
    finally:
        os.kill(worker, signal.SIGCONT)
    assert httpx.post(service.url + "/predict", content=b"not JSON").status_code == 415
