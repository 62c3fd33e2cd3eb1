"""LoRA: beside a frozen matrix, the product of two narrow ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.core.errors import ConfigError
from bertsmith.model.config import ModelConfig
from bertsmith.model.dropout import dropout
from bertsmith.model.heads import Model
from bertsmith.peft.config import PeftConfig

# Our module in a layer, and which of the blocks stacked in it a target is.
TARGETS: dict[str, dict[str, tuple[str, int]]] = {
    "bert": {
        "query": ("attention.qkv", 0),
        "key": ("attention.qkv", 1),
        "value": ("attention.qkv", 2),
        "out": ("attention.out", 0),
        "up": ("mlp.up", 0),
        "down": ("mlp.down", 0),
    },
    "modernbert": {
        "qkv": ("attention.qkv", 0),
        "out": ("attention.out", 0),
        "up": ("mlp.up", 0),
        "down": ("mlp.down", 0),
    },
}
BLOCKS = {"bert": {"attention.qkv": 3}, "modernbert": dict[str, int]()}
"""Modules of a layer that hold several matrices one below the other, and how many."""


class Factors(nn.Module):
    """The change of one matrix: `scale * b @ a`, or with singular values `scale * b @ (e * a)`.

    Shape: `r` rank, `I` inputs, `O` outputs.

    Attributes:
        a: `[r, I]`.
        b: `[O, r]`.
        e: `[r, 1]`, or None.
        scale: what the product is multiplied by.
    """

    def __init__(self, a: Tensor, b: Tensor, e: Tensor | None, scale: float) -> None:
        """Take over the tensors."""
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)
        self.e = None if e is None else nn.Parameter(e)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """`[T, I]` to `[T, O]`."""
        narrow = self.a if self.e is None else self.a * self.e
        added: Tensor = F.linear(F.linear(x, narrow), self.b) * self.scale
        return added

    def change(self) -> Tensor:
        """What is added to the matrix, `[O, I]`."""
        narrow = self.a if self.e is None else self.a * self.e
        product: Tensor = self.b @ narrow * self.scale
        return product


class LowRank(nn.Linear):
    """A linear layer some of whose blocks of rows change by products of narrow matrices.

    Weight and bias keep their names, so the layer's state is that of `nn.Linear` and what its `parts` add.
    """

    def __init__(self, linear: nn.Linear, blocks: int, dropout: float) -> None:
        """Stand in for `linear`, whose weight holds `blocks` matrices one below the other."""
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.blocks, self.dropout = blocks, dropout
        self.places: dict[str, int] = {}
        self.parts = nn.ModuleDict()

    def forward(self, x: Tensor) -> Tensor:
        """`[T, I]` to `[T, O]`."""
        out = F.linear(x, self.weight, self.bias)
        x = dropout(x, self.dropout, self.training)
        added: dict[int, Tensor] = {self.places[name]: factors(x) for name, factors in self.parts.items()}
        if self.blocks == 1:
            return out + added[0]
        cut = out.chunk(self.blocks, dim=-1)
        return torch.cat([block + added[i] if i in added else block for i, block in enumerate(cut)], dim=-1)

    def merged(self) -> nn.Linear:
        """A plain layer that computes the same; its weight is a new tensor."""
        linear = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        weight = self.weight.detach().clone()
        for name, factors in self.parts.items():
            assert isinstance(factors, Factors)
            weight.chunk(self.blocks)[self.places[name]].add_(factors.change())
        linear.weight, linear.bias = nn.Parameter(weight), self.bias
        return linear


class LoRA:
    """Low-rank changes of some matrices; the second factor starts at zero.

    Source: Hu et al. 2021 (arXiv:2106.09685).
    """

    default: tuple[str, ...] = ("query", "value")

    def __init__(self, config: PeftConfig) -> None:
        """Keep the settings."""
        self.config = config

    def insert(self, model: Model, generator: torch.Generator, saved: Mapping[str, Tensor]) -> None:
        """See `Method.insert`."""

        def fresh(name: str, inputs: int, outputs: int, where: torch.device) -> Factors:
            rank = rank_of(saved, name, self.config.rank)
            bound = 1 / math.sqrt(inputs)  # what nn.Linear draws from
            a = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator).to(where)
            return Factors(a, torch.zeros(outputs, rank, device=where), None, self.config.alpha / self.config.rank)

        put_beside(model, self.config, self.default, fresh)

    def moves(self, name: str) -> bool:
        """The factors."""
        return ".parts." in name

    def merge(self, model: Model) -> None:
        """Add each change to its matrix."""
        for layer in model.layers:
            for path, module in list(layer.named_modules()):
                if isinstance(module, LowRank):
                    parent, _, leaf = path.rpartition(".")
                    setattr(layer.get_submodule(parent), leaf, module.merged())


def put_beside(
    model: Model, config: PeftConfig, default: tuple[str, ...], fresh: Callable[[str, int, int, torch.device], Factors]
) -> None:
    """Put factors beside the matrices that a config names, in every layer.

    Args:
        model: changed in place.
        config: names the targets.
        default: targets where it names none.
        fresh: makes factors, given their name, inputs, outputs and device.

    Raises:
        ConfigError: a target that the model's layers do not have.
    """
    for index, layer in enumerate(model.layers):
        for target in targets_of(model.config, config, default):
            module, block = TARGETS[model.config.architecture][target]
            parent, _, leaf = module.rpartition(".")
            linear = layer.get_submodule(module)
            blocks = BLOCKS[model.config.architecture].get(module, 1)
            if not isinstance(linear, LowRank):
                assert isinstance(linear, nn.Linear)
                linear = LowRank(linear, blocks, config.dropout)
                setattr(layer.get_submodule(parent), leaf, linear)
            name = f"encoder.layers.{index}.{module}.parts.{target}"
            linear.places[target] = block
            linear.parts[target] = fresh(name, linear.in_features, linear.out_features // blocks, linear.weight.device)


def rank_of(saved: Mapping[str, Tensor], name: str, default: int) -> int:
    """The rank of the factors `name` among tensors that were saved; `default` where they are not there."""
    return len(saved[f"{name}.a"]) if f"{name}.a" in saved else default


def targets_of(shape: ModelConfig, config: PeftConfig, default: tuple[str, ...]) -> tuple[str, ...]:
    """The matrices that change.

    Args:
        shape: of the encoder.
        config: names them, or not.
        default: those where it does not, in BERT's words.

    Raises:
        ConfigError: a matrix that layers of this shape do not have; says which they have.
    """
    known = TARGETS[shape.architecture]
    if not config.targets:
        own = tuple(name if name in known else "qkv" for name in default)
        return tuple(dict.fromkeys(own))
    if unknown := [name for name in config.targets if name not in known]:
        raise ConfigError(
            f"peft.targets: layers of {shape.architecture} have no matrix {', '.join(unknown)}; "
            f"they have {', '.join(known)}"
        )
    return tuple(dict.fromkeys(config.targets))


def factors_of(model: Model) -> Iterator[tuple[str, Factors]]:
    """All factors in a model, by name: `encoder.layers.0.attention.qkv.parts.query`."""
    for name, module in model.named_modules():
        if isinstance(module, Factors):
            yield name, module
