"""Text to training-ready tokens: `corpus prepare` beside what others do with the same text and the same vocabulary.

Three sides, each in a fresh process, with the published vocabulary of bert-base-uncased or bert-base-chinese:

    ours        bertsmith corpus prepare with its defaults: cleaning (filter), near copies left out, sentences, store
    run_mlm     `datasets` and `tokenizers` as transformers' run_mlm.py uses them: articles to ids, ids to blocks of
                512, an Arrow cache; nothing is cleaned
    original    the algorithm of google-research/bert's create_pretraining_data.py, written anew: tokenization in
                Python, pairs of sentences, masks; five times over (as in its README; 10 by default), one process

The first two are given the same text; the last one, which is slow, a part of it, and all are compared by MB of UTF-8 a
second. `--claims` ends with 1 unless ours is at least 8 times run_mlm and 50 times the original.

On a machine that is busy with other things, look at processor time. See docs/log.md for what was measured.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import resource
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _ground import data_folder, machine, with_spread

LENGTH = 512
DUPES = 5
SHORT, MASKS, MASK_RATE = 0.1, 76, 0.15
CLAIMS = {"run_mlm": 8, "original": 50}
SIDES = ("ours", "run_mlm", "original")


def articles(corpus: Path, megabytes: float) -> list[str]:
    """Articles from the beginning of an extract.

    Args:
        corpus: a WikiExtractor file, xz.
        megabytes: of UTF-8 text, about.
    """
    from bertsmith.corpus.document import Tally
    from bertsmith.corpus.readers import read

    found: list[str] = []
    size = 0
    for document in read([str(corpus)], Tally()):
        found.append(document.text)
        size += len(document.text.encode())
        if size >= megabytes * 1e6:
            break
    return found


def ours(text: Path, vocabulary: Path, out: Path, processes: int) -> None:
    """The whole command, as a user types it.

    Args:
        text: one JSON object an article.
        vocabulary: a vocab.txt.
        out: where the store goes.
        processes: ranks.
    """
    words = [sys.executable, "-m", "bertsmith.cli.main", "corpus", "prepare", str(text), "--out", str(out)]
    subprocess.run([*words, "--vocab", str(vocabulary), "--nproc", str(processes), "--quiet"], check=True)


def run_mlm(text: Path, vocabulary: Path, out: Path, processes: int) -> None:
    """What run_mlm.py does with `--line_by_line` off: tokenize with the fast tokenizer, join, cut into blocks.

    Args:
        text: one JSON object an article.
        vocabulary: a vocab.txt.
        out: for the cache.
        processes: `preprocessing_num_workers`.
    """
    import datasets
    from transformers import AutoTokenizer

    from bertsmith.tokenizer.load import Tokenizer

    datasets.disable_progress_bars()
    files = Tokenizer.load(vocabulary).files(max_length=10**9)
    for name, data in ({"config.json": b'{"model_type": "bert"}'} | files).items():
        (out / name).write_bytes(data)
    tokenizer = AutoTokenizer.from_pretrained(out)

    def to_ids(rows: dict[str, Any]) -> Any:
        return tokenizer(rows["text"], return_special_tokens_mask=True)

    def to_blocks(rows: dict[str, Any]) -> dict[str, Any]:
        joined = {name: [one for row in values for one in row] for name, values in rows.items()}
        total = len(joined["input_ids"]) // LENGTH * LENGTH
        return {name: [row[at : at + LENGTH] for at in range(0, total, LENGTH)] for name, row in joined.items()}

    raw = datasets.load_dataset("json", data_files=str(text), split="train", cache_dir=str(out / "cache"))
    encoded = raw.map(to_ids, batched=True, num_proc=processes, remove_columns=["text"])
    encoded.map(to_blocks, batched=True, num_proc=processes)


class Original:
    """Tokenization and pairs as in the published script, in plain Python.

    Args:
        vocabulary: a vocab.txt.
    """

    def __init__(self, vocabulary: Path) -> None:
        self.pieces = {line: number for number, line in enumerate(vocabulary.read_text("utf-8").splitlines())}
        self.names = list(self.pieces)

    def tokens(self, text: str) -> list[str]:
        """Pieces of a `text`, character by character."""
        cleaned = []
        for sign in text:
            kind = unicodedata.category(sign)
            if sign in "\t\n\r" or kind == "Zs":
                cleaned.append(" ")
            elif sign == "\ufffd" or ord(sign) == 0 or kind.startswith("C"):
                continue
            elif 0x4E00 <= ord(sign) <= 0x9FFF or 0x3400 <= ord(sign) <= 0x4DBF:
                cleaned += [" ", sign, " "]
            else:
                cleaned.append(sign)
        found: list[str] = []
        for word in "".join(cleaned).split():
            bare = "".join(
                sign for sign in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(sign) != "Mn"
            )
            for part in self._split(bare):
                found += self._wordpiece(part)
        return found

    @staticmethod
    def _split(word: str) -> list[str]:
        parts: list[list[str]] = []
        fresh = True
        for sign in word:
            code = ord(sign)
            ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
            if ascii_mark or unicodedata.category(sign).startswith("P"):
                parts.append([sign])
                fresh = True
            else:
                if fresh:
                    parts.append([])
                fresh = False
                parts[-1].append(sign)
        return ["".join(part) for part in parts]

    def _wordpiece(self, word: str) -> list[str]:
        if len(word) > 200:
            return ["[UNK]"]
        found: list[str] = []
        start = 0
        while start < len(word):
            end = len(word)
            while start < end and ("##" if start else "") + word[start:end] not in self.pieces:
                end -= 1
            if start == end:
                return ["[UNK]"]
            found.append(("##" if start else "") + word[start:end])
            start = end
        return found

    def instances(
        self, documents: list[list[list[str]]], chance: random.Random
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Masked pairs of every document: ids, and the places of the masks.

        Args:
            documents: sentences of pieces.
            chance: draws everything.
        """
        for _ in range(DUPES):
            for number, document in enumerate(documents):
                yield from self._of_document(documents, number, document, chance)

    def _of_document(
        self, documents: list[list[list[str]]], number: int, document: list[list[str]], chance: random.Random
    ) -> Iterator[tuple[list[int], list[int]]]:
        room = LENGTH - 3
        target = chance.randint(2, room) if chance.random() < SHORT else room
        chunk: list[list[str]] = []
        size = at = 0
        while at < len(document):
            chunk.append(document[at])
            size += len(document[at])
            if at == len(document) - 1 or size >= target:
                end = chance.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
                first = [token for sentence in chunk[:end] for token in sentence]
                second: list[str] = []
                if len(chunk) == 1 or chance.random() < 0.5:
                    for _ in range(10):
                        other = chance.randrange(len(documents))
                        if other != number:
                            break
                    begin = chance.randrange(len(documents[other]))
                    for sentence in documents[other][begin:]:
                        second += sentence
                        if len(second) >= target - len(first):
                            break
                    at -= len(chunk) - end
                else:
                    second = [token for sentence in chunk[end:] for token in sentence]
                while len(first) + len(second) > room:
                    longer = first if len(first) > len(second) else second
                    longer.pop(0 if chance.random() < 0.5 else -1)
                if first and second:
                    yield self._masked(["[CLS]", *first, "[SEP]", *second, "[SEP]"], chance)
                chunk, size = [], 0
            at += 1

    def _masked(self, tokens: list[str], chance: random.Random) -> tuple[list[int], list[int]]:
        places = [place for place, token in enumerate(tokens) if token not in ("[CLS]", "[SEP]")]
        chance.shuffle(places)
        chosen = sorted(places[: min(MASKS, max(1, round(len(tokens) * MASK_RATE)))])
        for place in chosen:
            draw = chance.random()
            if draw < 0.9:
                tokens[place] = "[MASK]" if draw < 0.8 else chance.choice(self.names)
        return [self.pieces[token] for token in tokens], chosen


