"""What a task is: six methods, rows → encode → head → loss → decode → score."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.packing import Batch, Encoding, pack

Answer = dict[str, Any]
Outputs = Mapping[str, NDArray[np.float32]]

TASKS = {
    "pretraining": "bertsmith.tasks.pretraining:Pretraining",
    "classify": "bertsmith.tasks.classification:Classification",
    "match": "bertsmith.tasks.matching:Matching",
    "tag": "bertsmith.tasks.tagging:Tagging",
    "relate": "bertsmith.tasks.relations:Relations",
    "answer": "bertsmith.tasks.questions:Questions",
    "choose": "bertsmith.tasks.choice:Choice",
    "generate": "bertsmith.tasks.generation:Generation",
}


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task, validated.

    Attributes:
        fields: what the model may see, such as `text` and `pair`.
        label: what it should answer; None when nobody has said.
        where: file and line, `reviews.csv:418`.
    """

    fields: Mapping[str, Any]
    label: Any = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Member(Encoding):
    """One of several sequences of one example, which the loss needs together.

    Attributes:
        example: index of the example among those encoded.
        role: which of the example's sequences this is, from 0.
    """

    example: int = 0
    role: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss that does not depend on how the batch was cut: a sum, and the number of targets to divide it by.

    Attributes:
        total: sum over targets, a scalar in fp32.
        count: number of targets.
        parts: figures worth showing, each a sum and its count.
    """

    total: Tensor
    count: Tensor | int
    parts: Mapping[str, tuple[Tensor, Tensor | int]] = field(default_factory=dict)


class Task(Protocol):
    """What a model is for.

    A task may have more: `tune`, by which dev rows decide what is not learned; `ask`, what it asks of a model instead
    of its heads' outputs; `joint`, true where its loss compares the sequences of a step; `unlabelled`, which reads rows
    whose answers nobody knows; `asked`, which makes an example of several texts at once; `decides` and `decisions`,
    what its loss is taken of (`tasks.decisions`), and `weighed`, the target that holds its classes.

    A task is built as `Class(tokenizer, config)`. The first labelled file that it reads settles what the config
    leaves open (the labels, pairs or single texts, classes or numbers): from then on `config` is complete, and the
    bundle keeps it.
    """

    name: str
    config: Any
    say: Callable[[str], None]

    @property
    def headline(self) -> str:
        """The score by which models of this task are compared; larger is better."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the head's outputs, in order."""
        ...

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read a file of labelled rows; what is skipped goes into `tally`."""
        ...

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """Turn examples into sequences; a long example may become several."""
        ...

    def head(self, model_config: ModelConfig) -> Heads:
        """The heads that the model needs, after a check that the model can take this task's sequences."""
        ...

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """The loss of one batch that `collate` made."""
        ...

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """Turn logits (one entry an encoding, as `split` gives them) into answers (one an example)."""
        ...

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Compare answers with the examples' labels."""
        ...


def task_class(name: str, others: Sequence[str] = ()) -> Any:
    """The class of the task called `name`.

    Args:
        name: of a task.
        others: what else might have been meant.

    Raises:
        ConfigError: no such task; suggests the nearest name.
    """
    if name not in TASKS:
        learned = [task for task in TASKS if task != "pretraining"]  # it has a command of its own
        learned += others
        near = difflib.get_close_matches(name, learned, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"there is no task {name!r}; {hint}the tasks are {', '.join(learned)}")
    module, _, attribute = TASKS[name].partition(":")
    return getattr(import_module(module), attribute)


def collate(encodings: Sequence[Encoding]) -> Batch:
    """Pack encodings with their targets.

    A target that is a number becomes `[S]`; one that is an array of the sequence's length becomes `[T]`.
    """
    targets: dict[str, Tensor] = {}
    for name, first in encodings[0].targets.items():
        values = [encoding.targets[name] for encoding in encodings]
        array = np.concatenate(values) if isinstance(first, np.ndarray) else np.asarray(values)
        kind = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
        targets[name] = torch.from_numpy(array.astype(kind))
    return pack(encodings, targets)


def split(outputs: Mapping[str, Tensor], batch: Batch) -> list[dict[str, NDArray[np.float32]]]:
    """Cut a batch's outputs into one entry a sequence: `[S, C]` into `[C]`, `[T, C]` into `[n, C]`."""
    parts: list[dict[str, NDArray[np.float32]]] = [{} for _ in batch.lengths]
    cuts = np.cumsum(batch.lengths)[:-1]
    for name, tensor in outputs.items():
        array = tensor.detach().float().cpu().numpy()
        pieces = list(array) if len(array) == batch.num_sequences else np.split(array, cuts)
        for part, piece in zip(parts, pieces, strict=True):
            part[name] = piece
    return parts


def say_on_stderr(text: str) -> None:
    """Tell the user, without touching standard output."""
    sys.stderr.write(text + "\n")


def check_length(max_length: int, model_config: ModelConfig) -> None:
    """Refuse a `task.max_length` that the model has no positions for.

    Raises:
        ConfigError: names both figures.
    """
    most = model_config.max_position_embeddings
    if max_length > most:
        raise ConfigError(
            f"task.max_length is {max_length}, but the model has only {most} positions; give at most that: "
            f"--set task.max_length={most}"
        )
