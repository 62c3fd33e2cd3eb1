"""What is wrong with labelled rows before a model learns them: each finding with files and lines."""

from __future__ import annotations

import difflib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertsmith.core.errors import DataError
from bertsmith.corpus.dedup import DedupConfig, find
from bertsmith.corpus.document import Tally
from bertsmith.tasks.base import Example, Task
from bertsmith.tasks.noise import MOST_CLASSES, doubtful
from bertsmith.tasks.parallel import References

PLACES = 20
"""Places told of each finding."""
SAMPLE = 2000
"""Rows by which the vocabulary is judged."""
CUT, UNKNOWN, PIECES, UNEVEN, FEW, MANY = 0.01, 0.01, 2.0, 20, 5, 20
NOTES = {
    "read_in_windows",
    "no_agreed_label",
    "answer_stands_in_several_places",
    "entity_stands_in_several_places",
    "blank_line",
    "empty_row",
}
APART = {"words", "id", "article"}
"""Fields that say where a row comes from, or how it was cut."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should look at.

    Attributes:
        kind: a snake_case name.
        serious: false for what is only worth knowing.
        message: what, and what to do.
        count: rows that it is about.
        places: file and line of the first of them.
    """

    kind: str
    serious: bool
    message: str
    count: int
    places: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings about the rows of a task, the serious ones first.

    Attributes:
        rows: how many there are, by split.
        findings: what was found.
    """

    rows: Mapping[str, int]
    findings: Sequence[Finding]

    @property
    def serious(self) -> int:
        """How many findings are more than worth knowing."""
        return sum(finding.serious for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"rows": dict(self.rows), "serious": self.serious, "findings": [asdict(one) for one in self.findings]}

    def text(self, most: int = 3) -> str:
        """For people: a paragraph a finding.

        Args:
            most: places told of each.
        """
        rows = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
        amiss = f"{self.serious} thing{'s' if self.serious > 1 else ''} to look at" if self.serious else "nothing amiss"
        lines = [f"data ({rows} rows): {amiss}"]
        for one in self.findings:
            lines.append(f"  {'!' if one.serious else '-'} {one.kind}: {one.message}")
            lines += [f"      {place}" for place in one.places[:most]]
            if one.places and one.count > most:
                lines.append(f"      and {one.count - min(most, len(one.places)):,} more")
        return "\n".join(lines)

    def strict(self) -> None:
        """Refuse rows about which there is a serious finding.

        Raises:
            DataError: there is one; names the first place.
        """
        first = next((one for one in self.findings if one.serious), None)
        if first is not None:
            place = f"{first.places[0]}: " if first.places else ""
            raise DataError(
                f"{place}{first.kind}: {first.message} ({self.serious} findings in all); mend the data, or leave "
                "--strict out"
            )


class Ledger(Tally):
    """A Tally that also remembers the first places of each reason."""

    def __init__(self) -> None:
        """Nothing is counted yet."""
        super().__init__()
        self.places: dict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, where: str, count: int = 1) -> None:
        """Count, and remember where."""
        super().add(reason, where, count)
        if len(self.places[reason]) < PLACES:
            self.places[reason].append(where)


def examine(
    task: Task, splits: Mapping[str, Sequence[Example]], ledger: Ledger, *, vocabulary: bool = True
) -> Examination:
    """Look at all rows of a task together.

    Found are: everything that reading and cutting counted; rows that repeat another one, to the letter or nearly, in a
    split or across splits; one text with two labels; labels that the other rows speak against; rare, misspelt and very
    uneven classes; how long texts are; and how well the vocabulary writes them.

    Args:
        task: has read the rows.
        splits: rows by name of the split, `train` first.
        ledger: given to the task when it read the rows; what encoding counts is added.
        vocabulary: the task's tokenizer is the one that will be used; else nothing is said about pieces.
    """
    examples = [example for rows in splits.values() for example in rows]
    names = [name for name, rows in splits.items() for _ in rows]
    weighable = getattr(task, "decides", None) in ("classes", "sets")
    found = [*_repeats(examples, names), *_labels(splits, weighable), *_noise(examples)]
    if vocabulary:
        found += _pieces(task, splits["train"], examples, ledger)
    found += _counted(ledger, len(examples))
    found.sort(key=lambda one: not one.serious)
    return Examination({name: len(rows) for name, rows in splits.items()}, found)


def key_of(example: Example) -> tuple[Any, ...]:
    """What makes two examples the same question: all that the model may see, apart from white space."""
    fields = sorted((name, value) for name, value in example.fields.items() if name not in APART)
    return tuple((name, " ".join(value.split()) if isinstance(value, str) else repr(value)) for name, value in fields)


def _repeats(examples: Sequence[Example], names: Sequence[str]) -> Iterable[Finding]:
    first: dict[tuple[Any, ...], int] = {}
    pairs: dict[tuple[bool, bool], list[tuple[int, int]]] = defaultdict(list)
    torn: list[tuple[int, int]] = []
    for number, example in enumerate(examples):
        key = key_of(example)
        other = first.setdefault(key, number)
        if other == number:
            continue
        pairs[True, names[number] != names[other]].append((number, other))
        if not _agree(example.label, examples[other].label):
            torn.append((number, other))
    distinct = list(first.values())
    for number, other in _alike([examples[i] for i in distinct]):
        pairs[False, names[distinct[number]] != names[distinct[other]]].append((distinct[number], distinct[other]))

    def finding(kind: str, message: str, rows: Sequence[tuple[int, int]]) -> Finding:
        places = [f"{examples[a].where} and {examples[b].where}" for a, b in rows[:PLACES]]
        return Finding(kind, kind != "near_duplicate", message.format(n=f"{len(rows):,}"), len(rows), places)

    told = {
        (True, True): ("leak", "{n} rows stand in an earlier split as well; remove them"),
        (False, True): ("near_leak", "{n} rows are nearly those of an earlier split; split by document"),
        (True, False): ("duplicate", "{n} rows repeat another one of their split; they weigh more"),
        (False, False): ("near_duplicate", "{n} rows are nearly another one of their split"),
    }  # fmt: skip
    if torn:
        yield finding("two_labels", "{n} rows have another row's text and another label; settle it", torn)
    for how, (kind, message) in told.items():
        if pairs[how]:
            yield finding(kind, message, pairs[how])


def _alike(examples: Sequence[Example]) -> Iterable[tuple[int, int]]:
    """Pairs of nearly equal examples, the later one first; each field is nearly equal by itself."""
    texts = [
        example.fields["question"]
        if "context" in example.fields and "question" in example.fields
        else "\n".join(value for _, value in key_of(example))
        for example in examples
    ]
    with tempfile.TemporaryDirectory() as folder:
        config = DedupConfig(mode="near", threshold=0.75, words=3, characters=4, permutations=64)
        copies = find(texts, Path(folder) / "job", config).rows
    for later, earlier in copies[["id", "kept"]].tolist():
        a, b = key_of(examples[later]), key_of(examples[earlier])
        same_kind = len(a) == len(b) and any(x != y for x, y in zip(a, b, strict=True) if len(x[1]))
        if same_kind and all(_close(x, y) for (_, x), (_, y) in zip(a, b, strict=True)):
            yield later, earlier


def _close(a: str, b: str) -> bool:
    if a == b:
        return True
    words = [set(zip(text.lower(), text[1:].lower(), text[2:].lower(), strict=False)) for text in (a, b)]
    return len(words[0] & words[1]) >= 0.7 * len(words[0] | words[1])


def _agree(a: Any, b: Any) -> bool:
    """Whether two labels of one text are no contradiction; numbers may differ a little."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1.0
    return bool(a == b)


