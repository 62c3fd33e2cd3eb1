"""How much memory `bertsmith pretrain` takes as a whole command, and whether that grows with the corpus.

Claim: from 84 MB of text (the English Wikipedia extract twice) to a bundle the command stays below 1.5 GB resident, and
the peak of preparation is the same for half of that text.

How it is measured: the command runs as a person would type it, on a folder with one copy of the corpus and then on one
with two. A second process reads its kernel-kept peak (`VmHWM` in /proc/PID/status) and, as `vocab/` and then `store/`
appear in the run folder, resets it (`clear_refs`), so that each phase has a peak of its own. The whole tree's peak adds
up the resident memory of the command and its children (compilers), read every 50 ms; pages shared between them count
twice, so it errs on the high side. Linux only.

    python benchmarks/memory.py                       # about five minutes
    python benchmarks/memory.py --steps 200 --json > memory.jsonl

Last result (2026-11-25, 2 cores with AVX2, fp32): 84 MB of text peak at 871 MB, in training; preparation at 364 MB, and
at 363 MB for half of the text.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from _ground import data_folder, field_mb, machine

PHASES = {"vocabulary": "vocab", "preparation": "store", "training": "bundle"}
"""Each phase, and what appears in the run folder when it is over."""
LIMIT_MB = 1500
GROWTH_MB = 50
"""Preparation of twice the text may peak this much higher before it counts as growing."""
PAUSE = 0.05


@dataclass(frozen=True)
class Measured:
    """Peaks of one command, in MB of 1,000,000 bytes.

    Attributes:
        copies: of the corpus.
        text_mb: size of the text, decompressed.
        phases: the command's own peak in each phase.
        tree: of the command and its children together.
        seconds: the command took.
    """

    copies: int
    text_mb: float
    phases: dict[str, float]
    tree: float
    seconds: float


def family(process: int) -> list[int]:
    """A process and all that it started."""
    found = [process]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def watch(command: list[str], run: Path) -> tuple[dict[str, float], float, float]:
    """Run a pretraining command and follow its memory.

    Args:
        command: what to run.
        run: its run folder, by whose content the phases are told apart.

    Returns:
        Peaks by phase, the tree's peak, seconds.
    """
    began = time.monotonic()
    peaks = dict.fromkeys(PHASES, 0.0)
    waiting = list(PHASES.items())
    tree = 0.0
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        while process.poll() is None:
            phase, sign = waiting[0]
            over = len(waiting) > 1 and (run / sign).exists()
            peaks[phase] = max(peaks[phase], field_mb(process.pid, "VmHWM"))
            if over:
                waiting.pop(0)
                Path(f"/proc/{process.pid}/clear_refs").write_text("5")
            tree = max(tree, sum(field_mb(one, "VmRSS") for one in family(process.pid)))
            time.sleep(PAUSE)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return peaks, tree, time.monotonic() - began


def measure(corpus: Path, copies: int, options: argparse.Namespace) -> Measured:
    """Pretrain on so many copies of a corpus.

    Args:
        corpus: a file.
        copies: of it in the folder that is read.
        options: the command line.
    """
    from bertsmith.corpus.document import Tally
    from bertsmith.corpus.lines import read_lines

    with tempfile.TemporaryDirectory() as temporary:
        folder, run = Path(temporary) / "text", Path(temporary) / "run"
        folder.mkdir()
        for number in range(copies):
            shutil.copyfile(corpus, folder / f"{number}-{corpus.name}")
        command = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", str(folder), "--out", str(run)]
        command += ["--steps", str(options.steps), "--set", "train.evaluations=2"]
        for setting in options.set:
            command += ["--set", setting]
        phases, tree, seconds = watch(command, run)
        size = copies * sum(len(line.text.encode()) + line.whole for line in read_lines(corpus, Tally())) / 1e6
    return Measured(copies, size, phases, max(tree, *phases.values()), seconds)


def main() -> None:
    """Measure once and twice the corpus, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="updates; memory settles after the first few")
    parser.add_argument("--data", type=Path, help="folder with corpus/enwiki.txt.xz [default: BERTSMITH_DATA]")
    parser.add_argument("--text", type=Path, help="a file to read instead, compressed or not")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the command")
    parser.add_argument("--json", action="store_true", help="print a JSON line a measurement instead of the table")
    parser.add_argument("--tiny", action="store_true", help="a toy model: does this script still run?")
    options = parser.parse_args()
    if options.tiny:
        options.set += ["model.hidden_size=32", "model.num_hidden_layers=1", "model.num_attention_heads=2"]
        options.set += ["vocab.size=300", "train.compile=off", "task.max_length=32", "train.batch_tokens=256"]
    data = data_folder(options.data)
    corpus: Path | None = options.text or (data / "corpus" / "enwiki.txt.xz" if data else None)
    if corpus is None or not corpus.exists():
        raise SystemExit("no text to measure with: give --text FILE, or set BERTSMITH_DATA to the folder of real data")
    print(machine(), file=sys.stderr)
    once, twice = (measure(corpus, copies, options) for copies in (1, 2))
    growth = twice.phases["preparation"] - once.phases["preparation"]
    ratio = twice.phases["preparation"] / once.phases["preparation"]
    if options.json:
        for one in (once, twice):
            print(json.dumps(asdict(one) | {"machine": machine()}))
        return
    print(f"{'text':>9}" + "".join(f"{phase:>14}" for phase in (*PHASES, "whole tree")) + f"{'seconds':>9}")
    for one in (once, twice):
        peaks = "".join(f"{peak:11,.0f} MB" for peak in (*one.phases.values(), one.tree))
        print(f"{one.text_mb:6,.1f} MB{peaks}{one.seconds:9.0f}")
    print(f"peak of the tree on twice the text: {twice.tree:,.0f} MB; claim below {LIMIT_MB:,} MB")
    print(f"preparation, twice the text to once: {ratio:.2f} x ({growth:+.0f} MB); claim within {GROWTH_MB} MB")


if __name__ == "__main__":
    main()
