"""Who does what with whom: a tagger finds entities in whole texts, a second model how they are related."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics.classification import Scores
from bertsmith.metrics.relations import Triple, triple_scores
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.annotations import Span
from bertsmith.tasks.base import Answer
from bertsmith.tasks.brat import read_documents
from bertsmith.tasks.relations import Relations
from bertsmith.tasks.tagging import Tagging
from bertsmith.tasks.values import Rejects


class Extractor:
    """Answers with entities and with the relations among them.

    The pairs asked about are those whose types are related somewhere in the data that the second model learned from
    (`task.types`), with at most `task.reach` characters between them.
    """

    def __init__(self, tagger: Predictor, relations: Predictor) -> None:
        """Join two models.

        Args:
            tagger: finds the entities.
            relations: tells how two of them are related.

        Raises:
            ConfigError: one of them is made for something else.
        """
        if not isinstance(tagger.task, Tagging):
            raise ConfigError(f"{tagger.bundle.path}: entities are found by a tagger, and this is none")
        if not isinstance(relations.task, Relations):
            raise ConfigError(
                f"{relations.bundle.path}: relations are told by a model that `bertsmith finetune relate` made; "
                "this is none"
            )
        self.tagger, self.relations, self.task = tagger, relations, relations.task

    def __call__(self, texts: Sequence[str]) -> list[Answer]:
        """The tagger's answers with `relations`, each `{"first", "second", "type", "score"}`.

        `first` and `second` are indices into `entities`.

        Args:
            texts: whole texts.
        """
        answers: list[Answer] = self.tagger(list(texts))
        asked = [
            (number, example)
            for number, (text, answer) in enumerate(zip(texts, answers, strict=True))
            for example in self.task.unasked(text, [_span(entity) for entity in answer["entities"]])
        ]
        for answer in answers:
            answer["relations"] = []
        told = self.relations.examples([example for _, example in asked])
        for (number, example), verdict in zip(asked, told, strict=True):
            if verdict["label"] != self.task.config.none:
                entities = answers[number]["entities"]
                first, second = (_index(entities, example.fields[role]) for role in ("first", "second"))
                answers[number]["relations"].append(
                    {"first": first, "second": second, "type": verdict["label"], "score": verdict["score"]}
                )
        return answers

    def evaluate(self, data: Path, tally: Tally, *, skip_bad_rows: bool = False) -> tuple[Scores, Scores, int]:
        """Strict scores of entities and of triples, on whole texts with both, and the number of texts.

        Args:
            data: a folder of BRAT, or JSON with entities and relations.
            tally: counts what is skipped.
            skip_bad_rows: count what cannot be used instead of stopping there.

        Raises:
            DataError: names file and line; or there are no relations in it.
        """
        documents = read_documents(data, Rejects(tally, skip=skip_bad_rows))
        if not any(document.relations for document in documents):
            raise DataError(f"{data}: none of its {len(documents)} texts has a relation; there is nothing to score")
        answers = self([document.text for document in documents])
        found = [[_span(entity) for entity in answer["entities"]] for answer in answers]
        entities = triple_scores(
            [{(span, "", None) for span in document.spans} for document in documents],
            [{(span, "", None) for span in spans} for spans in found],
        )
        gold: list[set[Triple]] = [{(a, kind, b) for a, b, kind in document.relations or ()} for document in documents]
        triples: list[set[Triple]] = [
            {(spans[one["first"]], one["type"], spans[one["second"]]) for one in answer["relations"]}
            for spans, answer in zip(found, answers, strict=True)
        ]
        return entities, triple_scores(gold, triples), len(documents)


def _span(entity: Mapping[str, object]) -> Span:
    return Span(entity["start"], entity["end"], entity["type"])  # type: ignore[arg-type]


def _index(entities: Sequence[Mapping[str, object]], span: Span) -> int:
    """Which entity a span is; its type may have been left out."""
    return next(
        number
        for number, entity in enumerate(entities)
        if (entity["start"], entity["end"]) == (span.start, span.end) and span.type in ("", entity["type"])
    )
