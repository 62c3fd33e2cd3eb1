"""Pretraining as a task: masked language model and pairs of sentences over a token store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from torch import Tensor

from bertsmith.core.config import Config, Count
from bertsmith.core.errors import DataError
from bertsmith.corpus.store import Store
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.generator import draws_of, generator_heads
from bertsmith.model.packing import Batch, pack_arrays
from bertsmith.tasks.base import Loss, check_length
from bertsmith.tasks.masking import Masker, Masking
from bertsmith.tasks.windows import Pairs, Passages, Windows, counter_rng, hold_out, plan
from bertsmith.tokenizer.load import Tokenizer

EVAL_RATE = 0.15
IGNORE = -100
DRAWS = 5
"""What the key of the numbers by which a generator draws has beside that of the masks."""


def _between(rate: float) -> float:
    if not 0 < rate < 1:
        raise ValueError("give more than 0, or nothing is to be predicted, and less than 1, or nothing is left to see")
    return rate


Rate = Annotated[float, AfterValidator(_between)]
Parts = Mapping[str, tuple[Tensor, Tensor | int]]
Objective = Literal["masked", "causal"]


class PretrainingConfig(Config):
    """What is hidden, paired and held out."""

    max_length: int = Field(128, ge=16, description="pieces of a full sequence, [CLS] and [SEP] included")
    objective: Literal["masked", "replaced"] = Field(
        "masked",
        description="masked: the encoder predicts hidden pieces; replaced: a small generator does, and the encoder "
        "tells which pieces are the generator's (ELECTRA)",
    )
    generator_size: float = Field(
        0.25, gt=0, le=1, description="replaced: width of the generator as a share of the encoder's, in whole heads"
    )
    rtd_weight: float = Field(
        50.0, gt=0, allow_inf_nan=False, description="replaced: what its loss is multiplied by beside the MLM loss"
    )
    masking: Masking = Field("subword", description="what is hidden together; evaluation always hides single pieces")
    mask_rate: Rate = Field(0.15, description="share of pieces to predict; evaluation always uses 0.15")
    mask_rate_end: Rate | None = Field(
        None, description="mask_rate moves evenly to this one over the run; not set: it stays"
    )
    pairs: Pairs = Field("nsp", description="beside the masked language model: next sentence, sentence order, or none")
    eval_share: float = Field(0.01, gt=0, le=0.5, description="share of the corpus held out, whole documents")
    eval_tokens: Count = Field(65_536, ge=1, description="hold out no more than about this many tokens")

    def rate(self, done: float) -> float:
        """The mask rate after a share `done` of the run, 0 to 1.

        Source: Ankner et al. 2024 (arXiv:2305.15096), who go from 0.30 to 0.15.
        """
        end = self.mask_rate if self.mask_rate_end is None else self.mask_rate_end
        return self.mask_rate + (end - self.mask_rate) * done


def replaced_token_loss(logits: Tensor, replaced: Tensor, *, live: bool) -> tuple[Tensor, Parts]:
    """Cross-entropy over all tokens of whether each was replaced.

    Args:
        logits: of being replaced, `[T]`.
        replaced: whether it was, `[T]` bool; a piece that was drawn and is the right one was not.
        live: false where nothing is to be learned, so that no token counts.

    Returns:
        The sum in nats, and `rtd_loss`, `rtd_accuracy`, `rtd_recall` (of the replaced, how many are found) and
        `rtd_replaced` (how many were), each a sum and its count.

    Source: Clark et al. 2020, section 2 (arXiv:2003.10555).
    """
    total = F.binary_cross_entropy_with_logits(logits.float(), replaced.float(), reduction="sum")
    said, count, many = logits.detach() > 0, len(logits) * live, replaced.sum() * live
    figures: dict[str, tuple[Tensor, Tensor | int]] = {
        "rtd_loss": (total.detach() * live, count),
        "rtd_accuracy": ((said == replaced).sum() * live, count),
        "rtd_recall": ((said & replaced).sum() * live, many),
        "rtd_replaced": (many, count),
    }
    return total, figures


class Pretraining:
    """Masked language model (80 % [MASK], 10 % random, 10 % unchanged, drawn anew each epoch) and pairs of texts.

    The pairs ask whether B follows A (`nsp`) or which of the two comes first (`sop`); both use the NSP head. With the
    objective `replaced`, what is hidden is filled by a small generator, which is the masked language model, and the
    encoder tells for each token whether it is the generator's.

    Shape: `T` packed tokens, `S` sequences, `M` masked positions, `K` as in `model.generator`.

    Source: Devlin et al. 2019, section 3.1 and appendix A.2 (arXiv:1810.04805); Lan et al. 2020, section 3.1
    (arXiv:1909.11942) for `sop`; Clark et al. 2020 (arXiv:2003.10555) for `replaced`. Differs: the generator's input is
    corrupted as BERT's is, and not always [MASK].
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
        self.masker = Masker(tokenizer)

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
        return plan(store, source, length=self.config.max_length, pairs=self.config.pairs, rng=counter_rng(*key))

    def encode(
        self,
        store: Store,
        windows: Windows,
        *key: int,
        rate: float = EVAL_RATE,
        masking: Masking = "subword",
        objective: Objective = "masked",
        parts: int = 1,
    ) -> list[Batch]:
        """Read windows, add the special tokens, choose what to predict and corrupt it.

        Rate, masking and objective are those of evaluation unless the caller says otherwise. What is masked, what a
        generator draws and how the losses are weighed does not depend on `parts`. The causal objective hides nothing:
        each token sees what stands before it and predicts the piece after it, and no pair can be judged.

        Args:
            store: the tokens.
            windows: the S sequences of the step.
            key: seed and step; the result is a pure function of it.
            rate: share of pieces to predict; 1 for all, where the objective is causal.
            masking: what is hidden together.
            objective: predict what is hidden, or what comes next.
            parts: cut the step into so many batches (gradient accumulation).

        Returns:
            Batches with `mlm_positions` `[M]`, `mlm_labels` `[M]` and, with pairs, `nsp_labels` `[S]` (0: B follows,
            1: B is random or the two are swapped, -100: no B) and `nsp_weight`, by which all pairs count as much as all
            masked pieces. Where pieces are to be replaced, also `mlm_draws` `[M, 2 K]`, the random numbers of the
            generator, and `rtd_weight`, by which all tokens count `rtd_weight` times as much as all masked pieces.
        """
        lengths = windows.lengths
        causal = objective == "causal"
        ids, segments, starts = self._read(store, windows, words=masking != "subword" and not causal)
        if causal:
            positions, labels = self.masker.following(ids, *key, share=rate)
        else:
            ids, positions, labels = self.masker(ids, lengths, *key, rate=rate, masking=masking, word_starts=starts)
        judged = (windows.length_b > 0) & (not causal)
        pairs = np.where(judged, windows.is_negative.astype(np.int64), IGNORE)
        weight = torch.tensor(len(positions) / max(1, int((pairs != IGNORE).sum())), dtype=torch.float32)
        replaced = self.config.objective == "replaced"
        if replaced:
            numbers = counter_rng(*key, DRAWS).random((len(positions), draws_of(self.tokenizer.vocab_size)), np.float32)
            share = torch.tensor(self.config.rtd_weight * len(positions) / len(ids), dtype=torch.float32)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        parts = min(parts, len(lengths))
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
            if self.config.pairs != "none":
                targets |= {"nsp_labels": torch.from_numpy(pairs[first:stop]), "nsp_weight": weight}
            if replaced:
                targets |= {"mlm_draws": torch.from_numpy(numbers[chosen]), "rtd_weight": share}
            packed = ids[begin:end], segments[begin:end], lengths[first:stop]
            batches.append(pack_arrays(*packed, targets, causal=causal))
        return batches

    def head(self, model_config: ModelConfig) -> Heads:
        """MLM, or what finds replaced tokens with its generator, and the NSP head when the config has pairs.

        A model without token types tells A from B by [SEP] alone.

        Raises:
            ConfigError: the model has fewer positions than `max_length`.
        """
        check_length(self.config.max_length, model_config)
        nsp = self.config.pairs != "none"
        if self.config.objective == "masked":
            return Heads(mlm=True, nsp=nsp)
        return Heads(rtd=True, generator=generator_heads(model_config, self.config.generator_size), nsp=nsp)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Mean loss of pieces plus mean losses of tokens and pairs, as a sum over predicted pieces and their number.

        The figures are `mlm_…` for what was hidden, `clm_…` for what comes next, `rtd_…` for what was replaced, and
        `nsp_…` or `sop_…`.
        """
        losses, hits = outputs["mlm_losses"], outputs["mlm_hits"]
        count = len(losses)
        total = losses.sum()
        name = "clm" if batch.causal else "mlm"
        parts: dict[str, tuple[Tensor, Tensor | int]] = {
            f"{name}_loss": (total.detach(), count),
            f"{name}_accuracy": (hits.sum(), count),
        }
        if "rtd_weight" in batch.targets:
            rtd, found = replaced_token_loss(outputs["rtd"], outputs["replaced"], live=count > 0)
            total = total + rtd * batch.targets["rtd_weight"]
            parts |= found
        if "nsp_labels" in batch.targets:
            logits, labels = outputs["nsp"].float(), batch.targets["nsp_labels"]
            nsp = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum")
            if not batch.causal:
                count_pairs = (labels != IGNORE).sum()
                parts[f"{self.config.pairs}_loss"] = (nsp.detach(), count_pairs)
                parts[f"{self.config.pairs}_accuracy"] = ((logits.detach().argmax(-1) == labels).sum(), count_pairs)
            # Without a pair to judge this adds nothing, but every rank's head takes part in every step.
            total = total + nsp * batch.targets["nsp_weight"]
        return Loss(total, count, parts)

    def decode(self, outputs: Sequence[Parts]) -> list[dict[str, tuple[float, int]]]:
        """The figures of each evaluated batch, as sums and counts on the host."""
        return [{name: (float(total), int(count)) for name, (total, count) in parts.items()} for parts in outputs]

    def score(self, answers: Sequence[Mapping[str, tuple[float, int]]]) -> dict[str, float]:
        """Means over everything evaluated; a figure to which nothing counts, such as NSP without a pair, is absent."""
        counts = {name: sum(answer[name][1] for answer in answers) for name in (answers[0] if answers else ())}
        return {name: sum(answer[name][0] for answer in answers) / count for name, count in counts.items() if count}

    def _read(
        self, store: Store, windows: Windows, words: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_] | None]:
        """Packed ids and segments, and word starts if asked for: `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`.

        Returns:
            `[T]` each; special tokens start no word.
        """
        # Two runs a sequence, `[CLS] A [SEP]` and `B [SEP]`; a run's tokens lie side by side here and in the store.
        texts = np.stack([windows.cut - windows.start, windows.length_b], axis=1)
        runs = (texts + np.where(texts > 0, [2, 1], 0)).ravel()
        ends = np.cumsum(runs)
        origin = np.stack([windows.start - 1, windows.other], axis=1).ravel()
        source = np.arange(int(ends[-1])) + np.repeat(origin - ends + runs, runs)
        special = np.concatenate([ends[::2] - runs[::2], ends[runs > 0] - 1])
        source[special] = 0
        ids = store.gather(source)
        ids[special] = self.tokenizer.sep_id
        ids[special[: len(windows)]] = self.tokenizer.cls_id
        segments = np.repeat(np.arange(len(runs)) % 2, runs)
        if not words:
            return ids, segments, None
        starts = store.gather_word_starts(source)
        starts[special] = False
        return ids, segments, starts
