"""What a run learns: a task, its rows, and their sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from bertsmith.model.packing import Encoding
from bertsmith.tasks.base import Task, task_class
from bertsmith.tasks.doctor import Ledger, examine
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.adversarial import refuse_attack
from bertsmith.train.finetuning import FinetuningRun
from bertsmith.train.losses import refuse_misfits
from bertsmith.train.rows import Data, read_data
from bertsmith.train.vocabulary import told


@dataclass(frozen=True, slots=True)
class Subject:
    """A task with the rows from which it is learned.

    Attributes:
        task: has read the rows, so that it is complete.
        data: the rows.
        facts: where they came from: `task`, `data`, `dev` and `test`.
        encodings: of the rows to learn from.
        tally: what was skipped or cut.
        say: takes a line for the user.
    """

    task: Task
    data: Data
    facts: Mapping[str, Any]
    encodings: Sequence[Encoding]
    tally: Ledger
    say: Callable[[str], None]

    @classmethod
    def read(
        cls,
        settings: Any,
        tokenizer: Tokenizer,
        facts: Mapping[str, Any],
        train: FinetuningRun,
        say: Callable[[str], None],
        *,
        look: bool,
    ) -> Self:
        """Read the rows, look for what is amiss in them, and make sequences of them.

        Args:
            settings: of the task.
            tokenizer: the vocabulary.
            facts: `task`, `data`, `dev`, `test`, and of a fold `fold` and `folds`.
            train: how the task is learned.
            say: takes a line for the user.
            look: say what is amiss, if `train` wants that at all; false where it was said before.

        Raises:
            ConfigError: a setting does not suit the task.
            DataError: a row cannot be used, or something is amiss and `train` is strict; says where.
        """
        task = cast(Task, task_class(facts["task"])(tokenizer, settings, say=say))
        tally = Ledger()
        data = read_data(task, facts, train.rows, tally, say, shots=train.shots, seed=train.seed)
        refuse_misfits(train, task, train.dropout)
        refuse_attack(train, task)
        if train.doctor != "off" and look:
            found = examine(task, data.splits, tally)
            say(found.text())
            if train.doctor == "strict":
                found.strict()
            tally = Ledger()
        encodings = task.encode(data.train, tally)
        if tally.counts:
            say("skipped or cut:\n  " + tally.summary().replace("\n", "\n  "))
        return cls(task, data, facts, encodings, tally, say)

    def by(self, tokenizer: Tokenizer, before: Tokenizer) -> Self:
        """The same rows by a smaller vocabulary; what that means for dev is said.

        Args:
            tokenizer: the smaller one.
            before: the one by which they were encoded.
        """
        task = cast(Task, task_class(self.facts["task"])(tokenizer, self.task.config, say=self.say))
        self.say(told(self.task.encode(self.data.dev), before, task.encode(self.data.dev), tokenizer))
        return replace(self, task=task, encodings=task.encode(self.data.train))
