"""What a method is: it puts a small part into a model, and says which parameters of the encoder move."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.peft.config import PeftConfig

METHODS: dict[str, str] = {
    "houlsby": "bertsmith.peft.adapters:Houlsby",
    "pfeiffer": "bertsmith.peft.adapters:Pfeiffer",
    "lora": "bertsmith.peft.lora:LoRA",
    "adalora": "bertsmith.peft.adalora:AdaLoRA",
    "prefix": "bertsmith.peft.prefix:Prefix",
    "bitfit": "bertsmith.peft.bitfit:BitFit",
}


class Method(Protocol):
    """A way to train a small part of an encoder. It is built as `Class(config)`."""

    config: PeftConfig

    def insert(self, model: Model, generator: torch.Generator, saved: Mapping[str, Tensor]) -> None:
        """Put the small part into the encoder, so that nothing changes yet (a prefix alone does at once).

        Args:
            model: whose encoder is changed in place.
            generator: of fresh weights.
            saved: a part that was trained before, by name; it decides sizes that training decided. Empty: a new one.
        """
        ...

    def moves(self, name: str) -> bool:
        """Whether the encoder's parameter `name` is trained and saved."""
        ...

    def merge(self, model: Model) -> None:
        """Work the small part into the weights of a plain model, and take it out.

        Raises:
            BundleError: no plain model computes the same.
        """
        ...


def method_of(config: PeftConfig) -> Method:
    """The method that a config asks for.

    Raises:
        ConfigError: it asks for none.
    """
    if config.method is None:
        raise ConfigError(f"no method is chosen; choose one of {', '.join(METHODS)} with --peft")
    module, _, attribute = METHODS[config.method].partition(":")
    return cast(Method, getattr(import_module(module), attribute)(config))


def insert(model: Model, config: PeftConfig, *, seed: int = 0, saved: Mapping[str, Tensor] | None = None) -> Method:
    """Make a model train a small part only: that of the encoder which the method names, and all that stands above.

    Heads and pooler always move, since a task's head begins from fresh weights.

    Args:
        model: changed in place; its other parameters are frozen.
        config: method and settings.
        seed: of the small part's fresh weights.
        saved: a small part that was trained before, by our names; its sizes are taken over, not its values.

    Returns:
        The method.

    Raises:
        ConfigError: the method cannot be used with a model of this shape; says why.
    """
    method = method_of(config)
    with torch.no_grad():
        method.insert(model, torch.Generator().manual_seed(seed), saved or {})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("encoder.") or method.moves(name))
    return method


def small_part(model: Model) -> dict[str, Tensor]:
    """The parameters that move, by name: what is saved."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def counts(model: Model) -> dict[str, int]:
    """How many parameters move in the encoder (`encoder`) and above it (`head`), and how many there are (`all`)."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    moving = small_part(model)
    inside = sum(sizes[name] for name in moving if name.startswith("encoder."))
    return {"encoder": inside, "head": sum(sizes[name] for name in moving) - inside, "all": sum(sizes.values())}
