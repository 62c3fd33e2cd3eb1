"""`bertsmith predict`: ask a model about texts typed, in a file, or on standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bertsmith.cli.options import AsJson, Debug, Device, EngineName, Quiet, Threads
from bertsmith.cli.tables import padded
from bertsmith.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bertsmith.corpus.document import Tally
    from bertsmith.predict.predictor import Predictor

SHOWN_NUMBERS = 4
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def command(
    bundle: Annotated[str, typer.Argument(help="Bundle, run or Hugging Face folder, or a hub name.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; - reads standard input.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A text a line, or a CSV, TSV or JSON lines file.", show_default=False)
    ] = None,
    pair: Annotated[
        bool, typer.Option("--pair", help="Two texts at a time; in lines, with a tab between them.")
    ] = False,
    among: Annotated[
        Path | None,
        typer.Option("--among", metavar="FILE", help="Find the texts of this file that go best with each text."),
    ] = None,
    relations: Annotated[
        str | None,
        typer.Option(
            "--relations",
            metavar="BUNDLE",
            help="Also say how the entities that a tagger finds are related, by a model for relations.",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        Path | None,
        typer.Option(
            "--context", help="A text file, however long; texts are questions about all of it.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Also write predictions.json there, as the scripts of SQuAD and CMRC take it.",
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help="Words offered for each [MASK], or texts found by --among.")
    ] = 5,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Count bad rows of a file instead of stopping at the first.")
    ] = False,
    as_json: AsJson = False,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", min=1, help="Pieces a batch.")] = 8192,
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16 or fp32.")] = "auto",
    engine: EngineName = "auto",
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask a model: classes, spans, answers, choices, texts, the word behind [MASK], whether texts go together, vectors.

    A model that chooses takes one text and after it its choices; in lines, with tabs between them.
    """
    if file is not None and texts:
        raise ConfigError("give texts or --file, not both")
    from bertsmith.core.device import set_threads
    from bertsmith.predict.inputs import from_file, from_stream
    from bertsmith.predict.predictor import Predictor, input_names, takes_pairs

    set_threads(threads)
    how: dict[str, Any] = {"device": device, "batch_tokens": batch_tokens, "precision": precision, "engine": engine}
    predictor = Predictor.open(bundle, **how)
    task = predictor.task
    names = input_names(task)
    several = getattr(task, "several", False)
    if (context or out) and names[0] != "question":
        raise ConfigError(f"{bundle}: --context and --out are for models that answer questions")
    if among is not None and pair:
        raise ConfigError("give --among or --pair, not both")
    paired = among is None and context is None and (pair or bool(takes_pairs(task)))
    if skip_bad_rows and task is not None:
        task.config = task.config.model_copy(update={"skip_bad_rows": True})
    if file is not None:
        chunks: Iterator[Sequence[Any]] = from_file(
            file,
            predictor.tally,
            paired=paired,
            several=several,
            config=getattr(task, "config", None),
            read=None if context else getattr(task, "unlabelled", None),
        )
    elif texts and texts != ["-"]:
        chunks = iter([[tuple(texts)] if several else _typed(texts, paired=paired)])
    else:
        if sys.stdin.isatty():
            print("type a text a line; Ctrl-D ends", file=sys.stderr)
        chunks = from_stream(cast(BufferedReader, sys.stdin.buffer), predictor.tally, paired=paired, several=several)
    if names[0] == "question":
        chunks = _questions(chunks, context, predictor.tally)
    console = Console(soft_wrap=True, highlight=False)
    ask = _search(predictor, among, top_k) if among is not None else lambda items: predictor(items, top_k=top_k)
    if relations is not None:
        from bertsmith.predict.extraction import Extractor

        ask = Extractor(predictor, Predictor.open(relations, **how))
    told: list[tuple[Any, Any]] = []
    for chunk in chunks:
        for item, answer in zip(chunk, ask(list(chunk)), strict=True):
            given = _given(item)
            if as_json:
                # A context is long, and whoever asked has it.
                asked = {name: text for name, text in given.items() if name not in ("context", "article")}
                line = json.dumps(asked | answer, ensure_ascii=False)
                sys.stdout.write(line.encode(errors="backslashreplace").decode() + "\n")
            else:
                console.print(show(given, answer))
            told += [(answer, item)] * (out is not None)
        sys.stdout.flush()
    if out is not None:
        _write(out, told)
    if predictor.tally.counts and not quiet:
        print(predictor.tally.summary(), file=sys.stderr)


