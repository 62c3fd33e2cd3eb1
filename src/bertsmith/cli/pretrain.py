"""`bertsmith pretrain`: text in, an encoder out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from bertsmith.cli.options import ConfigFile, Debug, Device, Every, Quiet, Resume, Seed, Sets, Steps, Threads
from bertsmith.core.program import typed


def command(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT|STORE...",
            help="Files, folders, globs, URLs, hf:DATASET, pydoc:, or a token store.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="RUN", help="The run folder to make.")] = ...,  # type: ignore[assignment]
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where the settings start from [default: laptop].", show_default=False),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="30m", help="Train for about this long [default: 10m].", show_default=False)
    ] = None,
    steps: Steps = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="50M", help="Train on so many tokens.", show_default=False)
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(metavar="N", help="Train for so many passes over the text.", show_default=False)
    ] = None,
    vocab: Annotated[
        Path | None, typer.Option(metavar="DIR|vocab.txt", help="Use this vocabulary.", show_default=False)
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="BUNDLE|CHECKPOINT", help="Go on from this encoder.", show_default=False),
    ] = None,
    resume: Resume = False,
    checkpoint_every: Every = None,
    nproc: Annotated[
        int, typer.Option("--nproc", min=1, help="Processes on this machine that train together, one for each GPU.")
    ] = 1,
    parallel: Annotated[
        Literal["ddp", "fsdp"] | None,
        typer.Option(
            help="What each process holds: all weights and optimiser state (ddp), or its part of them (fsdp) "
            "[default: ddp].",
            show_default=False,
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder on text of your own; the result is RUN/bundle."""
    if nproc > 1:
        from bertsmith.train.launch import launch

        raise SystemExit(launch(nproc, without(sys.argv[1:], "--nproc")))
    from bertsmith.core.config import load
    from bertsmith.core.errors import ConfigError
    from bertsmith.train.presets import PRESETS
    from bertsmith.train.presets import preset as values
    from bertsmith.train.pretrain import PretrainConfig, pretrain
    from bertsmith.train.run import saved_config

    preset = preset or (None if resume else "laptop")
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"--preset {preset}: the presets are {', '.join(PRESETS)}")
    lengths = {"budget": budget, "steps": steps, "tokens": tokens, "epochs": epochs}
    options = {f"train.{name}": value for name, value in lengths.items()}
    options |= {"train.seed": seed, "train.checkpoint_every": checkpoint_every}
    base = saved_config(out, PretrainConfig).model_dump(exclude_none=True) if resume else None
    settings = load(
        PretrainConfig,
        base=base,
        preset=None if resume or preset is None else values(preset, going_on=start is not None),
        file=config,
        sets=sets or [],
        options=options,
    )
    pretrain(
        text or [],
        out,
        settings,
        vocab=vocab,
        start=start,
        resume=resume,
        device=device,
        threads=threads,
        quiet=quiet,
        command=typed(),
        parallel=parallel,
        preset=preset,
    )


def without(arguments: Sequence[str], option: str) -> list[str]:
    """A command's words without one option and its value, written `--option value` or `--option=value`."""
    words = iter(arguments)
    kept = []
    for word in words:
        if word == option:
            next(words, None)
        elif not word.startswith(f"{option}="):
            kept.append(word)
    return kept
