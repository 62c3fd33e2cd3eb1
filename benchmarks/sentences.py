"""How well texts are cut into sentences, and how fast, beside pysbd.

Claim: F1 of the boundaries on the gold sentences is at least 0.98 in English and in Chinese, above pysbd in both, and
real text is cut at 20 times the speed of pysbd or more.

How it is measured: `tests/corpus/sentences_en.txt` and `sentences_zh.txt` hold texts with their sentences marked, each
a difficulty of its own. A boundary is a place between two characters that are not white space; those of all texts are
added up before F1 is taken, and the ends of the texts do not count. The texts were written before the splitter was
measured by them, and of every fifth no fault was looked at while it was improved: those are scored apart. pysbd works
with `clean=False`, which keeps the text as it is, and with its rules of that language; it ends a sentence at every line
break, which gold does not. Speed: the same documents of the English and the Chinese Wikipedia extract through both, one
after the other in one process, several rounds.

    python benchmarks/sentences.py                  # about a minute
    python benchmarks/sentences.py --rounds 5 --json
    python benchmarks/sentences.py --faults         # the gold texts that are cut wrongly, but for those held out

Last result (2026-11-27, 2 cores of an EPYC, other work beside it): F1 0.989 in English, 0.995 in Chinese, of the texts
held out 0.978 and 0.989; pysbd 0.811 and 0.681. Speed 128 x (115 to 173) and 74 x (72 to 106), in
another run 219 and 73.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from _gold import Splitter, found, read_gold, score
from _ground import data_folder, machine, with_spread

LANGUAGES = {"en": "enwiki", "zh": "zhwiki"}
GOAL_F1, GOAL_SPEED = 0.98, 20.0
SAMPLE = "He left. She stayed. 他走了。她没走。"


@dataclass(frozen=True)
class Quality:
    """How well one splitter does in one language.

    Attributes:
        language: `en` or `zh`.
        side: `ours` or `pysbd`.
        f1: of all gold boundaries.
        held_out: of those in the texts held out.
        precision: share of the found boundaries that gold has.
        recall: share of gold boundaries that were found.
        whole: texts without a fault.
        texts: all of them.
    """

    language: str
    side: str
    f1: float
    held_out: float
    precision: float
    recall: float
    whole: int
    texts: int


@dataclass(frozen=True)
class Speed:
    """How fast both are on real text of one language.

    Attributes:
        language: `en` or `zh`.
        characters: of text, a round.
        ours: million characters a second, each round.
        pysbd: the same.
        ratio: ours to pysbd, each round.
    """

    language: str
    characters: int
    ours: list[float]
    pysbd: list[float]
    ratio: list[float]


def splitters(language: str) -> dict[str, Splitter]:
    """Both sides.

    Args:
        language: `en` or `zh`.
    """
    try:
        import pysbd
    except ImportError:
        raise SystemExit("pysbd is not installed: pip install -c constraints.txt pysbd") from None
    from bertsmith.corpus.sentences import split

    return {"ours": split, "pysbd": pysbd.Segmenter(language=language, clean=False).segment}


def quality(language: str, side: str, splitter: Splitter) -> Quality:
    """Score a splitter by gold.

    Args:
        language: `en` or `zh`.
        side: its name.
        splitter: gives the sentences of a text.
    """
    cases = read_gold(language)
    every, held = score(splitter, cases), score(splitter, [case for case in cases if case.held_out])
    precision, recall = every.hits / (every.hits + every.invented), every.hits / (every.hits + every.missed)
    return Quality(language, side, every.f1, held.f1, precision, recall, every.whole, every.texts)


def documents(language: str, data: Path | None, characters: int) -> list[str]:
    """Real documents of about so many characters together; made-up ones without real data.

    Args:
        language: `en` or `zh`.
        data: the folder of real data.
        characters: how many.
    """
    if data is None:
        return [SAMPLE * 20] * (characters // (20 * len(SAMPLE)) + 1)
    from bertsmith.corpus.document import Tally
    from bertsmith.corpus.readers import read

    texts: list[str] = []
    for document in read([str(data / "corpus" / f"{LANGUAGES[language]}.txt.xz")], Tally()):
        texts.append(document.text)
        if sum(map(len, texts)) >= characters:
            break
    return texts


def rate(splitter: Splitter, texts: Sequence[str]) -> float:
    """Million characters a second.

    Args:
        splitter: gives the sentences of a text.
        texts: to split.
    """
    began = time.perf_counter()
    for text in texts:
        list(splitter(text))
    return sum(map(len, texts)) / 1e6 / (time.perf_counter() - began)


def speed(language: str, texts: Sequence[str], rounds: int) -> Speed:
    """Time both sides on the same texts, in turn.

    Args:
        language: `en` or `zh`.
        texts: to split.
        rounds: of both, after the first text to warm up.
    """
    sides = splitters(language)
    for splitter in sides.values():
        rate(splitter, texts[:1])
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, splitter in sides.items():
            taken[side].append(rate(splitter, texts))
    ratio = [ours / theirs for ours, theirs in zip(taken["ours"], taken["pysbd"], strict=True)]
    return Speed(language, sum(map(len, texts)), taken["ours"], taken["pysbd"], ratio)


def show_faults() -> None:
    """Print the gold texts that ours cuts wrongly, but for those held out."""
    for language in LANGUAGES:
        splitter = splitters(language)["ours"]
        for case in read_gold(language):
            if not case.held_out and found(splitter, case.text) != case.boundaries:
                print(f"{language}  {case.group}: {case.marked}\n    {' | '.join(splitter(case.text))}")


def main() -> None:
    """Score and time both in both languages, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of timing")
    parser.add_argument("--characters", type=int, default=300_000, help="of real text a round")
    parser.add_argument("--data", type=Path, help="folder with corpus/enwiki.txt.xz [default: BERTSMITH_DATA]")
    parser.add_argument("--faults", action="store_true", help="print what is cut wrongly, and nothing else")
    parser.add_argument("--json", action="store_true", help="print a JSON line a measurement instead of the table")
    parser.add_argument("--tiny", action="store_true", help="2,000 characters, one round: does this script still run?")
    options = parser.parse_args()
    if options.faults:
        show_faults()
        return
    if options.tiny:
        options.rounds, options.characters = 1, 2000
    data = data_folder(options.data)
    if data is None and not options.tiny:
        raise SystemExit("no text to measure with: set BERTSMITH_DATA to the folder of real data")
    print(machine(), file=sys.stderr)
    scored = [quality(one, *side) for one in LANGUAGES for side in splitters(one).items()]
    timed = [speed(one, documents(one, data, options.characters), options.rounds) for one in LANGUAGES]
    if options.json:
        for line in [*map(asdict, scored), *map(asdict, timed)]:
            print(json.dumps(line | {"machine": machine()}))
        return
    print(f"{'':4}{'':7}{'F1':>8}{'held out':>10}{'precision':>11}{'recall':>8}{'whole texts':>14}")
    for one in scored:
        shares = f"{one.f1:8.3f}{one.held_out:10.3f}{one.precision:11.3f}{one.recall:8.3f}"
        print(f"{one.language:4}{one.side:7}{shares}{f'{one.whole} of {one.texts}':>14}")
    for each in timed:
        print(
            f"{each.language}: {with_spread(each.ours)} million characters/s, pysbd {with_spread(each.pysbd, '.4f')}: "
            f"{with_spread(each.ratio, '.0f')} x"
        )
    least = min(one.f1 for one in scored if one.side == "ours")
    slowest = min(median(each.ratio) for each in timed)
    print(f"least F1: {least:.3f}; claim at least {GOAL_F1}")
    print(f"least speed: {slowest:.0f} x; claim at least {GOAL_SPEED:.0f} x")


if __name__ == "__main__":
    main()
