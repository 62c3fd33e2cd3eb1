"""How many altered copies near-deduplication finds, how many of its finds are right, how fast it is, and its memory.

Claim: of 2,000 altered copies planted in a Wikipedia extract, at least 0.95 of those whose Jaccard similarity to their
original is 0.8 or more are found, and at least 0.98 of what is left out is a copy; in English and in Chinese; and 1, 2
and 5 ranks leave out the same documents.

How it is measured: each copy is a random article in which a known share of the words (in Chinese: characters) is
dropped, or swapped with the next one, or cut off at the end; it is put at a random place among the articles. The truth
is the exact Jaccard similarity of the two texts' shingles, computed here with Python's sets of strings, by code that
shares nothing with the package. A pair counts as found when the later of the two is left out. Precision is the share of
all documents left out, also of those that were in the extract already, that reach 0.8 with the document they are said
to be a copy of. Each number of ranks runs in so many processes, which meet on disk only; every rank reads the whole
text. Speed is that of one process after reading; memory is its kernel-kept peak (`VmHWM`) in a process that does
nothing else. `--grow N` measures that also on N times the text, in each further round with the letters exchanged for
others, so that nothing repeats. Linux only.

    python benchmarks/duplicates.py                          # about three minutes
    python benchmarks/duplicates.py --grow 13 --languages en --json >> duplicates.jsonl     # 1 GB

Last result (2026-11-26, 2 cores of a Xeon with AMX, nothing else running): recall 1.0000 of 1,394 copies in English
and of 1,444 in Chinese; precision 1.0000 in both; the same with 1, 2 and 5 ranks; 22 and 15 MB/s. Peak 122 MB for 76
MB of text. On 250 and 1,002 MB (2026-11-25) the peak was 154 MB, as on 76 MB.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from _ground import data_folder, field_mb, machine

RANKS = (1, 2, 5)
RATES = {
    "dropped": (0.002, 0.005, 0.01, 0.02, 0.03, 0.05),
    "swapped": (0.002, 0.005, 0.01, 0.02),
    "cut off": (0.05, 0.1, 0.15, 0.2, 0.3),
}
"""Shares of the units, by kind of change; about half of such copies stay above the threshold."""
THRESHOLD = 0.8
EDGES = (0.8, 0.85, 0.9, 0.95)
SPAN = 5
"""Words, or Chinese characters, in a shingle."""
UNIT = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]|[^\W_\u3400-\u9fff\u3040-\u30ff]+")


@dataclass(frozen=True)
class Measured:
    """One language.

    Attributes:
        language: of the extract.
        documents: articles and copies.
        planted: copies whose similarity to their original is at least the threshold.
        recall: share of those that were found.
        recall_at: the same by similarity, from each of `EDGES` to the next.
        left_out: documents left out.
        precision: share of those that are a copy.
        same: whether every number of ranks left out the same.
        mb_per_second: text to a result in one process, reading not counted.
        peak_mb: of that process, in MB of 1,000,000 bytes.
        text_mb: size of the text.
    """

    language: str
    documents: int
    planted: int
    recall: float
    recall_at: dict[str, float]
    left_out: int
    precision: float
    same: bool
    mb_per_second: float
    peak_mb: float
    text_mb: float


def altered(text: str, kind: str, rate: float, chance: random.Random) -> str:
    """A copy of a text with some of its words (Chinese: characters) changed.

    Args:
        text: the original.
        kind: `dropped`, `swapped` with the next, or `cut off` at the end.
        rate: share of the words.
        chance: chooses which.
    """
    spans = [match.span() for match in UNIT.finditer(text)]
    if kind == "cut off":
        return text[: spans[int(len(spans) * (1 - rate))][0]]
    chosen = sorted(chance.sample(range(len(spans) - 1), max(1, round(len(spans) * rate))), reverse=True)
    for number in chosen:
        begin, end = spans[number]
        if kind == "dropped":
            text = text[:begin] + text[end:]
        else:
            after, last = spans[number + 1]
            text = text[:begin] + text[after:last] + text[end:after] + text[begin:end] + text[last:]
            spans[number + 1] = (last - (end - begin), last)
    return text


def shingle_set(text: str) -> set[tuple[str, ...]]:
    """The shingles as they stand: `SPAN` consecutive words or Chinese characters.

    Args:
        text: any text of more than `SPAN` words.
    """
    units = UNIT.findall(text.lower())
    return {tuple(units[at : at + SPAN]) for at in range(len(units) - SPAN + 1)}


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of the shingles of two texts.

    Args:
        first: a text.
        second: another one.
    """
    left, right = shingle_set(first), shingle_set(second)
    return len(left & right) / max(1, len(left | right))


