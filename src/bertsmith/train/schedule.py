"""The learning rate at each step, as a pure function of the step."""

from __future__ import annotations


def linear(step: int, total: int, warmup: int) -> float:
    """Share of the peak learning rate: up in a line during warm-up, then down in a line to zero.

    Args:
        step: steps done before this one, from 0.
        total: steps in all.
        warmup: steps of warm-up.

    Returns:
        0 to 1; never 0 at a step that is taken.

    Source: Devlin et al. 2019, appendix A.2.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return max(0.0, (total - step) / max(1, total - warmup))
