"""Fine-tuning on several tasks at once: a bundle and the rows of each task in, a bundle for each task out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from pydantic import Field, create_model

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.predict.predictor import CONFIGS
from bertsmith.tasks.base import task_class
from bertsmith.tasks.doctor import Examination
from bertsmith.train.finetune import look, several
from bertsmith.train.finetuning import FinetuneConfig, FinetuningRun
from bertsmith.train.practice import run_once
from bertsmith.train.run import BUNDLE, SUMS, Going, conducted, sums_of

MULTI = "multi"
EXAMPLE = '[tasks.reviews]\ntask = "classify"\ndata = "reviews.csv"'
FILES = ("data", "dev", "test")
NAME = re.compile(r"[^\W_][\w-]*")


class TurnsConfig(Config):
    """How updates are dealt to several tasks."""

    temperature: float = Field(
        2.0,
        ge=1,
        allow_inf_nan=False,
        description="a task of n rows has n^(1/temperature) of the updates; 1: as many as its rows, large: all alike",
    )


class MultiRun(FinetuningRun, TurnsConfig):
    """How several tasks are learned together."""


class Section(Config):
    """One of several tasks, and where its rows are; its subclasses have the settings of the task, too."""

    task: str = Field(description="which task it is: classify, match, tag, relate, answer, choose or generate")
    data: Path = Field(description="labelled rows to learn from: a file, or hf:NAME:SPLIT")
    dev: Path | None = Field(None, description="rows to choose the best weights by; a tenth of data by default")
    test: Path | None = Field(None, description="rows to score once, at the end")


class MultiConfig(FinetuneConfig):
    """Everything a run of several tasks is described by; its subclasses have a section for each under `tasks`.

    Attributes:
        names: of the tasks.
    """

    names: ClassVar[tuple[str, ...]] = ()
    train: MultiRun = Field(default_factory=MultiRun)

    @property
    def temperature(self) -> float:
        """Of the tasks' shares of the updates."""
        return self.train.temperature

    @property
    def sections(self) -> dict[str, Any]:
        """By name, the task and its settings, and where its rows are."""
        tasks = cast(Any, self).tasks
        return {name: getattr(tasks, name) for name in self.names}

    def asked(self, facts: Mapping[str, Any]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
        """What is to be learned: by name, a task's settings and where its rows are.

        Args:
            facts: of the run.
        """
        found: dict[str, tuple[Any, Mapping[str, Any]]] = {}
        for name, section in self.sections.items():
            kind = CONFIGS[section.task]
            files = {
                key: None if (path := getattr(section, key)) is None else str(path) for key in ("data", "dev", "test")
            }
            settings = kind.model_validate({key: getattr(section, key) for key in kind.model_fields})
            found[name] = settings, {"task": section.task, **files}
        return found


def multi_class(values: Mapping[str, Any]) -> type[MultiConfig]:
    """The config of a run of several tasks: MultiConfig with a section for each.

    A section holds `task`, the settings of that task, and where its rows are.

    Args:
        values: what the user gave, not yet validated (`core.config.layered`); only the names and tasks are looked at.

    Raises:
        ConfigError: fewer than two tasks, a name that cannot be one, or no such task; says what to write.
    """
    tasks = values.get("tasks")
    if not isinstance(tasks, Mapping) or not tasks:
        astray = [key for key, value in values.items() if isinstance(value, Mapping) and {"task", "data"} & set(value)]
        hint = f"; did you mean [tasks.{astray[0]}] instead of [{astray[0]}]?" if astray else ""
        raise ConfigError(
            f"there is no section [tasks.NAME]{hint}; write one for each task into a file and give it by --config, "
            f"such as:\n{EXAMPLE}"
        )
    if len(tasks) == 1:
        raise ConfigError(f"tasks.{next(iter(tasks))}: the only task; multi needs two, `bertsmith finetune TASK` one")
    seen: dict[str, str] = {}
    for name in tasks:
        taken = hasattr(Config, name) or name.startswith("model_")
        if not NAME.fullmatch(name) or taken:
            why = "is taken" if taken else "is none: it must begin with a letter and hold letters, digits, _ and - only"
            raise ConfigError(f"tasks.{name}: this name {why}; choose another")
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise ConfigError(f"tasks.{name}: as a folder the same as tasks.{other}; give one of them another name")
    kinds = {name: _kind(name, section) for name, section in tasks.items()}
    sections: dict[str, Any] = {name: (kind, Field()) for name, kind in kinds.items()}
    inner = create_model("Tasks", __base__=Config, **sections)
    made = create_model("MultiConfig", __base__=MultiConfig, tasks=(inner, Field()))
    made.names = tuple(kinds)
    return made


def _kind(name: str, section: Any) -> type[Config]:
    """The config of one section."""
    if not isinstance(section, Mapping):
        raise ConfigError(f"tasks.{name}: no section; write it like this:\n{EXAMPLE}")
    if "task" not in section:
        near = difflib.get_close_matches("task", section, n=1)
        hint = f"did you mean 'task' instead of {near[0]!r}? " if near else ""
        raise ConfigError(f"tasks.{name}: does not say which task it is; {hint}task is one of {', '.join(CONFIGS)}")
    task = section["task"]
    try:
        task_class(str(task))
    except ConfigError as error:
        raise ConfigError(f"tasks.{name}: {error}") from None
    if task not in CONFIGS:
        raise ConfigError(f"tasks.{name}: {task} is not a task to fine-tune on; the tasks are {', '.join(CONFIGS)}")
    which: Any = (Literal[task], Field(description="which task it is"))
    bases: Any = (Section, CONFIGS[task])
    return cast(type[Config], create_model("Section", __base__=bases, task=which))


def finetune_multi(
    out: Path,
    config: MultiConfig,
    *,
    start: str | Path,
    seeds: Sequence[int] = (),
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Bundle]:
    """Train one encoder for several tasks; the results, with the weights best on all dev rows, are `out/bundle/NAME`.

    The encoder and its pooler are the same in all bundles; each has the head of its task, and is used like any other.

    Args:
        out: the run folder.
        config: made by `multi_class`.
        start: the bundle to start from.
        seeds: run once for each; `out/seed-N` holds each run, and the one best on dev becomes the result.
        resume: go on with the run in `out`.
        device: where to compute; None chooses.
        threads: processor threads; None takes one for each core.
        quiet: print no progress.
        command: what a person would type to repeat this; for the report.

    Returns:
        The bundle of each task by name.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: a row cannot be used; says where.
        KeyboardInterrupt: stopped on request, after saving.
    """
    asked: dict[str, Any] = {"task": MULTI, "from": str(start), "seeds": list(seeds)}
    places = {name: where for name, (_, where) in config.asked({}).items()}
    asked[SUMS] = {
        name: sums_of({split: where[split] for split in ("data", "dev", "test")}) for name, where in places.items()
    }

    def work(going: Going) -> dict[str, Bundle]:
        return several(out, config, going) if going.facts["seeds"] else run_once(out, config, going)[0]

    def finished(run: Path) -> dict[str, Bundle]:
        return {name: Bundle.open(run / BUNDLE / name) for name in config.sections}

    again = ("finetune", MULTI, "--from", start, "--out", out)
    how: dict[str, Any] = {"device": device, "threads": threads, "quiet": quiet, "resume": resume}
    return conducted("finetune", out, config, asked, work, finished=finished, again=again, command=command, **how)


def check_multi(config: MultiConfig, *, start: str | Path | None = None) -> dict[str, Examination]:
    """Look at the rows of several tasks without training; see `finetune.check`.

    Args:
        config: made by `multi_class`.
        start: the bundle that will be started from; None: nothing is said about its vocabulary.

    Raises:
        DataError: a file is absent or no row of it can be used.
    """
    found = {}
    for name, (settings, where) in config.asked({}).items():
        files = {"train": where["data"], "dev": where["dev"], "test": where["test"]}
        given = {split: None if path is None else Path(path) for split, path in files.items()}
        found[name] = look(where["task"], settings, given, start)
    return found
