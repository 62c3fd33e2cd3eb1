"""Whether what is asked still looks like what a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertsmith.tokenizer.profile import Profile

WINDOW = 1000
"""Texts after which the older half of what is compared is forgotten."""
ENOUGH = 100
"""Texts from which a comparison says anything."""


class Drift:
    """The last one to two thousand texts of a model, against those of its training.

    Args:
        vocab_size: of the model's tokenizer.
        unknown_id: the piece that stands for what has none.
        trained: the profile in the model's bundle; None where it has none.
    """

    def __init__(self, vocab_size: int, unknown_id: int, trained: Mapping[str, Any] | None) -> None:
        self.trained = trained
        self._before = Profile.empty(vocab_size, unknown_id)
        self._now = Profile.empty(vocab_size, unknown_id)

    def add(self, texts: Sequence[NDArray[np.int32]]) -> None:
        """Take texts into account.

        Args:
            texts: the ids of each.
        """
        self._now.add(texts)
        if self._now.texts >= WINDOW:
            self._before, self._now = self._now, Profile.empty(len(self._now.pieces), self._now.unknown_id)

    def figures(self) -> dict[str, float]:
        """`unknown_share`, and of a model that knows its training texts `length`, `pieces`, `unknown`: see `Profile`.

        Empty as long as there were too few texts.
        """
        seen = self._before + self._now
        if seen.texts < ENOUGH:
            return {}
        drift = seen.drift(self.trained) if self.trained is not None else {}
        return {"unknown_share": seen.unknown, **drift}
