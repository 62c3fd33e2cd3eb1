"""`bertsmith finetune`: an encoder and labelled rows in, a model for a task out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

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

if TYPE_CHECKING:
    from bertsmith.tasks.doctor import Examination


def command(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="classify, match, tag, relate, answer, choose or generate; or multi.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="TRAIN", help="Labelled rows to learn from: a file, or hf:NAME:SPLIT.", show_default=False
        ),
    ] = None,
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
    from bertsmith.tasks.base import task_class
    from bertsmith.train.finetune import check as examine
    from bertsmith.train.finetune import config_class, finetune
    from bertsmith.train.multi import MULTI, MultiConfig, check_multi, finetune_multi
    from bertsmith.train.run import saved_config

    if task != MULTI:
        task_class(task, [MULTI])  # a name that is none is the first thing to say
    if seeds and not all(item.strip().isdigit() for item in seeds.split(",")):
        raise ConfigError(f"--seeds {seeds}: write them like 1,2,3")
    if not check and (start is None or out is None):
        missing = "--from BUNDLE" if start is None else "--out RUN"
        raise ConfigError(f"finetune needs {missing}; or look at the data alone with --check")
    columns = {"text_column": text_column, "pair_column": pair_column, "label_column": label_column}
    going_on = out if resume else None
    kind: Any
    if task == MULTI:
        files = {"data": data, "dev": dev, "test": test, "folds": folds}
        kind = _multi_class(going_on, config, sets or [], {**files, **columns})
        sections = [f"tasks.{name}" for name in kind.names]
    elif data is None:
        raise ConfigError("finetune needs --data TRAIN: labelled rows to learn from")
    else:
        kind, sections = config_class(task), ["task"]
    settings: Any = load(
        kind,
        base=None if going_on is None else saved_config(going_on, kind).model_dump(exclude_none=True),
        file=config,
        sets=sets or [],
        options={
            "train.epochs": epochs,
            "train.steps": steps,
            "train.budget": budget,
            "train.seed": seed,
            "train.shots": shots,
            "train.shrink_vocab": shrink_vocab or None,
            "train.checkpoint_every": checkpoint_every,
            "peft.method": peft,
            "train.doctor": "strict" if strict else None,
            **({} if task == MULTI else {f"task.{name}": value for name, value in columns.items()}),
            **{f"{section}.skip_bad_rows": skip_bad_rows or None for section in sections},
        },
    )
    if check:
        if isinstance(settings, MultiConfig):
            found = check_multi(settings, start=start)
        else:
            found = {"": examine(task, cast(Path, data), settings, start=start, dev=dev, test=test)}
        _show(found, as_json=as_json, strict=strict)
        return
    assert start is not None
    assert out is not None
    how: dict[str, Any] = {
        "start": start,
        "seeds": [int(item) for item in seeds.split(",")] if seeds else [],
        "resume": resume,
        "device": device,
        "threads": threads,
        "quiet": quiet,
        "command": typed(),
    }
    if isinstance(settings, MultiConfig):
        bundles = finetune_multi(out, settings, **how)
    else:
        bundles = {"": finetune(task, cast(Path, data), out, settings, dev=dev, test=test, folds=folds, **how)}
    if as_json:
        told = {name: {"bundle": str(bundle.path), "scores": bundle.meta["scores"]} for name, bundle in bundles.items()}
        print(json.dumps(told.get("", told), ensure_ascii=False))


def _multi_class(out: Path | None, file: Path | None, sets: Sequence[str], elsewhere: Mapping[str, object]) -> Any:
    """The config of a run of several tasks, which has a section for each."""
    from bertsmith.core.config import layered
    from bertsmith.core.errors import ConfigError
    from bertsmith.train.multi import multi_class
    from bertsmith.train.run import saved_values

    if given := [name for name, value in elsewhere.items() if value]:
        advice = "leave it out" if given[0] == "folds" else f"write {given[0]} = … into its section, [tasks.NAME]"
        raise ConfigError(f"--{given[0].replace('_', '-')} is for a single task; with multi, {advice}")
    return multi_class(layered(base=None if out is None else saved_values(out), file=file, sets=sets))


def _show(found: Mapping[str, Examination], *, as_json: bool, strict: bool) -> None:
    """Print what was found in the rows of each task, whose name is empty where there is one."""
    if as_json:
        told = {name: one.as_dict() for name, one in found.items()}
        print(json.dumps(told.get("", told), ensure_ascii=False))
    else:
        print("\n\n".join((f"{name}: " if name else "") + one.text(most=20) for name, one in found.items()))
    if strict:
        for one in found.values():
            one.strict()
