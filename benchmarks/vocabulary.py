"""Whether a vocabulary of 30,000 pieces knows every Chinese character, and how it compares with bert-base-uncased's.

Claim: of a vocabulary of 30,000 pieces trained on Chinese Wikipedia no Han character that occurs five times is [UNK];
one trained on English Wikipedia needs at most 3 % more pieces a word than the published vocabulary of
bert-base-uncased.

How it is measured: Chinese: all characters of the CJK ideograph blocks are counted in the raw text, and each that
occurs five times is encoded alone. English: pieces per word, where a punctuation mark is a word; on the text that the
vocabulary was trained on, and, because that flatters it, on every fifth article when it was trained on the other four.
The published vocabulary was trained on another and larger text (Wikipedia and books) and has 30,522 pieces, 994 of them
reserved.

    python benchmarks/vocabulary.py              # about two minutes
    python benchmarks/vocabulary.py --json >> vocabulary.jsonl

Last result (2026-11-27, 2 cores, torch 2.13): none of 6,391 Han characters that occur five times is [UNK] (1,150 of the
2,342 rarer ones are); 1.0699 pieces per word against 1.0943, ratio 0.978, and on articles held out 1.0855 against
1.0942, ratio 0.992.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _ground import data_folder, machine, published_vocabulary

SIZE = 30_000
OFTEN = 5
FIFTH = 5


def texts_of(corpus: Path) -> list[str]:
    """The articles of an extract.

    Args:
        corpus: its file.
    """
    from bertsmith.corpus.document import Tally
    from bertsmith.corpus.readers import read

    return [document.text for document in read([str(corpus)], Tally())]


def trained(texts: Sequence[str], size: int) -> Any:
    """A vocabulary with all settings as they come.

    Args:
        texts: articles.
        size: pieces.
    """
    from bertsmith.tokenizer.train import VocabConfig, train_wordpiece

    return train_wordpiece(texts, VocabConfig(size=size))


def chinese(texts: Sequence[str], size: int) -> dict[str, Any]:
    """Han characters that occur often, and those of them that are [UNK].

    Args:
        texts: articles.
        size: pieces.
    """
    from bertsmith.tokenizer.segment import HAN

    tokenizer = trained(texts, size)
    counts = Counter(character for text in texts for character in HAN.findall(text))
    often = sorted(character for character, count in counts.items() if count >= OFTEN)
    encoded = tokenizer.encode_ids(often)
    lost = [character for character, (ids, _) in zip(often, encoded, strict=True) if tokenizer.unk_id in ids]
    every = tokenizer.encode_ids(sorted(counts))
    rare = sum(tokenizer.unk_id in ids for ids, _ in every) - len(lost)
    return {
        "language": "zh",
        "pieces": tokenizer.vocab_size,
        "characters": len(counts),
        "often": len(often),
        "often_unknown": lost,
        "rare_unknown": rare,
    }


def english(texts: Sequence[str], size: int, published: Path) -> dict[str, Any]:
    """Pieces per word of a vocabulary of one's own and of the published one, on the text and on articles held out.

    Args:
        texts: articles.
        size: pieces.
        published: a vocab.txt.
    """
    from bertsmith.tokenizer.advice import measure
    from bertsmith.tokenizer.load import Tokenizer
    from bertsmith.tokenizer.words import count_words

    theirs = Tokenizer.load(published)
    held_out = texts[::FIFTH]
    others = [text for number, text in enumerate(texts) if number % FIFTH]
    found: dict[str, Any] = {"language": "en", "published_pieces": theirs.vocab_size}
    for name, learned, measured in (("seen", texts, texts), ("held_out", others, held_out)):
        ours = trained(learned, size)
        words = count_words(measured, ours)
        mine, other = measure(ours, words).whole, measure(theirs, words).whole
        found |= {
            "pieces": ours.vocab_size,
            f"{name}_ours": mine.fertility,
            f"{name}_published": other.fertility,
            f"{name}_ratio": mine.fertility / other.fertility,
            f"{name}_unknown_ours": mine.unknown_rate,
            f"{name}_unknown_published": other.unknown_rate,
        }
    return found


def main() -> None:
    """Measure both languages, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with corpus/enwiki.txt.xz [default: BERTSMITH_DATA]")
    parser.add_argument("--json", action="store_true", help="print a JSON line a language instead of the text")
    parser.add_argument("--tiny", action="store_true", help="few pieces: does this script still run?")
    options = parser.parse_args()
    data = data_folder(options.data)
    if data is None:
        raise SystemExit("no text to measure with: set BERTSMITH_DATA to the folder of real data, or give --data")
    print(machine(), file=sys.stderr)
    size = 400 if options.tiny else SIZE
    with tempfile.TemporaryDirectory() as temporary:
        published = published_vocabulary(data, Path(temporary))
        if published is None:
            raise SystemExit(f"{data}: no vocab/bert-base-uncased.txt.xz to compare with")
        zh = chinese(texts_of(data / "corpus" / "zhwiki.txt.xz"), size)
        en = english(texts_of(data / "corpus" / "enwiki.txt.xz"), size, published)
    if options.json:
        for line in (zh, en):
            print(json.dumps(line | {"machine": machine()}, ensure_ascii=False))
        return
    lost, others = len(zh["often_unknown"]), zh["characters"] - zh["often"]
    print(f"zh: {zh['pieces']:,} pieces; {zh['often']:,} Han characters occur {OFTEN} times, {lost} of them are [UNK]")
    print(f"  claim: none; of the {others:,} that are rarer, {zh['rare_unknown']:,} are")
    print(f"en: {en['pieces']:,} pieces against {en['published_pieces']:,} of bert-base-uncased; claim: at most 1.03")
    for name, words in (("seen", "text trained on"), ("held_out", "articles held out")):
        print(
            f"  {words}: {en[f'{name}_ours']:.4f} and {en[f'{name}_published']:.4f} pieces per word, "
            f"ratio {en[f'{name}_ratio']:.4f}; [UNK] {en[f'{name}_unknown_ours']:.4%} and "
            f"{en[f'{name}_unknown_published']:.4%}"
        )


if __name__ == "__main__":
    main()
