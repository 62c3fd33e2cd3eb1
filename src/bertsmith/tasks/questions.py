"""Answering questions: which stretch of a text is the answer, or that there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import DataError
from bertsmith.corpus.document import Tally
from bertsmith.metrics.answers import SCORERS, Scorer, best_threshold
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.annotations import HAN
from bertsmith.tasks.base import Answer, Example, Loss, Outputs, check_length, say_on_stderr
from bertsmith.tasks.context import Stretch, Window, best_stretches, cut_context, owners
from bertsmith.tasks.decisions import Decided, Decisions
from bertsmith.tasks.squad import Gold, read_questions
from bertsmith.tokenizer.load import Pieces, Tokenizer

IGNORED = -100
NEVER = 1e6
"""Odds of no answer where no stretch of the context could be one."""
LONGEST = {"squad": 30, "cmrc": 100}
"""Pieces of an answer at most; a piece is a word or less in English, a character in Chinese."""


class QuestionsConfig(Config):
    """How questions are read, cut into windows and answered."""

    question_column: str | None = Field(default=None, description="field of the question; known names are tried")
    context_column: str | None = Field(default=None, description="field of the text that holds the answer")
    answer_column: str | None = Field(default=None, description="field of the answer, or of several")
    no_answer: bool | None = Field(
        default=None, description="whether a question may have no answer; by default as in the first file"
    )
    threshold: float = Field(
        default=0.0, description="logits by which no answer must beat the best one to win; dev decides it"
    )
    scorer: Literal["squad", "cmrc"] | None = Field(
        default=None, description="whose exact match and F1; by default cmrc where contexts are Chinese, else squad"
    )
    max_length: int = Field(default=384, ge=16, description="longest sequence in pieces, question and context together")
    stride: int = Field(default=128, ge=1, description="a long context's windows start so many pieces apart")
    max_question: int = Field(default=64, ge=1, description="pieces of a question; longer ones are cut, and counted")
    max_answer: int | None = Field(
        default=None,
        ge=1,
        description="longest answer in pieces; by default 30, and 100 for scorer cmrc",
    )
    n_best: int = Field(default=20, ge=1, description="how many answers are told for each question")
    skip_bad_rows: bool = Field(default=False, description="count bad rows instead of stopping at the first")


class Questions:
    """The first and the last piece of the answer, each by its own score; [CLS] where there is no answer.

    Source: Devlin et al. 2019, sections 4.2 and 4.3 (arXiv:1810.04805).
    """

    name = "answer"
    headline = "f1"
    labels = ("start", "end")
    inputs = ("question", "context")
    decides: Decided = "places"

    def __init__(
        self, tokenizer: Tokenizer, config: QuestionsConfig | None = None, *, say: Callable[[str], None] = say_on_stderr
    ) -> None:
        """Build the task; the first file that it reads settles whether there may be no answer, and the scorer.

        Args:
            tokenizer: turns text into pieces.
            config: what is already known.
            say: takes sentences meant for the user.
        """
        self.tokenizer = tokenizer
        self.config = config or QuestionsConfig()
        self.say = say

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read questions with their answers; an example's label is a tuple of `Gold`, empty: no answer.

        Raises:
            DataError: names file, line, question and what to do.
        """
        examples = self._read(path, tally, labelled=True)
        self._settle(path, examples)
        if not self.config.no_answer and (none := sum(not example.label for example in examples)):
            self.say(f"{path}: {none} questions have no answer; this model always gives one (task.no_answer is false)")
        return examples

    def unlabelled(self, path: Path, tally: Tally) -> list[Example]:
        """Read questions whose answers need not be known.

        Raises:
            DataError: names file and line.
        """
        return self._read(path, tally, labelled=False)

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """`[CLS] question [SEP] context [SEP]`, a window of the context at a time; each holds at most `max_length`."""
        tally = Tally() if tally is None else tally
        questions = self.tokenizer.encode([example.fields["question"] for example in examples])
        contexts = list(dict.fromkeys(example.fields["context"] for example in examples))
        cut = dict(zip(contexts, self.tokenizer.encode(contexts), strict=True))
        windows: list[Encoding] = []
        for index, (example, question) in enumerate(zip(examples, questions, strict=True)):
            ids, most = question.ids, min(self.config.max_question, (self.config.max_length - 3) // 2)
            if not example.fields["question"].strip():
                tally.add("empty_question", _place(example))
            if len(ids) > most:
                tally.add("question_cut", _place(example))
            context = cut[example.fields["context"]]
            target = None if example.label is None else self._target(example, context, tally)
            mine = self._windows(index, ids[:most], context, target)
            if len(mine) > 1:
                tally.add("read_in_windows", _place(example))
            if target not in (None, (IGNORED, IGNORED), (-1, -1)) and not any(w.targets["end"] > 0 for w in mine):
                tally.add("answer_longer_than_a_window", _place(example))
                mine = self._windows(index, ids[:most], context, (IGNORED, IGNORED))
            windows.extend(mine)
        return windows

    def head(self, model_config: ModelConfig) -> Heads:
        """Two scores a piece."""
        check_length(self.config.max_length, model_config)
        return Heads(answer=True)

    def decisions(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[Decisions]:
        """Two for each window: the piece at which the answer starts, and the one at which it ends."""
        spread, counted = self._spread(outputs["answer"].float(), batch), batch.targets["start"] != IGNORED
        return [
            Decisions("classes", spread[..., side][counted], batch.targets[name][counted], share=0.5)
            for side, name in enumerate(("start", "end"))
        ]

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Mean of two cross-entropies over the pieces of each window: where the answer starts, and where it ends."""
        spread = self._spread(outputs["answer"].float(), batch)
        start, end = batch.targets["start"], batch.targets["end"]
        counted = start != IGNORED
        total = sum(
            F.cross_entropy(spread[..., side], gold, ignore_index=IGNORED, reduction="sum")
            for side, gold in enumerate((start, end))
        )
        best = spread.detach().argmax(1)
        right = (best[:, 0] == start) & (best[:, 1] == end) & counted
        return Loss(total / 2, counted.sum(), {"accuracy": (right.sum(), counted.sum())})  # type: ignore[arg-type]

    @staticmethod
    def _spread(logits: Tensor, batch: Batch) -> Tensor:
        """Packed logits `[T, 2]` as `[S, n, 2]`, -inf where a window has no piece."""
        rows = torch.repeat_interleave(
            torch.arange(batch.num_sequences, device=logits.device),
            batch.cu_seqlens.diff(),
            output_size=batch.num_tokens,
        )
        spread = logits.new_full((batch.num_sequences, batch.max_seqlen, 2), float("-inf"))
        spread[rows, batch.position_ids] = logits
        return spread

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """`{"answer", "start", "end", "score", "n_best"}`, and `null_odds` where an answer may be withheld.

        `start` and `end` are characters of the context, `end` not included; both are None, and the answer is empty,
        where there is none. `n_best` holds the same four for the best answers of different texts, best first; the
        scores of these are probabilities that add up to 1. `null_odds`: logits by which no answer beats the best one.
        """
        found: list[list[Stretch]] = [[] for _ in examples]
        null = [NEVER] * len(examples)
        for output, window in zip(outputs, encodings, strict=True):
            assert isinstance(window, Window)
            logits = output["answer"].astype(np.float64)
            null[window.example] = min(null[window.example], float(logits[0].sum()))
            if examples[window.example].fields["question"].strip():
                found[window.example] += best_stretches(logits, window, self._longest, self.config.n_best)
        return [self._answer(*item) for item in zip(examples, found, null, strict=True)]

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """Exact match and F1, 0 to 1; where answers may be withheld, also apart for questions with and without one.

        `best_exact` and `best_f1` are what the best threshold for these very questions would give.
        """
        exact, f1 = self._scores([answer["answer"] for answer in answers], examples)
        scores = {"f1": float(np.mean(f1)), "exact": float(np.mean(exact))}
        if not self.config.no_answer:
            return scores
        has = np.array([bool(example.label) for example in examples])
        for name, group in (("has_answer", has), ("no_answer", ~has)):
            if group.any():
                scores |= {f"{name}_f1": float(np.mean(f1[group])), f"{name}_exact": float(np.mean(exact[group]))}
        odds = [answer["null_odds"] for answer in answers]
        exact, f1 = self._scores([_given(answer)["answer"] for answer in answers], examples)
        for name, raw in (("best_f1", f1), ("best_exact", exact)):
            scores[name] = best_threshold(raw.tolist(), odds, has.tolist())[0]
        return scores

    def tune(self, answers: Sequence[Answer], examples: Sequence[Example]) -> list[Answer]:
        """Choose the threshold with which F1 on these examples is best, and decide their answers by it.

        Args:
            answers: of `decode`.
            examples: of a dev set.
        """
        if not self.config.no_answer:
            return list(answers)
        f1 = self._scores([_given(answer)["answer"] for answer in answers], examples)[1]
        odds = [answer["null_odds"] for answer in answers]
        threshold = best_threshold(f1.tolist(), odds, [bool(example.label) for example in examples])[1]
        self.config = self.config.model_copy(update={"threshold": threshold})
        return [self._decided(answer) for answer in answers]

    def _read(self, path: Path, tally: Tally, *, labelled: bool) -> list[Example]:
        config = self.config
        columns = {
            "question": config.question_column,
            "context": config.context_column,
            "answers": config.answer_column,
        }
        return read_questions(path, tally, columns=columns, labelled=labelled, skip_bad_rows=config.skip_bad_rows)

    def _settle(self, path: Path, examples: Sequence[Example]) -> None:
        """Complete the config from the first file."""
        config = self.config
        if config.no_answer is not None and config.scorer and config.max_answer:
            return
        if not any(example.label for example in examples):
            raise DataError(f"{path}: none of its {len(examples)} questions has an answer; there is nothing to learn")
        no_answer = config.no_answer
        if no_answer is None:
            no_answer = not all(example.label for example in examples)
        texts = [example.fields["context"][:500] for example in examples[:100]]
        han = sum(len(HAN.findall(text)) for text in texts)
        scorer = config.scorer or ("cmrc" if 2 * han > sum(map(len, texts)) else "squad")
        longest = config.max_answer or LONGEST[scorer]
        self.config = config.model_copy(update={"no_answer": no_answer, "scorer": scorer, "max_answer": longest})
        self.say(
            f"{path}: {'some questions have no answer' if no_answer else 'every question has an answer'}; exact match "
            f"and F1 as {scorer.upper()} counts, answers of at most {longest} pieces (override with no_answer, scorer, "
            "max_answer)"
        )

    @property
    def _longest(self) -> int:
        return self.config.max_answer or LONGEST[self.config.scorer or "squad"]

    def _target(self, example: Example, context: Pieces, tally: Tally) -> tuple[int, int]:
        """The first and the last piece of the answer that most annotators gave; (-1, -1): there is none."""
        golds = [gold for gold in example.label if gold.start is not None]
        if not golds:
            return (-1, -1) if not example.label else (IGNORED, IGNORED)
        gold: Gold = Counter(golds).most_common(1)[0][0]
        assert gold.start is not None
        assert gold.end is not None
        first = int(np.searchsorted(context.ends, gold.start, side="right"))
        last = int(np.searchsorted(context.starts, gold.end, side="left")) - 1
        if last < first:
            tally.add("answer_has_no_piece", _place(example))
            return IGNORED, IGNORED
        if last - first >= self._longest:
            tally.add("answer_longer_than_max_answer", _place(example))
        return first, last

    def _windows(
        self, example: int, question: NDArray[np.int32], context: Pieces, target: tuple[int, int] | None
    ) -> list[Window]:
        cls, sep = [self.tokenizer.cls_id], [self.tokenizer.sep_id]
        begin = np.concatenate([cls, question, sep]).astype(np.int32)
        cuts = cut_context(len(context), self.config.max_length - len(begin) - 1, self.config.stride)
        owner = owners(len(context), cuts)
        windows = []
        for number, (start, stop) in enumerate(cuts):
            ids = np.concatenate([begin, context.ids[start:stop], sep]).astype(np.int32)
            segments = np.repeat(np.array([0, 1], np.int32), [len(begin), len(ids) - len(begin)])
            targets = {}
            if target is not None:
                first, last = target
                inside = start <= first and last < stop
                shift = len(begin) - start
                place = (first + shift, last + shift) if inside else (0, 0)
                targets = dict(zip(("start", "end"), target if first == IGNORED else place, strict=True))
            windows.append(
                Window(
                    ids,
                    segments,
                    targets,
                    example=example,
                    offset=len(begin),
                    starts=context.starts[start:stop],
                    ends=context.ends[start:stop],
                    owned=owner[start:stop] == number,
                )
            )
        return windows

    def _answer(self, example: Example, found: list[Stretch], null: float) -> Answer:
        context = example.fields["context"]
        different: dict[str, Stretch] = {}
        for score, start, end in sorted(found, key=lambda item: (-item[0], *item[1:])):
            different.setdefault(context[start:end], (score, start, end))
        entries: list[Answer] = [
            {"answer": text, "start": start, "end": end, "score": score}
            for text, (score, start, end) in list(different.items())[: self.config.n_best]
        ]
        odds = null - entries[0]["score"] if entries else NEVER
        if self.config.no_answer or not entries:
            entries.append({"answer": "", "start": None, "end": None, "score": null})
            entries.sort(key=lambda entry: -entry["score"])
        scores = np.array([entry["score"] for entry in entries])
        weights = np.exp(scores - scores.max())
        for entry, share in zip(entries, (weights / weights.sum()).tolist(), strict=True):
            entry["score"] = share
        answer: Answer = {"answer": "", "start": None, "end": None, "score": 0.0, "n_best": entries}
        if self.config.no_answer:
            answer["null_odds"] = odds
        return self._decided(answer)

    def _decided(self, answer: Answer) -> Answer:
        """The answer by the threshold as it is now."""
        withheld = answer.get("null_odds", -NEVER) > self.config.threshold
        chosen = next((entry for entry in answer["n_best"] if not entry["answer"]), None) if withheld else None
        return {**answer, **(chosen or _given(answer))}

    def _scores(
        self, texts: Sequence[str], examples: Sequence[Example]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Exact match and F1 of each."""
        pairs = [
            self._scorer(example)([gold.text for gold in example.label], text)
            for text, example in zip(texts, examples, strict=True)
        ]
        exact, f1 = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
        return exact, f1

    def _scorer(self, example: Example) -> Scorer:
        if self.config.scorer == "cmrc":
            return SCORERS["cmrc"]
        return SCORERS["squad2" if self.config.no_answer or not example.label else "squad1"]


def _place(example: Example) -> str:
    """Where an example comes from; SQuAD's files are a single line, so the question is named too."""
    return f"{example.where}, question {example.fields['id']}" if "id" in example.fields else example.where


def _given(answer: Answer) -> Answer:
    """The best of an answer's entries that gives an answer; where there is none, the empty one."""
    entry: Answer = next((entry for entry in answer["n_best"] if entry["answer"]), answer["n_best"][0])
    return entry
