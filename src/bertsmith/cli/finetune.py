"""`bertsmith finetune`: an encoder and labelled rows in, a model for a task out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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


def command(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="classify, match, tag, relate, answer, choose or generate.")
    ],
    data: Annotated[
        Path, typer.Option(metavar="TRAIN", help="Labelled rows to learn from: a file, or hf:NAME:SPLIT.")
    ] = ...,  # type: ignore[assignment]
    start: Annotated[
        str | None, typer.Option("--from", metavar="BUNDLE", help="The encoder to start from.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder to make.", show_default=False)] = None,
    dev: Dev = None,
    test: Test = None,
    epochs: Epochs = None,
    steps: Steps = None,
    budget: Budget = None,
    peft: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Train and save a small part only: houlsby, pfeiffer, lora, adalora, prefix or bitfit.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="1,2,3", help="Run once for each; scores are given as mean ± sd.", show_default=False)
    ] = "",
    folds: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=0,
            help="Cross-validate: run once for each of K parts of TRAIN, tested on it; scores as mean ± sd.",
            show_default=False,
        ),
    ] = 0,
    shots: Annotated[
        int | None, typer.Option(metavar="K", help="Learn from K rows of each class only.", show_default=False)
    ] = None,
    shrink_vocab: Annotated[
        bool, typer.Option("--shrink-vocab", help="Cut the vocabulary to what TRAIN needs, and the model with it.")
    ] = False,
    resume: Resume = False,
    checkpoint_every: Every = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Count bad rows instead of stopping at the first.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Only look at the data; nothing is trained.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop when something in the data is amiss.")] = False,
    text_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Column of the text, or its number from 1 [default: guessed].", show_default=False
        ),
    ] = None,
    pair_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the second text.", show_default=False)
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the label.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = None,
    threads: Threads = None,
    device: Device = None,
    debug: Debug = False,
    quiet: Quiet = False,
) -> None:
    """Turn an encoder into a model for a task; the result is RUN/bundle."""
    from bertsmith.core.config import load
    from bertsmith.core.errors import ConfigError
    from bertsmith.train.finetune import check as examine
    from bertsmith.train.finetune import config_class, finetune
    from bertsmith.train.run import saved_config

    if seeds and not all(item.strip().isdigit() for item in seeds.split(",")):
        raise ConfigError(f"--seeds {seeds}: write them like 1,2,3")
    if not check and (start is None or out is None):
        missing = "--from BUNDLE" if start is None else "--out RUN"
        raise ConfigError(f"finetune needs {missing}; or look at the data alone with --check")
    kind = config_class(task)
    settings = load(
        kind,
        base=saved_config(out, kind).model_dump(exclude_none=True) if resume and out is not None else None,
        file=config,
        sets=sets or [],
        options={
            "train.epochs": epochs,
            "train.steps": steps,
            "train.budget": budget,
            "train.seed": seed,
            "train.shots": shots,
            "train.checkpoint_every": checkpoint_every,
            "train.shrink_vocab": shrink_vocab or None,
            "peft.method": peft,
            "train.doctor": "strict" if strict else None,
            "task.text_column": text_column,
            "task.pair_column": pair_column,
            "task.label_column": label_column,
            "task.skip_bad_rows": skip_bad_rows or None,
        },
    )
    if check:
        found = examine(task, data, settings, start=start, dev=dev, test=test)
        print(json.dumps(found.as_dict(), ensure_ascii=False) if as_json else found.text(most=20))
        if strict:
            found.strict()
        return
    assert start is not None
    assert out is not None
    bundle = finetune(
        task,
        data,
        out,
        settings,
        start=start,
        dev=dev,
        test=test,
        seeds=[int(item) for item in seeds.split(",")] if seeds else [],
        folds=folds,
        resume=resume,
        device=device,
        threads=threads,
        quiet=quiet,
        command=typed(),
    )
    if as_json:
        print(json.dumps({"bundle": str(bundle.path), "scores": bundle.meta["scores"]}, ensure_ascii=False))
