"""The house's rules that no linter knows: small files, telling names, documented methods, nothing heavy too early."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from bertsmith.cli.main import COMMANDS
from bertsmith.core.config import Config

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in SOURCES]
LONGEST = 400
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc", "tools", "shared"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_file_stays_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST, "it usually holds two things: split it"


def test_names_say_what_is_inside() -> None:
    parts = {part for path in SOURCES for part in path.relative_to(ROOT / "src").with_suffix("").parts}
    assert not parts & VAGUE


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_public_functions_describe_each_argument_and_result(path: Path) -> None:
    """pydocstyle wants a docstring; this wants the sections that STYLE asks for where there is something to say."""
    lacking = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or node.name == "command":
            continue
        text = ast.get_docstring(node) or ""
        arguments = [arg.arg for arg in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
        named = [arg for arg in arguments if arg not in ("self", "cls")]
        undescribed = [
            arg for arg in named if f"{arg}:" not in text and f"`{arg}" not in text and f"{arg} (" not in text
        ]
        if "Args:" in text and undescribed:
            lacking.append(f"{node.name}: {', '.join(undescribed)}")
    assert not lacking


def configs() -> list[type[Config]]:
    found = []
    for module in MODULES:
        if module.endswith("__main__"):
            continue
        for value in vars(import_module(module.removesuffix(".__init__"))).values():
            if isinstance(value, type) and issubclass(value, Config) and value.__module__ == module:
                found.append(value)
    return found


def test_every_setting_is_described_and_can_be_saved() -> None:
    """A description is the setting's help; TOML has no null, so None can only be a default."""
    wrong = []
    for config in configs():
        for key, field in config.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, Config)
            if not field.description and not nested:
                wrong.append(f"{config.__name__}.{key} has no description")
            if type(None) in getattr(field.annotation, "__args__", ()) and field.default is not None:
                wrong.append(f"{config.__name__}.{key} may be None, so None must be its default")
    assert not wrong


def test_core_command_line_and_errors_load_without_torch() -> None:
    light = [module for module in MODULES if module.startswith(("bertsmith.core", "bertsmith.cli"))]
    script = f"import sys, {', '.join(light)}\nprint('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_the_table_of_commands_points_to_functions() -> None:
    for target, line in COMMANDS.values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))
        assert line.endswith(".")
        assert len(line) < 60
