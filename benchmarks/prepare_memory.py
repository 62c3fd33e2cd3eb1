"""How much memory `bertsmith corpus prepare` takes with near-deduplication on, and whether that grows with the corpus.

Claim: from 84 MB and from 1 GB of English text to a clean store with a vocabulary of its own, the command and its two
ranks together stay below 700 MB resident.

How it is measured: the command runs as a person would type it, with every setting as it comes, on the English Wikipedia
extract repeated; in each further round the letters are exchanged for others, so that nothing repeats, and the cleaning
rules that would notice are off (stop words, other languages). Resident memory of the command and its children is added
up every 50 ms; pages that they share count more than once, so it errs on the high side. Also shown is the largest of
the processes. Linux only.

    python benchmarks/prepare_memory.py                    # 84 MB and 1 GB: perhaps half an hour on 2 cores
    python benchmarks/prepare_memory.py --rounds 1 2       # 42 and 84 MB: some minutes

Last result (2026-11-27, 2 cores of an EPYC with AVX2 and other work on them): 84 MB peak at 571 MB together (339 MB the
largest process), 1,002 MB at 669 MB (386 MB). Before words were counted ahead of the vocabulary's training it was 817
and 1,556 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from _ground import data_folder, field_mb, machine
from duplicates import texts_of
from memory import family

LIMIT_MB = 700
PAUSE = 0.05


@dataclass(frozen=True)
class Measured:
    """One size of corpus.

    Attributes:
        rounds: of the extract.
        text_mb: size of the text in MB of 1,000,000 bytes.
        tree_mb: peak of the command and its ranks together.
        largest_mb: peak of the largest of them.
        documents: that the store has.
        seconds: the command took.
    """

    rounds: int
    text_mb: float
    tree_mb: float
    largest_mb: float
    documents: int
    seconds: float


def measure(corpus: Path, rounds: int, nproc: int, sets: list[str]) -> Measured:
    """Prepare so many rounds of a corpus.

    Args:
        corpus: a file.
        rounds: how often, with other letters each time.
        nproc: ranks.
        sets: settings of the command.
    """
    with tempfile.TemporaryDirectory(prefix="bertsmith-memory-") as temporary:
        folder, store = Path(temporary) / "text", Path(temporary) / "store"
        folder.mkdir()
        size = 0
        file = None
        for number, text in enumerate(texts_of(corpus, rounds)):
            if number % 1000 == 0:
                if file is not None:
                    file.close()
                file = (folder / f"{number:09}.jsonl").open("w", encoding="utf-8")
            assert file is not None
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            size += len(text.encode())
        if file is not None:
            file.close()
        command = [sys.executable, "-m", "bertsmith.cli.main", "corpus", "prepare", str(folder), "--out", str(store)]
        command += ["--nproc", str(nproc), "--set", "corpus.clean.english.min_stop_words=0"]
        for setting in sets:
            command += ["--set", setting]
        tree, largest, began = 0.0, 0.0, time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr) as process:
            while process.poll() is None:
                sizes = [field_mb(one, "VmRSS") for one in family(process.pid)]
                tree, largest = max(tree, sum(sizes)), max(largest, *sizes)
                time.sleep(PAUSE)
        seconds = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        documents = json.loads((store / "manifest.json").read_bytes())["counts"]["documents"]
    return Measured(rounds, size / 1e6, tree, largest, documents, seconds)


def main() -> None:
    """Measure each size, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, nargs="+", default=[2, 24], metavar="N", help="times the extract")
    parser.add_argument("--nproc", type=int, default=2, help="ranks")
    parser.add_argument("--data", type=Path, help="folder with corpus/enwiki.txt.xz [default: BERTSMITH_DATA]")
    parser.add_argument("--json", action="store_true", help="print a JSON line a size instead of the table")
    parser.add_argument("--tiny", action="store_true", help="a toy vocabulary: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no text to measure with: set BERTSMITH_DATA to the folder of real data, or give --data")
    print(machine(), file=sys.stderr)
    sets = ["vocab.size=400", "vocab.min_frequency=1"] if options.tiny else []
    found = [measure(data / "corpus" / "enwiki.txt.xz", rounds, options.nproc, sets) for rounds in options.rounds]
    if options.json:
        for one in found:
            print(json.dumps(asdict(one) | {"nproc": options.nproc, "machine": machine()}))
        return
    for one in found:
        print(
            f"{one.text_mb:8,.1f} MB of text, {one.documents:,} documents: together {one.tree_mb:,.0f} MB, the largest "
            f"process {one.largest_mb:,.0f} MB, {one.seconds:,.0f} s, {one.text_mb / one.seconds:.1f} MB/s"
        )
    print(f"claim: below {LIMIT_MB:,} MB together")


if __name__ == "__main__":
    main()
