"""`bertsmith compress`: a smaller and faster model from one that there is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bertsmith.cli.options import (
    AsJson,
    Budget,
    ConfigFile,
    Debug,
    Dev,
    Device,
    Epochs,
    Every,
    Quiet,
    Resume,
    Seed,
    Sets,
    Steps,
    Test,
    Threads,
)
from bertsmith.core.program import typed

Model = Annotated[str, typer.Argument(metavar="BUNDLE", help="The model to make smaller.")]
Out = Annotated[Path, typer.Option("--out", metavar="RUN", help="The run folder to make.")]


def prune(
    bundle: Model,
    data: Annotated[Path, typer.Option(metavar="TRAIN", help="Labelled rows to measure and to learn by.")] = ...,  # type: ignore[assignment]
    out: Out = ...,  # type: ignore[assignment]
    dev: Dev = None,
    test: Test = None,
    keep: Annotated[
        float | None, typer.Option(metavar="0.6", help="Share of the parameters that stays.", show_default=False)
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    budget: Budget = None,
    resume: Resume = False,
    checkpoint_every: Every = None,
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Take heads, feed-forward units, layers and pieces out of a model; the result is RUN/bundle."""
    from bertsmith.compress.prune import prune, prune_class

    options = {"prune.keep": keep, **_training(epochs, steps, budget, seed, checkpoint_every)}
    settings = _settings(prune_class, bundle, out, resume, file=config, sets=sets or [], options=options)
    how = {"device": device, "threads": threads, "quiet": quiet, "command": typed()}
    prune(bundle, data, out, settings, dev=dev, test=test, resume=resume, **how)


def distil(
    bundle: Model,
    data: Annotated[
        list[str], typer.Option(metavar="TRAIN", help="Labelled rows; for a pretrained model text, or a token store.")
    ] = ...,  # type: ignore[assignment]
    out: Out = ...,  # type: ignore[assignment]
    dev: Dev = None,
    test: Test = None,
    layers: Annotated[
        int | None, typer.Option(metavar="N", help="Layers of the student [default: half].", show_default=False)
    ] = None,
    epochs: Epochs = None,
    steps: Steps = None,
    budget: Budget = None,
    resume: Resume = False,
    checkpoint_every: Every = None,
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Let a smaller model learn from a larger one; the result is RUN/bundle."""
    from bertsmith.compress.distil import distil, distil_class

    options = {"student.layers": layers, **_training(epochs, steps, budget, seed, checkpoint_every)}
    settings = _settings(distil_class, bundle, out, resume, file=config, sets=sets or [], options=options)
    how = {"device": device, "threads": threads, "quiet": quiet, "command": typed()}
    distil(bundle, data, out, settings, dev=dev, test=test, resume=resume, **how)


def quantize(
    bundle: Annotated[str, typer.Argument(help="Bundle or run folder of a model with a task.")],
    data: Annotated[Path, typer.Option("--data", metavar="DEV", help="Labelled rows that keep watch on the score.")],
    out: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run.")],
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Largest drop allowed, in points [default: 0.5].", show_default=False),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    as_json: AsJson = False,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a model int8 for ONNX Runtime; layers stay in fp32 where the score on DEV would drop too far."""
    from bertsmith.compress.quantize import QuantizeConfig
    from bertsmith.compress.quantize import quantize as run
    from bertsmith.core.bundle import Bundle
    from bertsmith.core.config import load
    from bertsmith.core.device import set_threads

    set_threads(threads)
    options = {} if max_drop is None else {"max_drop": max_drop}
    settings = load(QuantizeConfig, file=config, sets=sets or (), options=options)
    say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))
    made = run(Bundle.open(bundle), data, out, settings, say=say)
    figures = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(figures, ensure_ascii=False))
        return
    faster = ", ".join(f"{ratio:.2f} at batch {n}" for n, ratio in figures["faster"].items())
    say(f"{figures['smaller']:.2f} times smaller; times faster than torch fp32: {faster}")
    for name, side in figures["between"].items():
        faster = ", ".join(f"{ratio:.2f} at batch {n}" for n, ratio in side["faster"].items())
        say(f"times faster than {name}: {faster}")
    say(f"{figures['drop']:.2f} points of {figures['child']['headline']} lost")
    print(made.path)


def _training(
    epochs: float | None, steps: str | None, budget: str | None, seed: int | None, every: str | None
) -> dict[str, Any]:
    return {
        "train.epochs": epochs,
        "train.steps": steps,
        "train.budget": budget,
        "train.seed": seed,
        "train.checkpoint_every": every,
    }


def _settings(config_class: Any, bundle: str, out: Path, resume: bool, **layers: Any) -> Any:
    """The settings of a run that makes `bundle` smaller, of the kind that its task asks for."""
    from bertsmith.core.bundle import Bundle
    from bertsmith.core.config import load
    from bertsmith.predict.predictor import Predictor
    from bertsmith.train.run import saved_config

    kind = config_class(Predictor(Bundle.open(bundle).whole(), device="cpu", engine="torch").task_name)
    return load(kind, base=saved_config(out, kind).model_dump(exclude_none=True) if resume else None, **layers)
