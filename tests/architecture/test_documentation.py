"""Every command and snippet in the documentation is run as it stands, and both languages show the same ones.

How a document is run: its ```bash and ```python blocks, from top to bottom, in one new folder per document, each in a
process of its own that must end with 0; `bertsmith` is forked from a process that has done the imports, see `warm.py`.
A block below `<!-- not run: reason -->` is left out; the reason is printed.
A document with `<!-- slow -->` in it belongs to the slow tests. A Chinese document is not run again: its blocks must be
those of the English one, word for word.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": ["bertsmith", "-c"]}
IMPORTED = ["bertsmith.train.finetune", "bertsmith.train.pretrain", "bertsmith.predict.predictor"]
SHOWN = {"text", "toml", "json", "csv", "mermaid"}  # never run: output, files, pictures
FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\s*\n)?^```(?P<language>[^\n]*)\n(?P<body>.*?)^```\s*$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line, and why it is not run."""

    language: str
    body: str
    line: int
    reason: str | None


def blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(found["language"].strip(), found["body"], text.count("\n", 0, found.start("body")), found["reason"])
        for found in FENCE.finditer(text)
    ]


def is_chinese(path: Path) -> bool:
    return path.name.endswith(".zh.md") or "zh" in path.relative_to(ROOT).parts


def documents() -> list[object]:
    return [
        pytest.param(
            path,
            id=str(path.relative_to(ROOT)),
            marks=[pytest.mark.slow, pytest.mark.timeout(3600)] if "<!-- slow -->" in path.read_text("utf-8") else [],
        )
        for path in DOCUMENTS
        if not is_chinese(path) and any(block.language in RUN for block in blocks(path))
    ]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a `bertsmith` that starts at once."""
    spec = importlib.util.spec_from_file_location("warm", Path(__file__).with_name("warm.py"))
    assert spec is not None
    assert spec.loader is not None
    warm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(warm)
    folder = tmp_path_factory.mktemp("bin")
    with warm.start(folder, IMPORTED) as process:
        yield folder
        process.kill()


@pytest.mark.parametrize("path", documents())
def test_what_is_written_runs(path: Path, programs: Path, tmp_path: Path) -> None:
    places = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(places)}
    environment |= {"HOME": str(tmp_path), "COLUMNS": "100"}
    left_out = 0
    for block in blocks(path):
        where = f"{path.relative_to(ROOT)}:{block.line}"
        if block.language in RUN and block.reason:
            left_out += 1
            print(f"{where}: not run: {block.reason}")
        elif block.language in RUN:
            command = [*RUN[block.language], block.body]
            command[0] = shutil.which(command[0], path=environment["PATH"]) or command[0]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    print(f"{path.relative_to(ROOT)}: {left_out} blocks not run")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_names_its_language_and_every_link_leads_somewhere(path: Path) -> None:
    for block in blocks(path):
        assert block.language in RUN.keys() | SHOWN, (
            f"{path.name}:{block.line}: name one of bash, python, text, toml, …"
        )
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.M)) == 2 * len(blocks(path))
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|(?:src|href)=\"([^\"#]+)\"", text):
        link = target[0] or target[1]
        if "://" not in link and not link.startswith("mailto:"):
            assert (path.parent / link).exists(), f"{path.name}: {link} leads nowhere"


def counterpart(path: Path) -> Path:
    """The Chinese version of a document: `docs/en/x.md` has `docs/zh/x.md`, `README.md` has `README.zh.md`."""
    parts = path.relative_to(ROOT).parts
    if "en" in parts:
        return ROOT.joinpath(*("zh" if part == "en" else part for part in parts))
    return path.with_suffix(".zh.md")


BILINGUAL = [path for path in DOCUMENTS if "en" in path.relative_to(ROOT).parts or path.name == "README.md"]


@pytest.mark.parametrize("path", BILINGUAL, ids=lambda path: str(path.relative_to(ROOT)))
def test_both_languages_have_the_same_headings_and_commands(path: Path) -> None:
    other = counterpart(path)
    assert other.is_file(), f"{path.relative_to(ROOT)} has no {other.relative_to(ROOT)}"

    def levels(document: Path) -> list[str]:
        without_blocks = FENCE.sub("", document.read_text(encoding="utf-8"))
        return re.findall(r"^(#+) ", without_blocks, re.M)

    def code(document: Path) -> list[tuple[str, str, bool]]:
        found = [block for block in blocks(document) if block.language in RUN]
        return [(block.language, block.body, block.reason is None) for block in found]

    assert levels(path) == levels(other)
    assert code(path) == code(other)


def test_no_chinese_document_stands_alone() -> None:
    known = {counterpart(path) for path in BILINGUAL}
    alone = [path for path in DOCUMENTS if is_chinese(path) and path not in known]
    assert not alone


def test_the_reference_says_what_the_code_says() -> None:
    check = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
