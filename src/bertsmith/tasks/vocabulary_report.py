"""The page of a vocabulary: its size against what it buys, script by script, and text cut into its pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertsmith.core.picture import line_chart
from bertsmith.core.report import Page
from bertsmith.tokenizer.advice import LEARNABLE, OFTEN, Choice, Coverage, Measured
from bertsmith.tokenizer.load import CONTINUATION, SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.train import script, size_in_words

REPORT = "report.html"
SHOWN_TERMS = 200


def vocabulary_report(
    out: Path,
    facts: Mapping[str, Any],
    found: Sequence[Choice],
    measured: Mapping[str, Measured],
    tokenizer: Tokenizer,
    samples: Sequence[str],
    command: str,
) -> str:
    """The page as HTML.

    Args:
        out: the vocabulary's folder.
        facts: the content of `vocabulary.json`.
        found: sizes that were compared, ascending; empty when a vocabulary was extended.
        measured: on which text what was found; the vocabulary's own text first.
        tokenizer: the vocabulary.
        samples: texts as pieces, with a space between two.
        command: what a person would type to repeat this; empty when called from Python.
    """
    text = facts["text"]
    own = next(iter(measured.values()))
    page = Page("Vocabulary", f"{text['inputs']} → {out.name}")
    page.section("Result").facts(
        {
            "pieces": f"{facts['pieces']:,}",
            "pieces per word": f"{own.whole.fertility:.3f}",
            "words that are [UNK]": f"{own.whole.unknown_rate:.3%}",
            "documents": f"{text['documents']:,}",
            "text": size_in_words(text["bytes"]),
        }
    )
    if found:
        _sizes(page, found, facts)
    else:
        _extension(page, facts)
    for name, one in measured.items():
        _coverage(page, name, one)
    _pieces(page, tokenizer, own)
    page.section("Text in pieces", f"{CONTINUATION} marks a piece that continues a word.")
    page.table("", ["the beginnings of some documents"], [[sample] for sample in samples])
    if facts["skipped"]:
        page.section("Skipped or mended").table("", ["reason", "count"], list(facts["skipped"].items()))
    if command:
        page.section("Again").code("The command", command)
    return page.html()


def _sizes(page: Page, found: Sequence[Choice], facts: Mapping[str, Any]) -> None:
    page.section(
        "Size",
        f"Advised: {facts['advised']:,} pieces, the largest size of this table up to which {LEARNABLE:.0%} of the "
        f"pieces longer than a character occur {OFTEN} times in the text and each step makes it 1 % shorter. "
        "A size that cannot hold all characters of the text leaves out the rarest; training refuses to make more than "
        "1 % of them unknown.",
    )
    page.table(
        "",
        ["pieces", "pieces per word", "words that are [UNK]", f"pieces seen {OFTEN} times", ""],
        [
            [
                choice.size,
                f"{choice.coverage.fertility:.4f}",
                f"{choice.coverage.unknown_rate:.4%}",
                f"{choice.learnable:.1%}",
                ", ".join(
                    name for name, size in (("advised", facts["advised"]), ("made", facts["pieces"]))
                    if size == choice.size
                ),
            ]
            for choice in found
        ],
    )  # fmt: skip
    if len(found) < 2:
        return
    lines = {
        ("Pieces per word", "pieces per word"): [(c.size, c.coverage.fertility) for c in found],
        ("Unknown words", "% of all words"): [(c.size, 100 * c.coverage.unknown_rate) for c in found],
        (f"Pieces seen {OFTEN} times", "% of learned pieces"): [(c.size, 100 * c.learnable) for c in found],
    }
    for (title, unit), points in lines.items():
        if len({value for _, value in points}) > 1:
            chart = line_chart(
                {title: points}, title=title, x_label="pieces in the vocabulary", y_label=unit, width=430
            )
            page.figure("", chart)


def _extension(page: Page, facts: Mapping[str, Any]) -> None:
    added = facts["added"]
    page.section(
        "Extension",
        f"{len(added):,} words were added behind the {facts['pieces_before']:,} pieces of {facts['from']}, "
        "whose ids stay.",
    )
    rows = []
    for name, before in facts["before"].items():
        after = facts["measured"][name]
        rows.append(
            [
                name,
                *(f"{one['all']['fertility']:.4f}" for one in (before, after)),
                *(f"{one['all']['unknown_rate']:.3%}" for one in (before, after)),
            ]
        )
    page.table("", ["text", "pieces per word before", "after", "[UNK] before", "after"], rows)
    more = f" … and {len(added) - SHOWN_TERMS:,} more in vocabulary.json" if len(added) > SHOWN_TERMS else ""
    page.text(f"The new pieces, the most frequent first: {', '.join(added[:SHOWN_TERMS])}{more}.")


def _coverage(page: Page, name: str, measured: Measured) -> None:
    page.section(
        f"Coverage of {name}", "A punctuation mark and a Chinese character are words; a script is a word's first."
    )
    page.table(
        "",
        ["script", "words", "share", "pieces per word", "words that are [UNK]"],
        [
            _row(script_name, coverage, measured.whole)
            for script_name, coverage in [*measured.scripts.items(), ("all", measured.whole)]
        ],
    )
    if measured.unknown:
        page.text(f"The most frequent unknown words: {_counted(measured.unknown)}.")
    if measured.cut:
        page.text(f"The most frequent words in three pieces or more: {_counted(measured.cut)}.")


def _row(name: str, coverage: Coverage, whole: Coverage) -> list[object]:
    return [
        name,
        coverage.words,
        f"{coverage.words / whole.words:.2%}",
        f"{coverage.fertility:.4f}",
        f"{coverage.unknown_rate:.4%}",
    ]


def _counted(words: Mapping[str, int]) -> str:
    return ", ".join(f"{word} {times:,}" for word, times in words.items())


def _pieces(page: Page, tokenizer: Tokenizer, measured: Measured) -> None:
    """How many pieces each script has, and how many of them the text uses."""
    held: dict[str, int] = {}
    used: dict[str, int] = {}
    for token, times in zip(tokenizer.tokens, measured.occurrences.tolist(), strict=True):
        if token in SPECIAL_TOKENS:
            kind = "special"
        else:
            plain = token.removeprefix(CONTINUATION) or token
            kind = script(plain[0])
        held[kind] = held.get(kind, 0) + 1
        used[kind] = used.get(kind, 0) + (times > 0)
    rows = [[kind, count, used[kind]] for kind, count in sorted(held.items(), key=lambda item: -item[1])]
    page.section("Pieces by script").table("", ["script", "pieces", "seen in the text"], rows)
