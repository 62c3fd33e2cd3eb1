"""How the lines of a text hang together."""

from __future__ import annotations

import textwrap

import pytest

from bertsmith.corpus.layout import Layout, detect, joint

PROSE = (
    "The rain had ceased with the gray streaks of morning, and the settlement awoke to a sense of cleanliness. "
    "Knives and tin cups were found where the showers had washed away the dust. Nobody was surprised! "
)
CHINESE = "今天天气很好，我们一起去公园里玩了整整一天，晚上才回到家里吃饭。" * 8


@pytest.mark.parametrize(
    ("lines", "layout"),
    [
        (textwrap.wrap(PROSE * 4, 72), "wrapped"),
        ([CHINESE[at : at + 35] for at in range(0, len(CHINESE), 35)], "wrapped"),
        ([PROSE, PROSE * 3, PROSE * 2], "paragraphs"),
        (["A title", "", PROSE, "Another title", PROSE * 2], "paragraphs"),
        (["It rained.", "Then, after a long while, the sun came out.", "Why?", "", "Nobody knows."], "sentences"),
        (["天气很好。", "我们一起去公园里玩了整整一天。", "你呢？"], "sentences"),
        (["a single line"], "paragraphs"),
        ([], "paragraphs"),
    ],
)
def test_detect(lines: list[str], layout: Layout) -> None:
    assert detect(lines) == layout


def test_joints() -> None:
    assert joint("今天", "天气", "wrapped") == ""
    assert joint("today", "天气", "wrapped") == "\n"
    assert joint("area and the", "seventh largest", "paragraphs") == "\n"
    assert joint("It ended.", "Another began", "paragraphs") == "\n\n"
    assert joint("One.", "Two.", "sentences") == "\n"