def plant(articles: list[str], copies: int, chance: random.Random) -> tuple[list[str], list[tuple[int, int]]]:
    """Put altered copies of random articles at random places.

    Args:
        articles: the originals.
        copies: how many.
        chance: chooses which, how and where.

    Returns:
        All texts, and of each copy its own place and that of its original.
    """
    long = [number for number, text in enumerate(articles) if len(text) > 200]
    chosen = chance.sample(long, copies) if copies <= len(long) else chance.choices(long, k=copies)
    ways = [(kind, rate) for kind, rates in RATES.items() for rate in rates]
    made = [(number, altered(articles[number], *chance.choice(ways), chance)) for number in chosen]
    order = list(range(len(articles) + copies))
    chance.shuffle(order)
    texts = [*articles, *(text for _, text in made)]
    place = {old: new for new, old in enumerate(order)}
    pairs = [(place[len(articles) + copy], place[number]) for copy, (number, _) in enumerate(made)]
    return [texts[old] for old in order], pairs


def texts_of(file: Path, rounds: int = 1) -> Iterator[str]:
    """The texts of a JSON lines file, again and again with other letters.

    Args:
        file: with a field `text`.
        rounds: how often; letters are exchanged from the second on.
    """
    from bertsmith.corpus.document import Tally
    from bertsmith.corpus.readers import read

    small = "".join(map(chr, chain(range(97, 123), range(0x4E00, 0x9FA0))))
    for number in range(rounds):
        letters = list(small[:26])
        random.Random(number).shuffle(letters)
        shift = 26 + 97 * number
        table = str.maketrans(small, "".join(letters) + small[shift:] + small[26:shift]) if number else {}
        for document in read([str(file)], Tally()):
            yield document.text.translate(table) if number else document.text


def step(name: str, file: Path, folder: Path, ranks: int, rank: int) -> None:
    """One rank's part of one step, in a process of its own.

    Args:
        name: of the step.
        file: all texts.
        folder: of the job.
        ranks: how many there are.
        rank: which one this is.
    """
    from bertsmith.corpus import dedup

    config = dedup.DedupConfig(mode="near")
    if name == "sketch":
        mine = ((number, text) for number, text in enumerate(texts_of(file)) if number % ranks == rank)
        dedup.sketch(mine, folder, rank, config)
    elif name == "match_texts":
        dedup.match_texts(folder, rank, ranks)
    else:
        {"match_bands": dedup.match_bands, "compare": dedup.compare}[name](folder, rank, ranks, config)


def by_ranks(file: Path, folder: Path, ranks: int) -> Any:
    """The result with so many ranks, each a process.

    Args:
        file: all texts.
        folder: of the job.
        ranks: how many.
    """
    from bertsmith.corpus.dedup import choose

    with ProcessPoolExecutor(ranks, mp_context=get_context("spawn")) as pool:
        for name in ("sketch", "match_texts", "match_bands", "compare"):
            list(pool.map(partial(step, name, file, folder, ranks), range(ranks)))
    return choose(folder).rows


def alone(file: Path, folder: Path, rounds: int) -> tuple[float, float, float]:
    """Bytes of text, seconds without reading, and peak memory of the whole search in this process.

    Args:
        file: all texts.
        folder: of the job.
        rounds: how often the text, with other letters each time.
    """
    from bertsmith.corpus.dedup import DedupConfig, find

    size, reading = 0, 0.0

    def timed() -> Iterator[str]:
        nonlocal size, reading
        texts = texts_of(file, rounds)
        while True:
            began = time.perf_counter()
            text = next(texts, None)
            if text is None:
                return
            size += len(text.encode())
            reading += time.perf_counter() - began
            yield text

    began = time.perf_counter()
    find(timed(), folder, DedupConfig(mode="near"))
    return size, time.perf_counter() - began - reading, field_mb("self", "VmHWM")


