"""Optimisers, and which parameters decay."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from bertsmith.core.config import Config


class OptimConfig(Config):
    """How weights move."""

    name: Literal["adamw", "sgd"] = Field("adamw", description="optimiser")
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    warmup_ratio: float = Field(0.06, ge=0, lt=1, description="share of the steps over which the rate rises")
    weight_decay: float = Field(0.01, ge=0, description="decoupled decay of matrices; biases and norms never decay")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean of gradients")
    beta2: float = Field(0.98, ge=0, lt=1, description="AdamW: decay of the mean of squared gradients")
    eps: float = Field(1e-6, gt=0, description="AdamW: added to the root of the second moment")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD: momentum")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """An optimiser over all parameters that require gradients.

    Source: Loshchilov & Hutter 2019 (arXiv:1711.05101) for AdamW.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=True)