def _search(predictor: Predictor, path: Path, top_k: int) -> Callable[[list[str]], list[dict[str, Any]]]:
    """What answers a text with those of a file that go best with it."""
    from bertsmith.predict.index import Index
    from bertsmith.predict.inputs import from_file

    chunks = from_file(path, predictor.tally, paired=False, config=getattr(predictor.task, "config", None))
    texts = [cast(str, text) for chunk in chunks for text in chunk]
    if not texts:
        raise DataError(f"{path}: there are no texts in it to search among")
    if getattr(getattr(predictor.task, "config", None), "mode", "") != "bi":
        return lambda queries: [{"found": predictor.rerank(query, texts, top_k=top_k)} for query in queries]
    index = Index(predictor.encode(texts, normalize=True))

    def search(queries: list[str]) -> list[dict[str, Any]]:
        best = index.search(predictor.encode(queries, normalize=True), top_k)
        return [
            {"found": [{"index": i, "text": texts[i], "score": s} for i, s in zip(ids, scores, strict=True)]}
            for ids, scores in zip(best.ids.tolist(), best.scores.tolist(), strict=True)
        ]

    return search


def _questions(chunks: Iterator[Sequence[Any]], context: Path | None, tally: Tally) -> Iterator[Sequence[Any]]:
    """Questions as examples, numbered where they have no id; all of them about the text in `context` if it is there."""
    from bertsmith.tasks.base import Example
    from bertsmith.tasks.rows import read_text

    text = None if context is None else read_text(context, tally)
    number = 0
    for chunk in chunks:
        asked = []
        for item in chunk:
            number += 1
            if not isinstance(item, Example):
                question, about = (item, text) if isinstance(item, str) else item
                if about is None:
                    raise ConfigError(
                        f"{item[:60]!r}: a question needs a text; give it after the question or by --context"
                    )
                item = Example({"id": str(number), "question": question, "context": about}, where=f"question {number}")
            asked.append(item)
        yield asked


def _write(out: Path, told: Sequence[tuple[Any, Any]]) -> None:
    from bertsmith.core.files import atomic_write
    from bertsmith.tasks.squad import prediction_files

    out.mkdir(parents=True, exist_ok=True)
    for name, content in prediction_files([answer for answer, _ in told], [item for _, item in told]).items():
        atomic_write(out / name, content)
    print(f"written to {out}", file=sys.stderr)


def _given(item: Any) -> Mapping[str, Any]:
    """What was asked, by name."""
    from bertsmith.tasks.annotations import Span

    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, tuple):
        return {"text": item[0], "pair": item[1]} if len(item) == 2 else {"text": item[0], "choices": item[1:]}
    return {name: asdict(value) if isinstance(value, Span) else value for name, value in item.fields.items()}


def _typed(texts: Sequence[str], *, paired: bool) -> list[Any]:
    if not paired:
        return list(texts)
    if len(texts) % 2:
        raise ConfigError(f"pairs need an even number of texts; there are {len(texts)}")
    return list(zip(texts[::2], texts[1::2], strict=True))


