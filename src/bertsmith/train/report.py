"""What a run has to show for itself: one HTML file without anything outside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from bertsmith.core.config import Config, to_toml
from bertsmith.core.device import environment
from bertsmith.core.events import Events, read_metrics
from bertsmith.core.picture import line_chart
from bertsmith.core.report import Page
from bertsmith.corpus.store import Store
from bertsmith.tasks.base import Answer, Example
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.probe import MINIMAL_PAIRS
from bertsmith.train.samples import Guess
from bertsmith.train.samples import line as line_of

REPORT = "report.html"
POINTS = 400
MOST = 600
"""Characters shown of a question's context."""
NOTHING = "(no answer)"
Curve = tuple[str, Mapping[str, str], str]  # title; by the line's name, what it shows of metrics.jsonl; unit
CURVES: tuple[Curve, ...] = (
    (
        "Loss",
        {
            "training": "train/loss",
            "hidden pieces, training": "train/mlm_loss",
            "next piece, training": "train/clm_loss",
            "hidden pieces, held-out": "eval/mlm_loss",
            "held-out": "eval/loss",
        },
        "loss (nats)",
    ),
    (
        "Held-out accuracy",
        {
            "masked words": "eval/mlm_accuracy",
            "next sentence": "eval/nsp_accuracy",
            "sentence order": "eval/sop_accuracy",
            "minimal pairs": MINIMAL_PAIRS,
        },
        "share right",
    ),
    ("Replaced-token loss", {"training": "train/rtd_loss", "held-out": "eval/rtd_loss"}, "loss (nats)"),
    (
        "Replaced tokens",
        {"told right": "eval/rtd_accuracy", "found": "eval/rtd_recall", "replaced": "eval/rtd_replaced"},
        "share",
    ),
    ("Learning rate", {"learning rate": "lr"}, "learning rate"),
    ("Speed", {"tokens per second": "tokens_per_second"}, "tokens per second"),
)

Metrics = Sequence[Mapping[str, Any]]


def pretraining_report(
    out: Path,
    config: Config,
    facts: Mapping[str, Any],
    store: Store,
    tokenizer: Tokenizer,
    guesses: Sequence[Guess],
    step: int,
    forgetting: Sequence[Mapping[str, Any]] = (),
    replayed: Sequence[str] = (),
) -> Path:
    """Write the report of a pretraining run.

    Args:
        out: the run folder, whose `metrics.jsonl` is drawn.
        config: what the run was asked.
        facts: of `run.json`.
        store: what it learned from.
        tokenizer: its vocabulary.
        guesses: of the finished model.
        step: whose weights the finished model has.
        forgetting: rows of `train.continued.Forgetting.table`; empty where the run began from nothing.
        replayed: names of the corpora that were mixed in.

    Returns:
        The file.
    """
    metrics = read_metrics(out)
    kept: Mapping[str, Any] = next(line for line in metrics if line["step"] == step)
    whose = " of the generator" if "eval/rtd_loss" in kept else ""
    page = Page("Pretraining", f"{', '.join(facts['inputs'])} → {out.name}")
    page.section("Result").facts(
        {
            f"held-out MLM loss{whose} (nats)": f"{kept['eval/mlm_loss']:.3f}",
            f"masked words right{whose}": f"{kept['eval/mlm_accuracy']:.1%}",
            **({"replaced-token loss (nats)": f"{kept['eval/rtd_loss']:.3f}"} if whose else {}),
            **{
                title: f"{kept[name]:.1%}"
                for name, title in (
                    ("eval/rtd_accuracy", "replaced or not, right"),
                    ("eval/rtd_recall", "of the replaced, found"),
                    ("eval/rtd_replaced", "tokens replaced"),
                    ("eval/nsp_accuracy", "next sentence right"),
                    ("eval/sop_accuracy", "sentence order right"),
                )
                if name in kept
            },
            "weights of step": f"{step:,} of {metrics[-1]['step']:,}",
            "tokens seen": f"{kept.get('tokens', 0) / 1e6:.1f} M",
            "training time": f"{metrics[-1].get('seconds', 0.0) / 60:.1f} min",
        }
    )
    if forgetting:
        page.section("Learned and forgotten", "Held-out text of each corpus, before this run and after it.").table(
            "",
            [
                "corpus",
                "role",
                *(f"MLM {name}{whose} {when}" for name in ("loss", "accuracy") for when in ("before", "after")),
            ],
            [
                [
                    row["corpus"],
                    row["role"],
                    *(f"{row[when]['mlm_loss']:.3f}" for when in ("before", "after")),
                    *(f"{row[when]['mlm_accuracy']:.1%}" for when in ("before", "after")),
                ]
                for row in forgetting
            ],
        )
    if replayed:
        page.section("Corpora learned from", "Losses are means over the last fifth of the steps.").table(
            "", ["corpus", "share of tokens", "MLM loss"], by_source(metrics, [", ".join(facts["inputs"]), *replayed])
        )
    curves(page, metrics)
    guesser = "generator" if whose else "model"
    page.section("Hidden words", f"Words of held-out text that were hidden, and what the {guesser} puts there instead.")
    page.table(
        "",
        ["before", "hidden", "after", "guesses", "of the true word"],
        [
            [
                guess.sample.before,
                guess.sample.word,
                guess.sample.after,
                ", ".join(f"{token} {probability:.0%}" for token, probability in guess.best),
                f"{guess.true:.1%}",
            ]
            for guess in guesses
        ],
    )
    counts = store.manifest["counts"]
    page.section("Corpus and vocabulary").table(
        "",
        ["what", "how much"],
        [
            *([name, f"{value:,}"] for name, value in counts.items()),
            ["tokens learned from", f"{facts.get('tokens_per_epoch', 0):,}"],
            ["pieces in the vocabulary", f"{tokenizer.vocab_size:,}"],
            ["pieces per word", f"{counts['tokens'] / max(1, counts['words']):.3f}"],
        ],
    )
    if store.manifest["skipped"]:
        rows = [[reason, f"{count:,}"] for reason, count in store.manifest["skipped"].items()]
        page.table("Skipped or mended", ["reason", "count"], rows)
    ending(page, config, facts)
    return page.write(out / REPORT)