def classes(example: Example) -> list[str]:
    """What an example counts for when rows are weighed by class: its label, its types of span, answered or not."""
    label = example.label
    if isinstance(label, References):  # each text to be written is its own
        return []
    if isinstance(label, str):
        return [label]
    if "question" in example.fields:
        return ["answer" if label else "no answer"]
    if isinstance(label, tuple | list | frozenset | set):
        return sorted({str(getattr(item, "type", item)) for item in label})
    return []


def _labels(splits: Mapping[str, Sequence[Example]], weighable: bool) -> Iterable[Finding]:
    counts = {name: Counter(kind for row in rows for kind in classes(row)) for name, rows in splits.items()}
    train = counts["train"]
    if not train:
        return
    where = {kind: row.where for row in reversed(splits["train"]) for kind in classes(row)}
    ordered = train.most_common()
    if len(ordered) > MANY and 2 * len(ordered) > sum(train.values()):
        message = f"{sum(train.values()):,} rows have {len(ordered):,} labels; is that the column that you mean?"
        yield Finding("many_classes", True, message, len(ordered))
    shown = ", ".join(f"{kind} {count:,}" for kind, count in ordered[:8]) + (", …" if len(ordered) > 8 else "")
    yield Finding("classes", False, f"{len(ordered)} in train: {shown}", sum(train.values()))
    if rare := [kind for kind, count in ordered if count < FEW]:
        message = f"{len(rare)} classes have fewer than {FEW} rows in train ({', '.join(rare[:5])})"
        yield Finding("rare_class", True, message, len(rare), [where[kind] for kind in rare[:PLACES]])
    if ordered[0][1] >= UNEVEN * ordered[-1][1]:
        message = (
            f"{ordered[0][0]} is {ordered[0][1] / ordered[-1][1]:.0f} times as frequent as {ordered[-1][0]}; look at "
            f"the scores of each{', or try train.class_weights=balanced' if weighable else ''}"
        )
        yield Finding("uneven_classes", True, message, 0)
    # Every label is compared with every other.
    known = train if len(train) <= MOST_CLASSES else Counter()
    if misspelt := [(kind, near) for kind in known if (near := _meant(kind, train)) is not None]:
        told = ", ".join(f"{kind!r} for {near!r}" for kind, near in misspelt[:5])
        message = f"{len(misspelt)} labels look like another one misspelt: {told}; make them one"
        yield Finding("label_misspelt", True, message, len(misspelt), [where[kind] for kind, _ in misspelt[:PLACES]])
    for name, found in counts.items():
        if found and (absent := [kind for kind in train if kind not in found]):
            message = f"{len(absent)} classes of train have no row in {name} ({', '.join(absent[:5])})"
            yield Finding(f"class_not_in_{name}", False, message, len(absent))