def original(text: Path, vocabulary: Path, out: Path, processes: int) -> None:
    """One sentence a line by a simple rule, all in memory, instances as JSON instead of TFRecords.

    Args:
        text: one JSON object an article.
        vocabulary: a vocab.txt.
        out: a folder for the instances.
        processes: not used; the script has one.
    """
    side = Original(vocabulary)
    documents = []
    for line in text.open(encoding="utf-8"):
        sentences = [side.tokens(part) for part in json.loads(line)["text"].replace(". ", ".\n").splitlines()]
        if sentences := [tokens for tokens in sentences if tokens]:
            documents.append(sentences)
    chance = random.Random(12345)
    chance.shuffle(documents)
    with (out / "instances").open("w") as file:
        for ids, places in side.instances(documents, chance):
            file.write(json.dumps([ids + [0] * (LENGTH - len(ids)), places]) + "\n")


def timed(side: str, text: Path, vocabulary: Path, processes: int) -> tuple[float, float]:
    """MB a second, and MB a second of processor time, of one side in a fresh process, starting it included.

    Args:
        side: of `SIDES`.
        text: one JSON object an article.
        vocabulary: a vocab.txt.
        processes: how many it may use.
    """
    size = sum(len(json.loads(line)["text"].encode()) for line in text.open(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--side", side, str(text), str(vocabulary), folder, str(processes)]
        began, used = time.perf_counter(), processor()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        return size / 1e6 / (time.perf_counter() - began), size / 1e6 / (processor() - used)


def processor() -> float:
    """Seconds of processor time of all processes that were waited for, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def work(side: str, text: str, vocabulary: str, out: str, processes: str) -> None:
    """One side, in this process, as `timed` starts it.

    Args:
        side: of `SIDES`.
        text: one JSON object an article.
        vocabulary: a vocab.txt.
        out: an empty folder.
        processes: how many it may use.
    """
    place = Path(out) / "store" if side == "ours" else Path(out)
    {"ours": ours, "run_mlm": run_mlm, "original": original}[side](Path(text), Path(vocabulary), place, int(processes))


def main() -> None:
    """Time the sides in turn, and print."""
    if sys.argv[1:2] == ["--side"]:
        work(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with corpus/enwiki.txt.xz [default: BERTSMITH_DATA]")
    parser.add_argument("--languages", default="en,zh", help="which extracts")
    parser.add_argument("--mb", type=float, default=100, help="text of each language, at most")
    parser.add_argument("--original-mb", type=float, default=2, help="text for the original")
    parser.add_argument("--processes", type=int, default=2, help="of ours and of run_mlm")
    parser.add_argument("--rounds", type=int, default=3, help="the sides take turns so often")
    parser.add_argument("--json", action="store_true", help="print a JSON line a language instead of the table")
    parser.add_argument("--claims", action="store_true", help="end with 1 where a claim does not hold")
    parser.add_argument("--tiny", action="store_true", help="a little text, once: does this script still run?")
    options = parser.parse_args()
    if options.tiny:
        options.mb, options.original_mb, options.rounds, options.languages = 0.3, 0.1, 1, "en"
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no text to measure with: set BERTSMITH_DATA to the folder of real data, or give --data")
    print(machine(), file=sys.stderr)
    missed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for language in options.languages.split(","):
            corpus = data / "corpus" / f"{language}wiki.txt.xz"
            packed = data / "vocab" / f"{'bert-base-uncased' if language == 'en' else 'bert-base-chinese'}.txt.xz"
            vocabulary = folder / "vocab.txt"
            vocabulary.write_bytes(lzma.decompress(packed.read_bytes()))
            files = {}
            for name, size in (("all", options.mb), ("part", options.original_mb)):
                files[name] = folder / f"{language}-{name}.jsonl"
                rows = [json.dumps({"text": text}) for text in articles(corpus, size)]
                files[name].write_text("\n".join(rows) + "\n", encoding="utf-8")
            speeds: dict[str, list[float]] = {side: [] for side in SIDES}
            costs: dict[str, list[float]] = {side: [] for side in SIDES}
            for _ in range(options.rounds):
                for side in SIDES:
                    text = files["part" if side == "original" else "all"]
                    speed, cost = timed(side, text, vocabulary, options.processes)
                    speeds[side].append(speed)
                    costs[side].append(cost)
            ratios = {
                side: [mine / theirs for mine, theirs in zip(speeds["ours"], speeds[side], strict=True)]
                for side in CLAIMS
            }
            missed |= any(min(ratios[side]) < claim for side, claim in CLAIMS.items())
            if options.json:
                print(
                    json.dumps(
                        {
                            "language": language,
                            "mb_per_second": speeds,
                            "mb_per_processor_second": costs,
                            "machine": machine(),
                        }
                    )
                )
                continue
            for side in SIDES:
                by_processor = f"{with_spread(costs[side], '.3f')} MB a second of processor time"
                print(f"{language}: {side:9} {with_spread(speeds[side], '.3f')} MB/s, {by_processor}")
            for side, claim in CLAIMS.items():
                print(f"{language}: ours is {with_spread(ratios[side], '.1f')} times {side}; claim at least {claim}")
    if options.claims and missed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