def by_source(metrics: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[str]]:
    """How much each corpus of a mixture gave, and how well it was predicted in the end.

    Args:
        metrics: the lines of `metrics.jsonl`, with `source`.
        names: of the corpora, by that number.

    Returns:
        A row a corpus: name, share of all tokens, mean training loss over the last fifth of the steps.
    """
    steps = [{**line, "own": line["tokens"] - before["tokens"]} for before, line in pairwise(metrics)]
    rows = []
    for number, name in enumerate(names):
        mine = [line for line in steps if line["source"] == number]
        late = [line for line in mine if line["step"] > 0.8 * steps[-1]["step"]]
        losses = [float(line["train/mlm_loss"]) for line in late if line.get("train/mlm_loss") is not None]
        share = sum(line["own"] for line in mine) / sum(line["own"] for line in steps)
        rows.append([name, f"{share:.1%}", f"{fmean(losses):.3f}" if losses else "–"])
    return rows


class Samples(NamedTuple):
    """Some held-out rows of a task and what the model answers.

    Attributes:
        name: the task's among several; empty for the only one.
        rows: text, gold and answer of each.
        picture: a confusion matrix of all held-out rows as SVG.
    """

    name: str
    rows: Sequence[Sequence[str]]
    picture: str | None

    @property
    def ending(self) -> str:
        """For the end of a heading."""
        return f": {self.name}" if self.name else ""


def finetuning_report(
    out: Path,
    config: Config,
    facts: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, float]],
    samples: Sequence[Samples],
) -> Path:
    """Write the report of a fine-tuning run.

    Args:
        out: the run folder.
        config: what the run was asked.
        facts: of `run.json`.
        scores: by split, by name.
        samples: of the task, or of each of several.

    Returns:
        The file.
    """
    learned = facts.get("data") or ", ".join(one.name for one in samples)
    page = Page(f"Fine-tuning: {facts['task']}", f"{learned} → {out.name}")
    names = sorted({name for split in scores.values() for name in split})
    page.section("Result").table(
        "",
        ["score", *scores],
        [[name, *(f"{split[name]:.4f}" if name in split else "" for split in scores.values())] for name in names],
    )
    for one in samples:
        if one.picture is not None:
            page.figure(f"Confusion on the held-out rows{one.ending}", one.picture)
    headline = facts["headline"]
    curves(page, read_metrics(out), (f"Dev {headline}", {"dev": f"eval/{headline}"}, headline))
    for one in samples:
        page.section(f"Samples{one.ending}", "Held-out rows and what the model answers.")
        page.table("", ["text", "gold", "answer"], one.rows)
    ending(page, config, facts)
    return page.write(out / REPORT)


