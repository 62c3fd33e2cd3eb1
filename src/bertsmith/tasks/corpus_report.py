"""The page of a token store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from html import escape
from pathlib import Path
from typing import Any

from bertsmith.core.picture import bar_chart
from bertsmith.core.report import Page
from bertsmith.tasks.corpus_stats import Lengths, StoreStats

_WORDS = re.compile(r"\s+|[^\W\u2e80-\U0003ffff]+|.", re.DOTALL)

SOURCES = 30
"""More sources are summed up."""

_PAIRS = (
    "<style>.pair{display:grid;grid-template-columns:1fr 1fr;gap:.75rem;margin:.5rem 0 1rem}"
    ".pair>div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;"
    "overflow-wrap:anywhere;font-size:.94rem}.pair small{display:block;color:var(--soft)}"
    "@media(max-width:40rem){.pair{grid-template-columns:1fr}}</style>"
)


def corpus_report(stats: StoreStats, command: str = "") -> Page:
    """Put the page together.

    Args:
        stats: of the store.
        command: what a person would type to repeat it; empty when called from Python.
    """
    counts = stats.counts
    page = Page("Corpus", stats.path)
    page.section("Counts").facts(
        {name: f"{counts[name]:,}" for name in ("documents", "sentences", "tokens", "characters")}
        | {"tokens per word": f"{counts['tokens'] / max(1, counts['words']):.3f}"}
    )
    _sources(page, stats)
    page.section("Script", "A document counts where most of its pieces with letters belong.").table(
        "",
        ["script", "documents", "tokens", "share of tokens"],
        [
            [name, documents, tokens, f"{tokens / counts['tokens']:.2%}"]
            for name, (documents, tokens) in stats.scripts.items()
        ],
    )
    _lengths(page, stats)
    _left_out(page, stats)
    _duplicates(page, stats)
    page.section(
        "Most frequent lines",
        f"Sentences of the store that occur again and again; no other occurs more than {stats.lines_at_most:,} times.",
    )
    if stats.lines:
        page.table("", ["times", "line"], [[times, line] for line, times in stats.lines.items()])
    else:
        page.text("None occurs more often than that.")
    _vocabulary(page, stats)
    page.section("Settings").table("", ["setting", "value"], list(_flat(stats.settings)))
    if command:
        page.section("Again").code("The command", command)
    return page


def write_corpus_report(stats: StoreStats, path: Path, command: str = "") -> Path:
    """Write the page.

    Args:
        stats: of the store.
        path: the file.
        command: as for `corpus_report`.

    Returns:
        `path`.
    """
    return corpus_report(stats, command).write(path)


def _sources(page: Page, stats: StoreStats) -> None:
    if not stats.sources:
        page.section("Sources", "This store does not say where its documents come from; it was made before stores did.")
        return
    shown = sorted(stats.sources, key=lambda source: -source.tokens)
    rows = [
        [source.name, source.documents, source.sentences, source.tokens, source.characters]
        for source in shown[:SOURCES]
    ]
    if rest := shown[SOURCES:]:
        sums = (
            [getattr(source, name) for source in rest] for name in ("documents", "sentences", "tokens", "characters")
        )
        rows.append([f"{len(rest):,} others", *(sum(values) for values in sums)])
    page.section("Sources").table("", ["source", "documents", "sentences", "tokens", "characters"], rows)


def _lengths(page: Page, stats: StoreStats) -> None:
    page.section("Length", "In tokens.")
    rows = []
    for name, lengths in (("documents", stats.documents), ("sentences", stats.sentences)):
        rows.append([name, f"{lengths.mean:,.1f}", *(f"{value:,}" for value in lengths.quantiles)])
    page.table("", ["", "mean", "a tenth is at most", "half", "nine tenths", "longest"], rows)
    for name, lengths in (("Documents", stats.documents), ("Sentences", stats.sentences)):
        page.figure(
            "", bar_chart(_bins(lengths), title=f"{name} by length", x_label=name.lower(), width=430, one_colour=True)
        )


def _bins(lengths: Lengths) -> dict[str, float]:
    return {
        f"{least:,}" if least == 1 else f"{least:,} to {2 * least - 1:,}": float(count)
        for least, count in lengths.bins.items()
    }


def _left_out(page: Page, stats: StoreStats) -> None:
    if not stats.skipped and not stats.cleaning:
        return
    page.section("Left out or mended", "What preparation did to the text, by reason.")
    cleaning = stats.cleaning
    if cleaning:
        kept, characters = cleaning["kept_documents"], cleaning["kept_characters"]
        page.text(
            f"Cleaning kept {kept:,} of {cleaning['documents']:,} documents and {characters:,} of "
            f"{cleaning['characters']:,} characters."
        )
    rules: Mapping[str, Any] = cleaning.get("rules", {})
    rows = [
        [reason, next(iter(rule.values())), next(iter(rule)), rule.get("characters", 0)]
        for reason, rule in sorted(rules.items(), key=lambda item: -next(iter(item[1].values())))
    ]
    rows += [[reason, count, "", ""] for reason, count in stats.skipped.items() if reason not in rules]
    columns = ["reason", "count", "of what", "characters"][: 4 if rules else 2]
    page.table("", columns, [row[: len(columns)] for row in rows])
    for reason, rule in sorted(rules.items(), key=lambda item: -next(iter(item[1].values()))):
        samples = rule.get("samples", [])
        if any("note" in sample for sample in samples):
            noted = [[sample["id"], sample["text"], sample.get("note", "")] for sample in samples]
            page.table(f"{reason}: samples", ["document", "text", "judged by"], noted)
        elif samples:
            plain = [[sample["id"], sample["text"]] for sample in samples]
            page.table(f"{reason}: samples", ["document", "text"], plain)


def _duplicates(page: Page, stats: StoreStats) -> None:
    mode = (stats.settings.get("dedup") or {}).get("mode", "off")
    repeated = f"{stats.repeated:,} documents of the store have the very tokens of an earlier one."
    page.section("Duplicates", f"Copies left out by preparation: {mode}. {repeated}")
    if not stats.duplicates and not stats.repetitions:
        return
    page.text(_PAIRS, html=True)
    for reason, pairs in stats.duplicates.items():
        page.text(f"{reason}: what stayed, and the copy that was left out, with the words marked that differ")
        for pair in pairs:
            label = f"{pair['id']} (similarity {pair['similarity']:.2f})"
            page.text(_pair(pair["kept"], pair["kept_text"], label, pair["text"]), html=True)
    if stats.repetitions:
        page.text("Still in the store:")
        page.table("", ["document", "again as", "text"], stats.repetitions)


def _pair(kept: str, kept_text: str, copy: str, text: str) -> str:
    """Two boxes beside each other, with the words marked that the other one has not in that place."""
    words = [_WORDS.findall(one) for one in (kept_text, text)]
    same = SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks()
    boxes = []
    for side, (name, mine) in enumerate(zip((kept, copy), words, strict=True)):
        marked, at = "", 0
        for block in same:
            begin = (block.a, block.b)[side]
            if begin > at:
                marked += f"<mark>{escape(''.join(mine[at:begin]))}</mark>"
            at = begin + block.size
            marked += escape("".join(mine[begin:at]))
        boxes.append(f"<div><small>{escape(name)}</small>{marked}</div>")
    return f'<div class="pair">{"".join(boxes)}</div>'


def _vocabulary(page: Page, stats: StoreStats) -> None:
    pieces, tokens = stats.pieces, stats.counts["tokens"]
    page.section("Vocabulary").table(
        "",
        ["what", "how much", "share"],
        [
            ["pieces", f"{pieces['pieces']:,}", ""],
            ["of them in the store", f"{pieces['occurring']:,}", f"{pieces['occurring'] / pieces['pieces']:.1%}"],
            [
                "at least 100 times",
                f"{pieces['occurring_100_times']:,}",
                f"{pieces['occurring_100_times'] / pieces['pieces']:.1%}",
            ],
            ["[UNK] among the tokens", f"{pieces['unknown']:,}", f"{pieces['unknown'] / tokens:.4%}"],
        ],
    )
    most = ", ".join(f"{token} {count:,}" for token, count in pieces["most_frequent"].items())
    page.text(f"The most frequent pieces: {most}.")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows
