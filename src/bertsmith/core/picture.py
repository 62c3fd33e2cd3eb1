"""Charts as self-contained SVG text: legible in light and dark, described for those who cannot see them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

# After Okabe and Ito's palette, which colour-blind readers can tell apart; each series also has a dash pattern
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5548a", "#a87400", "#5b5bd6")
DARK_COLOURS = ("#4fa8e0", "#f08a4b", "#3cc49a", "#e29cc4", "#e6b445", "#a5a5ff")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 5", "1 2")
_LIGHT = "".join(f"--c{number}:{colour};" for number, colour in enumerate(COLOURS))
_DARK = "".join(f"--c{number}:{colour};" for number, colour in enumerate(DARK_COLOURS))
STYLE = (
    f"<style>.bs{{{_LIGHT}}}@media(prefers-color-scheme:dark){{.bs{{{_DARK}}}}}"
    ".bs{--ink:#1f2328;--soft:#6a737d;--grid:#d8dee4;--heat:#0072b2;font:13px system-ui,'Noto Sans CJK SC',"
    "sans-serif}.bs text{fill:var(--ink)}.bs .soft{fill:var(--soft);font-size:11.5px}.bs .grid{stroke:var(--grid)}"
    ".bs .title{font-weight:600;font-size:14px}.bs .on{fill:#fff}"
    "@media(prefers-color-scheme:dark){.bs{--ink:#e6edf3;--soft:#9aa4af;--grid:#3a424c;--heat:#3f95d0}}</style>"
)
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 34, 46

Series = Mapping[str, Sequence[tuple[float, float]]]


def line_chart(
    series: Series,
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    log_y: bool = False,
    width: int = 640,
    height: int = 320,
) -> str:
    """Draw one line for each series; points that are not finite leave a gap.

    Args:
        series: points (x, y) by name.
        title: what the chart shows.
        x_label: what the horizontal axis counts, with its unit.
        y_label: what the vertical axis measures, with its unit.
        log_y: a logarithmic vertical axis; values of zero and below leave a gap.
        width: in pixels.
        height: in pixels; a legend of more than one row makes it higher.

    Returns:
        SVG text.
    """

    def drawable(y: float) -> bool:
        return math.isfinite(y) and (y > 0 or not log_y)

    def scale(y: float) -> float:
        return math.log10(y) if log_y else y

    points = [point for line in series.values() for point in line if drawable(point[1])]
    spots, rows = _legend(list(series), width - RIGHT) if len(series) > 1 else ([], 0)
    legend = rows * 22
    height += max(0, legend - 22)
    if not points:
        return _svg(title, "no data", [_text(width / 2, height / 2, "no data", "middle", "soft")], width, height)
    x_low, x_high = _span([x for x, _ in points], pad=0.0)
    y_low, y_high = _span([scale(y) for _, y in points], pad=0.05)
    right, bottom, top = width - RIGHT, height - BOTTOM, TOP + legend

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (right - LEFT),
            bottom - (scale(y) - y_low) / (y_high - y_low) * (bottom - top),
        )

    parts: list[str] = []
    y_ticks = _log_ticks(y_low, y_high) if log_y else _ticks(y_low, y_high)
    for value in y_ticks:
        height_at = place(x_low, value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{height_at:.1f}" y2="{height_at:.1f}"/>')
        parts.append(_text(LEFT - 8, height_at + 4, _number(value), "end", "soft"))
    for value in _ticks(x_low, x_high):
        x = place(value, points[0][1])[0]
        parts.append(_text(x, bottom + 18, _number(value), "middle", "soft"))
    parts.append(_text((LEFT + right) / 2, height - 8, x_label, "middle", "soft"))
    parts += _y_label(y_label, (top + bottom) / 2)
    for index, (name, line) in enumerate(series.items()):
        # Past the last colour the dashes move on by one, so that no two of 36 lines look the same
        colour, dash = _colour(index), DASHES[(index + index // len(COLOURS)) % len(DASHES)]
        stroke = f'fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round" stroke-dasharray="{dash}"'
        for run in _runs(line, drawable):
            placed = [place(x, y) for x, y in run]
            if len(placed) == 1:
                parts.append(f'<circle cx="{placed[0][0]:.1f}" cy="{placed[0][1]:.1f}" r="3" fill="{colour}"/>')
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f'<polyline points="{path}" {stroke}><title>{escape(name)}</title></polyline>')
        if spots:
            x, y = spots[index]
            parts.append(f'<line x1="{x:.1f}" x2="{x + 24:.1f}" y1="{y - 4}" y2="{y - 4}" {stroke}/>')
            parts.append(_text(x + 30, y, name, "start", "soft"))
    ends = [f"{name}: {_number(line[0][1])} to {_number(line[-1][1])}" for name, line in series.items() if line]
    return _svg(title, f"{y_label} against {x_label}. {'; '.join(ends)}", parts, width, height)


def bar_chart(
    bars: Mapping[str, float],
    *,
    title: str,
    x_label: str = "",
    errors: Mapping[str, float] | None = None,
    width: int = 640,
    one_colour: bool = False,
) -> str:
    """Draw one horizontal bar for each name, its value beside it.

    Args:
        bars: finite values, 0 or more, by name.
        title: what the chart shows.
        x_label: what the bars measure, with its unit.
        errors: spread by name, such as a standard deviation; drawn as a whisker and written after ±.
        width: in pixels.
        one_colour: for parts of one distribution, which are not different things.

    Returns:
        SVG text.
    """
    errors = errors or {}
    left = min(width / 2, 24 + max((_text_width(name) for name in bars), default=0))
    room = width - left - 110
    top = max((value + errors.get(name, 0.0) for name, value in bars.items()), default=0.0) or 1.0
    parts: list[str] = []
    for index, (name, value) in enumerate(bars.items()):
        y = TOP + 10 + index * 30
        length, spread = value / top * room, errors.get(name, 0.0) / top * room
        colour = _colour(0 if one_colour else index)
        parts.append(_text(left - 8, y + 15, name, "end"))
        parts.append(f'<rect x="{left:.1f}" y="{y}" width="{length:.1f}" height="20" rx="2" fill="{colour}"/>')
        written = _number(value)
        if name in errors:
            written += f" ± {_number(errors[name])}"
            line = f'x1="{left + length - spread:.1f}" x2="{left + length + spread:.1f}" y1="{y + 10}" y2="{y + 10}"'
            parts.append(f'<line {line} stroke="var(--ink)" stroke-width="2"/>')
        parts.append(_text(left + length + spread + 8, y + 15, written, "start"))
    height = TOP + 10 + len(bars) * 30 + (26 if x_label else 6)
    if x_label:
        parts.append(_text(left + room / 2, height - 8, x_label, "middle", "soft"))
    said = "; ".join(f"{name}: {_number(value)}" for name, value in bars.items())
    return _svg(title, f"{x_label}. {said}", parts, width, height)


def matrix(
    labels: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    title: str,
    row_label: str = "gold",
    column_label: str = "predicted",
) -> str:
    """Draw a confusion matrix: shaded by the share of its row, with the numbers.

    Args:
        labels: names of the classes.
        counts: `counts[gold][predicted]`.
        title: what the chart shows.
        row_label: what a row is.
        column_label: what a column is.

    Returns:
        SVG text.
    """
    short = [label if len(label) <= 18 else label[:17] + "…" for label in labels]
    side = 54 if len(labels) <= 12 else 34
    left = 40 + max((_text_width(name) for name in short), default=0)
    slanted = any(_text_width(name) > side - 4 for name in short)
    rise = max((_text_width(name) * 0.75 for name in short), default=0) if slanted else 16
    top = 56 + rise
    parts: list[str] = [_text(left + side * len(labels) / 2, 50, column_label, "middle", "soft")]
    parts += _y_label(row_label, top + side * len(labels) / 2)
    for index, name in enumerate(short):
        x, y = left + side * (index + 0.5), top - 8
        turn = f' transform="rotate(-45 {x:.1f} {y:.1f})"' if slanted else ""
        anchor = "start" if slanted else "middle"
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turn}>{escape(name)}</text>')
        parts.append(_text(left - 8, top + side * (index + 0.5) + 4, name, "end"))
    for row, line in enumerate(counts):
        total = sum(line) or 1
        for column, count in enumerate(line):
            share = count / total
            x, y = left + column * side, top + row * side
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{side - 2}" height="{side - 2}" rx="3" fill="var(--heat)" '
                f'fill-opacity="{0.06 + 0.94 * share:.2f}"><title>{escape(labels[row])} → {escape(labels[column])}: '
                f"{count} ({share:.0%})</title></rect>"
            )
            number_class = "on" if share > 0.55 else ""
            parts.append(_text(x + side / 2 - 1, y + side / 2 + 4, f"{count:,}", "middle", number_class))
    right = sum(line[index] for index, line in enumerate(counts))
    said = f"{row_label} in rows, {column_label} in columns; {right} of {sum(map(sum, counts))} on the diagonal"
    spill = rise if slanted else 0
    size = len(labels) * side
    return _svg(title, said, parts, max(left + size + spill + 10, 20 + _text_width(title) * 1.15), top + size + 12)


def grid(cells: Mapping[str, Mapping[str, int]], *, title: str, most: int) -> str:
    """Draw a table of counts, each cell shaded by how large its count is.

    Args:
        cells: counts, 0 or more, by row and column; rows have the same columns.
        title: what the chart shows.
        most: the count that is shaded fully.

    Returns:
        SVG text.
    """
    rows, columns = list(cells), list(next(iter(cells.values()), {}))
    left = 30 + max((_text_width(name) for name in rows), default=0)
    wide, high, top = max([44.0, *(_text_width(name) + 12 for name in columns)]), 34, 64
    parts = [_text(left + wide * (i + 0.5), top - 8, name, "middle", "soft") for i, name in enumerate(columns)]
    for row, name in enumerate(rows):
        y = top + row * high
        parts.append(_text(left - 8, y + high / 2 + 4, name, "end"))
        for column, count in enumerate(cells[name].values()):
            share = min(1.0, count / max(1, most))
            parts.append(
                f'<rect x="{left + column * wide:.1f}" y="{y}" width="{wide - 2:.1f}" height="{high - 2}" rx="3" '
                f'fill="var(--heat)" fill-opacity="{0.06 + 0.94 * share:.2f}"/>'
            )
            middle = left + wide * (column + 0.5) - 1
            parts.append(_text(middle, y + high / 2 + 4, f"{count:,}", "middle", "on" if share > 0.55 else ""))
    said = "; ".join(f"{name}: {', '.join(map(str, line.values()))}" for name, line in cells.items())
    width = max(left + wide * len(columns) + 10, 20 + _text_width(title) * 1.15)
    return _svg(title, f"{', '.join(columns)}. {said}", parts, width, top + high * len(rows) + 12)


def _svg(title: str, description: str, parts: Sequence[str], width: float, height: float) -> str:
    return (
        f'<svg class="bs" xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" style="display:block;max-width:100%;height:auto">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{STYLE}"
        f"{_text(14, 20, title, 'start', 'title')}{''.join(parts)}</svg>"
    )


def _colour(index: int) -> str:
    return f"var(--c{index % len(COLOURS)})"


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _legend(names: Sequence[str], right: float) -> tuple[list[tuple[float, int]], int]:
    """Where each name of a legend begins, and how many rows they take."""
    spots: list[tuple[float, int]] = []
    x, row = float(LEFT), 0
    for name in names:
        wide = _text_width(name) + 52
        if spots and x + wide > right:
            x, row = float(LEFT), row + 1
        spots.append((x, TOP + 8 + 22 * row))
        x += wide
    return spots, row + 1


def _y_label(text: str, y: float) -> list[str]:
    turned = f'transform="rotate(-90 14 {y:.1f})"'
    return (
        [f'<text class="soft" x="14" y="{y:.1f}" text-anchor="middle" {turned}>{escape(text)}</text>'] if text else []
    )


def _text_width(text: str) -> float:
    return sum(13.0 if ord(char) > 0x2E80 else 7.2 for char in text)


def _span(values: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        margin = max(0.5, abs(low) * 0.1)
        return low - margin, high + margin
    return low - (high - low) * pad, high + (high - low) * pad


def _runs(
    line: Sequence[tuple[float, float]], drawable: Callable[[float], bool]
) -> Iterator[list[tuple[float, float]]]:
    run: list[tuple[float, float]] = []
    for point in line:
        if drawable(point[1]):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    found = [
        factor * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1)
        for factor in ((1, 2, 5) if high - low < 3 else (1,))
    ]
    inside = [value for value in found if low <= math.log10(value) <= high]
    return inside if len(inside) > 1 else [10.0**low, 10.0**high]


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 10 or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:.4g}{unit}"
    if value != 0 and abs(value) < 1e-3:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(power)}"
    return f"{value:.4g}"
