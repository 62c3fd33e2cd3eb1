"""How two marked stretches of a text are related."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics import classification as metrics
from bertsmith.metrics.classification import Scores
from bertsmith.metrics.relations import relation_scores, undirected
from bertsmith.model.packing import Encoding
from bertsmith.tasks.annotations import Annotated, Span
from bertsmith.tasks.base import Answer, Example, say_on_stderr
from bertsmith.tasks.brat import read_documents
from bertsmith.tasks.classification import Classification
from bertsmith.tasks.joining import join_texts
from bertsmith.tasks.marked import parse_marks, read_marked
from bertsmith.tasks.triples import candidates, document_examples, has_relations, related_types
from bertsmith.tasks.values import Rejects
from bertsmith.tokenizer.load import Pieces, Tokenizer

MARKS = "@#*^~|+=/;:-"
"""The first four of which a vocabulary has pieces are its marks."""
NONE = ("other", "no_relation", "na", "none", "unknown")


class RelationsConfig(Config):
    """How marked texts are read and cut."""

    pair: ClassVar[bool] = False
    regression: ClassVar[bool] = False

    read: Literal["markers", "cls"] = Field(
        default="markers",
        description="what the relation is read from: the marks before the two stretches, or [CLS]",
    )
    labels: tuple[str, ...] = Field(default=(), description="the relations; by default those of the first file")
    none: str | None = Field(
        default=None, description="the label of no relation, left out of F1; by default Other, no_relation, NA, unknown"
    )
    marks: tuple[str, ...] = Field(
        default=(),
        description="four pieces, around the first stretch, the second, the type of the first and of the second; "
        "by default @ # * ^, or other punctuation of which the vocabulary has pieces",
    )
    max_length: int = Field(
        default=256, ge=16, description="longest sequence in pieces; longer texts lose what is far from both stretches"
    )
    types: tuple[tuple[str, str], ...] = Field(
        default=(), description="types of stretches that may be related, first and second; by default those of the file"
    )
    reach: int = Field(
        default=100, ge=1, description="characters between two stretches at most that are asked about unasked"
    )
    skip_bad_rows: bool = Field(default=False, description="count bad rows instead of stopping at the first")


class Relations(Classification):
    """A class for a text in which two stretches are marked: `@ * person * Ada @ works for # ^ firm ^ Acme #`.

    The class is read from the hidden states of the two opening marks, side by side; with `read=cls` from [CLS], and the
    bundle is then a BertForSequenceClassification.

    Source: Zhou & Chen 2021, typed entity markers with punctuation (arXiv:2102.01373); Baldini Soares et al. 2019
    (arXiv:1906.03158).
    """

    name = "relate"

    def __init__(
        self, tokenizer: Tokenizer, config: RelationsConfig | None = None, *, say: Callable[[str], None] = say_on_stderr
    ) -> None:
        """Build the task; the first file that it reads settles the relations.

        Args:
            tokenizer: turns text into pieces; it must have a piece for each of the marks.
            config: what is already known.
            say: takes sentences meant for the user.

        Raises:
            ConfigError: there are not four marks, or one is no piece of the vocabulary.
        """
        self.tokenizer = tokenizer
        self.config: Any = config or RelationsConfig()
        self.say = say
        known = set(tokenizer.tokens)
        marks = self.config.marks or tuple(mark for mark in MARKS if mark in known)[:4]
        if len(marks) != 4 or not known.issuperset(marks):
            raise ConfigError(
                f"four marks are needed that the vocabulary has, not {' '.join(marks) or 'none'}; name them, "
                'such as --set \'task.marks=["(", "[", "-", ":"]\''
            )
        self.config = self.config.model_copy(update={"marks": marks})

    @property
    def output(self) -> str:
        """The head that is read: of the states of the two opening marks, or of the pooled [CLS]."""
        return "relate" if self.config.read == "markers" else "classify"

    @property
    def headline(self) -> str:
        """SemEval's macro-F1."""
        return "macro_f1"

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read marked texts with their relations, or whole texts with spans and relations; the first file settles them.

        Of a whole text every pair of spans is asked about that `candidates` offers.

        Raises:
            DataError: names file, line and what to do.
        """
        rejects = Rejects(tally, skip=self.config.skip_bad_rows)
        if has_relations(path, tally):
            examples = self._pairs(read_documents(path, rejects), path, tally)
        else:
            examples = read_marked(path, tally, labelled=True, skip_bad_rows=self.config.skip_bad_rows)
        if not self.labels:
            labels = tuple(sorted({example.label for example in examples}))
            if len(labels) == 1:
                raise DataError(f"{path}: all {len(examples)} rows have the relation {labels[0]!r}; there must be two")
            none = self.config.none or next((label for label in labels if label.lower() in NONE), None)
            pairs = {(one.fields["first"].type, one.fields["second"].type) for one in examples if one.label != none}
            types = self.config.types or tuple(sorted(pairs))
            self.config = self.config.model_copy(update={"labels": labels, "none": none, "types": types})
            if none is not None:
                self.say(f"{path}: {none!r} means that there is no relation (override with task.none)")
        return self._check(examples, rejects)

    def _pairs(self, documents: Sequence[Annotated], path: Path, tally: Tally) -> list[Example]:
        config = self.config
        if not any(document.relations for document in documents):
            raise DataError(
                f"{path}: none of its {len(documents)} texts has a relation; relations need some to learn from"
            )
        types = config.types or related_types(documents)
        none = config.none or "no_relation"
        return [
            example
            for document in documents
            for example in document_examples(document, types, config.reach, none, tally)
        ]

    def unasked(self, text: str, spans: Sequence[Span]) -> list[Example]:
        """The pairs of spans of a text that could be related, as examples.

        Args:
            text: the text.
            spans: found in it.
        """
        directed = not any(undirected(label) != label for label in self.labels)
        pairs = candidates(spans, self.config.types, self.config.reach, both_ways=directed)
        return [Example({"text": text, "first": a, "second": b}) for a, b in pairs]

    def unlabelled(self, path: Path, tally: Tally) -> list[Example]:
        """Read marked texts whose relations need not be known.

        Raises:
            DataError: names file and line.
        """
        return read_marked(path, tally, labelled=False, skip_bad_rows=self.config.skip_bad_rows)

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """`[CLS] text with marks [SEP]`; of a long text what stands around the two stretches.

        Raises:
            DataError: a text in which two stretches are not marked, by fields or by `<e1>…</e1>` and `<e2>…</e2>`.
        """
        marked = [self._marked(example) for example in examples]
        room = self.config.max_length - 2
        encodings = []
        for example, (_, opening, end), pieces, targets in zip(
            examples,
            marked,
            self.tokenizer.encode([text for text, _, _ in marked]),
            self._targets(examples),
            strict=True,
        ):
            start = 0 if len(pieces) <= room else _start(pieces, min(opening), end, room)
            ids = pieces.ids[start : start + room]
            if len(ids) < len(pieces) and tally is not None:
                tally.add("cut_to_max_length", example.where)
            encoding, _ = join_texts(self.tokenizer, ids, None, self.config.max_length)
            places = np.searchsorted(pieces.starts, opening) - start + 1
            reads = tuple(np.minimum(places, len(ids)).tolist()) if self.output == "relate" else ()
            encodings.append(Encoding(encoding.input_ids, encoding.segment_ids, targets, reads))
        return encodings

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Macro-F1 as SemEval counts it, micro-F1 as TACRED does, both without `none`; accuracy; each relation's F1."""
        macro, micro, each = self.by_relation(answers, examples)
        truth, guesses = self.indices(answers, examples)
        scores = {"macro_f1": macro, "micro_f1": micro, "accuracy": metrics.accuracy(truth, guesses)}
        return scores | {f"f1/{name}": found.f1 for name, found in each.items()}

    def by_relation(
        self, answers: Sequence[Answer], examples: Sequence[Example]
    ) -> tuple[float, float, dict[str, Scores]]:
        """Macro-F1, micro-F1 and the scores of each relation, both directions together."""
        gold, guesses = [example.label for example in examples], [answer["label"] for answer in answers]
        return relation_scores(gold, guesses, self.config.none)

    def _marked(self, example: Example) -> tuple[str, tuple[int, int], int]:
        """The text with its marks, where the two opening marks stand, and where the last one ends."""
        fields = example.fields
        if "first" not in fields:
            parsed = parse_marks(fields["text"])
            if parsed is None:
                raise DataError(
                    f"{example.where}: mark the two stretches that are asked about: "
                    "The <e1>cat</e1> sat on the <e2>mat</e2>"
                )
            fields = parsed
        text, outer, inner = fields["text"], self.config.marks[:2], self.config.marks[2:]
        inserted: list[tuple[int, int, int, int, str]] = []
        for number, span in enumerate((fields["first"], fields["second"])):
            assert isinstance(span, Span)
            kind = f"{inner[number]} {span.type} {inner[number]} " if span.type else ""
            # Where one stretch holds the other, the longer one opens first and closes last.
            size = span.end - span.start
            inserted.append((span.start, 1, -size, number, f" {outer[number]} {kind}"))
            inserted.append((span.end, 0, size, number, f" {outer[number]} "))
        marked, at, opening = "", 0, [0, 0]
        for place, opens, _, number, mark in sorted(inserted):
            marked += text[at:place]
            if opens:
                opening[number] = len(marked) + 1
            marked += mark
            at = place
        return marked + text[at:], (opening[0], opening[1]), len(marked)


def _start(pieces: Pieces, begin: int, end: int, room: int) -> int:
    """The first of `room` pieces with the stretch from character `begin` to `end` in the middle."""
    first, last = (int(place) for place in np.searchsorted(pieces.starts, [begin, end]))
    start = max(0, first - max(0, room - (last - first)) // 2)
    return min(start, len(pieces) - room)
