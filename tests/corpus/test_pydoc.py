"""`pydoc:` finds prose in docstrings without importing anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.pydoc import read_docstrings
from bertsmith.corpus.readers import read

MODULE = '''"""Tools that ``open`` and close the doors of a house.

Example of how this module is used in practice:

    >>> open_door(1)
    'open'
"""
import does_not_exist
raise SystemExit("this module must not be imported")

class Door:
    """A door with a ``handle`` that somebody may turn.

    Parameters
    ----------
    width : float
        How wide the door is, in metres and
        never in inches.
    .. versionadded:: 3.2
    """
    if True:
        def open(self):
            """Open the door slowly, as it is old and heavy."""
            def inner():
                "Turn the key twice before the lock gives way."

    def close(self):
        """Short.

        Args:
            speed (float): How fast the door closes, in metres a second.
            **others: Passed on to the function that does
                the real work in the end.
        """

    def open_again(self):
        """Open the door slowly, as it is old and heavy."""
'''


def test_prose_is_found_in_order_once_and_code_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "house" / "tests").mkdir(parents=True)
    (tmp_path / "house" / "__init__.py").write_text(MODULE)
    (tmp_path / "house" / "copy.py").write_text(MODULE)
    (tmp_path / "house" / "tests" / "test_x.py").write_text('"""A test says something of five words at least."""')
    (tmp_path / "broken.py").write_text('"""Unfinished.""" def (')
    (tmp_path / "warns.py").write_text('"""An invalid \\d escape must not make a warning here."""')
    tally = Tally()
    first, second = read_docstrings("pydoc:", tally, [tmp_path])
    assert (first.id, first.meta) == ("house", {"package": "house", "module": "house"})
    assert first.text.split("\n\n") == [
        "Tools that ``open`` and close the doors of a house.",
        "A door with a ``handle`` that somebody may turn.",
        "How wide the door is, in metres and never in inches.",
        "Open the door slowly, as it is old and heavy.",
        "Turn the key twice before the lock gives way.",
        "How fast the door closes, in metres a second.",
        "Passed on to the function that does the real work in the end.",
    ]
    assert second.id == "warns"
    assert tally.counts["pydoc_source_unreadable"] == 1
    assert tally.first["pydoc_source_unreadable"].endswith("broken.py")


def test_named_packages_of_this_machine() -> None:
    documents = list(read(["pydoc:json,textwrap"], Tally()))
    assert [document.id for document in documents if document.id in ("json", "json.decoder", "textwrap")] == [
        "json",
        "json.decoder",
        "textwrap",
    ]
    assert {document.meta["package"] for document in documents} == {"json", "textwrap"}
    assert {document.source for document in documents} == {"pydoc:"}


def test_an_absent_package_is_named() -> None:
    with pytest.raises(DataError, match="no Python sources of no_such_package are installed"):
        list(read(["pydoc:json,no_such_package"], Tally()))