def _meant(label: str, counts: Counter[str]) -> str | None:
    """A far more frequent label that is this one but for case, spaces or a letter."""
    for other, count in counts.items():
        if other == label or count < 10 * counts[label] or label.isdecimal():
            continue
        a, b = ("".join(text.casefold().split()) for text in (label, other))
        if a == b or (min(len(a), len(b)) > 3 and difflib.SequenceMatcher(None, a, b).ratio() > 0.85):
            return other
    return None


def _noise(examples: Sequence[Example]) -> Iterable[Finding]:
    if not all(isinstance(example.label, str) for example in examples):
        return
    labels = [example.label for example in examples]
    if not 2 <= len(set(labels)) <= MOST_CLASSES or len(labels) < 50:
        return
    found = doubtful(["\n".join(value for _, value in key_of(example)) for example in examples], labels)
    if found:
        message = (
            f"{len(found):,} labels are not what the words of the other rows suggest, the clearest first; look at these"
        )
        places = [f"{examples[i].where}: {labels[i]}, perhaps {guess}" for i, guess in found[:PLACES]]
        yield Finding("label_doubtful", False, message, len(found), places)


def _pieces(task: Task, train: Sequence[Example], examples: Sequence[Example], ledger: Ledger) -> Iterable[Finding]:
    encodings = task.encode(examples, ledger)
    tokenizer: Any = task.tokenizer  # type: ignore[attr-defined]
    lengths = np.array([len(encoding) for encoding in encodings])
    middle, most = np.percentile(lengths, [50, 95]).astype(int).tolist()
    limit = task.config.max_length
    message = f"median {middle} pieces, 95 % at most {most}, longest {lengths.max()}; the limit is {limit}"
    yield Finding("length", False, message, len(lengths))
    nothing = {tokenizer.cls_id, tokenizer.sep_id, tokenizer.unk_id, tokenizer.pad_id}
    hollow = [
        examples[getattr(encoding, "example", number)].where
        for number, encoding in enumerate(encodings)
        if set(encoding.input_ids.tolist()) <= nothing
    ]
    if hollow:
        message = f"{len(hollow):,} texts hold no piece that the vocabulary knows; remove them, or take another encoder"
        yield Finding("nothing_to_read", True, message, len(hollow), hollow[:PLACES])
    sample = train[:: max(1, len(train) // SAMPLE)]
    pieces = words = unknown = 0
    places: list[str] = []
    for example in sample:
        texts = [value for name, value in example.fields.items() if isinstance(value, str) and name not in APART]
        for text, cut in zip(texts, tokenizer.encode(texts), strict=True):
            lost = np.flatnonzero(cut.ids == tokenizer.unk_id)
            pieces, words = pieces + len(cut), words + len(np.unique(cut.words))
            unknown += len(lost)
            if len(lost) and len(places) < PLACES:
                places.append(f"{example.where}: {text[cut.starts[lost[0]] : cut.ends[lost[0]]]!r}")
    share, each = unknown / max(1, pieces), pieces / max(1, words)
    message = f"{share:.2%} of the pieces are unknown, and a word takes {each:.2f} pieces"
    poor = share > UNKNOWN or each > PIECES
    message += "; another encoder, or a vocabulary extended by your terms, would read this better" if poor else ""
    yield Finding("vocabulary", poor, message, unknown, places)


SAID = {
    "inside_tag_read_as_beginning": "an entity begins with I- (no legal IOB2); it is read as its beginning",
    "answer_start_mended": "answer_start does not point at the answer; the nearest place that holds it is taken",
    "answer_not_in_context": "the answer is not in its context",
    "cut_to_max_length": "the text is longer than task.max_length and loses its end",
    "read_in_windows": "the text is longer than task.max_length and is read in windows",
    "span_outside_text": "a span lies outside its text, or is empty",
    "span_inside_another": "a span overlaps another one, and a flat tagger can learn only one of them",
    "span_ends_inside_a_word": "a span begins or ends inside a word; the whole word is tagged",
    "unknown_label": "the label is not one of the first file's",
    "no_label": "the label is empty",
    "empty_text": "the text is empty",
    "blank_line": "the line is blank",
    "empty_row": "all cells of the row are empty",
    "quotation_mark_left_open": "a quotation mark opens a cell and is not closed in its row",
}


def _counted(ledger: Ledger, rows: int) -> Iterable[Finding]:
    """A finding for each reason that was counted while rows were read and cut."""
    for reason, count in ledger.counts.items():
        few = reason == "cut_to_max_length" and count <= CUT * rows
        note = few or reason in NOTES or reason.startswith("read_as_")
        message = f"{count:,} times: {SAID.get(reason, reason.replace('_', ' '))}"
        yield Finding(reason, not note, message, count, ledger.places[reason])
