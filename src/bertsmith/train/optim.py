"""Optimisers, which parameters decay, and how fast each layer learns."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from bertsmith.model.encoder import Attention, FeedForward
from bertsmith.train.lamb import Lamb
from bertsmith.train.muon import Joined, Muon
from bertsmith.train.schedule import ScheduleConfig

LAYER = re.compile(r"(?:^|\.)encoder\.layers\.(\d+)\.")
EMBEDDINGS = re.compile(r"(?:^|\.)encoder\.embeddings\.")
TRANSITIONS = re.compile(r"(?:^|\.)head\.crf\.")


class OptimConfig(ScheduleConfig):
    """How weights move."""

    name: Literal["adamw", "lamb", "muon", "sgd"] = Field(
        "adamw",
        description="optimiser; lamb: for very large batches; muon: for the layers' matrices, AdamW for the rest",
    )
    lr: float = Field(1e-3, gt=0, allow_inf_nan=False, description="peak learning rate")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="each layer's rate as a share of the rate of the layer above; heads have the full rate",
    )
    crf_rate: float = Field(
        50.0,
        gt=0,
        description="how many times faster the transitions of a CRF learn than the rest, whose rate is small",
    )
    weight_decay: float = Field(0.01, ge=0, description="decoupled decay of matrices; biases and norms never decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW, LAMB: decay of the mean of gradients")
    beta2: float = Field(0.98, ge=0, lt=1, description="AdamW, LAMB: decay of the mean of squared gradients")
    eps: float = Field(1e-6, gt=0, description="AdamW, LAMB: added to the root of the second moment")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD: momentum")
    muon_lr: float | None = Field(
        None, gt=0, description="Muon: peak learning rate of the layers' matrices, on AdamW's scale; lr when not given"
    )
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="Muon: momentum")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")

    @model_validator(mode="after")
    def _is_used(self) -> Self:
        if self.muon_lr is not None and self.name != "muon":
            raise ValueError(f"muon_lr is Muon's, and name is {self.name}; set name=muon too, or leave muon_lr out")
        return self


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """An optimiser over all parameters that require gradients.

    Args:
        model: its parameters, by name, decide on decay and rate.
        config: which optimiser.

    Returns:
        An optimiser whose groups carry `peak_lr`, by which the loop multiplies the schedule's share.

    Source: Loshchilov & Hutter 2019 (arXiv:1711.05101) for AdamW.
    """
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    betas = (config.beta1, config.beta2)
    if config.name == "lamb":
        return Lamb(groups, lr=config.lr, betas=betas, eps=config.eps)
    matrices = [group for group in groups if "stacked" in group]
    rest = [group for group in groups if "stacked" not in group]
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(Muon(matrices, lr=config.lr, momentum=config.muon_momentum))
    if rest:
        parts.append(torch.optim.AdamW(rest, lr=config.lr, betas=betas, eps=config.eps, fused=True))
    return parts[0] if len(parts) == 1 else Joined(*parts)


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Parameters that are treated alike, those that decay first.

    With `layer_decay` x and L layers, what stands above the layers (heads, pooler, last norm) learns at the full rate,
    layer l (from 1) at x^(L + 1 - l) of it, and the embeddings at x^(L + 1).

    Args:
        model: whose parameters that require gradients are grouped.
        config: rates and decay.

    Returns:
        Groups with `params`, `weight_decay`, `lr` and `peak_lr`; those for Muon also with `stacked`.

    Source: Howard & Ruder 2018 (arXiv:1801.06146); Clark et al. 2020 (arXiv:2003.10555), whose code has the top layer
    at x^2.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = len({found[1] for name, _ in model.named_parameters() if (found := LAYER.search(name))})
    stacked = _stacked(model)
    groups: dict[tuple[bool, float, int | None], dict[str, Any]] = {}
    for decays in (True, False):
        for name, parameter in named:
            if (parameter.ndim >= 2) is not decays:
                continue
            layer = LAYER.search(name)
            below = layers - int(layer[1]) if layer else layers + 1 if EMBEDDINGS.search(name) else 0
            share = config.crf_rate if TRANSITIONS.search(name) else config.layer_decay**below
            count = stacked.get(name, 1) if config.name == "muon" and layer and parameter.ndim == 2 else None
            peak = share * (config.lr if count is None else config.muon_lr or config.lr)
            group = {"params": [], "weight_decay": config.weight_decay if decays else 0.0, "lr": peak, "peak_lr": peak}
            group |= {} if count is None else {"stacked": count}
            groups.setdefault((decays, share, count), group)["params"].append(parameter)
    return list(groups.values())


def _stacked(model: nn.Module) -> dict[str, int]:
    """Parameters that hold several matrices one below the other, and how many."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            found[f"{name}.qkv.weight"] = 3
        elif isinstance(module, FeedForward) and module.gated:
            found[f"{name}.up.weight"] = 2
    return found
