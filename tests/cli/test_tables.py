"""Chinese in terminal tables: 80 columns hold 40 characters, and none of them may be lost."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bertsmith.cli.demo import _show_learned
from bertsmith.cli.predict import show
from bertsmith.cli.tables import folding, padded, shortened
from bertsmith.recipes.demo import Learned

SENTENCE = "香港電影金像獎是一個每年頒發的電影獎項由香港電影金像獎協會主辦是電影界最具影響力的獎項之一歷史悠久"


def _shown(width: int = 80) -> tuple[Console, io.StringIO]:
    screen = io.StringIO()
    return Console(file=screen, width=width), screen


def test_a_long_chinese_cell_goes_on_in_the_next_line() -> None:
    console, screen = _shown()
    table = Table("text", "times")
    table.add_row(Text(SENTENCE), "3")
    console.print(folding(table))
    lines = screen.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert "".join(re.findall("[\u4e00-\u9fff]", screen.getvalue())) == SENTENCE
    assert "…" not in screen.getvalue()


def test_the_samples_of_a_chinese_demo_are_whole() -> None:
    offers = [("香港", 0.5), ("台灣", 0.2), ("中國", 0.1)]
    words = [
        {
            "before": SENTENCE[:40],
            "word": "香港",
            "after": SENTENCE[7:],
            "guesses": {step: {"best": offers} for step in ("0", "50", "100")},
        }
    ]
    scores = {"mlm_loss": 1.0, "mlm_accuracy": 0.5}
    console, screen = _shown()
    _show_learned(console, Learned(run=None, before=scores, after=scores, words=words))  # type: ignore[arg-type]
    text = screen.getvalue()
    column = "".join(re.findall(r"^│ (.*?) │", text, re.MULTILINE))
    assert "".join(re.findall("[\u4e00-\u9fff]", column)) == SENTENCE[:40] + "香港" + SENTENCE[7:]
    assert text.count("…") == 2  # those that the sample itself begins and ends with


@pytest.mark.parametrize("text", [SENTENCE, "a" * 100, "短", "ab短" * 20])
def test_what_is_shortened_fits(text: str) -> None:
    for width in (2, 9, 40, 70):
        found = shortened(text, width)
        assert cell_len(found) <= width
        assert found == text or (found.endswith("…") and text.startswith(found[:-1]) and cell_len(found) >= width - 2)


def test_labels_in_two_scripts_stand_in_line() -> None:
    chances = {"好评": 0.75, "neutral": 0.25}
    assert cell_len(padded("好评", 7)) == 7
    answers = [{"label": label, "score": chances[label], "probabilities": chances} for label in chances]
    lines = [show({"text": "x"}, answer).plain for answer in answers]
    assert len({cell_len(line.rpartition("%")[0]) for line in lines}) == 1
