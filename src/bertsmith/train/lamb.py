"""LAMB: AdamW whose step is scaled, matrix by matrix, to the norm of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lamb(torch.optim.Optimizer):
    """Layer-wise adaptive moments, for batches of tens of thousands of sequences.

    Source: You et al. 2020 (arXiv:1904.00962), algorithm 2, with phi the identity. As in the authors' code, biases and
    norms take AdamW's step unscaled: from a norm of 0 they would hardly move.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float = 1e-6
    ) -> None:
        """Nothing is remembered yet.

        Args:
            groups: parameter groups, with `weight_decay`.
            lr: learning rate of groups that have none of their own.
            betas: decay of the means of gradients and of squared gradients.
            eps: added to the root of the second moment.
        """
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update.

        Args:
            closure: computes the loss again; not needed.
        """
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        count, mean, square = (
            [self.state[parameter][name] for parameter in parameters] for name in ("step", "exp_avg", "exp_avg_sq")
        )
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]  # type: ignore[misc]
        beta1, beta2 = group["betas"]
        torch._foreach_add_(count, 1.0)
        torch._foreach_lerp_(mean, gradients, 1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - beta2)
        update = torch._foreach_div(mean, [1 - beta1**n for n in count])
        root = torch._foreach_div(square, [1 - beta2**n for n in count])
        torch._foreach_sqrt_(root)
        torch._foreach_add_(root, group["eps"])
        torch._foreach_div_(update, root)
        torch._foreach_add_(update, parameters, alpha=group["weight_decay"])
        torch._foreach_mul_(update, [_trust(p, u) for p, u in zip(parameters, update, strict=True)])
        torch._foreach_add_(parameters, update, alpha=-group["lr"])


def _trust(parameter: Tensor, update: Tensor) -> Tensor:
    """Norm of the weights over norm of the step; 1 where either is 0, and for vectors."""
    one = torch.ones((), device=parameter.device, dtype=parameter.dtype)
    if parameter.ndim < 2:
        return one
    weights, step = parameter.norm(), update.norm()
    return torch.where((weights > 0) & (step > 0), weights / step, one)
