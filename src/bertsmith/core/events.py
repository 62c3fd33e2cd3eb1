"""What a run tells while it works: a progress bar for people, metrics.jsonl for programs, trackers where asked."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.core.extras import require
from bertsmith.core.files import atomic_write, disk_errors, without_nan

METRICS = "metrics.jsonl"
LINE_EVERY = 10.0  # seconds between lines where no terminal can show a bar
SPEED_WINDOW = 200  # progress reports that the time left is computed from


class Events:
    """Progress on standard error and figures on disk; a context manager.

    Args:
        run: the run folder, whose `metrics.jsonl` grows by a line for each `log`; None: no file.
        total: steps in all, for the bar and the time left; None when not known.
        quiet: print nothing.
        unit: what a step is called on screen.
        track: `tensorboard` (written to run/tensorboard) and `wandb`, as asked.

    Raises:
        ConfigError: a tracker is unknown or not installed; names the command that installs it.
    """

    def __init__(
        self,
        run: Path | None,
        *,
        total: int | None = None,
        quiet: bool = False,
        unit: str = "step",
        track: Sequence[str] = (),
    ) -> None:
        self.run, self.total, self.quiet, self.unit, self.track = run, total, quiet, unit, tuple(track)
        for name in self.track:
            if name not in ("tensorboard", "wandb"):
                raise ConfigError(f"tracker '{name}' is not one of tensorboard, wandb")
            require(name, f"tracking with {name}")
            if run is None:
                raise ConfigError(f"tracking with {name} needs a run folder; give --out")
        self._console = _Screen(stderr=True, quiet=quiet, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._file: IO[str] | None = None
        self._writers: list[Any] = []
        self._speed: deque[tuple[float, int]] = deque(maxlen=SPEED_WINDOW)
        self._last_line = 0.0

    def __enter__(self) -> Self:
        """Open the file and the trackers; the bar waits for the first progress."""
        if self.run is not None:
            with disk_errors(self.run):
                self.run.mkdir(parents=True, exist_ok=True)
                self._file = open(self.run / METRICS, "a", encoding="utf-8")
            self._writers = [_tracker(name, self.run) for name in self.track]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened; the file is whole whatever ended the run."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._file is not None and self.run is not None:
            file, self._file = self._file, None
            try:
                with disk_errors(self.run / METRICS):
                    file.close()  # writes what a full disk had no room for
            except BundleError:
                if error is None:
                    raise
        for writer in self._writers:
            writer.close()
        self._writers = []

    def log(self, step: int, **values: float) -> None:
        """Append one line to `metrics.jsonl` and tell the trackers.

        Args:
            step: steps done so far.
            values: figures by name, such as `train/loss`; one that is not finite is written as null.
        """
        if self._file is not None and self.run is not None:
            line = {"step": step} | without_nan(values)
            with disk_errors(self.run / METRICS):
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
        for writer in self._writers:
            writer.log(step, values)

    def progress(self, step: int, **figures: float | str) -> None:
        """Move the bar; where there is no terminal, print a line about every ten seconds.

        Args:
            step: steps done so far.
            figures: shown beside the bar, such as `loss` and `tokens_per_second`.
        """
        if self.quiet:
            return
        now = time.monotonic()
        self._speed.append((now, step))
        shown = [_figure(name, value) for name, value in figures.items()]
        if left := self._time_left(step):
            shown.append(f"{left} left")
        if self._bar is None and self._console.is_terminal:
            self._bar = self._started()
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures="  ".join(shown))
        elif now - self._last_line >= LINE_EVERY or step == self.total:
            self._last_line = now
            of_total = f"/{self.total}" if self.total is not None else ""
            self._console.print("  ".join([f"{self.unit} {step}{of_total}", *shown]), markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line on standard error; a bar stays whole below it.

        Args:
            text: the line; printed as it is.
        """
        (self._bar.console if self._bar is not None else self._console).print(text, markup=False, soft_wrap=True)

    def _started(self) -> Progress:
        bar = Progress(
            TextColumn(self.unit),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            refresh_per_second=4,
        )
        self._task = bar.add_task(self.unit, total=self.total, figures="")
        bar.start()
        return bar

    def _time_left(self, step: int) -> str:
        (first_time, first_step), (last_time, last_step) = self._speed[0], self._speed[-1]
        if self.total is None or last_step <= first_step:
            return ""
        return clock((self.total - step) * (last_time - first_time) / (last_step - first_step))


class _Screen(Console):
    """Standard error, which may be closed while a run goes on: a pipe's reader ends, a terminal is closed."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print, or from now on be quiet."""
        try:
            super().print(*objects, **how)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Nobody reads this any more; what is said elsewhere goes nowhere too."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def clock(seconds: float) -> str:
    """A time span as people read it: `45 s`, `3:20`, `1:02:05`.

    Args:
        seconds: the span, 0 or more.
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def truncate_metrics(run: Path, step: int) -> None:
    """Drop what was logged after `step`, and a last line cut short by a crash, before a run goes on from there.

    Args:
        run: the run folder.
        step: the step of the checkpoint that the run resumes from.
    """
    path = run / METRICS
    if path.exists():
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        atomic_write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Read what a run has logged.

    Args:
        run: the run folder.

    Returns:
        One dict a line, in order; empty when nothing is there. A last line cut short by a crash is left out.
    """
    path = run / METRICS
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    return [json.loads(line) for line in lines[:-1] if line.endswith("}")]


def _figure(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return f"{name} {value}"
    if name == "tokens_per_second":
        return f"{value / 1000:,.1f}k tokens/s" if value >= 1000 else f"{value:,.0f} tokens/s"
    if isinstance(value, int):
        return f"{name} {value:,}"
    return f"{name} {value:.3f}" if 0.01 <= abs(value) < 1000 else f"{name} {value:.3g}"


class _TensorBoard:
    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, run: Path) -> None:
        wandb = require("wandb", "tracking with wandb")
        self._run = wandb.init(project="bertsmith", name=run.name, dir=str(run), resume="allow")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def _tracker(name: str, run: Path) -> _TensorBoard | _WeightsAndBiases:
    return _TensorBoard(run) if name == "tensorboard" else _WeightsAndBiases(run)
