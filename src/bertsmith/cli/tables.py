"""Text in the columns of a terminal, where a Chinese character takes two: nothing that was learned or found is cut."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.table import Table


def folding(table: Table) -> Table:
    """The same table, in which words that are too long for a column go on in the next line instead of being cut.

    A Chinese sentence has no spaces, so to a terminal it is one long word.

    Args:
        table: with its columns.
    """
    for column in table.columns:
        column.overflow = "fold"
    return table


def shortened(text: str, width: int) -> str:
    """The beginning of a text that fits, with an ellipsis where something is missing.

    Args:
        text: in one line.
        width: columns of the terminal, 2 or more.
    """
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def padded(text: str, width: int) -> str:
    """A text with spaces up to a width.

    Args:
        text: in one line.
        width: columns of the terminal.
    """
    return text + " " * max(0, width - cell_len(text))
