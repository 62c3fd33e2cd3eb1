"""How much each part of a model matters: by its weights alone, or by what the loss would change without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bertsmith.model.heads import Model
from bertsmith.model.shrink import Kept


@dataclass(frozen=True, slots=True)
class Importance:
    """What each part is worth; of use for comparing parts of one kind.

    Shape: `L` layers, `A` heads, `I` feed-forward units, `H` dimensions of the residual stream.

    Attributes:
        layers: `[L]`.
        heads: `[L, A]`.
        units: `[L, I]`.
        dims: `[H]`.
    """

    layers: Tensor
    heads: Tensor
    units: Tensor
    dims: Tensor

    def kept(
        self,
        *,
        layers: int | Sequence[int] | None = None,
        heads: int | None = None,
        units: int | None = None,
        head_size: int,
    ) -> Kept:
        """What stays when so many of each are to stay; the residual stream keeps as many dimensions as its heads have.

        Args:
            layers: how many, or which, from 0; None: all.
            heads: of each layer; None: all.
            units: of each layer; None: all.
            head_size: D.
        """
        chosen = list(range(len(self.layers))) if layers is None else layers
        chosen = _best(self.layers, chosen) if isinstance(chosen, int) else list(chosen)
        return Kept(
            layers=chosen,
            heads=None if heads is None else [_best(self.heads[number], heads) for number in chosen],
            units=None if units is None else [_best(self.units[number], units) for number in chosen],
            dims=None if heads is None else _best(self.dims, heads * head_size),
        )


def _best(scores: Tensor, count: int) -> list[int]:
    # A stable order: of equals the first stays, whatever the machine.
    return sorted(scores.argsort(descending=True, stable=True)[:count].tolist())


@torch.no_grad()
def by_weights(model: Model) -> Importance:
    """Importance by the size of weights: a first choice where there is no data yet.

    A head or a unit is worth the norm of what makes it times the norm of what reads it.

    Args:
        model: not changed.
    """
    count = model.config.num_attention_heads
    values = [layer.attention.qkv.weight.unflatten(0, (3, count, -1))[2].norm(dim=(1, 2)) for layer in model.layers]
    read = [layer.attention.out.weight.unflatten(1, (count, -1)).norm(dim=(0, 2)) for layer in model.layers]
    heads = torch.stack(values) * torch.stack(read)
    units = torch.stack([layer.mlp.up.weight.norm(dim=1) for layer in model.layers])
    if model.config.modern:
        units = units.unflatten(1, (2, -1)).prod(1)
    units = units * torch.stack([layer.mlp.down.weight.norm(dim=0) for layer in model.layers])
    dims = sum(
        layer.attention.qkv.weight.square().sum(0)
        + layer.attention.out.weight.square().sum(1)
        + layer.mlp.up.weight.square().sum(0)
        + layer.mlp.down.weight.square().sum(1)
        for layer in model.layers
    )
    assert isinstance(dims, Tensor)
    return Importance(heads.sum(1) + units.sum(1), heads, units, dims)


class Taylor:
    """Importance by the loss: how much it would change, to first order, if the part gave nothing.

    The caller of the training loop calls it once a step, while the step's gradients are still there. With a gate on a
    part's output, the gradient at the gate is the sum of weight times gradient over the weights that read the part; its
    absolute value is averaged over the steps. A layer's gates stand on what its two halves add to the residual stream,
    those of a dimension behind every norm.

    Source: Molchanov et al. 2017 (arXiv:1611.06440) for the expansion; Michel et al. 2019 (arXiv:1905.10650) for heads.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.count = 0
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, model: Model, scale: float = 1.0) -> None:
        """Take the gradients of a step into account.

        Args:
            model: with gradients.
            scale: by which gradients must be multiplied to undo their clipping.
        """
        gates = _gates(model)
        for name, gate in gates.items():
            now = gate.abs() * scale
            self.sums[name] = self.sums[name] + now if name in self.sums else now
        self.count += 1

    def importance(self) -> Importance:
        """The means since the beginning; what counts is their order."""
        return Importance(**{name: value / self.count for name, value in self.sums.items()})

    def restore(self, count: int, sums: Mapping[str, Tensor]) -> None:
        """Go on from `count` steps and their `sums`."""
        self.count, self.sums = count, dict(sums)


def _gates(model: Model) -> dict[str, Tensor]:
    """Gradients at the gates of all parts."""
    layers = model.layers
    read = torch.stack([_product(layer.attention.out.weight).sum(0) for layer in layers])
    heads = read.unflatten(1, (model.config.num_attention_heads, -1)).sum(2)
    units = torch.stack([_product(layer.mlp.down.weight).sum(0) for layer in layers])
    biases = [
        torch.stack([_product(half.bias).sum() for half in (layer.attention.out, layer.mlp.down)]) for layer in layers
    ]
    halves = torch.stack([heads.sum(1), units.sum(1)], 1) + torch.stack(biases)
    norms = [module for module in model.encoder.modules() if isinstance(module, torch.nn.LayerNorm)]
    dims = torch.stack([_product(norm.weight) + _product(norm.bias) for norm in norms]).abs().sum(0)
    return {"layers": halves.abs().sum(1), "heads": heads, "units": units, "dims": dims}


def _product(weight: Tensor | None) -> Tensor:
    """Weight times gradient; zeros where there is none."""
    if weight is None:
        return torch.zeros(1)
    return weight * weight.grad if weight.grad is not None else torch.zeros_like(weight)
