"""What the demo found, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bertsmith.core.device import environment
from bertsmith.core.events import read_metrics
from bertsmith.core.picture import bar_chart
from bertsmith.core.report import Page
from bertsmith.recipes.demo import Learned, Tagger
from bertsmith.train.report import REPORT, curves


def code_words_report(
    out: Path, learned: Learned, taggers: Mapping[str, Tagger], answers: Sequence[Mapping[str, Any]], command: str
) -> Path:
    """Write the report of the demo on code words.

    Args:
        out: the demo's folder.
        learned: the pretraining.
        taggers: by where their weights came from.
        answers: of the pretrained tagger, as `Predictor` gives them.
        command: what repeats the demo.

    Returns:
        The file.
    """
    scores = {name: tagger.scores["f1"] for name, tagger in taggers.items()}
    page = Page("A small BERT and what it is good for", "Finding code words in prose from 200 labelled sentences")
    facts = {f"F1, {name} weights": f"{100 * f1['mean']:.1f} ± {100 * f1['sd']:.1f}" for name, f1 in scores.items()}
    page.section("Result").facts(facts)
    page.figure("", _bars(scores))
    page.text(
        "Strict F1: a code word counts when both of its ends are right. Mean and standard deviation over seeds, on "
        "sentences of modules that neither pretraining nor the labelled sentences have seen. The ``backticks`` that "
        "give the labels are taken out of all text, also of the text to pretrain on."
    )
    rows = [
        [name, *(f"{100 * tagger.scores[score]['mean']:.1f}" for score in ("precision", "recall")), _each(tagger)]
        for name, tagger in taggers.items()
    ]
    page.table("", ["weights", "precision", "recall", "F1 of each seed"], rows)
    page.section("Answers", "Held-out sentences; what the tagger takes for code words is marked.")
    page.text("".join(f"<p>{_marked(answer)}</p>" for answer in answers), html=True)
    _pretraining(page, learned)
    return _written(page, out, command)


def own_text_report(out: Path, learned: Learned, shares: Mapping[str, float], command: str) -> Path:
    """Write the report of the demo on text of one's own.

    Args:
        out: the demo's folder.
        learned: the pretraining.
        shares: as `beside_ngrams` gives them.
        command: what repeats the demo.

    Returns:
        The file.
    """
    page = Page("A small BERT of your own text", f"{shares['words']:,} hidden words of held-out text")
    bars = {name: 100 * shares[name] for name in ("unigram", "trigram", "bert")}
    page.section("Result").facts({name: f"{value:.1f} %" for name, value in bars.items()})
    page.figure("", bar_chart(bars, title="Hidden words found", x_label="% of the same hidden words"))
    page.text(
        "The unigram always says the most frequent piece; the trigram says the most probable one after the two pieces "
        "to the left, which it sees even where the model finds them hidden. The model sees both sides."
    )
    _pretraining(page, learned)
    return _written(page, out, command)


def guess_table(words: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Hidden words and the best guesses early in training, in the middle and at its end.

    Args:
        words: as in `Learned`.

    Returns:
        Headers and rows.
    """
    steps = sorted({int(step) for word in words for step in word["guesses"]})
    shown = list(dict.fromkeys(steps[i] for i in (0, len(steps) // 2, -1))) if steps else []
    headers = ["hidden word", *(f"step {step:,}" for step in shown)]
    rows = []
    for word in words:
        best = [word["guesses"][str(step)]["best"] for step in shown]
        row = [", ".join(f"{token} {share:.0%}" for token, share in offers) for offers in best]
        rows.append([f"… {word['before']} [{word['word']}] {word['after']} …", *row])
    return headers, rows


def _pretraining(page: Page, learned: Learned) -> None:
    page.section("Pretraining", "Held-out text before the first step and after the last one.")
    names = {
        "mlm_loss": "MLM loss (nats)",
        "mlm_accuracy": "hidden words right",
        "nsp_accuracy": "next sentence right",
        "sop_accuracy": "sentence order right",
    }
    rows = [
        [
            title,
            *(
                f"{scores[name]:.3f}" if name == "mlm_loss" else f"{scores[name]:.1%}"
                for scores in (learned.before, learned.after)
            ),
        ]
        for name, title in names.items()
        if name in learned.after
    ]
    page.table("", ["score", "before", "after"], rows)
    page.table("Hidden words and guesses", *guess_table(learned.words))
    curves(page, read_metrics(learned.run))


def _written(page: Page, out: Path, command: str) -> Path:
    page.section("Environment").table("", ["what", "value"], [list(pair) for pair in environment().items()])
    page.section("Again").code("", command)
    return page.write(out / REPORT)


def _bars(scores: Mapping[str, Mapping[str, Any]]) -> str:
    return bar_chart(
        {name: round(100 * f1["mean"], 1) for name, f1 in scores.items()},
        errors={name: round(100 * f1["sd"], 1) for name, f1 in scores.items()},
        title="Finding code words, learned from 200 sentences",
        x_label="strict F1 on held-out sentences, mean ± standard deviation",
    )


def _each(tagger: Tagger) -> str:
    return ", ".join(f"{100 * value:.1f}" for value in tagger.scores["f1"]["each"])


def _marked(answer: Mapping[str, Any]) -> str:
    parts, at = [], 0
    for entity in answer["entities"]:
        parts += [escape(answer["text"][at : entity["start"]]), f"<mark>{escape(entity['text'])}</mark>"]
        at = entity["end"]
    return "".join([*parts, escape(answer["text"][at:])])
