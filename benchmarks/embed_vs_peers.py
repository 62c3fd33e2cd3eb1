"""Vectors of texts beside sentence-transformers: all-MiniLM-L6-v2, the same texts, the same number of threads.

Asked: tokens a second over all texts, the median time of one text, and how far the vectors are from those of
sentence-transformers in fp32.

How it is measured: sentences and long paragraphs of the English and the Chinese Wikipedia, half each. Each way of
computing is a process of its own with `--threads` threads; it reads the texts, answers 64 of them to warm up, then all
of them `--rounds` times (the fastest counts), then `--single` texts one by one. Tokens are counted once, by our
tokenizer, cut as the model cuts. infinity-emb and the ONNX backend of sentence-transformers need other versions than we
do (numpy below 2, typer below 0.13), so they have an environment of their own; infinity's optimum engine is given an
ONNX file that we export. Of a way that does not start the table says so. It asks that the machine does nothing else
meanwhile.

    python -m venv /tmp/infinity
    /tmp/infinity/bin/pip install "infinity-emb[server,torch,optimum]" "numpy<2" "typer<0.13"
    python benchmarks/embed_vs_peers.py --peers /tmp/infinity/bin/python
    python benchmarks/embed_vs_peers.py --texts 60 --rounds 1 --single 5

Last result (2026-11-26, 2 cores of a Xeon with AMX, 2 threads, several runs): ours in torch bf16 5.2 to 7.7 times the
tokens/s of sentence-transformers, 5.8 times its ONNX backend, 7.5 times infinity-emb; one text in 0.31 to 0.56 of
sentence-transformers' time; vectors at most 1.7e-4 away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from _ground import data_folder, machine, minilm

OURS = ("ours torch", "ours onnx fp32", "ours onnx int8")
PEERS = ("theirs onnx", "infinity torch", "infinity optimum")
WAYS = ("theirs torch fp32", *PEERS, *OURS)
WARM = 64


def texts_of(data: Path, count: int) -> list[str]:
    """Sentences and paragraphs, half English and half Chinese, in a drawn order.

    Args:
        data: the folder of real data.
        count: how many.
    """
    draw = np.random.default_rng(0)
    chosen: list[str] = []
    for name, ends in (("enwiki", r"(?<=[.!?]) "), ("zhwiki", r"(?<=[。！？])")):
        with lzma.open(data / "corpus" / f"{name}.txt.xz", "rt", encoding="utf-8") as file:
            lines = [line.strip() for line, _ in zip(file, range(40_000), strict=False)]
        long = [line for line in lines if len(line) > (100 if name == "zhwiki" else 400)]
        short = [part for line in lines for part in re.split(ends, line) if len(part) > 10 and line[0] != "<"]
        for pool, share in ((long, count // 10), (short, count // 2 - count // 10)):
            chosen += [pool[i] for i in draw.choice(len(pool), share, replace=False)]
    return [chosen[i] for i in draw.permutation(len(chosen))]


def infinity(engine: str, folder: Path) -> Any:
    """What takes texts to unit vectors, by infinity-emb.

    Args:
        engine: `torch` or `optimum`.
        folder: of the model.
    """
    from infinity_emb import (  # type: ignore[import-not-found, unused-ignore]
        AsyncEmbeddingEngine,
        EngineArgs,
    )

    os.chdir(folder)  # its optimum engine finds the ONNX file only of a model in "."
    args = EngineArgs(model_name_or_path=".", engine=engine, device="cpu", model_warmup=False)
    running, loop = AsyncEmbeddingEngine.from_args(args), asyncio.new_event_loop()
    loop.run_until_complete(running.astart())
    return lambda texts: np.stack(loop.run_until_complete(running.embed(sentences=list(texts)))[0])


def with_onnx(folder: Path) -> Path:
    """The model with an ONNX file beside its weights, where infinity's optimum engine looks for one.

    Args:
        folder: to be made.
    """
    from bertsmith.model.dense import to_onnx
    from bertsmith.predict.predictor import Predictor

    if not folder.exists():
        shutil.copytree(minilm(), folder)
        encoder = Predictor.open(minilm(), device="cpu", engine="torch").model.encoder
        (folder / "model.onnx").write_bytes(to_onnx(encoder))
    return folder


def encoder(way: str, folder: Path) -> Any:
    """What takes texts to unit vectors.

    Args:
        way: one of WAYS.
        folder: of the model.
    """
    side, _, kind = way.partition(" ")
    if side == "infinity":
        return infinity(kind, folder)
    if side == "theirs":
        from sentence_transformers import SentenceTransformer

        backend: Literal["onnx", "torch"] = "onnx" if kind == "onnx" else "torch"
        model = SentenceTransformer(str(folder), device="cpu", backend=backend, local_files_only=True)
        return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    from bertsmith.model.dense import parts, to_onnx
    from bertsmith.predict.engines import onnx_engine
    from bertsmith.predict.predictor import Predictor

    predictor = Predictor.open(folder, device="cpu", engine="torch")
    if "onnx" in way:
        plain = predictor.model.encoder
        kind = way.rpartition(" ")[2]
        data = to_onnx(plain, parts(plain) if kind == "int8" else ())
        predictor.engine = onnx_engine(predictor.model, data, kind)
        predictor._how["precision"] = None
    return lambda texts: predictor.encode(texts, normalize=True)


def work(way: str, file: Path, options: argparse.Namespace) -> None:
    """Measure one way, in this process; write vectors and times beside the texts.

    Args:
        way: one of WAYS.
        file: the texts, as JSON.
        options: of the command line.
    """
    import torch

    torch.set_num_threads(options.threads)
    texts = json.loads(file.read_text(encoding="utf-8"))
    encode = encoder(way, options.model)
    encode(texts[:WARM])
    took = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        vectors = encode(texts)
        took.append(time.perf_counter() - start)
    alone = []
    for text in texts[: options.single]:
        start = time.perf_counter()
        encode([text])
        alone.append(time.perf_counter() - start)
    np.save(file.with_suffix(".npy"), np.asarray(vectors, np.float32))
    print(json.dumps({"seconds": min(took), "milliseconds": 1000 * median(alone)}), flush=True)
    os._exit(0)  # infinity's threads would go on


def main() -> None:
    """Measure all ways and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--single", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--peers", help="the Python of an environment with infinity-emb and optimum")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        work(options.way, options.file, options)
        return
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no real data: set BERTSMITH_DATA")
    from bertsmith.predict.predictor import Predictor

    texts = texts_of(data, options.texts)
    predictor = Predictor.open(minilm(), device="cpu")
    assert predictor.task is not None
    tokens = sum(min(len(p.ids) + 2, predictor.max_length) for p in predictor.tokenizer.encode(texts))
    print(f"{machine()}; {len(texts)} texts, {tokens:,} pieces, {options.threads} threads")
    reference: Any = None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        for way in options.ways:
            if way in PEERS and not options.peers:
                print(f"{way:18} was not asked: --peers")
                continue
            python = options.peers if way in PEERS else sys.executable
            model = with_onnx(Path(folder) / "model") if way == "infinity optimum" else minilm()
            argv = [
                python,
                __file__,
                "--model",
                str(model),
                "--way",
                way,
                "--file",
                str(file),
                "--threads",
                str(options.threads),
            ]
            argv += ["--rounds", str(options.rounds), "--single", str(options.single)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{way:18} did not start: {done.stderr.strip().splitlines()[-1][:150]}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            vectors = np.load(file.with_suffix(".npy"))
            reference = vectors if reference is None else reference
            far = float((1 - (vectors * reference).sum(1)).max())
            speed, wait = tokens / found["seconds"], found["milliseconds"]
            print(f"{way:18} {speed:10,.0f} tokens/s  one text {wait:7.2f} ms  cosine distance at most {far:.1e}")


if __name__ == "__main__":
    main()
