"""`bertsmith demo`: the whole journey, from text on this machine to an answer, watched step by step."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bertsmith.cli.options import Debug, Device, Quiet, Sets, Threads
from bertsmith.cli.predict import show
from bertsmith.cli.tables import folding
from bertsmith.core.program import program, quoted, typed

if TYPE_CHECKING:
    from bertsmith.recipes.demo import Learned, Machine, Tagger

SENTENCE = "Set max_workers to None, or pass a list of paths to load_files() if the cache is not to be used."
MASKED = "The function returns a [MASK] of strings."


def command(
    text: Annotated[
        str | None,
        typer.Option(
            "--text", metavar="FOLDER", help="Pretrain on text of your own: a folder or file.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The folder to make [default: runs/demo].", show_default=False),
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.05, help="Minutes of pretraining.")] = 5.0,
    seeds: Annotated[str, typer.Option("--seeds", metavar="1,2,3", help="Seeds of the fine-tuning runs.")] = "1,2,3",
    sentence: Annotated[
        str, typer.Option("--sentence", help="A sentence to find code words in.", show_default=False)
    ] = SENTENCE,
    packages: Annotated[
        str, typer.Option("--packages", metavar="A,B", help="Read only these [default: all].", show_default=False)
    ] = "",
    tag_steps: Annotated[int, typer.Option("--tag-steps", min=1, help="Updates of each fine-tuning run.")] = 400,
    sets: Sets = None,
    threads: Threads = None,
    device: Device = None,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Watch the whole journey: text, a small BERT, a tagger, an answer. The same command goes on after a stop."""
    from bertsmith.core.errors import ConfigError
    from bertsmith.core.lock import run_lock
    from bertsmith.recipes.demo import Machine

    if not all(item.strip().isdigit() for item in seeds.split(",")):
        raise ConfigError(f"--seeds {seeds}: write them like 1,2,3")
    if text is not None and packages:
        raise ConfigError("give --text or --packages, not both")
    if out is None:
        out = Path("runs", "demo" if text is None else f"demo-{Path(text).expanduser().resolve().name or 'text'}")
    machine = Machine(device=device, threads=threads, quiet=quiet)
    screen = Console(stderr=True, quiet=quiet, highlight=False)
    asked = typed()
    if text is not None:
        from bertsmith.corpus.document import Tally
        from bertsmith.corpus.readers import read

        next(read([text], Tally()))  # an error before anything is made
    with _goes_on(screen), run_lock(out):
        if text is None:
            numbers = [int(item) for item in seeds.split(",")]
            _code_words(
                out, f"pydoc:{packages}", minutes, numbers, sentence, tag_steps, sets or (), machine, screen, asked
            )
        else:
            _own_text(out, text, minutes, sets or (), machine, screen, asked)


