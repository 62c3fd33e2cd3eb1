from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from bertsmith.core.errors import ConfigError
from bertsmith.core.extras import EXTRAS, require

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def test_the_extras_are_those_that_the_project_declares() -> None:
    declared = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {extra: {re.split(r"[<>=~! ]", name)[0] for name in packages} for extra, packages in declared.items()}
    assert {extra: set(packages) for extra, packages in EXTRAS.items()} == {
        extra: packages for extra, packages in names.items() if extra != "dev"
    }


def test_an_absent_package_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require("zstandard", "reading a.zst").__name__ == "zstandard"
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(
        ConfigError, match=r"reading a\.zst needs the package zstandard.*pip install 'bertsmith\[fast\]'"
    ):
        require("zstandard", "reading a.zst")
