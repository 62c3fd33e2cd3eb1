"""Bottleneck adapters: two narrow layers with an activation between, after a sublayer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertsmith.core.errors import BundleError
from bertsmith.model.heads import Model
from bertsmith.peft.config import PeftConfig


class Bottleneck(nn.Module):
    """What a sublayer adds to the stream, and a narrow function of it (or of the stream after its norm) besides.

    Attributes:
        reads_norm: it reads the stream after the sublayer's norm, not what the sublayer adds.
    """

    def __init__(
        self, hidden: int, width: int, activation: Callable[[Tensor], Tensor], *, reads_norm: bool, device: torch.device
    ) -> None:
        """The second layer starts at zero, so that nothing is added at first."""
        super().__init__()
        self.down, self.up = nn.Linear(hidden, width, device=device), nn.Linear(width, hidden, device=device)
        self.activation, self.reads_norm = activation, reads_norm

    def forward(self, out: Tensor, read: Tensor) -> Tensor:
        """What the sublayer adds and what the bottleneck reads, `[T, H]` each, to what is added, `[T, H]`."""
        return out + self.up(self.activation(self.down(read)))  # type: ignore[no-any-return]


class Pfeiffer:
    """One bottleneck a layer, after the feed-forward layer; nothing else in the encoder moves.

    It reads the stream after the norm and adds to the feed-forward layer's output, which then passes the norm (in the
    pre-norm shape, which has no norm there, it reads that output itself).

    Source: Pfeiffer et al. 2020, equation 1 (arXiv:2005.00052); Pfeiffer et al. 2021 (arXiv:2005.00247). Differs: the
    second layer starts at zero.
    """

    places: tuple[str, ...] = ("mlp_adapter",)
    reads_norm = True
    activation: Callable[[Tensor], Tensor] = staticmethod(F.relu)

    def __init__(self, config: PeftConfig) -> None:
        """Keep the settings."""
        self.config = config

    def insert(self, model: Model, generator: torch.Generator, saved: Mapping[str, Tensor]) -> None:
        """See `Method.insert`."""
        shape = model.config
        for layer in model.layers:
            where = layer.attention.qkv.weight.device
            for place in self.places:
                adapter = Bottleneck(
                    shape.hidden_size, self.config.width, self.activation, reads_norm=self.reads_norm, device=where
                )
                drawn = torch.empty(self.config.width, shape.hidden_size)
                adapter.down.weight.copy_(drawn.normal_(0, shape.initializer_range, generator=generator))
                for parameter in (adapter.down.bias, adapter.up.weight, adapter.up.bias):
                    parameter.zero_()
                setattr(layer, place, adapter)

    def moves(self, name: str) -> bool:
        """The bottlenecks."""
        return any(f".{place}." in name for place in self.places)

    def merge(self, model: Model) -> None:
        """There is no plain model with a bottleneck.

        Raises:
            BundleError: always.
        """
        raise BundleError(
            f"an adapter of the method {self.config.method} has an activation of its own, which no weight of a plain "
            "model can take in; keep it beside its base, or train with --peft lora"
        )


class Houlsby(Pfeiffer):
    """Two bottlenecks a layer, after attention and after the feed-forward layer; the encoder's norms move as well.

    Source: Houlsby et al. 2019 (arXiv:1902.00751). Differs: the second layer starts at zero.
    """

    places = ("attention_adapter", "mlp_adapter")
    reads_norm = False
    activation = staticmethod(F.gelu)

    def moves(self, name: str) -> bool:
        """The bottlenecks, and the norms of the layers."""
        return super().moves(name) or ("layers." in name and "_norm." in name)
