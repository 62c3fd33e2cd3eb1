"""The learning rate rises in a line, falls in a line, and is never 0 at a step that is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.train.schedule import linear


@given(st.integers(1, 5000), st.floats(0, 0.99))
def test_up_then_down_and_never_zero(total: int, ratio: float) -> None:
    warmup = round(ratio * total)
    shares = [linear(step, total, warmup) for step in range(total)]
    assert all(0 < share <= 1 for share in shares)
    top = min(warmup, total - 1)
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)


def test_the_corners() -> None:
    assert linear(0, 100, 0) == 1.0
    assert linear(0, 100, 9) == pytest.approx(0.1)
    assert linear(9, 100, 9) == 1.0
    assert linear(99, 100, 9) == pytest.approx(1 / 91)