def sample_rows(examples: Sequence[Example], answers: Sequence[Answer]) -> list[tuple[str, str, str]]:
    """Text, gold and answer of each example, as a person reads them."""
    return [
        (_asked(example), _gold(example, found), _shown(found))
        for example, found in zip(examples, answers, strict=True)
    ]


def _asked(example: Example) -> str:
    texts = [str(example.fields[name]) for name in ("text", "pair", "question") if name in example.fields]
    if "first" in example.fields:
        texts.append(
            " → ".join(texts[0][span.start : span.end] for span in (example.fields["first"], example.fields["second"]))
        )
    context = example.fields.get("context", "")
    return " ⏐ ".join([*texts, *([context if len(context) <= MOST else context[: MOST - 1] + "…"] if context else [])])


def _gold(example: Example, found: Answer) -> str:
    if example.label is True:
        return "go together"
    if "choices" in example.fields:
        return str(example.fields["choices"][example.label])
    if not isinstance(example.label, tuple | list | frozenset | set):
        return str(example.label)
    if all(isinstance(item, str) for item in example.label):
        return (" / " if "generated" in found else ", ").join(example.label) or NOTHING
    if "question" in example.fields:
        return " / ".join(dict.fromkeys(item.text for item in example.label)) or NOTHING
    return "; ".join(f"{example.fields['text'][s.start : s.end]} ({s.type})" for s in sorted(example.label))


def _shown(found: Answer) -> str:
    if "generated" in found:
        return found["generated"] or NOTHING
    if "chosen" in found:
        return f"{found['chosen']} ({found['score']:.0%})"
    if "answer" in found:
        return f"{found['answer'] or NOTHING} ({found['score']:.0%})"
    if "entities" in found:
        return "; ".join(f"{entity['text']} ({entity['type']})" for entity in found["entities"])
    if "labels" in found:
        return ", ".join(found["labels"]) or NOTHING
    if "similarity" in found:
        return " ".join([*([found["label"]] if "label" in found else []), f"cosine {found['similarity']:.3f}"])
    return f"{found['label']} ({found['score']:.0%})" if "label" in found else f"{found['value']:.3f}"


def curves(page: Page, metrics: Metrics, *own: Curve) -> None:
    """Draw what was logged: each curve thinned to a few hundred means.

    Args:
        page: to draw on.
        metrics: the lines of `metrics.jsonl`.
        own: pictures of this kind of run, before those of all runs.
    """
    page.section("Curves")
    parts = any("train/mlm_loss" in line for line in metrics)
    for title, series, unit in (*own, *CURVES):
        series = {name: key for name, key in series.items() if not (parts and key == "train/loss")}
        lines = {
            name: _thin([(line["step"], line[key]) for line in metrics if line.get(key) is not None])
            for name, key in series.items()
        }
        lines = {name: line for name, line in lines.items() if len(line) > 1}
        if lines:
            page.figure("", line_chart(lines, title=title, y_label=unit))


def ending(page: Page, config: Config, facts: Mapping[str, Any]) -> None:
    """The environment, the settings and the command that repeats the run."""
    page.section("Environment").table("", ["what", "value"], [list(pair) for pair in environment().items()])
    page.section("Again")
    page.code("The command", facts.get("command") or f"from Python {sys.version.split()[0]}: see the settings")
    page.code("The settings", to_toml(config))


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    if size <= 1:
        return points
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], fmean(y for _, y in group)) for group in groups]


def announce(events: Events, step: int, scores: Mapping[str, float], guesses: Sequence[Guess]) -> None:
    """Tell what an evaluation found, with one hidden word and what was put in its place.

    Args:
        events: tells.
        step: updates done.
        scores: of the held-out text, and of probes.
        guesses: at hidden words; may be empty.
    """
    named = {
        "rtd_loss": "held-out replaced-token loss",
        "rtd_accuracy": "right",
        "rtd_recall": "replaced ones found",
        "mlm_loss": "the generator's MLM loss" if "rtd_loss" in scores else "held-out MLM loss",
        "mlm_accuracy": "masked words right",
        "nsp_accuracy": "next sentence right",
        "sop_accuracy": "sentence order right",
        MINIMAL_PAIRS: "minimal pairs told apart",
    }
    shares = [
        f"{title} {scores[name]:.3f}" if name.endswith("loss") else f"{title} {scores[name]:.1%}"
        for name, title in named.items()
        if name in scores
    ]
    told = [", ".join(shares)] if shares else []
    told += [line_of(guesses[step % len(guesses)])] if guesses else []
    if told:
        events.say(f"step {step}: " + "\n  ".join(told))
