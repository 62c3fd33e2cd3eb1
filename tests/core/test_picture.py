from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.core.picture import bar_chart, grid, line_chart, matrix

NAMESPACE = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{NAMESPACE}text")]


@given(
    st.dictionaries(
        st.sampled_from(["train", "held <out>", "中文"]),
        st.lists(st.tuples(st.integers(0, 10**6), st.floats(width=32))),
    ),
    st.booleans(),
)
def test_any_series_draws_as_well_formed_svg_inside_its_frame(
    series: dict[str, list[tuple[float, float]]], log_y: bool
) -> None:
    root = ElementTree.fromstring(line_chart(series, title="Loss & more", log_y=log_y))
    for line in root.iter(f"{NAMESPACE}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 640
            assert 0 <= y <= 320


def test_a_line_chart_names_its_axes_series_and_ends() -> None:
    svg = line_chart({"train": [(0, 9.0), (100, 4.0)], "held out": [(100, 5.0)]}, title="Loss", y_label="nats")
    assert {"Loss", "nats", "step", "train", "held out"} <= set(texts(svg))
    assert "train: 9 to 4" in svg
    assert "prefers-color-scheme:dark" in svg


def test_a_gap_stays_a_gap() -> None:
    svg = line_chart({"loss": [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 1.5)]}, title="Loss")
    assert svg.count("<polyline") == 2
    assert "no data" in line_chart({"loss": [(0, math.inf)]}, title="Loss")


def test_bars_are_as_long_as_their_values() -> None:
    svg = bar_chart({"ours": 10.0, "<theirs>": 5.0}, title="Speed", errors={"ours": 0.5})
    widths = [float(bar.attrib["width"]) for bar in ElementTree.fromstring(svg).iter(f"{NAMESPACE}rect")]
    assert widths[0] == pytest.approx(2 * widths[1], rel=0.01)
    assert {"10 ± 0.5", "5", "<theirs>"} <= set(texts(svg))


def test_a_matrix_shows_every_count_and_label() -> None:
    svg = matrix(["neg", "财经"], [[1200, 3], [0, 7]], title="Confusion")
    assert {"1,200", "3", "0", "7", "neg", "财经", "gold", "predicted"} <= set(texts(svg))
    assert "1207 of 1210 on the diagonal" in svg


def test_a_grid_shows_every_count_by_row_and_column() -> None:
    svg = grid({"query": {"layer 1": 3, "layer 2": 12}, "层": {"layer 1": 0, "layer 2": 7}}, title="Ranks", most=12)
    assert {"3", "12", "0", "7", "query", "层", "layer 1", "layer 2"} <= set(texts(svg))
    shades = [float(cell.attrib["fill-opacity"]) for cell in ElementTree.fromstring(svg).iter(f"{NAMESPACE}rect")]
    assert sorted(shades) == [shades[2], shades[0], shades[3], shades[1]]
    assert shades[1] == 1.0


def test_a_long_legend_wraps_and_no_two_lines_look_the_same() -> None:
    names = [f"a run with a rather long name {number}" for number in range(12)]
    svg = line_chart({name: [(0, 1.0), (1, 2.0)] for name in names}, title="Loss")
    root = ElementTree.fromstring(svg)
    assert float(root.attrib["height"]) > 320
    spots = {text.text: text.attrib for text in root.iter(f"{NAMESPACE}text") if text.text in names}
    assert all(float(spot["x"]) + 7.2 * len(names[0]) < 640 for spot in spots.values())
    assert len({(spot["x"], spot["y"]) for spot in spots.values()}) == 12
    looks = {(line.attrib["stroke"], line.attrib["stroke-dasharray"]) for line in root.iter(f"{NAMESPACE}polyline")}
    assert len(looks) == 12
