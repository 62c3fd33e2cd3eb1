"""Questions put to a model on its way: words hidden in held-out text, and minimal pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from bertsmith.core.config import Cadence, Config, Count
from bertsmith.core.device import Precision
from bertsmith.evaluate.blimp import Pair, read_pairs, tell_apart
from bertsmith.model.heads import Model
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.samples import Guess, Sample, guess

MINIMAL_PAIRS = "probe/minimal_pairs"


class ProbeConfig(Config):
    """What a model is asked during its run, beside the held-out scores."""

    every: Cadence | None = Field(
        None, description="show guesses at hidden words between the evaluations too, so often: 2m, 500steps"
    )
    minimal_pairs: Path | None = Field(
        None, description="BLiMP's folder, file or archive: how many pairs are told apart, at evaluations and probes"
    )
    pairs_per_file: Count = Field(5, ge=1, description="take the first so many minimal pairs of each file")


@dataclass(frozen=True, slots=True)
class Asked:
    """A model as the minimal pairs want it; `batch_tokens` is pieces a batch, `max_length` the longest sequence."""

    model: Model
    tokenizer: Tokenizer
    precision: Precision
    batch_tokens: int
    max_length: int


class Probe:
    """Asks a model in training; nothing that it does changes the run."""

    def __init__(
        self, config: ProbeConfig, tokenizer: Tokenizer, samples: Sequence[Sample], precision: Precision
    ) -> None:
        """Read the minimal pairs, so that what is wrong with them is told before the first step.

        Args:
            config: what to ask.
            tokenizer: the model's.
            samples: sentences with a hidden word.
            precision: of matrix products.

        Raises:
            DataError: there are no minimal pairs where the config says.
        """
        self.config, self.tokenizer, self.samples, self.precision = config, tokenizer, samples, precision
        self.pairs: list[Pair] = []
        if config.minimal_pairs is not None:
            self.pairs = read_pairs(config.minimal_pairs, config.pairs_per_file)
        self._step, self._seconds = 0, 0.0

    def due(self, step: int, seconds: float) -> bool:
        """Whether it is time to ask again.

        Args:
            step: updates done.
            seconds: since the run began.
        """
        every = self.config.every
        return every is not None and every.due(step - self._step, seconds - self._seconds)

    def __call__(self, model: Model, step: int, seconds: float) -> tuple[list[Guess], dict[str, float]]:
        """Ask.

        Args:
            model: left in the mode in which it was.
            step: updates done.
            seconds: since the run began.

        Returns:
            Guesses at the hidden words, and figures for `metrics.jsonl`.
        """
        self._step, self._seconds = step, seconds
        guesses = guess(model, self.tokenizer, self.samples, self.precision)
        if not self.pairs:
            return guesses, {}
        asked = Asked(model, self.tokenizer, self.precision, 8192, model.config.max_position_embeddings)
        right = tell_apart(asked, self.pairs)
        return guesses, {MINIMAL_PAIRS: sum(right) / len(right)}
