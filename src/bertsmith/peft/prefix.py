"""Prefix tuning: keys and values that stand before every sequence, in every layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.model.heads import Model
from bertsmith.peft.config import PeftConfig


class Prefix:
    """`length` keys and values a layer, learned directly, without a network that produces them.

    In the shape of BERT, tokens are counted on from the prefix: the first one has position `length`, as in
    transformers and the peft library. The model thus has fewer positions left for text.

    Source: Li & Liang 2021 (arXiv:2101.00190); for encoders Liu et al. 2022 (arXiv:2110.07602). Differs: values start
    at zero, so that at first a prefix only draws attention to itself.
    """

    def __init__(self, config: PeftConfig) -> None:
        """Keep the settings."""
        self.config = config

    def insert(self, model: Model, generator: torch.Generator, saved: Mapping[str, Tensor]) -> None:
        """See `Method.insert`.

        Raises:
            ConfigError: no place is left for text.
        """
        shape, length = model.config, self.config.length
        if not shape.modern:
            if length > shape.max_position_embeddings - 8:
                raise ConfigError(
                    f"peft.length: a prefix of {length} leaves no room for text in the model's "
                    f"{shape.max_position_embeddings} positions; shorten it"
                )
            model.encoder.first_position = length
        for layer in model.layers:
            drawn = torch.zeros(length, 2, layer.heads, layer.head_size)
            drawn[:, 0].normal_(0, shape.initializer_range, generator=generator)
            layer.prefix = nn.Parameter(drawn.to(layer.attention.qkv.weight.device))

    def moves(self, name: str) -> bool:
        """The keys and values."""
        return name.endswith(".prefix")

    def merge(self, model: Model) -> None:
        """There is no plain model with a prefix.

        Raises:
            BundleError: always.
        """
        raise BundleError(
            "a prefix is no weight of a plain model, so it cannot be merged; keep it beside its base, or train with "
            "--peft lora"
        )