def show(given: Mapping[str, Any], answer: Mapping[str, Any]) -> Text:
    """An answer for eyes: the same words with and without colour."""
    if "answer" in answer:
        return _answered(given, answer)
    if "generated" in answer:
        return Text(answer["generated"] or "(nothing)", style="bold").append(
            f" {answer['score']:6.1%}", "not bold cyan"
        )
    if "choice" in answer:
        lines = [Text(" ".join(filter(None, (given["text"], given.get("question")))))]
        for number, (text, share) in enumerate(zip(given["choices"], answer["scores"], strict=True)):
            style = "bold green" if number == answer["choice"] else ""
            lines.append(Text(f"  {share:6.1%}  ", style="cyan").append(text, style or "default"))
        return Text("\n").join(lines)
    question = Text(" ↔ ".join(value for value in given.values() if isinstance(value, str)))
    if "entities" in answer:
        return _marked(answer["text"], answer["entities"], answer.get("relations", ()))
    if "masks" in answer:
        lines = [Text(answer["filled"], style="bold")]
        for number, options in enumerate(answer["masks"], start=1):
            for option in options:
                share = Text(f"  {option['score']:6.1%}  ", style="cyan")
                lines.append(share + Text(f"[MASK] {number}: " if len(answer["masks"]) > 1 else "") + option["token"])
        return Text("\n").join(lines)
    if "is_next" in answer:
        verdict, style = ("follows", "green") if answer["is_next"] >= 0.5 else ("does not follow", "red")
        return Text(f"{answer['is_next']:6.1%} next: {verdict}  ", style=style) + question
    if "found" in answer:
        lines = [Text(f"  {hit['score']:6.3f}  ", style="cyan") + hit["text"] for hit in answer["found"]]
        return Text("\n").join([Text("").append(question.plain, style="bold"), *lines])
    if "similarity" in answer:
        label = f"{answer['label']}  " if "label" in answer else ""
        return Text(f"{answer['similarity']:6.3f}  {label}", style="cyan") + question
    if "embedding" in answer:
        numbers = answer["embedding"]
        start = " ".join(f"{number:.3f}" for number in numbers[:SHOWN_NUMBERS])
        return Text(f"{start} … ({len(numbers)} numbers, all with --json)  ", style="cyan") + question
    if "labels" in answer:
        given_labels = [f"{label} {answer['probabilities'][label]:.1%}" for label in answer["labels"]]
        return Text(f"{', '.join(given_labels) or '(none)'}  ", style="cyan") + question
    if "value" in answer:
        return Text(f"{answer['value']:8.3f}  ", style="cyan") + question
    width = max(map(cell_len, answer["probabilities"]))
    colour = _colour(list(answer["probabilities"]).index(answer["label"]))
    return Text(f"{padded(answer['label'], width)} {answer['score']:6.1%}  ", style=colour) + question


def _answered(given: Mapping[str, Any], answer: Mapping[str, Any], around: int = 50) -> Text:
    """The answer with its probability and its question, and below where it stands in the text."""
    first = Text(
        " ".join(answer["answer"].split()) or "(no answer)", style="bold green" if answer["answer"] else "bold red"
    )
    first.append(f" {answer['score']:6.1%}  ", style="cyan").append(given["question"], style="default not bold")
    if not answer["answer"]:
        return first
    text, start, end = given["context"], answer["start"], answer["end"]
    before, after = text[max(0, start - around) : start], text[end : end + around]
    first.append(
        "\n  " + "…" * (start > around) + " ".join(f"{before}[{text[start:end]}]{after}".split()), "not bold dim"
    )
    return first.append("…" * (end + around < len(text)))


def _marked(text: str, entities: Sequence[Mapping[str, Any]], relations: Sequence[Mapping[str, Any]]) -> Text:
    """The text with its spans in brackets, coloured by type, and a line a relation: `[Peter Blackburn PER] went`."""
    types = sorted({entity["type"] for entity in entities})
    cuts: list[tuple[int, int, int, str, str]] = []
    for entity in entities:
        start, end, colour = entity["start"], entity["end"], _colour(types.index(entity["type"]))
        cuts.append((start, 1, -end, colour, ""))
        cuts.append((end, 0, -start, colour, entity["type"]))
    result, at, inside = Text(), 0, list[str]()
    for place, opens, _, colour, kind in sorted(cuts):
        result.append(text[at:place], style=f"bold {inside[-1]}" if inside else "")
        at = place
        if opens:
            result.append("[")
            inside.append(colour)
        else:
            result.append(f" {kind}", style=colour).append("]")
            inside.remove(colour)
    result.append(text[at:])
    for relation in relations:
        first, second = (entities[relation[role]]["text"] for role in ("first", "second"))
        result.append(f"\n  {relation['score']:6.1%}  ", style="cyan").append(
            f"{first} → {relation['type']} → {second}"
        )
    return result


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]
