"""A smaller model out of a larger one: the layers, heads, feed-forward units, dimensions and pieces that stay."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bertsmith.core.errors import ConfigError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.extend import ROWS
from bertsmith.model.heads import Model

NARROW_DECODER = (
    "a model with layers that write (task.mode=decoder) has these as wide as its encoder's, and they cannot be cut; "
    "take out whole layers of the encoder: prune.layers=N, or student.layers=N"
)
LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")


INNER = ("pooler.", "encoder.final_norm.", "encoder.embeddings.norm.", "head.mlm.", "head.relate.dense.")
"""Beginnings of the names of parameters whose rows are dimensions of the residual stream."""
HEADS_OF_THEIR_OWN = ("head.crf.table", "head.span.types.weight", "head.span.types.bias")
"""Parameters that know nothing of the residual stream."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of a model; None keeps all. Numbers count from 0, ascending.

    Every layer keeps equally many heads and units, and the residual stream as many dimensions as its heads have
    together: Hugging Face's config has one number for each, and no other shape.

    Attributes:
        layers: numbers of layers.
        heads: for each kept layer the numbers of its heads.
        units: for each kept layer the numbers of its feed-forward units.
        dims: dimensions of the residual stream.
        pieces: ids of the vocabulary.
    """

    layers: Sequence[int] | None = None
    heads: Sequence[Sequence[int]] | None = None
    units: Sequence[Sequence[int]] | None = None
    dims: Sequence[int] | None = None
    pieces: Sequence[int] | None = None


def size(config: ModelConfig, heads: Heads) -> int:
    """How many parameters a model has.

    Args:
        config: its shape.
        heads: its heads.
    """
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Model(config, heads).parameters())


def shape_of(config: ModelConfig, kept: Kept) -> ModelConfig:
    """The shape of what stays.

    Args:
        config: of the whole model.
        kept: what stays of it.

    Raises:
        ConfigError: the heads and dimensions that stay make no shape that config.json can say, or layers of a
            ModernBERT, whose places decide how far they see.
    """
    changes: dict[str, Any] = {}
    if kept.layers is not None and list(kept.layers) != list(range(config.num_hidden_layers)):
        if config.modern and config.global_attention_every != 1:
            raise ConfigError(
                "layers of a modernbert with local attention cannot be taken out: which of them see far follows from "
                "their places; keep all layers, and fewer heads or units"
            )
        changes["num_hidden_layers"] = len(kept.layers)
    if kept.units is not None:
        changes["intermediate_size"] = len(kept.units[0])
    if kept.dims is not None:
        changes["hidden_size"] = len(kept.dims)
    if kept.heads is not None:
        changes["num_attention_heads"] = len(kept.heads[0])
    if kept.pieces is not None:
        changes["vocab_size"] = len(kept.pieces)
    shape = config.model_copy(update=changes)
    if shape.hidden_size != shape.num_attention_heads * config.head_size:
        raise ConfigError(
            f"{shape.num_attention_heads} heads of {config.head_size} and a width of {shape.hidden_size}: config.json "
            "has no such shape; keep as many dimensions as the heads have together"
        )
    return shape


@torch.no_grad()
def cut(model: Model, kept: Kept, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Take out of a model, in place, all that is not kept; its parameters stay the same objects, only smaller.

    Args:
        model: becomes a plain model of another shape.
        kept: what stays.
        optimizer: whose state for these parameters is cut alike.

    Raises:
        ConfigError: config.json has no such shape, or the model has layers that write; the model is untouched.
    """
    if model.heads.decoder and (kept.heads, kept.units, kept.dims) != (None, None, None):
        raise ConfigError(NARROW_DECODER)
    old, shape = model.config, shape_of(model.config, kept)
    if kept.layers is not None:
        model.encoder.layers = nn.ModuleList(model.encoder.layers[number] for number in kept.layers)
    for name, parameter in model.named_parameters():
        for axis, index in enumerate(_indices(name, kept, old)[: parameter.ndim]):
            if index is None:
                continue
            chosen = torch.as_tensor(index, device=parameter.device)
            state = {} if optimizer is None else optimizer.state.get(parameter, {})
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    state[key] = value.index_select(axis, chosen)
            parameter.data = parameter.data.index_select(axis, chosen)
        parameter.grad = None
    _tell_modules(model, shape)


def _indices(name: str, kept: Kept, old: ModelConfig) -> list[Sequence[int] | None]:
    """What stays of each axis of a parameter (of a vector only the first counts); None is all of it."""
    dims = kept.dims
    if found := LAYER.fullmatch(name):
        number, part = int(found[1]), found[2].rpartition(".")[0]
        heads = None if kept.heads is None else _repeated(range(old.head_size), old.head_size, kept.heads[number])
        units = None if kept.units is None else kept.units[number]
        # Of a gated layer the second half of the rows gates the first.
        rows = _repeated(units, old.intermediate_size, range(2)) if units is not None and old.modern else units
        axes: dict[str, list[Sequence[int] | None]] = {
            "attention.qkv": [None if heads is None else _repeated(heads, old.hidden_size, range(3)), dims],
            "attention.out": [dims, heads],
            "mlp.up": [rows, dims],
            "mlp.down": [dims, units],
        }
        return axes.get(part, [dims, dims])
    if name in ROWS:
        return [kept.pieces, dims]
    if name in HEADS_OF_THEIR_OWN:
        return [None, None]
    if name == "head.relate.dense.weight":
        return [dims, None if dims is None else _repeated(dims, old.hidden_size, range(2))]
    inner = name.startswith(INNER)
    return [dims if inner or "_transform." in name else None, dims]


def _repeated(index: Sequence[int], period: int, numbers: Sequence[int]) -> list[int]:
    """`index` within each of several blocks of `period` rows."""
    return [number * period + one for number in numbers for one in index]


def _tell_modules(model: Model, shape: ModelConfig) -> None:
    """Let modules that know their size know the new one."""
    model.config = model.encoder.config = shape
    for number, layer in enumerate(model.layers):
        layer.heads, layer.window = shape.num_attention_heads, shape.window(number)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.Embedding):
            module.num_embeddings, module.embedding_dim = module.weight.shape
        elif isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(module.weight.shape)