def search_alone(file: Path, folder: Path, rounds: int) -> tuple[float, float, float]:
    """`alone`, in a fresh process.

    Args:
        file: all texts.
        folder: of the job.
        rounds: how often the text.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(alone, file, folder, rounds).result()


def measure(language: str, corpus: Path, copies: int, grow: int) -> Measured:
    """Plant copies in an extract and look for them.

    Args:
        language: of the extract.
        corpus: the extract.
        copies: to plant.
        grow: measure speed and memory on so many times the text.
    """
    from bertsmith.corpus.document import Tally
    from bertsmith.corpus.readers import read

    articles = [document.text for document in read([str(corpus)], Tally())]
    texts, planted = plant(articles, copies, random.Random(0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = folder / "texts.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        texts = list(texts_of(file))
        results = [by_ranks(file, folder / f"{ranks}-ranks", ranks) for ranks in RANKS]
        size, seconds, peak = search_alone(file, folder / "alone", grow)
    rows = results[0].tolist()
    left_out = {row[0] for row in rows}
    known = {(max(pair), min(pair)): similarity(texts[pair[0]], texts[pair[1]]) for pair in planted}
    truth = [(value, later) for (later, _), value in known.items()]
    copies_found = {
        f"{low}": [later in left_out for value, later in truth if low <= value < high]
        for low, high in zip(EDGES, (*EDGES[1:], 2.0), strict=True)
    }
    found = [later in left_out for value, later in truth if value >= THRESHOLD]
    finds = [known.get(row[:2]) or similarity(texts[row[0]], texts[row[1]]) for row in rows]
    right = [value >= THRESHOLD for value in finds]
    return Measured(
        language,
        len(texts),
        len(found),
        sum(found) / max(1, len(found)),
        {low: sum(those) / max(1, len(those)) for low, those in copies_found.items()},
        len(rows),
        sum(right) / max(1, len(right)),
        all(other.tolist() == rows for other in results),
        size / 1e6 / seconds,
        peak,
        size / 1e6,
    )


def main() -> None:
    """Measure each language, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with corpus/enwiki.txt.xz [default: BERTSMITH_DATA]")
    parser.add_argument("--languages", default="en,zh", help="which extracts")
    parser.add_argument("--copies", type=int, default=2000, help="to plant in each")
    parser.add_argument("--grow", type=int, default=1, metavar="N", help="speed and memory on N times the text")
    parser.add_argument("--json", action="store_true", help="print a JSON line a language instead of the table")
    parser.add_argument("--tiny", action="store_true", help="a few copies: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no text to measure with: set BERTSMITH_DATA to the folder of real data, or give --data")
    print(machine(), file=sys.stderr)
    for language in options.languages.split(","):
        corpus = data / "corpus" / f"{language}wiki.txt.xz"
        one = measure(language, corpus, 20 if options.tiny else options.copies, options.grow)
        if options.json:
            print(json.dumps(asdict(one) | {"machine": machine()}))
            continue
        at = ", ".join(f"{value:.3f} from {low}" for low, value in one.recall_at.items())
        print(f"{language}: {one.documents:,} documents, {one.planted:,} planted copies at {THRESHOLD} or more")
        print(f"  recall {one.recall:.4f} ({at}); claim at least 0.95")
        print(f"  precision {one.precision:.4f} of {one.left_out:,} left out; claim at least 0.98")
        print(f"  the same with {', '.join(map(str, RANKS))} ranks: {'yes' if one.same else 'NO'}")
        print(f"  {one.text_mb:,.1f} MB at {one.mb_per_second:.1f} MB/s, peak {one.peak_mb:,.0f} MB")


if __name__ == "__main__":
    main()
