"""Pretraining as a task: masked language model and next sentence prediction over a token store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config, Count
from bertsmith.core.errors import DataError
from bertsmith.corpus.store import Store
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.packing import Batch, pack_arrays
from bertsmith.tasks.base import Loss, check_length
from bertsmith.tasks.windows import Passages, Windows, counter_rng, hold_out, plan
from bertsmith.tokenizer.load import Tokenizer

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
EVAL_RATE = 0.15
IGNORE = -100

Parts = Mapping[str, tuple[Tensor, Tensor | int]]


class PretrainingConfig(Config):
    """What is hidden, paired and held out."""

    max_length: int = Field(128, ge=16, description="pieces of a full sequence, [CLS] and [SEP] included")
    mask_rate: float = Field(0.15, gt=0, lt=1, description="share of pieces to predict; evaluation always uses 0.15")
    nsp: bool = Field(True, description="next sentence prediction beside the masked language model")
    eval_share: float = Field(0.01, gt=0, le=0.5, description="share of the corpus held out, whole documents")
    eval_tokens: Count = Field(65_536, ge=1, description="hold out no more than about this many tokens")


class Pretraining:
    """Masked language model (80 % [MASK], 10 % random, 10 % unchanged, drawn anew each epoch) and NSP.

    Shape: `T` packed tokens, `S` sequences, `M` masked positions.

    Source: Devlin et al. 2019, section 3.1 and appendix A.2 (arXiv:1810.04805).
    """

    name = "pretraining"
    headline = "mlm_accuracy"
    labels: tuple[str, ...] = ()

    def __init__(self, tokenizer: Tokenizer, config: PretrainingConfig | None = None) -> None:
        """Build the task.

        Args:
            tokenizer: the one that made the store.
            config: what is hidden, paired and held out.
        """
        self.tokenizer, self.config = tokenizer, config or PretrainingConfig()
        # Random replacements are real pieces: neither a special token nor an [unused…] slot.
        special = {tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id}
        self._real = np.array(
            [i for i, token in enumerate(tokenizer.tokens) if i not in special and not token.startswith("[unused")],
            dtype=np.int64,
        )

    def rows(self, store: Store) -> tuple[Passages, Passages]:
        """Passages of a store to learn from, and those held out.

        Raises:
            DataError: the store was made with another tokenizer, or is too small to hold anything out.
        """
        if store.manifest["tokenizer"] != self.tokenizer.hash:
            raise DataError(
                f"{store.path}: made with another vocabulary than this one; prepare the text again, "
                "or give the vocabulary that it was made with"
            )
        return hold_out(store, self.config.eval_share, self.config.eval_tokens)

    def plan(self, store: Store, source: Passages, *key: int) -> Windows:
        """One epoch's sequences; a pure function of the store and `key`."""
        return plan(store, source, length=self.config.max_length, pairs=self.config.nsp, rng=counter_rng(*key))

    def encode(
        self, store: Store, windows: Windows, *key: int, rate: float | None = None, parts: int = 1
    ) -> list[Batch]:
        """Read windows, add the special tokens, choose what to predict and corrupt it.

        What is masked and how the two losses are weighed does not depend on `parts`.

        Args:
            store: the tokens.
            windows: the S sequences of the step.
            key: seed and step; the result is a pure function of it.
            rate: share of pieces to predict; the config's by default.
            parts: cut the step into so many batches (gradient accumulation).

        Returns:
            Batches with `mlm_positions` `[M]`, `mlm_labels` `[M]` and, with NSP, `nsp_labels` `[S]` (0: B follows,
            1: B is random, -100: no B) and `nsp_weight`, by which all pairs count as much as all masked pieces.
        """
        lengths = windows.lengths
        ids, segments = self._read(store, windows, lengths)
        ids, positions, labels = self.mask(ids, lengths, self.config.mask_rate if rate is None else rate, *key)
        pairs = np.where(windows.length_b > 0, windows.is_random.astype(np.int64), IGNORE)
        weight = torch.tensor(len(positions) / max(1, int((pairs != IGNORE).sum())), dtype=torch.float32)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        bounds = [len(lengths) * part // parts for part in range(parts + 1)]
        batches = []
        for first, stop in pairwise(bounds):
            if first == stop:
                continue
            begin, end = int(ends[first]), int(ends[stop])
            chosen = slice(*np.searchsorted(positions, [begin, end]).tolist())
            targets = {
                "mlm_positions": torch.from_numpy(positions[chosen] - begin),
                "mlm_labels": torch.from_numpy(labels[chosen]),
            }
            if self.config.nsp:
                targets |= {"nsp_labels": torch.from_numpy(pairs[first:stop]), "nsp_weight": weight}
            batches.append(pack_arrays(ids[begin:end], segments[begin:end], lengths[first:stop], targets))
        return batches

    def head(self, model_config: ModelConfig) -> Heads:
        """MLM, and NSP when the config has it; a model without token types tells A from B by [SEP] alone.

        Raises:
            ConfigError: the model has fewer positions than `max_length`.
        """
        check_length(self.config, self.config.max_length, model_config)
        return Heads(mlm=True, nsp=self.config.nsp)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Mean MLM loss plus mean NSP loss, as a sum over masked positions and their number."""
        losses, hits = outputs["mlm_losses"], outputs["mlm_hits"]
        count = len(losses)
        total = losses.sum()
        parts: dict[str, tuple[Tensor, Tensor | int]] = {
            "mlm_loss": (total.detach(), count),
            "mlm_accuracy": (hits.sum(), count),
        }
        if "nsp" in outputs:
            logits, labels = outputs["nsp"].float(), batch.targets["nsp_labels"]
            nsp = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
            pairs = (labels != IGNORE).sum()
            parts["nsp_loss"] = (nsp.detach(), pairs)
            parts["nsp_accuracy"] = ((logits.detach().argmax(-1) == labels).sum(), pairs)
            total = total + nsp * batch.targets["nsp_weight"]
        return Loss(total, count, parts)

    def decode(self, outputs: Sequence[Parts]) -> list[dict[str, tuple[float, int]]]:
        """The figures of each evaluated batch, as sums and counts on the host."""
        return [{name: (float(total), int(count)) for name, (total, count) in parts.items()} for parts in outputs]

    def score(self, answers: Sequence[Mapping[str, tuple[float, int]]]) -> dict[str, float]:
        """Means over everything evaluated; a figure to which nothing counts, such as NSP without a pair, is absent."""
        counts = {name: sum(answer[name][1] for answer in answers) for name in (answers[0] if answers else ())}
        return {name: sum(answer[name][0] for answer in answers) / count for name, count in counts.items() if count}

    def mask(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], rate: float, *key: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Choose pieces to predict and corrupt them: 80 % [MASK], 10 % a random piece, 10 % unchanged.

        Args:
            ids: packed ids `[T]`; [CLS], [SEP] and [PAD] are never chosen.
            lengths: of the sequences, `[S]`.
            rate: share of each sequence's eligible pieces, rounded, at least one; 0 < rate < 1.
            key: seed and step.

        Returns:
            The corrupted ids `[T]`, the chosen positions `[M]` in order, and their original ids `[M]`.
        """
        rng = counter_rng(*key)
        tokenizer = self.tokenizer
        eligible = (ids != tokenizer.cls_id) & (ids != tokenizer.sep_id) & (ids != tokenizer.pad_id)
        sequence = np.repeat(np.arange(len(lengths)), lengths)
        counts = np.bincount(sequence[eligible], minlength=len(lengths))
        wanted = np.minimum(counts, np.maximum(1, np.rint(counts * rate).astype(np.int64)))
        # The `wanted` smallest of one random number a piece: an exact count from each sequence, without a loop.
        order = np.argsort(2 * sequence + np.where(eligible, rng.random(len(ids)), 1.0), kind="stable")
        rank = np.arange(len(ids)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        positions = np.sort(order[rank < np.repeat(wanted, lengths)])
        labels = ids[positions]
        fate = rng.random(len(positions))
        replacement = self._real[(rng.random(len(positions)) * len(self._real)).astype(np.int64)]
        corrupted = ids.copy()
        corrupted[positions] = np.where(
            fate < MASK_SHARE,
            tokenizer.mask_id,
            np.where(fate < MASK_SHARE + RANDOM_SHARE, replacement, labels),
        )
        return corrupted, positions, labels

    def _read(
        self, store: Store, windows: Windows, lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Packed ids and segments, `[T]` each: `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`."""
        ids = np.empty(int(lengths.sum()), np.int64)
        segments = np.zeros(len(ids), np.int64)
        at = 0
        columns = (windows.start, windows.cut, windows.other, windows.length_b)
        for start, cut, other, length_b in zip(*(column.tolist() for column in columns), strict=True):
            ids[at] = self.tokenizer.cls_id
            at += 1
            ids[at : at + cut - start] = store.read(start, cut)
            at += cut - start
            ids[at] = self.tokenizer.sep_id
            at += 1
            if length_b:
                ids[at : at + length_b] = store.read(other, other + length_b)
                ids[at + length_b] = self.tokenizer.sep_id
                segments[at : at + length_b + 1] = 1
                at += length_b + 1
        return ids, segments
