"""Fine-tuning: a bundle and labelled rows in, a bundle for a task out."""

from __future__ import annotations

import shutil
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from pydantic import Field, create_model

from bertsmith.core.bundle import Bundle, atomic_folder, atomic_write
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.files import as_json
from bertsmith.metrics.spread import deviation
from bertsmith.predict.predictor import CONFIGS
from bertsmith.tasks.base import Task, task_class
from bertsmith.tasks.doctor import Examination, Ledger, examine
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.train.best import rank
from bertsmith.train.finetuning import FinetuneConfig
from bertsmith.train.practice import metric_of, run_once
from bertsmith.train.report import REPORT
from bertsmith.train.result import scores_in
from bertsmith.train.run import BUNDLE, SCORES, SUMS, Going, begin, conducted, fold_names, resumed, sums_of
from bertsmith.train.together import MEAN
from bertsmith.train.tuning import Tuning

__all__ = ["FinetuneConfig", "check", "config_class", "finetune"]


def config_class(task: str) -> type[FinetuneConfig]:
    """The config of fine-tuning `task`: FinetuneConfig with the task's settings under `task`.

    Raises:
        ConfigError: no such task.
    """
    task_class(task)
    if task not in CONFIGS:
        raise ConfigError(f"{task} is not a task to fine-tune on; the tasks are {', '.join(CONFIGS)}")
    settings = CONFIGS[task]
    return create_model("FinetuneConfig", __base__=FinetuneConfig, task=(settings, Field(default_factory=settings)))


def finetune(
    task: str,
    data: Path,
    out: Path,
    config: FinetuneConfig,
    *,
    start: str | Path,
    dev: Path | None = None,
    test: Path | None = None,
    seeds: Sequence[int] = (),
    folds: int = 0,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
    command: str = "",
) -> Bundle:
    """Train a bundle for a task; the result, with the weights best on dev, is `out/bundle`.

    Args:
        task: `classify`, `match`, `tag`, `relate`, `answer`, `choose` or `generate`.
        data: labelled rows to learn from.
        out: the run folder.
        config: made by `config_class(task)`.
        start: the bundle to start from.
        dev: rows to choose the best weights by; None splits off a tenth of `data`.
        test: rows that are scored once, at the end.
        seeds: run once for each; `out/seed-N` holds each run, and the one best on dev becomes `out/bundle`.
        folds: cross-validate: deal the rows into so many, and run once for each, which is then the rows to test on; 0:
            do not. `out/fold-N` holds each run, and the one best on dev becomes `out/bundle`.
        resume: go on with the run in `out`.
        device: where to compute; None chooses.
        threads: processor threads; None takes one for each core.
        quiet: print no progress.
        command: what a person would type to repeat this; for the report.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: a row cannot be used; says where.
        KeyboardInterrupt: stopped on request, after saving.
    """
    asked: dict[str, Any] = {
        "task": task,
        "data": str(data),
        "dev": _text(dev),
        "test": _text(test),
        "from": str(start),
    }
    asked |= {"seeds": list(seeds), "folds": folds}
    asked[SUMS] = sums_of({"data": data, "dev": dev, "test": test})
    if folds and (seeds or test is not None or folds == 1):
        raise ConfigError("--folds needs two or more, makes its own rows to test on, and runs with one seed")
    again = ("finetune", task, "--data", data, "--from", start, "--out", out)

    def work(going: Going) -> Bundle:
        if not going.facts["seeds"] and not going.facts.get("folds"):
            return run_once(out, config, going)[0][""]
        return several(out, config, going)[""]

    how: dict[str, Any] = {"device": device, "threads": threads, "quiet": quiet, "resume": resume}
    return conducted("finetune", out, config, asked, work, finished=Bundle.open, again=again, command=command, **how)


def check(
    task: str,
    data: Path,
    config: FinetuneConfig,
    *,
    start: str | Path | None = None,
    dev: Path | None = None,
    test: Path | None = None,
) -> Examination:
    """Look at labelled rows without training; rows that cannot be used are findings, not errors.

    Args:
        task: as for `finetune`.
        data: rows to learn from.
        config: made by `config_class(task)`.
        start: the bundle that will be started from; None: nothing is said about its vocabulary.
        dev: rows to choose by.
        test: rows to score.

    Raises:
        DataError: a file is absent or no row of it can be used.
    """
    return look(task, cast(Any, config).task, {"train": data, "dev": dev, "test": test}, start)


