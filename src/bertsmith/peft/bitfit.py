"""BitFit: only biases move."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.peft.config import PeftConfig


class BitFit:
    """All biases of the encoder, those of norms included; nothing is added.

    Source: Ben Zaken et al. 2022 (arXiv:2106.10199).
    """

    def __init__(self, config: PeftConfig) -> None:
        """Keep the settings."""
        self.config = config

    def insert(self, model: Model, generator: torch.Generator, saved: Mapping[str, Tensor]) -> None:
        """See `Method.insert`.

        Raises:
            ConfigError: the encoder has no biases.
        """
        if not model.config.bias:
            raise ConfigError("bitfit moves biases, and this encoder (modernbert) has none; choose lora or pfeiffer")

    def moves(self, name: str) -> bool:
        """The biases."""
        return name.endswith(".bias")

    def merge(self, model: Model) -> None:
        """Biases are where they belong already."""
