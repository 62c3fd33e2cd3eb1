"""A running service: toy bundles of every task, served by `bertsmith serve` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.tokenizer.load import Tokenizer

TASKS: dict[str, tuple[Heads, dict[str, Any]]] = {
    "classify": (Heads(classify=2), {"labels": ["bad", "good"], "regression": False, "pair": False, "max_length": 32}),
    "match": (Heads(classify=2), {"labels": ["no", "yes"], "regression": False, "pair": True, "max_length": 32}),
    "vectors": (Heads(embed="mean"), {"mode": "bi", "max_length": 32}),
    "tag": (Heads(tag=2), {"labels": ["B-PER", "I-PER"], "max_length": 32}),
    "relate": (Heads(classify=2), {"labels": ["in", "no"], "max_length": 32}),
    "choose": (Heads(choose=True), {"max_length": 32}),
    "answer": (Heads(answer=True), {"scorer": "squad", "no_answer": False, "max_length": 32, "stride": 8}),
    "pretraining": (Heads(mlm=True, nsp=True), {}),
}


@pytest.fixture(scope="session")
def write_bundle(toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Callable[..., Path]:
    """Writes a bundle with fresh weights for a task, moved by `shift`; `damaged` ones give numbers that are none."""

    def write(path: Path, name: str, *, shift: float = 0.0, damaged: bool = False, **meta: Any) -> Path:
        heads, config = TASKS[name]
        model = Model(toy_shape.model_copy(update={"initializer_range": 0.5}), heads)
        for weights in model.parameters():
            weights.data += float("nan") if damaged else shift * weights.data.sign()
        task = "match" if name == "vectors" else name
        meta = {"task": task, "labels": config.get("labels", []), "task_config": config, **meta}
        save_model(path, model, toy_tokenizer.files(), meta)
        return path

    return write


@pytest.fixture(scope="session")
def bundles(write_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle for each task."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in TASKS:
        write_bundle(folder / name, name)
    return folder


@dataclass
class Running:
    """A service in a process of its own.

    Attributes:
        url: where it listens.
        process: the front.
        log: its standard error, in a file.
    """

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, path: str, body: Any, timeout: float = 60, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=headers, timeout=timeout)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=60)

    def figure(self, name: str) -> float:
        """The sum of a figure of /metrics over its labels that are given in `name`."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Wait until it holds: what the service writes down about a request comes after the answer."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.log.read_text()[-2000:]
            time.sleep(0.02)

    def lines(self) -> list[dict[str, Any]]:
        """The log's JSON lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def workers(self) -> list[int]:
        """Process numbers of the workers: grandchildren of the front, below the process that forks them."""
        found = []
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            parent = int(re.findall(r"^PPid:\s+(\d+)", text, re.M)[0])
            try:
                above = int(re.findall(r"^PPid:\s+(\d+)", Path(f"/proc/{parent}/status").read_text(), re.M)[0])
            except (OSError, IndexError):
                continue
            if above == self.process.pid and not re.search(r"^State:\s+Z", text, re.M):
                found.append(int(status.parent.name))
        return found


Start = Callable[..., Running]
PATIENT = ("watch.silence=60", "watch.batch=120", "watch.start=240", "batch.deadline=120", "batch.queue_seconds=120")
"""A machine on which much else runs is no reason to replace a worker or to refuse a request; tests of that say so."""


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts `bertsmith serve` with arguments and waits until it takes requests; all are ended at the end."""
    started: list[Running] = []

    def run(*arguments: object, **environment: str) -> Running:
        log = tmp_path_factory.mktemp("served") / "log"
        words = [sys.executable, "-m", "bertsmith.cli.main", "serve"]
        words += [word for setting in PATIENT for word in ("--set", setting)] + [str(word) for word in arguments]
        words += ["--port", "0", "--threads", "1", "--device", "cpu", "--precision", "fp32"]
        with open(log, "wb") as file:
            process = subprocess.Popen(words, stderr=file, env=os.environ | environment)
        end = time.monotonic() + 600
        while not (found := re.search(r"serving at https?://\S+?:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        started.append(Running(f"http://127.0.0.1:{found[1]}", process, log))
        return started[-1]

    yield run
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
    for one in started:
        try:
            one.process.wait(30)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


SMALL = {
    "limits.body_bytes": "100k",
    "limits.plain_bytes": "200k",
    "limits.items": "100",
    "limits.characters": "50k",
    "limits.tokens": "5000",
    "limits.header_seconds": "5",
    "limits.receive_seconds": "5",
    "limits.header_bytes": "8k",
    "batch.tokens": "256",
}


@pytest.fixture(scope="session")
def served(start: Start, bundles: Path) -> Running:
    """A bundle of each task behind one address, with small limits and without keys."""
    sets = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    return start(*(bundles / name for name in TASKS), *sets)