def look(task: str, settings: Any, given: Mapping[str, Path | None], start: str | Path | None) -> Examination:
    """Look at the rows of one task; see `check`.

    Args:
        task: its name.
        settings: of the task.
        given: files by name of the split.
        start: the bundle that will be started from; None: nothing is said about its vocabulary.

    Raises:
        DataError: a file is absent or no row of it can be used.
    """
    ledger = Ledger()
    tokenizer = (
        Tokenizer.from_tokens([*SPECIAL_TOKENS, *string.punctuation], lowercase=True)
        if start is None
        else Tokenizer.load(Bundle.open(start).path)
    )
    judge = cast(Task, task_class(task)(tokenizer, settings.model_copy(update={"skip_bad_rows": True})))
    try:
        splits = {name: judge.rows(path, ledger) for name, path in given.items() if path is not None}
    except DataError as error:  # what was skipped may be why
        skipped = ledger.summary().replace("\n", "\n  ")
        raise DataError(f"{error}\nskipped before that:\n  {skipped}" if skipped else str(error)) from error
    return examine(judge, splits, ledger, vocabulary=start is not None)


def _parts(config: FinetuneConfig, facts: Mapping[str, Any]) -> Iterator[tuple[str, FinetuneConfig, dict[str, Any]]]:
    """The folder of each run of a run of several, its settings and its facts."""
    for seed in facts["seeds"]:
        yield f"seed-{seed}", config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}), {}
    for number, name in enumerate(fold_names(facts.get("folds", 0))):
        yield name, config, {"fold": number}


def several(out: Path, config: FinetuneConfig, going: Going) -> dict[str, Bundle]:
    """Run once for each seed or fold, and make the result of the one that is best on dev.

    Args:
        out: the run folder.
        config: of the run.
        going: the run.

    Returns:
        The bundle of each task by name, which is empty for a single task.

    Raises:
        ConfigError: a seed stands twice.
    """
    facts, say = going.facts, going.say
    if len(set(facts["seeds"])) < len(facts["seeds"]):
        told = ",".join(map(str, facts["seeds"]))
        raise ConfigError(f"--seeds {told}: a seed that stands twice gives the same run twice; name each once")
    names = list(config.asked(facts))
    runs: list[tuple[Path, dict[str, dict[str, float]]]] = []
    for number, (part, one, more) in enumerate(_parts(config, facts)):
        run = out / part
        if not (run / BUNDLE).exists():
            more |= {"examined": number > 0}
            mine = resumed(run, one, {}) if (run / "run.json").exists() else begin(run, one, {**facts, **more})
            run_once(run, one, replace(going, facts=mine))
        runs.append((run, scores_in(run)))
    table: dict[str, dict[str, Any]] = {}
    for split in runs[0][1]:
        for score in runs[0][1][split]:
            each = [scores[split][score] for _, scores in runs if score in scores[split]]
            table.setdefault(split, {})[score] = {"mean": fmean(each), "sd": deviation(each), "each": each}
    first = {name: Bundle.open(runs[0][0] / BUNDLE / name) for name in names}
    headline = metric_of(config, MEAN if "" not in first else first[""].meta["headline"])
    best = max(runs, key=lambda run: rank(headline, run[1]["dev"]))[0]
    atomic_write(out / REPORT, (best / REPORT).read_bytes())
    atomic_write(out / SCORES, as_json(table))
    with atomic_folder(out / BUNDLE) as folder:
        shutil.copytree(best / BUNDLE, folder, dirs_exist_ok=True)
    what = "folds" if facts.get("folds") else "seeds"
    for name in names:
        found = {split: own for split, scores in table.items() if (own := _own(name, scores))}
        Tuning.placed(Bundle.open(out / BUNDLE / name)).annotate(**{what: {what: facts[what], "scores": found}})
    wanted = [headline, *(f"{name}/{bundle.meta['headline']}" for name, bundle in first.items() if name)]
    for split, scores in table.items():
        for score in (one for one in dict.fromkeys(wanted) if one in scores):
            spread = f"{scores[score]['mean']:.4f} ± {scores[score]['sd']:.4f}"
            say(f"{split} {score}: {spread} over {len(runs)} {what}")
    return {name: Bundle.open(out / BUNDLE / name) for name in names}


def _own(name: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the scores that are of one task."""
    if not name:
        return dict(scores)
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in scores.items() if key.startswith(prefix)}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
