"""How long it takes to plan an epoch of 100 million tokens, and how soon a killed run is at its next step.

Claim: planning takes less than 10 s and 500 MB; `bertsmith pretrain --resume` takes its next step within 15 s.

How it is measured: a token store of made-up ids is written (sentences of 5 to 45 pieces, documents of 5 to 45
sentences; what a plan costs depends on their number, not on what they say). A fresh process opens it, plans an epoch
with pairs and reads the first batch; its time and its peak (`VmHWM`) count from after the imports, the peak also as a
whole. Then the command is started on the same store, killed by SIGKILL after its first checkpoint, and started again
with `--resume`: the time is that of the whole command from its start to the first step that is new. Linux only.

    python benchmarks/planning.py                  # some minutes, most of them to write the store
    python benchmarks/planning.py --tokens 10M --json

Last result (2026-11-26, 2 cores of a Xeon with AMX): planning 0.7 s, 196 MB more than before it and 450 MB in all; the
first new step 11.3 s after the command was started again.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _ground import field_mb, last_step, machine

PIECES = 12_000
SECONDS, MEGABYTES, RESUME_SECONDS = 10.0, 500.0, 15.0


def make_store(folder: Path, tokens: int) -> None:
    """A store of made-up ids with its vocabulary beside it.

    Args:
        folder: gets `vocab/` and `store/`.
        tokens: how many, about.
    """
    from bertsmith.corpus.build import build
    from bertsmith.corpus.document import Document, Tally
    from bertsmith.tasks.vocabulary import save_vocabulary
    from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer

    plain = folder / "vocab.txt"
    plain.write_text("".join(f"{piece}\n" for piece in (*SPECIAL_TOKENS, *(f"w{n}" for n in range(PIECES - 5)))))
    tokenizer = Tokenizer.load(plain)
    save_vocabulary(tokenizer, folder / "vocab")
    draw = np.random.default_rng(0)

    def documents() -> Iterator[Document]:
        for number in range(tokens // (25 * 25)):
            yield Document(id=str(number), source="made up", text="\n".join(["It is."] * int(draw.integers(5, 46))))

    def encode(sentences: Sequence[str]) -> tuple[Any, Any, Any]:
        sizes = draw.integers(5, 46, len(sentences))
        ids = draw.integers(5, PIECES, int(sizes.sum()), dtype=np.int32)
        return ids, np.ones(len(ids), np.bool_), sizes

    build(
        documents(),
        encode,
        folder / "store",
        vocab_size=PIECES,
        tokenizer_hash=tokenizer.hash,
        settings={"inputs": ["made up"]},
        tally=Tally(),
    )


def plan(folder: Path) -> dict[str, float]:
    """Plan in this process, and read a batch.

    Args:
        folder: made by `make_store`.

    Returns:
        `tokens`, `seconds`, `grown_mb` and `peak_mb`.
    """
    from bertsmith.corpus.store import Store
    from bertsmith.tasks.pretraining import Pretraining
    from bertsmith.tokenizer.load import Tokenizer
    from bertsmith.train.feed import PretrainingFeed

    task = Pretraining(Tokenizer.load(folder / "vocab"))
    own = Path("/proc/self")
    (own / "clear_refs").write_text("5")
    before = field_mb("self", "VmRSS")
    began = time.perf_counter()
    store = Store.open(folder / "store")
    feed = PretrainingFeed(task, store, task.rows(store)[0], seed=0, batch_tokens=4096)
    feed(0)
    seconds = time.perf_counter() - began
    peak = field_mb("self", "VmHWM")
    return {"tokens": store.num_tokens, "seconds": seconds, "grown_mb": peak - before, "peak_mb": peak}


def resume(folder: Path, sets: Sequence[str]) -> dict[str, float]:
    """Start, kill after the first checkpoint, go on, and time it to the first new step.

    Args:
        folder: made by `make_store`.
        sets: further settings.

    Returns:
        `step`, the first that was new, and `seconds`.
    """
    run = folder / "run"
    command = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", "--out", str(run)]
    first = [*command, str(folder / "store"), "--steps", "100000", "--checkpoint-every", "5steps"]
    first += [word for value in ("train.evaluations=1", *sets) for word in ("--set", value)]
    with subprocess.Popen(first, stderr=subprocess.DEVNULL) as process:
        while not list(run.glob("checkpoints/step-*")) or last_step(run) < 8:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(first)} ended with {process.returncode}")
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    seen = last_step(run)
    began = time.perf_counter()
    with subprocess.Popen([*command, "--resume"], stderr=subprocess.DEVNULL) as process:
        while last_step(run) <= seen:
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} --resume ended with {process.returncode}")
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        process.send_signal(signal.SIGKILL)
    return {"step": seen + 1, "seconds": seconds}


def main() -> None:
    """Write the store, plan, resume, print."""
    from bertsmith.core.config import parse_count

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="100M", help="of the store")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the command")
    parser.add_argument("--json", action="store_true", help="print JSON lines instead of sentences")
    parser.add_argument("--tiny", action="store_true", help="a toy store and model: does this script still run?")
    parser.add_argument("--plan-only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan_only:
        print(json.dumps(plan(options.plan_only)))
        return
    tokens = parse_count("200k" if options.tiny else options.tokens)
    if options.tiny:
        options.set += ["model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=2"]
        options.set += ["train.compile=off", "task.max_length=32", "train.batch_tokens=256"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print(f"{machine()}; writing a store of {tokens:,} tokens …", file=sys.stderr)
        make_store(folder, tokens)
        child = subprocess.run(
            [sys.executable, __file__, "--plan-only", str(folder)], check=True, capture_output=True, text=True
        )
        planned: dict[str, float] = json.loads(child.stdout)
        went_on = resume(folder, options.set)
    if options.json:
        print(json.dumps({"part": "plan", **planned, "machine": machine()}))
        print(json.dumps({"part": "resume", **went_on}))
        return
    print(
        f"planning {planned['tokens'] / 1e6:.1f} M tokens: {planned['seconds']:.1f} s (claim below {SECONDS:.0f} s), "
        f"{planned['grown_mb']:.0f} MB more than before, {planned['peak_mb']:.0f} MB in all (claim below "
        f"{MEGABYTES:.0f} MB)"
    )
    print(f"resumed to step {went_on['step']}: {went_on['seconds']:.1f} s (claim below {RESUME_SECONDS:.0f} s)")


if __name__ == "__main__":
    main()
