"""A teacher beside any task's loss: a student learns to answer, to see and to attend as a larger model does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model, Taps
from bertsmith.model.packing import Batch
from bertsmith.model.pointer import Ends
from bertsmith.tasks.base import Loss
from bertsmith.train.loop import Learnable

Pair = Literal["qk", "qq", "kk", "vv"]
PLACE = {"q": 0, "k": 1, "v": 2}


class TeachConfig(Config):
    """How much each lesson weighs, for each target of the task."""

    task: float = Field(0.5, ge=0, description="weight of the task's own loss, from the labels")
    logits: float = Field(1.0, ge=0, description="weight of answering as the teacher does")
    temperature: float = Field(2.0, gt=0, description="by which scores are divided before they are compared")
    hidden: float = Field(1.0, ge=0, description="weight of giving the teacher's hidden states, layer by layer")
    relations: float = Field(0.0, ge=0, description="weight of attending as the teacher's layer does (MiniLM)")
    pairs: tuple[Pair, ...] = Field(
        ("qq", "kk", "vv"), description="relations between what: qq, kk, vv (MiniLMv2), qk, vv (MiniLM)"
    )
    relation_heads: int | None = Field(
        None, ge=1, description="heads into which queries, keys and values are cut for that; the student's by default"
    )
    relation_layer: int | None = Field(
        None,
        ge=1,
        description="the teacher's layer for that, from 1; the last by default, an upper middle one suits 24",
    )


class TextTeachConfig(TeachConfig):
    """The same where raw text is what is learned from."""

    task: float = Field(1.0, ge=0, description="weight of the losses of hidden pieces and of pairs")
    logits: float = Field(0.0, ge=0, description="weight of scoring pieces as the teacher does")
    hidden: float = Field(0.0, ge=0, description="weight of giving the teacher's hidden states, layer by layer")
    relations: float = Field(1.0, ge=0, description="weight of attending as the teacher's layer does (MiniLM)")


@dataclass
class Taught:
    """A task whose loss also says how far the student is from its teacher.

    Losses are means over a batch, times its number of targets.

    Attributes:
        task: the task.
        teacher: a model with the task's heads and the student's vocabulary, in eval mode.
        config: the weights.
        layers: for each of the student's layers the number of the teacher's that it follows, from 1.
        dims: which of the teacher's dimensions the student has; None: all.
        dtype: of the teacher's matrix products.

    Source: Hinton et al. 2015 (arXiv:1503.02531) for logits; Jiao et al. 2020 (arXiv:1909.10351) for hidden states,
    here without a learned projection: a narrower student follows the dimensions that it was cut from; Wang et al. 2020
    (arXiv:2002.10957) and 2021 (arXiv:2012.15828) for relations.
    """

    task: Learnable
    teacher: Model
    config: TeachConfig
    layers: Sequence[int]
    dims: Sequence[int] | None = None
    dtype: torch.dtype = torch.float32
    joint: bool = field(init=False)

    def __post_init__(self) -> None:
        """Whether the sequences of a step are compared with each other is the task's to say."""
        self.joint = getattr(self.task, "joint", False)

    def ready(self, student: Model) -> None:
        """Let the student show what is compared; to be called again when it has become smaller.

        Args:
            student: with `layers` as many layers.

        Raises:
            ConfigError: its width, or the teacher's, cannot be cut into so many heads.
        """
        last = student.config.num_hidden_layers
        heads = self.config.relation_heads or student.config.num_attention_heads
        if self.config.relations and (student.config.hidden_size % heads or self.teacher.config.hidden_size % heads):
            raise ConfigError(
                f"distil.relation_heads: widths {student.config.hidden_size} and {self.teacher.config.hidden_size} "
                f"cannot both be cut into {heads} heads; choose a number that divides both"
            )
        if (self.config.relation_layer or 1) > self.teacher.config.num_hidden_layers:
            raise ConfigError(
                f"distil.relation_layer is {self.config.relation_layer}, but the teacher has "
                f"{self.teacher.config.num_hidden_layers} layers"
            )
        if self.config.logits and student.heads.mlm and not self.teacher.heads.mlm:
            raise ConfigError("distil.logits: this teacher scores no pieces (it has no MLM head); set distil.logits=0")
        pieces = bool(self.config.logits)
        student.taps = Taps(tuple(range(1, last + 1)) * bool(self.config.hidden), (last,) * self._relates, pieces)

    @property
    def _relates(self) -> bool:
        return self.config.relations > 0

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """The task's loss, and those of the lessons; each is among the parts under its own name."""
        config, own = self.config, self.task.loss(outputs, batch)
        above = config.relation_layer or self.teacher.config.num_hidden_layers
        hidden = dict(enumerate(self.layers, 1)) if config.hidden else {}
        taps = Taps(tuple(dict.fromkeys(hidden.values())), (above,) * self._relates)
        seen = replace(batch, targets={name: value for name, value in batch.targets.items() if name != "mlm_labels"})
        low = self.dtype != torch.float32
        with torch.no_grad(), torch.autocast(batch.input_ids.device.type, self.dtype, enabled=low):
            theirs = self.teacher.outputs(seen, taps)
        found: dict[str, Tensor] = {}
        if config.logits:
            found["logits"] = answers_apart(outputs, theirs, batch, config.temperature, multi=self.teacher.heads.multi)
        if hidden:
            gaps = [self._hidden(outputs[f"hidden.{n}"], theirs[f"hidden.{number}"]) for n, number in hidden.items()]
            found["hidden"] = torch.stack(gaps).mean()
        if self._relates:
            mine = outputs[f"qkv.{len(self.layers)}"]
            heads = config.relation_heads or mine.shape[2]
            found["relations"] = relations_apart(mine, theirs[f"qkv.{above}"], batch.lengths, config.pairs, heads)
        parts = dict(own.parts) | {"task_loss": (own.total.detach(), own.count)}
        total = config.task * own.total
        for name, gap in found.items():
            total = total + getattr(config, name) * gap * own.count
            parts[name] = (gap.detach() * own.count, own.count)
        return Loss(total, own.count, parts)

    def _hidden(self, mine: Tensor, theirs: Tensor) -> Tensor:
        if self.dims is not None:
            theirs = theirs[:, torch.as_tensor(self.dims, device=theirs.device)]
        return F.mse_loss(mine.float(), theirs.float())


