"""Muon: momentum whose update of each matrix is made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bertsmith.train.shards import by_matrix

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for the matrices within layers; all else belongs to another optimiser.

    Differs from `torch.optim.Muon` in three things: a parameter that holds several matrices one below the other
    (queries, keys and values; both halves of GeGLU) is orthogonalised matrix by matrix, which Jordan et al. found
    better; matrices of one shape are taken together; and on a CPU products are in fp32, since most CPUs multiply bf16
    some 30 times slower.

    Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); Liu et al. 2025 (arXiv:2502.16982) for the
    scale, which gives an update the size of one of AdamW, so that AdamW's learning rate and decay suit both.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float = 0.95) -> None:
        """Nothing is remembered yet.

        Args:
            groups: parameter groups of matrices, with `weight_decay` and `stacked`: how many matrices of equal shape
                each parameter holds.
            lr: learning rate of groups that have none of their own.
            momentum: decay of the mean of gradients; Nesterov's.
        """
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0, "stacked": 1})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update.

        Args:
            closure: computes the loss again; not needed.
        """
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for parameters in alike.values():
                self._update(parameters, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        means: list[Tensor] = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]  # type: ignore[misc]
        torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
        ahead = torch.stack(torch._foreach_lerp(gradients, means, group["momentum"]))
        rows, columns = ahead.shape[1] // group["stacked"], ahead.shape[2]

        def each(some: Tensor) -> Tensor:
            matrices = some.reshape(len(some) * group["stacked"], rows, columns)
            return orthogonal(matrices).to(some.dtype).reshape(some.shape)

        updates = by_matrix(ahead, each)
        scale = 0.2 * math.sqrt(max(rows, columns))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(updates.unbind()), alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values brought near 1 (about 0.7 to 1.2), by Newton-Schulz iteration.

    Args:
        matrices: `[n, rows, columns]`.

    Returns:
        `[n, rows, columns]`, bf16 on a GPU, otherwise fp32.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Joined(torch.optim.Optimizer):
    """Several optimisers that behave as one: the groups of all in a row, one state by parameter."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        """Take over the groups.

        Args:
            parts: optimisers of different parameters.
        """
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimiser's own groups and state."""
        first = 0
        for part in self.parts:
            last = first + len(part.param_groups)
            part.state, part.param_groups = self.state, self.param_groups[first:last]
            first = last

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put groups and state back.

        Args:
            state_dict: what `state_dict()` gave.
        """
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update by each part.

        Args:
            closure: computes the loss again; not needed.
        """
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss
