"""Which labelled rows a run learns from, chooses its weights by, and reports on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example, Task
from bertsmith.tasks.doctor import classes, key_of
from bertsmith.tasks.origins import shown_name
from bertsmith.tasks.windows import counter_rng

DEV_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled rows: to learn from, to choose by, to report."""

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]

    @property
    def splits(self) -> dict[str, Sequence[Example]]:
        """The rows by name of the split; without those that are empty."""
        return {name: rows for name in ("train", "dev", "test") if (rows := getattr(self, name))}

    def described(self, facts: Mapping[str, Any], sums: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What a bundle tells of each split: its file's `name` and `sha256`, `rows` used, whether they were `held_out`.

        Args:
            facts: `data`, `dev` and `test`, as paths or None.
            sums: sha256 sum of each.
        """
        found = {}
        for split, rows in self.splits.items():
            path = facts["data" if split == "train" else split] or facts["data"]
            found[split] = {"name": shown_name(path), "rows": len(rows), "sha256": sums[path]}
        if "dev" in found and not facts["dev"]:
            found["dev"]["held_out"] = True
        return found


def read_data(task: Task, facts: Mapping[str, Any], rows: int | None, tally: Tally, say: Callable[[str], None]) -> Data:
    """Read the files; without dev rows, a tenth of the training rows is held out, the same for every seed.

    Held out are rows in which classes (or tenths of the range of numbers) have the shares that they have in all; whole
    articles where rows name theirs, and all rows with the same text together.

    Args:
        task: reads; the first file settles its labels.
        facts: `data`, `dev` and `test`, as paths or None.
        rows: learn from so many rows only; None takes all.
        tally: counts what is skipped.
        say: takes lines for the user.

    Raises:
        ConfigError: too few rows to hold any out.
    """
    examples = task.rows(Path(facts["data"]), tally)
    dev = task.rows(Path(facts["dev"]), tally) if facts["dev"] else []
    test = task.rows(Path(facts["test"]), tally) if facts["test"] else []
    order = counter_rng(len(examples)).permutation(len(examples)).tolist()
    if not dev:
        count = max(1, round(DEV_SHARE * len(examples)))
        if len(examples) < 2:
            raise ConfigError(f"{facts['data']}: one row is too few to hold a dev row out; give --dev")
        apart = _apart(examples, order, count)
        dev = [examples[i] for i in sorted(apart)]
        order = [i for i in order if i not in apart]
        whole = ", whole articles," if any("article" in example.fields for example in dev) else ""
        say(f"no --dev: {len(dev)} of {len(examples)} rows{whole} are held out to choose the best weights by")
    learn = [examples[i] for i in sorted(order[:rows])]
    say(f"{len(learn)} rows to learn from, {len(dev)} dev, {len(test)} test")
    return Data(learn, dev, test)


def _apart(examples: Sequence[Example], order: Sequence[int], count: int) -> set[int]:
    """About `count` of the examples, the first in `order` that keep the classes' shares; whole groups only.

    A group is an article, or rows with the same text, so that no dev row is known from training. One that would hold
    out twice as many as wanted stays; if all are like that, the smallest goes, and if there is only one, rows of it go.
    """
    groups: dict[Any, list[int]] = {}
    for number in order:
        groups.setdefault(examples[number].fields.get("article", key_of(examples[number])), []).append(number)
    if len(groups) == 1:
        return set(order[:count])
    kinds = _kinds(examples)
    want = {
        kind: round(count * total / len(examples)) for kind, total in Counter(k for ks in kinds for k in ks).items()
    }
    chosen: set[int] = set()
    for strict in (True, False):  # first what the classes still need, then whatever fills the number
        for rows in groups.values():
            if len(chosen) >= count or chosen.issuperset(rows) or len(chosen) + len(rows) > 2 * count:
                continue
            found = Counter(kind for number in rows for kind in kinds[number])
            gain = sum(min(n, want[kind]) - max(0, n - want[kind]) for kind, n in found.items())
            if gain > 0 or not strict:
                chosen.update(rows)
                want = {kind: max(0, n - found[kind]) for kind, n in want.items()}
    return chosen or set(sorted(groups.values(), key=len)[0])


def _kinds(examples: Sequence[Example]) -> list[list[str]]:
    """What each example counts for when shares are kept: its classes, or the tenth in which its number lies."""
    numbers = [example.label for example in examples]
    if not all(isinstance(number, float) for number in numbers):
        return [classes(example) for example in examples]
    borders = np.quantile(numbers, np.linspace(0, 1, 11)[1:-1])
    return [[str(tenth)] for tenth in np.searchsorted(borders, numbers).tolist()]
