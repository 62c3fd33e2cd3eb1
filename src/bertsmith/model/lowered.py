"""An encoder's layers in bf16, to answer on a CPU: weights laid out once, sums and activations in the products."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.model.attention import attend, rotate
from bertsmith.model.encoder import ACTIVATIONS, Encoder, Layer, padded
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch

LOW = torch.bfloat16
FUSED = {"gelu": "none", "gelu_new": "tanh"}
"""Activations that oneDNN computes inside a matrix product, by its word for the kind of GELU."""


def is_plain(encoder: Encoder) -> bool:
    """Whether all layers of an encoder are plain: none learned adapters, a prefix or parametrised weights."""
    plain = (nn.Linear, nn.LayerNorm, nn.Identity)
    return encoder.first_position == 0 and all(
        isinstance(layer, Layer)
        and layer.attention_adapter is None
        and layer.mlp_adapter is None
        and layer.prefix is None
        and all(type(part) in plain for part in layer.modules() if not list(part.children()))
        for layer in encoder.layers
    )


def lower(model: Model) -> Model:
    """A model that shares embeddings and heads with `model`, and whose layers compute in bf16.

    Args:
        model: on the CPU, its encoder `is_plain`; not changed.

    Returns:
        A model for inference only. Hidden states that leave its encoder are fp32 again, as its heads are.
    """
    encoder = copy.copy(model.encoder)
    encoder._modules = dict(encoder._modules)
    encoder.stream = LOW
    encoder.layers = nn.ModuleList(LoweredLayer(layer) for layer in model.layers)
    return with_encoder(model, encoder)


def with_encoder(model: Model, encoder: nn.Module) -> Model:
    """A model for inference that shares the heads of `model` and has another encoder; `model` is not changed.

    Args:
        model: whose heads are wanted.
        encoder: takes a Batch to hidden states `[T, H]` in fp32, and has `embeddings` as the old one.
    """
    other = copy.copy(model)
    other._modules = dict(model._modules)
    other._modules["encoder"] = encoder
    return other.eval()


class LoweredLayer(nn.Module):
    """A `Layer` that only answers."""

    def __init__(self, layer: Layer) -> None:
        """Copy the weights of `layer` in bf16."""
        super().__init__()
        self.pre_norm, self.window = layer.pre_norm, layer.window
        self.heads, self.head_size = layer.heads, layer.head_size
        self.attention_norm = copy.deepcopy(layer.attention_norm).to(LOW)
        self.mlp_norm = copy.deepcopy(layer.mlp_norm).to(LOW)
        self.qkv, self.out = Product(layer.attention.qkv), Product(layer.attention.out)
        mlp = layer.mlp
        self.gated, self.activation = mlp.gated, mlp.activation
        self.up = Product(mlp.up, None if mlp.gated else mlp.activation_name)
        self.down = Product(mlp.down)

    def forward(self, x: Tensor, batch: Batch, rotary: Tensor | None, memory: None = None) -> Tensor:
        """`[T, H]` to `[T, H]`, bf16; keeps no keys and values."""
        qkv = self.qkv(self.attention_norm(x) if self.pre_norm else x).view(-1, 3, self.heads, self.head_size)
        qkv = qkv if rotary is None else rotate(qkv, rotary)
        qkv, rows = qkv[: batch.num_tokens], len(qkv)
        context = attend(
            qkv, batch.cu_seqlens, batch.max_seqlen, batch.lengths, window=self.window, causal=batch.causal
        )
        x = self.out.onto(x, padded(context, rows).flatten(1))
        x = x if self.pre_norm else self.attention_norm(x)
        inner = self.up(self.mlp_norm(x) if self.pre_norm else x)
        if self.gated:
            inner, gate = inner.chunk(2, dim=-1)
            inner = self.activation(inner) * gate
        x = self.down.onto(x, inner)
        return x if self.pre_norm else cast(Tensor, self.mlp_norm(x))


class Product(nn.Module):
    """A linear layer in bf16, through oneDNN's fused operators where this torch has them."""

    def __init__(self, linear: nn.Linear, activation: str | None = None) -> None:
        """Lay out the weight of `linear`; `activation` is applied to what comes out of it."""
        super().__init__()
        self.width = linear.out_features
        weight = linear.weight.detach().to(LOW)
        bias: Tensor | None = linear.bias
        self.bias = None if bias is None else bias.detach().to(LOW)
        self.fused = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight) if self.fused else weight
        self.then: Callable[[Tensor], Tensor] | None = None
        self.inside: tuple[str, list[Any], str] = ("none", [], "")
        if self.fused and activation in FUSED:
            self.inside = ("gelu", [], FUSED[activation])
        elif activation is not None:
            self.then = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """`[T, n]` to `[T, m]`."""
        if self.fused:
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.weight, self.bias, *self.inside)
        else:
            y = F.linear(x, self.weight, self.bias)
        return y if self.then is None else self.then(y)

    def onto(self, residual: Tensor, x: Tensor) -> Tensor:
        """`residual` `[T, m]` and the product of `x` `[T, n]`, added."""
        if self.fused:
            return torch.ops.mkldnn._linear_pointwise.binary(  # type: ignore[no-any-return]
                x.contiguous(), residual, self.weight, self.bias, "add"
            )
        return residual + F.linear(x, self.weight, self.bias)
