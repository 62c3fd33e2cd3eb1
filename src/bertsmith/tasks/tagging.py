"""Finding spans in text: names, terms, code words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics.classification import Scores
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.annotations import Annotated, Span
from bertsmith.tasks.base import Answer, Example, Loss, Outputs, check_length, say_on_stderr
from bertsmith.tasks.brat import read_documents
from bertsmith.tasks.decisions import Decided, Decisions
from bertsmith.tasks.flat import Flat
from bertsmith.tasks.nested import Nested
from bertsmith.tasks.values import Rejects
from bertsmith.tasks.word_windows import Window, Words, tokenizer_words, word_windows
from bertsmith.tokenizer.load import Tokenizer


class TaggingConfig(Config):
    """How texts are read and cut into windows."""

    head: Literal["token", "crf", "span"] = Field(
        default="token",
        description="token: a tag a word; crf: tags scored as a chain; span: pairs of words, for nested spans too",
    )
    labels: tuple[str, ...] = Field(
        default=(),
        description="the tags, such as O, B-LOC, I-LOC (head span: the types); by default those of the first file",
    )
    max_length: int = Field(
        default=256, ge=16, description="longest sequence in pieces; longer texts are read in windows"
    )
    overlap: float = Field(default=0.25, ge=0.0, lt=1.0, description="share of a window that the next one reads again")
    skip_bad_rows: bool = Field(default=False, description="count bad rows instead of stopping at the first")


class Tagging:
    """Spans of a text, read from the first pieces of its words, as tags (`Flat`) or as pairs of words (`Nested`)."""

    name = "tag"
    headline = "f1"
    weighed = "tag"

    def __init__(
        self, tokenizer: Tokenizer, config: TaggingConfig | None = None, *, say: Callable[[str], None] = say_on_stderr
    ) -> None:
        """Build the task; the first file that it reads settles the labels.

        Args:
            tokenizer: turns text into pieces.
            config: what is already known.
            say: takes sentences meant for the user.
        """
        self.tokenizer = tokenizer
        self.config = config or TaggingConfig()
        self.say = say

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags, or of the head `span` the types, in the order of the head's outputs."""
        return self.config.labels

    @property
    def form(self) -> Flat | Nested:
        """How spans are put before the model and read from it."""
        config = self.config
        return Nested(config.labels) if config.head == "span" else Flat(config.labels, config.head == "crf")

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read a labelled file, CoNLL columns or JSON spans, or a folder of BRAT. The first one settles the labels.

        An example's label is its spans; `fields["words"]` holds the words' offsets where the file gives words.

        Raises:
            DataError: names file, line and what to do.
        """
        rejects = Rejects(tally, skip=self.config.skip_bad_rows)
        mended_before = tally.counts.get("inside_tag_read_as_beginning", 0)
        annotated = read_documents(path, rejects)
        if mended := tally.counts.get("inside_tag_read_as_beginning", 0) - mended_before:
            self.say(f"{path}: {mended} entities begin with an I- tag; read as IOB1, where that begins an entity")
        if not self.labels:
            types = sorted({span.type for row in annotated for span in row.spans})
            if not types:
                raise DataError(f"{path}: none of its {len(annotated)} texts has a marked span; a tagger needs some")
            self.config = self.config.model_copy(update={"labels": self.form.outputs(types)})
        examples = [example for row in annotated if (example := self._example(row, self.form, rejects))]
        if not examples:
            raise DataError(f"{path}: no usable text is left; {tally.summary()}")
        return examples

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """Windows of at most `max_length` pieces; each word is answered for by one window."""
        pieces = self.tokenizer.encode([example.fields["text"] for example in examples])
        config, form = self.config, self.form
        windows: list[Encoding] = []
        for index, (example, pieced) in enumerate(zip(examples, pieces, strict=True)):
            words: Words = example.fields.get("words") or tokenizer_words(pieced)
            mine = word_windows(
                self.tokenizer,
                index,
                pieced,
                words,
                max_length=config.max_length,
                overlap=config.overlap,
                shared=form.shared,
            )
            if len(mine) > 1 and tally is not None:
                tally.add("read_in_windows", example.where)
            if example.label is not None:
                mine, inexact = form.with_targets(mine, example.label, words)
                if tally is not None and inexact:
                    tally.add("span_ends_inside_a_word", example.where, inexact)
            windows.extend(mine)
        return windows

    def head(self, model_config: ModelConfig) -> Heads:
        """What `form` reads."""
        check_length(self.config.max_length, model_config)
        return self.form.heads

    @property
    def decides(self) -> Decided | None:
        """A tag for each word; of chains and of pairs of words nothing by itself."""
        return "classes" if self.config.head == "token" else None

    def decisions(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[Decisions]:
        """One for each word."""
        form = self.form
        return form.decisions(outputs, batch) if isinstance(form, Flat) else []

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """That of `form`."""
        return self.form.loss(outputs, batch)

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """`{"text", "entities"}` and, where words have tags, `"words"` and `"tags"`.

        An entity is `{"start", "end", "type", "text", "score"}`. Offsets are characters of `text`, `end` not included.
        The score is a probability: of the head `token` the mean of its tags', of `crf` the mean of their marginals, of
        `span` its own.
        """
        return list(self.form.decode(outputs, cast(Sequence[Window], encodings), examples))

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Strict F1 of entities (type and both ends right), precision, recall, conlleval's F1, and F1 of each type."""
        total, by_type = self.by_type(answers, examples)
        return {
            "f1": total.f1,
            "precision": total.precision,
            "recall": total.recall,
            **self.form.scores(answers, examples),
            **{f"f1/{kind}": scores.f1 for kind, scores in by_type.items()},
        }

    def by_type(self, answers: Sequence[Answer], examples: Sequence[Example]) -> tuple[Scores, dict[str, Scores]]:
        """Strict scores over all entities, by character offsets, and of each type."""
        right: Counter[str] = Counter()
        offered: Counter[str] = Counter()
        wanted: Counter[str] = Counter()
        for answer, example in zip(answers, examples, strict=True):
            gold = set(example.label)
            found = {Span(entity["start"], entity["end"], entity["type"]) for entity in answer["entities"]}
            right.update(span.type for span in gold & found)
            offered.update(span.type for span in found)
            wanted.update(span.type for span in gold)
        kinds = sorted({*offered, *wanted})
        by_type = {kind: Scores.of(right[kind], offered[kind], wanted[kind]) for kind in kinds}
        return Scores.of(right.total(), offered.total(), wanted.total()), by_type

    def _example(self, row: Annotated, form: Flat | Nested, rejects: Rejects) -> Example | None:
        if not row.text.strip():
            rejects.add("empty_text", row.where, "the text is empty")
            return None
        for span in row.spans:
            if span.type not in form.types:
                types = ", ".join(sorted(form.types))
                rejects.add("unknown_label", row.where, f"type {span.type!r} is not one of {types}")
                return None
        if refusal := form.refusal(row.spans):
            rejects.add("overlapping_spans", row.where, refusal)
            return None
        fields = {"text": row.text} if row.words is None else {"text": row.text, "words": row.words}
        return Example(fields, row.spans, row.where)