def answers_apart(
    mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], batch: Batch, temperature: float, *, multi: bool = False
) -> Tensor:
    """How far the student's answers are from the teacher's, over all heads that both have.

    Classes and pieces by the divergence of their probabilities, times the temperature squared; where several classes
    may hold at once, by the sum of that of each; answers in a text by that of starts and of ends; numbers, how well
    choices fit and the scores of stretches by the squared error; vectors by the squared error of their cosines among
    each other, so that they may differ in width.

    Args:
        mine: outputs of the student.
        theirs: outputs of the teacher.
        batch: what was read.
        temperature: by which scores are divided.
        multi: `classify` or `mean` has a yes or no for each class.
    """
    gaps = []
    for name in ("classify", "mean", "tag", "span", "relate", "answer", "choose", "nsp", "mlm", "next", "embed"):
        if name not in mine or name not in theirs:
            continue
        one, other = mine[name].float(), theirs[name].float()
        if name == "embed":
            gaps.append(F.mse_loss(_cosines(one), _cosines(other)))
        elif name == "answer":
            runs = zip(one.split(list(batch.lengths)), other.split(list(batch.lengths)), strict=True)
            gaps.append(torch.stack([_divergence(a.T, b.T, temperature) for a, b in runs]).mean())
        elif name == "span":
            runs = zip(one.split(list(batch.lengths)), other.split(list(batch.lengths)), strict=True)
            gaps.append(torch.stack([_stretches_apart(a, b) for a, b in runs]).mean())
        elif name in ("classify", "mean") and multi:
            one, other = (torch.stack([x, torch.zeros_like(x)], -1).flatten(0, 1) for x in (one, other))
            gaps.append(_divergence(one, other, temperature) * theirs[name].shape[1])
        elif one.shape[1] == 1:
            gaps.append(F.mse_loss(one, other))
        elif len(one):
            gaps.append(_divergence(one, other, temperature))
    return torch.stack(gaps).sum() if gaps else torch.zeros((), device=batch.input_ids.device)


def _divergence(mine: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Mean divergence of rows of scores `[n, C]` from those of the teacher."""
    mine, theirs = (torch.log_softmax(x / temperature, -1) for x in (mine, theirs))
    return F.kl_div(mine, theirs, reduction="batchmean", log_target=True) * temperature**2


def _stretches_apart(mine: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared error of the scores of all stretches of one sequence, from what `pointer.Pointer` gives."""
    gap = (Ends.of(mine).scores() - Ends.of(theirs).scores()).triu().square()
    return gap.sum() / (len(gap) * len(mine) * (len(mine) + 1) / 2)


def _cosines(x: Tensor) -> Tensor:
    x = F.normalize(x, dim=-1)
    return x @ x.T


def relations_apart(mine: Tensor, theirs: Tensor, lengths: Sequence[int], pairs: Sequence[str], heads: int) -> Tensor:
    """How differently two layers relate the tokens of each sequence to each other.

    A relation is the softmax of scaled products between all tokens of a sequence; the divergence is a mean over pairs,
    heads and tokens. The layers may differ in width and in heads.

    Args:
        mine: queries, keys and values of the student, `[T, 3, A, D]`.
        theirs: of the teacher, `[T, 3, A', D']`.
        lengths: of the sequences.
        pairs: between what, such as `qq`.
        heads: into how many parts both widths are cut.
    """
    total = mine.new_zeros((), dtype=torch.float32)
    runs = [(length, sum(1 for _ in group)) for length, group in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    for a, b, (length, count) in zip(mine.split(sizes), theirs.split(sizes), runs, strict=True):
        # [n, L, 3, A, D] to [3, n, heads, L, width]
        one, other = (x.flatten(2).float().view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4) for x in (a, b))
        for pair in pairs:
            first, second = PLACE[pair[0]], PLACE[pair[1]]
            logs = [
                torch.log_softmax(x[first] @ x[second].transpose(-1, -2) * x.shape[-1] ** -0.5, -1)
                for x in (one, other)
            ]
            total = total + F.kl_div(logs[0], logs[1], reduction="sum", log_target=True)
    return total / (len(pairs) * heads * sum(lengths))