def _code_words(
    out: Path,
    source: str,
    minutes: float,
    seeds: Sequence[int],
    sentence: str,
    tag_steps: int,
    sets: Sequence[str],
    machine: Machine,
    screen: Console,
    asked: str,
) -> None:
    from bertsmith.predict.predictor import Predictor
    from bertsmith.recipes import demo
    from bertsmith.recipes.demo_report import code_words_report

    _title(screen, "1 of 4: text", "Real prose that is on every Python machine: documentation strings.")
    data = demo.prepare_data(out, source, lambda line: screen.print(line, markup=False))
    _title(
        screen,
        "2 of 4: pretraining",
        f"A BERT learns the language of this text by guessing hidden words, for {minutes:g} min.",
    )
    sets = ["vocab.lowercase=false", *sets]  # None and none, Path and path: case is half of what makes a code word
    learned = demo.pretrain_small(str(data.text), out, minutes, machine, sets=sets, command=asked)
    _show_learned(screen, learned)

    taggers: dict[str, Tagger] = {}
    for number, arm in enumerate(demo.ARMS):
        why = (
            "Find the code words in prose. The ``backticks`` were the labels; they are gone from the text. "
            "Once from the weights just trained …"
            if not number
            else "… and once from random weights: same sentences, same number of steps, its own learning rate."
        )
        _title(screen, f"3 of 4: a tagger from 200 sentences, {arm} weights", why)
        taggers[arm] = demo.train_tagger(arm, data, out, seeds, machine, steps=tag_steps, command=asked)

    _title(screen, "4 of 4: an answer", "")
    predictor = Predictor.open(taggers["pretrained"].run, device=machine.device)
    texts = [json.loads(line)["text"] for line in data.test.read_text(encoding="utf-8").splitlines()]
    report = code_words_report(out, learned, taggers, predictor(texts[:: -(-len(texts) // 12)]), asked)
    result = Console(highlight=False)
    result.print(folding(_scores(taggers)))
    result.print(Text(_verdict(taggers)))
    result.print()
    result.print(show({"text": sentence}, predictor(sentence)), soft_wrap=True)
    name, tagger, test = program(), quoted(taggers["pretrained"].run), quoted(data.test)
    _where(
        result,
        {
            "report, open it in a browser": report,
            "the pretrained BERT": learned.run / "bundle",
            "the tagger": taggers["pretrained"].run / "bundle",
            "text and labelled sentences": data.path,
        },
        [
            f"{name} predict {tagger} {shlex.quote('Call read_text on the path to get a str.')}",
            f"{name} predict {quoted(learned.run)} {shlex.quote(MASKED)}",
            f"{name} evaluate {tagger} --data {test}",
            f"{name} demo --text FOLDER   # a folder with text of your own",
        ],
    )


def _own_text(
    out: Path, text: str, minutes: float, sets: Sequence[str], machine: Machine, screen: Console, asked: str
) -> None:
    from bertsmith.recipes import demo
    from bertsmith.recipes.demo_report import own_text_report

    _title(
        screen,
        "1 of 2: pretraining",
        f"A BERT learns the language of {text} by guessing hidden words, for {minutes:g} min.",
    )
    learned = demo.pretrain_small(text, out, minutes, machine, sets=sets, command=asked)
    _show_learned(screen, learned)
    _title(screen, "2 of 2: beside counting words", "The same hidden words of held-out text, guessed by n-grams.")
    shares = demo.beside_ngrams(learned.run, machine)
    report = own_text_report(out, learned, shares, asked)
    result = Console(highlight=False)
    table = Table("who guesses", "hidden words right", title=f"{shares['words']:,.0f} hidden words of held-out text")
    named = {
        "unigram": "the most frequent piece, always",
        "trigram": "trigram: the two pieces to the left",
        "bert": f"BERT after {minutes:g} min: both sides",
    }
    for name, who in named.items():
        table.add_row(who, f"{shares[name]:.1%}")
    result.print(folding(table))
    name, run = program(), quoted(learned.run)
    _where(
        result,
        {"report, open it in a browser": report, "the BERT": learned.run / "bundle"},
        [
            f"{name} predict {run} {shlex.quote(_masked(learned))}",
            f"{name} evaluate {run} --data {quoted(learned.run / 'store')}",
            f"{name} pretrain {shlex.quote(text)} --from {run} --out {quoted(out / 'longer')} --budget 30m",
            f"{name} finetune classify --data ROWS.csv --from {run} --out {quoted(out / 'task')}   # text,label",
        ],
    )


@contextmanager
def _goes_on(screen: Console) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        screen.print("\nstopped; nothing that is finished is lost: the same command goes on from here", style="bold")
        raise


def _title(screen: Console, title: str, text: str) -> None:
    screen.print()
    screen.rule(Text(title, style="bold"), align="left")
    if text:
        screen.print(text, markup=False)


def _show_learned(screen: Console, learned: Learned) -> None:
    from bertsmith.recipes.demo_report import guess_table

    before, after = learned.before, learned.after
    table = Table("held-out text", "before", "after", title="What it has learned", title_justify="left")
    table.add_row("loss of hidden words (nats)", f"{before['mlm_loss']:.2f}", f"{after['mlm_loss']:.2f}")
    table.add_row("hidden words right", f"{before['mlm_accuracy']:.1%}", f"{after['mlm_accuracy']:.1%}")
    for name, title in (("nsp_accuracy", "next sentence right"), ("sop_accuracy", "sentence order right")):
        if name in after:
            table.add_row(title, f"{before[name]:.1%}", f"{after[name]:.1%}")
    screen.print(folding(table))
    headers, rows = guess_table(learned.words)
    words = Table(
        *headers, title="Hidden words, and what it puts in their place", title_justify="left", show_lines=True
    )
    for row in rows:
        words.add_row(*map(Text, row))
    screen.print(folding(words))


def _scores(taggers: Mapping[str, Tagger]) -> Table:
    table = Table(
        "weights",
        "F1",
        "of each seed",
        "precision",
        "recall",
        title="Code words in held-out sentences (strict F1, mean ± standard deviation)",
        title_justify="left",
    )
    for arm, tagger in taggers.items():
        f1 = tagger.scores["f1"]
        table.add_row(
            arm,
            f"{100 * f1['mean']:.1f} ± {100 * f1['sd']:.1f}",
            ", ".join(f"{100 * value:.1f}" for value in f1["each"]),
            *(f"{100 * tagger.scores[name]['mean']:.1f}" for name in ("precision", "recall")),
        )
    return table


def _verdict(taggers: Mapping[str, Tagger]) -> str:
    trained, random = (taggers[arm].scores["f1"] for arm in ("pretrained", "random"))
    gain = 100 * (trained["mean"] - random["mean"])
    spread = 100 * max(trained["sd"], random["sd"])
    beside = f", {gain / spread:.1f} times the larger standard deviation" if spread else ""
    return f"pretraining is worth {gain:+.1f} points of F1 here{beside}"


def _where(result: Console, places: Mapping[str, Path], commands: Sequence[str]) -> None:
    result.print("\nwhere everything is", style="bold")
    width = max(map(len, places))
    for name, path in places.items():
        result.print(f"  {name:<{width}}  {path}", markup=False, soft_wrap=True)
    result.print("what to try next", style="bold")
    for line in commands:
        result.print(f"  {line}", markup=False, soft_wrap=True)


def _masked(learned: Learned) -> str:
    """A sentence of the text itself, with its hidden word."""
    if not learned.words:
        return MASKED
    word = learned.words[0]
    return f"{word['before']} [MASK] {word['after']}".replace("##", "")
