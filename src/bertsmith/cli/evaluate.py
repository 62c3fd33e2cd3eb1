"""`bertsmith evaluate`: score a model on labelled rows, or a pretrained one on text or minimal pairs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bertsmith.cli.options import AsJson, Debug, Device, EngineName, Quiet, Seed, Sets, Threads
from bertsmith.cli.tables import folding

if TYPE_CHECKING:
    from bertsmith.evaluate.score import Evaluation
    from bertsmith.predict.predictor import Predictor


def command(
    bundle: Annotated[str, typer.Argument(help="Bundle, run or Hugging Face folder, or a hub name.")],
    data: Annotated[
        str,
        typer.Option(
            "--data", metavar="FILE", help="Labelled rows; for a pretrained model text, a token store or minimal pairs."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Write scores.json, confusion.svg and predictions.json there, those of them that there are.",
            show_default=False,
        ),
    ] = None,
    relations: Annotated[
        str | None,
        typer.Option(
            "--relations",
            metavar="BUNDLE",
            help="Score a tagger together with a model for relations, on whole texts with both.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="BUNDLE",
            help="Also score another bundle on the same rows, and test whether the two differ.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --against: the score that is compared.", show_default=False),
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, help="With --against: how often chance is asked.")] = 1000,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Count bad rows instead of stopping at the first.")
    ] = False,
    sets: Sets = None,
    as_json: AsJson = False,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", min=1, help="Pieces a batch.")] = 8192,
    precision: Annotated[str, typer.Option("--precision", help="auto, bf16 or fp32.")] = "auto",
    engine: EngineName = "auto",
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score a model on labelled rows, class by class; a pretrained model on text: hidden words, next sentences.

    With --against, approximate randomisation gives p, and the bootstrap an interval of the difference.
    Minimal pairs, such as BLiMP's folder or archive: how often the good sentence is the more probable one;
    --set pairs_per_file=1000 asks all of them.
    """
    from bertsmith.core.device import set_threads
    from bertsmith.core.errors import ConfigError
    from bertsmith.evaluate.blimp import is_minimal_pairs
    from bertsmith.predict.predictor import Predictor

    set_threads(threads)
    how: dict[str, Any] = {"device": device, "batch_tokens": batch_tokens, "precision": precision, "engine": engine}
    predictor = Predictor.open(bundle, **how)
    if against is not None and (relations is not None or predictor.task is None):
        raise ConfigError("--against compares two bundles for one task, on labelled rows; leave it out here")
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))
    result: dict[str, Any]
    picture: str | None = None
    files: Mapping[str, bytes] = {}
    if relations is not None:
        result = _extraction(predictor, Predictor.open(relations, **how), Path(data), skip_bad_rows, as_json)
    elif is_minimal_pairs(data):
        result = _minimal_pairs(predictor, data, sets or (), as_json)
    elif predictor.task is None:
        from bertsmith.evaluate.text import evaluate_text

        found = evaluate_text(predictor, data, sets=sets or (), say=say)
        result = {"task": "pretraining", "scores": found.scores, "tokens": found.tokens, "part": found.part}
        if not as_json:
            _show_scores(found.scores, f"{found.tokens:,} tokens: {found.part}")
    else:
        predictor.task.say = say
        asked: dict[str, Any] = {"sets": sets or (), "skip_bad_rows": skip_bad_rows}
        if against is not None:
            from bertsmith.evaluate.significance import compare

            other = Predictor.open(against, **how)
            asked |= {"metric": metric, "resamples": resamples, "seed": seed or 0, "say": say}
            comparison = compare(predictor, other, Path(data), **asked)
            evaluation, result, told = comparison.evaluation, comparison.as_dict(), comparison.text()
        else:
            from bertsmith.evaluate.score import evaluate

            evaluation = evaluate(predictor, Path(data), **asked)
            result, told = evaluation.as_dict(), ""
        picture, files = evaluation.picture(), evaluation.files
        if not as_json:
            _show(evaluation)
            print(told, end="\n" if told else "")
        if predictor.tally.counts and not quiet:
            print(predictor.tally.summary(), file=sys.stderr)
    document = json.dumps(result, ensure_ascii=False, indent=None if as_json else 2)
    if as_json:
        print(document)
    if out is not None:
        _write(out, document, picture, files)
        say(f"written to {out}")


def _extraction(
    tagger: Predictor, relations: Predictor, data: Path, skip_bad_rows: bool, as_json: bool
) -> dict[str, Any]:
    from bertsmith.predict.extraction import Extractor

    entities, triples, texts = Extractor(tagger, relations).evaluate(data, tagger.tally, skip_bad_rows=skip_bad_rows)
    scores = {
        f"{what}_{name}": value
        for what, found in (("triple", triples), ("entity", entities))
        for name, value in (("f1", found.f1), ("precision", found.precision), ("recall", found.recall))
    }
    if not as_json:
        _show_scores(scores, f"{triples.support:,} triples in {texts:,} texts")
    return {"task": "extraction", "headline": "triple_f1", "examples": texts, "scores": scores}


def _minimal_pairs(predictor: Predictor, data: str, sets: Sequence[str], as_json: bool) -> dict[str, Any]:
    from bertsmith.core.config import load
    from bertsmith.evaluate.blimp import BlimpConfig, blimp

    found = blimp(predictor, data, **load(BlimpConfig, sets=sets).model_dump())
    if not as_json:
        _show_scores(found["linguistics_term"] | {"all": found["accuracy"]}, f"{found['pairs']:,} minimal pairs")
    return {"task": "minimal_pairs", "scores": {"accuracy": found.pop("accuracy")}, **found}


def _write(out: Path, document: str, picture: str | None, files: Mapping[str, bytes]) -> None:
    from bertsmith.core.files import atomic_write

    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "scores.json", document.encode() + b"\n")
    if picture is not None:
        atomic_write(out / "confusion.svg", picture.encode())
    for name, content in files.items():
        atomic_write(out / name, content)


def _show_scores(scores: Mapping[str, float], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("score")
    table.add_column("", justify="right")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    Console().print(folding(table))


def _show(evaluation: Evaluation) -> None:
    overall = {name: value for name, value in evaluation.scores.items() if "/" not in name}
    _show_scores(overall, f"{evaluation.examples:,} examples")
    if not evaluation.classes:
        return
    table = Table(title="by class" if evaluation.labels else "by type", title_justify="left")
    for name in ("", "precision", "recall", "F1", "support"):
        table.add_column(name, justify="right" if name else "left")
    for label, scores in evaluation.classes.items():
        table.add_row(label, *(f"{value:.3f}" for value in scores[:3]), f"{scores.support:,}")
    Console().print(folding(table))
