"""What runs in a worker's own process: a bundle that answers batches, in which an item that fails, fails alone."""

from __future__ import annotations

import hashlib
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from bertsmith.core.bundle import Bundle
from bertsmith.core.device import set_threads
from bertsmith.core.errors import BertsmithError
from bertsmith.core.files import sha256_file
from bertsmith.corpus.privacy import redact
from bertsmith.predict.predictor import Predictor, input_names, takes_pairs
from bertsmith.serve.batcher import TELLING, Item, Outcome
from bertsmith.serve.trust import check_folder
from bertsmith.tasks.choice import Choice
from bertsmith.tasks.label_sets import positive_of
from bertsmith.tasks.matching import Matching

HEAD = struct.Struct("!Q")
BEAT = 0.5
"""Seconds between signs of life."""
POOLING = "mean"
"""Of models that were not made to give vectors; what published encoders are most often read by."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker is to be.

    Attributes:
        path: of the bundle.
        device: such as `cpu`; None: the best there is.
        precision: `auto`, `bf16` or `fp32`.
        threads: of the processor; None: all.
        batch_tokens: pieces that are computed at once.
    """

    path: str
    device: str | None = None
    precision: str = "auto"
    threads: int | None = None
    batch_tokens: int = 8192


class Answerer:
    """A bundle, answering batches of mixed items.

    Args:
        spec: which bundle, and how.

    Raises:
        BundleError: the folder is no bundle, is damaged, or reaches outside itself.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        threads = set_threads(spec.threads)
        bundle = Bundle.open(spec.path, verify=False)
        check_folder(bundle.path)
        bundle.verify()
        self.predictor = Predictor(bundle, device=spec.device, precision=spec.precision, batch_tokens=spec.batch_tokens)
        self.facts = _facts(self.predictor) | {"threads": threads}

    def answer(self, items: Sequence[Item]) -> list[Outcome]:
        """Answer items, in their order.

        Args:
            items: of any kinds.

        Returns:
            For each `("ok", answer)`, `("invalid", why)` for what the model cannot take, or `("failed", why)`.
        """
        order = sorted(range(len(items)), key=lambda i: (items[i].kind, repr(items[i].options)))
        outcomes: list[Outcome] = [("failed", "")] * len(items)
        for _, group in groupby(order, key=lambda i: (items[i].kind, items[i].options)):
            mine = list(group)
            for index, outcome in zip(mine, self._alike([items[i] for i in mine]), strict=True):
                outcomes[index] = outcome
        return outcomes

    def warm_up(self) -> None:
        """Answer once what a client could ask, so that the first client need not wait for it.

        Raises:
            RuntimeError: the model gives numbers that are none, or fails.
        """
        for item in self.probes():
            state, value = self.answer([item])[0]
            if state != "ok":
                raise RuntimeError(f"the model cannot answer: {value}")

    def speed(self) -> float:
        """Pieces a second, of a batch that is long enough to tell."""
        probe, length = self.probes()[0], int(self.facts["max_length"])
        more = " a" * (length - probe.tokens)
        payload = probe.payload
        longer = payload + more if isinstance(payload, str) else (*payload[:-1], payload[-1] + more)
        items = [replace(probe, payload=longer, tokens=length)] * -(-TELLING // length)
        start = time.perf_counter()
        self.answer(items)
        return length * len(items) / (time.perf_counter() - start)

    def probes(self) -> list[Item]:
        """A short question of each kind that the model takes."""
        facts, length = self.facts, 4
        text: str | tuple[str, ...] = "a b"
        if facts["chooses"]:
            text, length = ("a", "b", "b"), 10
        elif facts["task"] == "relate":
            text = "<e1>a</e1> <e2>b</e2>"
        elif facts["pairs"] or (facts["task"] == "pretraining" and facts["nsp"]):
            text, length = ("a", "b"), 5
        found = [Item("embed", "a b", 4)] if facts["mode"] == "bi" else []
        found += [Item("fill", "a [MASK]", 4, (("top_k", 1),))] if facts["mlm"] else []
        return found or [Item("answer", text, length)]

    def _alike(self, items: Sequence[Item]) -> list[Outcome]:
        """Answer items of one kind and the same options together; where that fails, each half by itself."""
        try:
            return self._together(items)
        except BertsmithError as error:
            if len(items) == 1:
                return [("invalid", str(error))]
        except Exception as error:
            if len(items) == 1:
                sys.stderr.write(redact(traceback.format_exc()).text)
                return [("failed", f"the model failed ({type(error).__name__})")]
        half = len(items) // 2
        return [*self._alike(items[:half]), *self._alike(items[half:])]

    def _together(self, items: Sequence[Item]) -> list[Outcome]:
        payloads: list[Any] = [item.payload for item in items]
        options = dict(items[0].options)
        if items[0].kind == "embed":
            vectors = self.predictor.encode(payloads, **options)
            finite = [bool(np.isfinite(row).all()) for row in vectors]
            return [("ok", row) if fine else NOT_FINITE for row, fine in zip(vectors, finite, strict=True)]
        if items[0].kind == "fill":
            answers = self.predictor.fill_mask(payloads, **options)
        else:
            answers = self.predictor(payloads, **options)
        return [("ok", one) if _finite(one) else NOT_FINITE for one in answers]


NOT_FINITE: Outcome = ("failed", "the model gave a number that is not finite; its weights are damaged")


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return bool(np.isfinite(value))
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    return all(map(_finite, value)) if isinstance(value, list) else True


def _facts(predictor: Predictor) -> dict[str, Any]:
    """What the front needs to know about a model; plain values."""
    bundle, task, heads = predictor.bundle, predictor.task, predictor.model.heads
    config = getattr(task, "config", None)
    onnx = "onnx" in predictor.engine.name
    sha = bundle.hash  # two models of the same weights, one of them in int8, must be told apart
    if onnx:
        sha = hashlib.sha256((sha + sha256_file(bundle.path / bundle.meta["onnx"]["file"])).encode()).hexdigest()
    tokenizer, labels = bundle.path, [] if task is None else list(task.labels)
    if bundle.base is not None:
        from bertsmith.peft.bundle import find_base

        tokenizer = find_base(bundle).path
    return {
        "task": predictor.task_name,
        "sha": sha,
        "version": sha[:12],
        "created": bundle.meta.get("created"),
        "labels": labels,
        "positive": (task is not None and task.name != "match" and positive_of(labels)) or (labels or [""])[-1],
        "mode": task.config.mode if isinstance(task, Matching) else None,
        "pairs": takes_pairs(task),
        "inputs": input_names(task),
        "numbers": bool(getattr(config, "regression", False)),
        "chooses": isinstance(task, Choice),
        "windows": predictor.task_name in ("tag", "answer") or getattr(config, "mode", None) == "extract",
        "pooling": getattr(config, "pooling", None),
        "prompt": getattr(config, "prompt", ""),
        "mlm": bool(heads.mlm),
        "nsp": bool(heads.nsp),
        "max_length": predictor.max_length,
        "dimensions": predictor.model.config.hidden_size,
        "model_type": str(bundle.config.get("model_type", "bert")),
        "precision": f"{predictor.engine.kind} ({predictor.engine.name})" if onnx else predictor.precision.reason,
        "tokenizer": str(tokenizer),
        "privacy": bundle.meta.get("privacy"),
        "inputs_seen": bundle.meta.get("inputs_seen"),
    }


def send(stream: Any, message: Any) -> None:
    """Write one message.

    Args:
        stream: of a socket.
        message: anything that pickle knows; both ends are ours.
    """
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(HEAD.pack(len(data)) + data)
    stream.flush()


def receive(stream: Any) -> Any:
    """Read one message; None when the other end is gone.

    Args:
        stream: of a socket.
    """
    head = stream.read(HEAD.size)
    return pickle.loads(stream.read(*HEAD.unpack(head))) if len(head) == HEAD.size else None


def work(end: socket.socket, spec: WorkerSpec) -> None:
    """Be a worker until the other end of the socket is closed.

    Says `("ready", facts)` or `("refused", why)`, then `("done", number, seconds, outcomes)` to each `(number, items)`,
    and `("alive",)` twice a second.

    Args:
        end: of a socket pair.
        spec: what to be.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the front ends this process
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stream, lock = end.makefile("rwb"), threading.Lock()

    def say(*message: Any) -> None:
        with lock:
            send(stream, message)

    def beat() -> None:
        try:
            while True:
                time.sleep(BEAT)
                say("alive")
        except (OSError, ValueError):
            return

    threading.Thread(target=beat, daemon=True).start()
    try:
        try:
            answerer = Answerer(spec)
            answerer.warm_up()
        except BertsmithError as error:
            say("refused", str(error))
            return
        except RuntimeError as error:
            say("refused", f"{spec.path}: {error}")
            return
        say("ready", answerer.facts | {"probes": answerer.probes(), "speed": answerer.speed()})
        while (message := receive(stream)) is not None:
            number, items = message
            start = time.perf_counter()
            outcomes = answerer.answer(items)
            say("done", number, time.perf_counter() - start, outcomes)
    except (BrokenPipeError, ConnectionResetError):
        return
