"""Which engine is the faster on this machine, for short texts and for long ones."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from bertsmith.core.bundle import Bundle
from bertsmith.core.device import environment
from bertsmith.core.errors import ConfigError
from bertsmith.model.dense import to_onnx
from bertsmith.model.packing import Encoding
from bertsmith.predict.engine import forward
from bertsmith.predict.engines import SHORT, Engine, onnx_engine, torch_engine
from bertsmith.predict.predictor import Predictor
from bertsmith.predict.runtime import onnx_file, read_whole

FILE = "model.onnx"
TEXTS = 32


def bench(bundle: Bundle, *, rounds: int = 7) -> dict[str, Any]:
    """Time both engines in turns, write down in the bundle which is faster, and put the ONNX model in if it won.

    Args:
        bundle: with `bertsmith.json`, for otherwise there is no place for the result.
        rounds: times that each engine answers; the median counts.

    Returns:
        `short` and `long`: the engine chosen; `figures`: tokens a second and milliseconds of one text, by engine and
        size; `processor`, `threads`.

    Raises:
        ConfigError: a plain folder, a model that writes texts, a shape that ONNX export does not know, or a package is
            absent.
    """
    bundle = bundle.whole()
    if not bundle.meta:
        raise ConfigError(f"{bundle.path}: no bertsmith.json to write the result into; make a bundle with `convert`")
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; it must be at least 1")
    predictor = Predictor(bundle, device="cpu", engine="torch")
    if getattr(predictor.task, "ask", None) is not None:
        raise ConfigError(f"{bundle.path}: writes texts, which only the torch engine does; there is nothing to choose")
    file = onnx_file(bundle)
    data = to_onnx(predictor.model.encoder) if file is None else read_whole(file)
    kind = bundle.meta.get("onnx", {}).get("kind", "fp32")
    engines = {
        "torch": torch_engine(predictor.model, predictor.precision),
        "onnx": onnx_engine(predictor.model, data, kind),
    }
    facts = environment()
    longest = predictor.max_length
    result: dict[str, Any] = {"processor": facts["processor"], "threads": int(facts["threads"]), "figures": {}}
    result["engines"] = {name: engine.name for name, engine in engines.items()}
    for size, most in (("short", min(SHORT, longest)), ("long", longest)):
        figures = _times(engines, predictor.model.config.vocab_size, most, rounds)
        result["figures"][size] = figures
        result[size] = max(figures, key=lambda name: figures[name]["tokens_per_second"])
    if file is None and "onnx" in (result["short"], result["long"]):
        bundle = bundle.add(FILE, data, onnx={"file": FILE, "kind": kind})
    bundle.annotate(bench=result)
    return result


def _times(engines: Mapping[str, Engine], vocab_size: int, most: int, rounds: int) -> dict[str, dict[str, float]]:
    draw = np.random.default_rng(0)
    lengths = draw.integers(max(2, most // 2), most + 1, TEXTS)
    texts = [Encoding(draw.integers(0, vocab_size, n).astype(np.int32), np.zeros(n, np.int32)) for n in lengths]
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    for _ in range(rounds + 1):
        for name, engine in engines.items():
            took[name].append((_seconds(engine, texts), _seconds(engine, texts[:1])))
    return {
        name: {
            "tokens_per_second": float(lengths.sum()) / median(many for many, _ in times[1:]),
            "milliseconds": 1000 * median(one for _, one in times[1:]),
        }
        for name, times in took.items()
    }


def _seconds(engine: Engine, texts: list[Encoding]) -> float:
    start = time.perf_counter()
    for _ in forward(engine.model, texts, precision=engine.precision, pooling="cls"):
        pass
    return time.perf_counter() - start
