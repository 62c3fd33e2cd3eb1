"""The requests that bundles' cards show are answered by the service, and the command that starts it does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAMES = ("classify", "match", "vectors", "tag", "relate", "answer", "pretraining")


def blocks(bundle: Path) -> list[str]:
    said = (bundle / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n(.*?)\n```$", said, re.M | re.S)


@pytest.mark.parametrize("name", NAMES)
def test_the_cards_request_is_answered(name: str, bundles: Path, served: Any) -> None:
    words = shlex.split(blocks(bundles / name)[-1])
    assert words[0] == "curl"
    route = words[1].removeprefix("localhost:8765")
    answer = served.post(route, json.loads(words[words.index("-d") + 1]) | {"model": name})
    assert answer.status_code == 200, answer.text
    assert answer.json()


def test_the_cards_commands_run_in_its_folder(bundles: Path, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundles / "classify")
    predict, serve, _ = (shlex.split(block) for block in blocks(bundles / "classify"))
    done = subprocess.run([sys.executable, "-m", "bertsmith.cli.main", *predict[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "good" in done.stdout
    assert serve[:2] == ["bertsmith", "serve"]
    running = start(*serve[2 : serve.index("--port")])
    assert running.post("/predict", {"inputs": "good film", "model": "model"}).status_code == 200
