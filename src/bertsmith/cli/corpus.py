"""`bertsmith corpus stats|sample|diff|search`: looking into token stores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bertsmith.cli.options import AsJson, Debug, Quiet
from bertsmith.cli.tables import shortened
from bertsmith.core.program import typed

if TYPE_CHECKING:
    from bertsmith.tasks.corpus_diff import StoreDiff
    from bertsmith.tasks.corpus_search import Hit
    from bertsmith.tasks.corpus_stats import StoreStats

WIDE = 10_000  # columns of a terminal that never cuts a line
PAGE = "corpus.html"

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A token store.")]
Vocab = Annotated[
    Path | None,
    typer.Option(
        "--vocab", metavar="DIR", help="The vocabulary of STORE [default: in or beside it].", show_default=False
    ),
]


def stats(
    store: StorePath,
    vocab: Vocab = None,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page to write.")] = Path(PAGE),
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a token store holds: sources, scripts, lengths, repeated lines, what was left out; and write a page."""
    from bertsmith.tasks.corpus_report import write_corpus_report
    from bertsmith.tasks.corpus_stats import corpus_stats
    from bertsmith.tasks.stored import StoredText

    found = corpus_stats(StoredText.open(store, vocab))
    write_corpus_report(found, out, typed())
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        _show_stats(found)
    if not quiet:
        print(f"the page is {out}", file=sys.stderr)


def sample(
    store: StorePath,
    vocab: Vocab = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, metavar="N", help="How many documents.")] = 5,
    sentences: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="At most so many sentences of each [default: all].", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Where the draw starts from.")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print some documents of a store, drawn evenly, a sentence a line, as the vocabulary writes them."""
    from bertsmith.tasks.corpus_search import sample as draw
    from bertsmith.tasks.stored import StoredText

    stored = StoredText.open(store, vocab)
    numbers = draw(stored, count, seed)
    names = stored.names(numbers)
    for number in numbers:
        found = stored.sentences(number)
        shown = found[:sentences]
        if as_json:
            line = {"document": number, "id": names[number], "sentences": shown, "left_out": len(found) - len(shown)}
            print(json.dumps(line, ensure_ascii=False))
            continue
        print(f"── {number}: {names[number]}")
        print("\n".join(shown))
        if len(shown) < len(found):
            print(f"… {len(found) - len(shown):,} more sentences")
        print()


