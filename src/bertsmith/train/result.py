"""The end of a fine-tuning run: what its weights answer, how well, and the bundles and the page that say so."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertsmith.core.bundle import Bundle, atomic_folder, atomic_write
from bertsmith.core.device import Precision
from bertsmith.core.files import as_json
from bertsmith.evaluate.score import describe
from bertsmith.model.heads import Model
from bertsmith.model.views import view
from bertsmith.predict.engine import answer
from bertsmith.tasks.base import Answer, Example
from bertsmith.tasks.origins import digest
from bertsmith.tasks.seen import inputs_seen, languages_seen
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.finetuning import FinetuneConfig
from bertsmith.train.report import Samples, finetuning_report, sample_rows
from bertsmith.train.run import BUNDLE, SCORES
from bertsmith.train.subject import Subject
from bertsmith.train.together import joined, judged_together
from bertsmith.train.tuning import Tuning

SHOWN = 20
Split = tuple[list[Answer], Sequence[Example]]


@dataclass(frozen=True)
class Result:
    """What the weights that a run kept are worth.

    Attributes:
        subjects: what was learned, by name, which is empty for a single task.
        model: with these weights.
        answers: by task and split (`dev`, `test`), the answers and the rows.
        each: scores by task and split.
        scores: scores by split, of several tasks side by side.
    """

    subjects: Mapping[str, Subject]
    model: Model
    answers: Mapping[str, Mapping[str, Split]]
    each: Mapping[str, Mapping[str, dict[str, float]]]
    scores: dict[str, dict[str, float]]

    @staticmethod
    def of(subjects: Mapping[str, Subject], model: Model, precision: Precision) -> Result:
        """Ask a model about all held-out rows.

        Args:
            subjects: what was learned.
            model: with the best weights.
            precision: of matrix products.
        """
        answers: dict[str, dict[str, Split]] = {}
        for name, found in judged_together(subjects, model, precision)[0].items():
            one = subjects[name]
            answers[name] = {"dev": (found, one.data.dev)}
            if one.data.test:
                told = answer(one.task, view(model, name), one.data.test, precision=precision)
                answers[name]["test"] = (told, one.data.test)
        each = {
            name: {split: subjects[name].task.score(*pair) for split, pair in splits.items()}
            for name, splits in answers.items()
        }
        found_splits = [split for split in ("dev", "test") if any(split in scores for scores in each.values())]
        scores = {
            split: joined({name: found[split] for name, found in each.items() if split in found}, subjects)
            for split in found_splits
        }
        return Result(subjects, model, answers, each, scores)

    def write(
        self,
        out: Path,
        config: FinetuneConfig,
        facts: Mapping[str, Any],
        tokenizer: Tokenizer,
        tuning: Tuning,
        steps: int,
    ) -> dict[str, Bundle]:
        """Write scores, report and bundles into the run folder.

        Args:
            out: the run folder; `bundle/` holds the bundle, or a bundle for each of several tasks.
            config: of the run.
            facts: of the run.
            tokenizer: the vocabulary.
            tuning: how weights are saved.
            steps: updates after which the weights were kept.

        Returns:
            The bundles by name.
        """
        atomic_write(out / SCORES, as_json(self.scores))
        finetuning_report(out, config, facts, self.scores, [self._samples(name) for name in self.subjects])
        metas = {name: self._meta(name, config, facts, tokenizer, steps) for name in self.subjects}
        if list(metas) == [""]:
            return {"": tuning.save(out / BUNDLE, self.model, tokenizer, metas[""])}
        with atomic_folder(out / BUNDLE) as folder:
            for name, meta in metas.items():
                tuning.save(folder / name, view(self.model, name), tokenizer, meta)
        return {name: Bundle.open(out / BUNDLE / name) for name in metas}

    def _meta(
        self, name: str, config: FinetuneConfig, facts: Mapping[str, Any], tokenizer: Tokenizer, steps: int
    ) -> dict[str, Any]:
        one = self.subjects[name]
        origin = Bundle.open(facts["from"])
        sums = {one.facts[key]: digest(one.facts[key]) for key in ("data", "dev", "test") if one.facts[key]}
        beside = {"together": [other for other in self.subjects if other != name]} if name else {}
        return {
            "task": one.facts["task"],
            "labels": list(one.task.labels),
            "headline": one.task.headline,
            "task_config": one.task.config.model_dump(mode="json"),
            "lineage": {
                "parent": origin.hash if config.train.init == "bundle" else None,
                "base_model": origin.hub_name(facts["from"]) if config.train.init == "bundle" else None,
                "data": sums,
                "configs": config.model_dump(mode="json"),
                "steps": steps,
                **beside,
            },
            "scores": self.each[name],
            "splits": one.data.described(one.facts, sums),
            "languages": languages_seen(one.data.train),
            "inputs_seen": inputs_seen(one.data.train, tokenizer),
        }

    def _samples(self, name: str) -> Samples:
        one, splits = self.subjects[name], self.answers[name]
        found, examples = splits.get("test", splits["dev"])
        picture = describe(one.task, found, examples, one.tally).picture()
        return Samples(name, sample_rows(examples[:SHOWN], found[:SHOWN]), picture)


def scores_in(run: Path) -> dict[str, dict[str, float]]:
    """The scores that a run wrote, by split and name; nan where one is not defined."""
    written = json.loads((run / SCORES).read_text(encoding="utf-8"))
    return {
        split: {name: math.nan if value is None else value for name, value in scores.items()}
        for split, scores in written.items()
    }
