"""Which labelled rows a run learns from, chooses its weights by, and reports on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example, Task
from bertsmith.tasks.origins import shown_name
from bertsmith.tasks.windows import counter_rng
from bertsmith.train.folds import few, folds, groups_of, kinds_of

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


def read_data(
    task: Task,
    facts: Mapping[str, Any],
    rows: int | None,
    tally: Tally,
    say: Callable[[str], None],
    *,
    shots: int | None = None,
    seed: int = 0,
) -> Data:
    """Read the files; without dev rows, a tenth of the training rows is held out, the same for every seed.

    Held out are rows in which classes (or tenths of the range of numbers) have the shares that they have in all; whole
    articles where rows name theirs, and all rows with the same text together.

    Args:
        task: reads; the first file settles its labels.
        facts: `data`, `dev` and `test`, as paths or None; of a fold, whose rows are those to test on, also `fold`, its
            number, and `folds`, how many there are.
        rows: learn from so many rows only; None takes all.
        tally: counts what is skipped.
        say: takes lines for the user.
        shots: learn from so many rows of each class; None takes all.
        seed: by which these are drawn.

    Raises:
        ConfigError: too few rows to hold any out, or no classes of which to draw.
    """
    examples = task.rows(Path(facts["data"]), tally)
    held: list[Example] = []
    if (fold := facts.get("fold")) is not None:
        apart = set(folds(examples, facts["folds"])[fold])
        held = [examples[i] for i in sorted(apart)]
        examples = [example for i, example in enumerate(examples) if i not in apart]
        say(f"fold {fold + 1} of {facts['folds']}: {len(held)} rows are held out to test on")
    dev = task.rows(Path(facts["dev"]), tally) if facts["dev"] else []
    test = task.rows(Path(facts["test"]), tally) if facts["test"] else held
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
    if shots is not None:
        drawn, scarce = few(learn, shots, seed)
        fewer = ", ".join(f"{kind} has only {number}" for kind, number in list(scarce.items())[:8])
        say(f"{shots} rows of each class are drawn with seed {seed}" + (f"; {fewer}" if fewer else ""))
        learn = [learn[i] for i in drawn]
    say(f"{len(learn)} rows to learn from, {len(dev)} dev, {len(test)} test")
    return Data(learn, dev, test)


def _apart(examples: Sequence[Example], order: Sequence[int], count: int) -> set[int]:
    """About `count` of the examples, the first in `order` that keep the classes' shares; whole groups only.

    A group is an article, or rows with the same text, so that no dev row is known from training. One that would hold
    out twice as many as wanted stays; if all are like that, the smallest goes, and if there is only one, rows of it go.
    """
    groups = groups_of(examples, order)
    if len(groups) == 1:
        return set(order[:count])
    kinds = kinds_of(examples)
    want = {
        kind: round(count * total / len(examples)) for kind, total in Counter(k for ks in kinds for k in ks).items()
    }
    chosen: set[int] = set()
    for strict in (True, False):  # first what the classes still need, then whatever fills the number
        for rows in groups:
            if len(chosen) >= count or chosen.issuperset(rows) or len(chosen) + len(rows) > 2 * count:
                continue
            found = Counter(kind for number in rows for kind in kinds[number])
            gain = sum(min(n, want[kind]) - max(0, n - want[kind]) for kind, n in found.items())
            if gain > 0 or not strict:
                chosen.update(rows)
                want |= {kind: max(0, want[kind] - n) for kind, n in found.items()}
    return chosen or set(sorted(groups, key=len)[0])
