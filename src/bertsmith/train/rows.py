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
from bertsmith.tasks.windows import counter_rng

DEV_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Data:
    """Labelled rows: to learn from, to choose by, to report."""

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]


def read_data(task: Task, facts: Mapping[str, Any], rows: int | None, tally: Tally, say: Callable[[str], None]) -> Data:
    """Read the files; without dev rows, a tenth of the training rows is held out, the same for every seed.

    Rows that name the article they belong to are held out by whole articles.

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
    """About `count` of the examples, the first in `order`; none of an article of which others stay.

    An article that would hold out twice as many as wanted stays; if all are like that, the smallest goes, and if there
    is only one, rows of it go.
    """
    articles = [example.fields.get("article", number) for number, example in enumerate(examples)]
    sizes = Counter(articles)
    if len(sizes) == 1:
        return set(order[:count])
    chosen: set[Any] = set()
    held = 0
    for article in dict.fromkeys(articles[i] for i in order):
        if held < count and held + sizes[article] <= 2 * count:
            chosen.add(article)
            held += sizes[article]
    chosen = chosen or {min(sizes, key=lambda article: sizes[article])}
    return {i for i, article in enumerate(articles) if article in chosen}
