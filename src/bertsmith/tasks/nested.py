"""Spans as pairs of words, first and last: they may lie inside each other and overlap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bertsmith.model.config import Heads
from bertsmith.model.packing import Batch
from bertsmith.model.pointer import Ends, pointer_loss
from bertsmith.tasks.annotations import Span, touched_words
from bertsmith.tasks.base import Answer, Example, Loss, Outputs
from bertsmith.tasks.word_windows import Window, Words


@dataclass(frozen=True)
class Nested:
    """A score for each type and each pair of words that a span could begin and end with.

    Attributes:
        labels: the types, in the order of the head's outputs.

    Source: Su et al. 2022 (arXiv:2208.03054), read from the first pieces of words.
    """

    labels: tuple[str, ...]
    shared = True
    """Windows answer for every word that they show, since spans cross the places at which words change hands."""

    @staticmethod
    def outputs(types: Sequence[str]) -> tuple[str, ...]:
        """The types as they are."""
        return tuple(types)

    @property
    def types(self) -> set[str]:
        """What a span may be."""
        return set(self.labels)

    @property
    def heads(self) -> Heads:
        """One output a type and pair of places."""
        return Heads(span=len(self.labels))

    def refusal(self, spans: Sequence[Span]) -> str | None:
        """All `spans` can be learned."""
        return None

    def with_targets(self, windows: Sequence[Window], spans: Sequence[Span], words: Words) -> tuple[list[Window], int]:
        """The windows of one text, each with the gold spans that it shows whole, and how many spans cut words."""
        wanted, inexact = [], 0
        for span in spans:
            touched = touched_words(span, words)
            if touched:
                wanted.append((touched[0], touched[-1], self.labels.index(span.type)))
            inexact += not touched or (words[touched[0]][0], words[touched[-1]][1]) != (span.start, span.end)
        found = []
        for window in windows:
            place = {word: number for number, word in enumerate(window.owned.tolist())}
            gold = [(place[a], place[b], kind) for a, b, kind in wanted if a in place and b in place]
            word = np.zeros(len(window.input_ids), np.int64)
            word[window.positions] = 1
            pairs = np.array(gold, np.int64).reshape(-1, 3)
            found.append(replace(window, targets={"word": word, "span": pairs, "spans": len(pairs)}))
        return found, inexact

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """What each window and type costs; see `model.pointer.pointer_loss`."""
        word, device = batch.targets["word"].bool(), outputs["span"].device
        counts = torch.stack([part.sum() for part in word.split(list(batch.lengths))])
        packed = pad_sequence(outputs["span"][word].float().split(counts.tolist()), batch_first=True)
        packed = packed if packed.shape[1] else F.pad(packed, (0, 0, 0, 1))
        scores = Ends.of(packed).scores()
        gold = torch.zeros_like(scores, dtype=torch.bool)
        window = torch.repeat_interleave(torch.arange(len(counts), device=device), batch.targets["spans"])
        first, last, kind = batch.targets["span"].T
        gold[window, kind, first, last] = True
        there = torch.arange(packed.shape[1], device=device) < counts[:, None]
        allowed = (there[:, None, :, None] & there[:, None, None, :]).triu()
        return Loss(pointer_loss(scores, gold, allowed).sum(), len(counts) * len(self.labels))

    def decode(
        self, outputs: Sequence[Outputs], windows: Sequence[Window], examples: Sequence[Example]
    ) -> Iterator[Answer]:
        """The spans with a score above 0, each from the window that shows most on both sides of it."""
        mine: list[list[tuple[Outputs, Window]]] = [[] for _ in examples]
        for output, window in zip(outputs, windows, strict=True):
            mine[window.example].append((output, window))
        for example, parts in zip(examples, mine, strict=True):
            text = example.fields["text"]
            entities = [
                {"start": start, "end": end, "type": kind, "text": text[start:end], "score": score}
                for start, end, kind, score in sorted(self._spans(parts), key=lambda one: (one[0], -one[1], one[2]))
            ]
            yield {"text": text, "entities": entities}

    def scores(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """None but the strict ones: `conlleval` knows no nested spans."""
        return {}

    def _spans(self, parts: Sequence[tuple[Outputs, Window]]) -> Iterator[tuple[int, int, str, float]]:
        words = parts[0][1].words
        # Where each word stands in each window, and how much follows it there; -1 where it is not shown.
        before = np.full((len(parts), len(words)), -1)
        after = before.copy()
        for number, (_, window) in enumerate(parts):
            before[number, window.owned] = window.positions
            after[number, window.owned] = len(window) - 1 - window.positions
        for number, (output, window) in enumerate(parts):
            with torch.inference_mode():
                scores = Ends.of(torch.from_numpy(output["span"][window.positions]).float()).scores().triu().numpy()
            kinds, first, last = np.nonzero(scores > 0)
            a, b = window.owned[first], window.owned[last]
            best = np.minimum(before[:, a], after[:, b]).argmax(axis=0)
            chance = 1 / (1 + np.exp(-scores[kinds, first, last].astype(np.float64)))
            for kind, i, j, score in zip(
                kinds[best == number], a[best == number], b[best == number], chance[best == number], strict=True
            ):
                yield words[i][0], words[j][1], self.labels[kind], float(score)