def diff(
    first: Annotated[Path, typer.Argument(metavar="STORE", help="A token store.")],
    second: Annotated[Path, typer.Argument(metavar="STORE", help="Another one.")],
    vocab: Annotated[
        list[Path] | None,
        typer.Option(
            "--vocab",
            metavar="DIR",
            help="The vocabulary of both; given twice: of the first, of the second [default: in or beside them].",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Compare two stores: counts, settings, sources, vocabularies, and which documents both hold."""
    from bertsmith.core.errors import ConfigError
    from bertsmith.tasks.corpus_diff import corpus_diff

    if len(vocab or []) > 2:
        raise ConfigError(f"--vocab: given {len(vocab or [])} times, and there are two stores")
    found = corpus_diff(first, second, vocab or [])
    if as_json:
        print(json.dumps(found.as_dict(), ensure_ascii=False))
    else:
        _show_diff(found)
    if found.remark:
        print(found.remark, file=sys.stderr)


def search(
    store: StorePath,
    query: Annotated[str, typer.Argument(metavar="TEXT", help="What to find.")],
    vocab: Vocab = None,
    regex: Annotated[bool, typer.Option("--regex", help="TEXT is a regular expression.")] = False,
    count: Annotated[int, typer.Option("--count", "-n", min=1, metavar="N", help="Show so many places.")] = 20,
    context: Annotated[int, typer.Option(min=0, metavar="N", help="Characters shown on each side.")] = 60,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Find text in a store: document, offset in it and what stands around."""
    from bertsmith.tasks.corpus_search import search as find
    from bertsmith.tasks.stored import StoredText

    stored = StoredText.open(store, vocab)
    hits: list[Hit] = []
    total = documents = 0
    last = -1
    for hit in find(stored, query, regex=regex, context=context, say=lambda line: print(line, file=sys.stderr)):
        total += 1
        documents += hit.document != last
        last = hit.document
        if len(hits) < count:
            hits.append(hit)
    names = stored.names([hit.document for hit in hits])
    console = Console(width=WIDE, highlight=False, soft_wrap=True)
    for hit in hits:
        if as_json:
            line = {"document": hit.document, "id": names[hit.document], "offset": hit.offset}
            line |= {"before": hit.before, "text": hit.text, "after": hit.after}
            print(json.dumps(line, ensure_ascii=False))
        else:
            place = Text(f"{names[hit.document]}:{hit.offset}: ", style="cyan")
            console.print(place + Text(hit.before) + Text(hit.text, style="bold magenta") + Text(hit.after))
    rest = f"; the first {len(hits)} are shown, --count shows more" if total > len(hits) else ""
    print(f"{total:,} times in {documents:,} of {len(stored):,} documents{rest}", file=sys.stderr)


def _table(*columns: str, title: str = "") -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=Text(title, "bold"), title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left", no_wrap=True)
    return table


def _print(*tables: Table) -> None:
    console = Console(width=WIDE, highlight=False)
    for table in tables:
        if table.row_count:
            console.print(table)
            console.print()


def _row(table: Table, *cells: Any) -> None:
    table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in cells))


def _show_stats(found: StoreStats) -> None:
    counts = _table("", "", title=found.path)
    for name, count in found.counts.items():
        _row(counts, name, count)
    _row(counts, "repeated documents", found.repeated)
    _row(counts, "pieces in use", f"{found.pieces['occurring']:,} of {found.pieces['pieces']:,}")
    _row(counts, "[UNK]", f"{found.pieces['unknown'] / found.counts['tokens']:.4%} of the tokens")
    sources = _table("source", "documents", "tokens", title="sources")
    for source in sorted(found.sources, key=lambda source: -source.tokens)[:20]:
        _row(sources, source.name, source.documents, source.tokens)
    scripts = _table("script", "documents", "tokens", title="scripts")
    for name, (documents, tokens) in found.scripts.items():
        _row(scripts, name, documents, tokens)
    lengths = _table("tokens", "mean", "10 %", "50 %", "90 %", "longest", title="lengths")
    for name, one in (("documents", found.documents), ("sentences", found.sentences)):
        _row(lengths, name, f"{one.mean:,.1f}", *one.quantiles)
    reasons = _table("reason", "count", title="left out or mended")
    rules = found.cleaning.get("rules", {})
    every = {name: next(iter(rule.values())) for name, rule in rules.items()} | dict(found.skipped)
    for reason, count in sorted(every.items(), key=lambda item: -item[1]):
        _row(reasons, reason, count)
    lines = _table("line", "times", title="most frequent lines")
    for line, times in list(found.lines.items())[:10]:
        _row(lines, shortened(line, 70), times)
    _print(counts, sources, scripts, lengths, reasons, lines)


def _show_diff(found: StoreDiff) -> None:
    counts = _table("", *found.paths)
    for name, pair in found.counts.items():
        _row(counts, name, *pair)
    if found.pieces:
        _row(counts, "pieces", *found.pieces["sizes"])
        _row(counts, "pieces in both", found.pieces["shared"], found.pieces["shared"])
    if found.overlap:
        for name, pair in (("documents in both", found.overlap.shared), ("not comparable", found.overlap.unknown)):
            _row(counts, name, *pair)
    settings = _table("setting", *found.paths, title="settings that differ")
    for key, values in found.settings.items():
        _row(settings, key, *("" if value is None else str(value) for value in values))
    _print(counts, settings)
    only = found.overlap.only if found.overlap else ((), ())
    for number, path in enumerate(found.paths):
        some = [f"sources: {', '.join(found.sources[number][:5])}"] if found.sources[number] else []
        there = " (or not comparable in the other)" if found.overlap and any(found.overlap.unknown) else ""
        some += [f"documents such as {', '.join(only[number])}{there}"] if only[number] else []
        some += [f"typical pieces: {', '.join(found.typical[number])}"] if found.typical[number] else []
        if found.pieces and (own := found.pieces[("only_first", "only_second")[number]]):
            some.append(f"pieces such as {', '.join(own)}")
        if some:
            print(f"only or mostly in {path}:\n  " + "\n  ".join(some))
