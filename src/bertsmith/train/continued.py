"""Going on from a model: pieces for the words of a field, old text mixed in, and what was forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import Config, Count
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.readers import read
from bertsmith.corpus.store import Store
from bertsmith.evaluate.pretraining import held_out_scores
from bertsmith.model.extend import extend_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.tasks.preparation import is_store
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.tasks.windows import Passages
from bertsmith.tokenizer.extend import domain_terms, extend, old_pieces
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.distributed import ALONE, Ranks
from bertsmith.train.feed import MixedFeed, PretrainingFeed, evaluation_batches

Say = Callable[[str], None]
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
Shares = Annotated[
    tuple[float, ...], BeforeValidator(lambda value: (value,) if isinstance(value, int | float) else value)
]
SHOWN = ("mlm_loss", "mlm_accuracy", "rtd_loss", "rtd_accuracy")


class ContinuedConfig(Config):
    """How a run goes on from a model without losing what the model knew."""

    new_pieces: Count = Field(
        0,
        ge=0,
        description="with --from: add up to so many frequent words that the vocabulary cuts into 3 pieces or more",
    )
    replay: Names = Field(
        (), description="token stores or texts that are mixed in, such as what the model learned from"
    )
    replay_share: Shares = Field(
        (0.2,), description="share of all tokens that come from replay, or one share for each of its corpora"
    )
    watch: Names = Field(
        (), description="with --from: token stores or texts on which loss before and after is measured as well"
    )

    @field_validator("replay_share")
    @classmethod
    def _shares(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not shares or not all(share > 0 for share in shares) or not sum(shares) < 1:
            raise ValueError("write a share above 0 and below 1, or one for each corpus that add up to less than 1")
        return shares

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.replay_share) not in (1, len(self.replay)):
            raise ValueError(f"replay_share has {len(self.replay_share)} shares, and replay names {len(self.replay)}")
        return self

    def shares(self, corpora: int) -> list[float]:
        """The share of all tokens of each replayed corpus.

        Args:
            corpora: how many there are.
        """
        if len(self.replay_share) == 1:
            return [self.replay_share[0] / corpora] * corpora
        return list(self.replay_share)


@dataclass(frozen=True, slots=True)
class Other:
    """A corpus beside the run's own.

    Attributes:
        role: `replay`: learned from and measured; `watch`: measured only.
        name: as it was given.
        store: its tokens, in the run's vocabulary.
    """

    role: Literal["replay", "watch"]
    name: str
    store: Store


def check(config: ContinuedConfig, inputs: Sequence[str], start: Path | None) -> None:
    """Refuse what makes no sense before anything is read.

    Args:
        config: the request.
        inputs: the run's texts, or its store.
        start: the model to go on from.

    Raises:
        ConfigError: says what to change.
    """
    if start is None and (config.new_pieces or config.watch):
        name = "new_pieces" if config.new_pieces else "watch"
        raise ConfigError(f"continued.{name} is about a model to go on from; name it with --from")
    if not config.new_pieces:
        return
    for name in (*inputs, *config.replay, *config.watch):
        if is_store(name):
            raise ConfigError(
                f"{name}: continued.new_pieces makes another vocabulary than the one that this store was made with; "
                "give the text that it was made of instead"
            )


def enlarged(tokenizer: Tokenizer, inputs: Sequence[str], config: ContinuedConfig, say: Say) -> Tokenizer:
    """The vocabulary with the field's own words at its end; the same one when none are asked for or found.

    Args:
        tokenizer: the model's.
        inputs: the text of the field.
        config: how many pieces to add.
        say: takes lines for the user.
    """
    if not config.new_pieces:
        return tokenizer
    say("reading the text for words that the vocabulary lacks …")
    words = domain_terms((document.text for document in read(inputs, Tally())), tokenizer, config.new_pieces)
    some = f": {', '.join(words[:8])}{' …' if len(words) > 8 else ''}" if words else ""
    say(f"vocabulary: {len(words):,} new pieces of the {config.new_pieces:,} asked for{some}")
    return extend(tokenizer, words) if words else tokenizer


def grown(model: Model, start: Path, tokenizer: Tokenizer) -> Model:
    """The model with rows for the pieces that its vocabulary got in this run.

    Args:
        model: as it is in `start`.
        start: the bundle that it comes from.
        tokenizer: this run's vocabulary.
    """
    old = Tokenizer.load(Bundle.open(start).path)
    return model if old.hash == tokenizer.hash else extend_model(model, old_pieces(old, tokenizer))


def mixed_feed(
    own: PretrainingFeed | MixedFeed,
    task: Pretraining,
    reads: Callable[[Store, Passages, int], PretrainingFeed | MixedFeed],
    others: Sequence[Other],
    config: ContinuedConfig,
) -> PretrainingFeed | MixedFeed:
    """The run's own batches with those of the replayed corpora among them.

    Args:
        own: the run's.
        task: says which passages of a corpus are learned from.
        reads: makes the feed of a corpus from its store, these passages, and what is added to the run's seed.
        others: corpora beside it; those that are only watched are left out.
        config: the shares.
    """
    replayed = [other.store for other in others if other.role == "replay"]
    if not replayed:
        return own
    # Not the run's own seed: the model may have seen this store under it, masked and cut the same way.
    feeds = [reads(store, task.rows(store)[0], 1_000_003 * number) for number, store in enumerate(replayed, start=1)]
    shares = config.shares(len(feeds))
    return MixedFeed([own, *feeds], [1 - sum(shares), *shares])


class Forgetting:
    """Held-out MLM loss and accuracy of each corpus, before a run and after it."""

    def __init__(
        self,
        task: Pretraining,
        others: Sequence[Other],
        batch_tokens: int,
        facts: dict[str, Any],
        ranks: Ranks = ALONE,
    ) -> None:
        """Cut and mask the held-out texts.

        Args:
            task: gives the losses.
            others: the corpora beside the run's own.
            batch_tokens: packed tokens of a batch.
            facts: of the run, where the figures of the beginning are kept.
            ranks: the processes that measure together, each a part of the batches.
        """
        self.task, self.others, self.facts, self.ranks = task, others, facts, ranks
        self.batches: list[list[Batch]] = [
            evaluation_batches(task, other.store, task.rows(other.store)[1], batch_tokens)[ranks.rank :: ranks.size]
            for other in others
        ]

    def before(self, model: Model, own: Mapping[str, float], precision: Precision) -> float:
        """Measure the model that the run starts from, unless a run that now goes on has done so.

        Args:
            model: not trained yet.
            own: its scores on the run's own text.
            precision: of matrix products.

        Returns:
            Seconds that it took.
        """
        began = time.monotonic()
        if "before" not in self.facts:
            self.facts["before"] = [dict(own), *self._measured(model, precision)]
        return time.monotonic() - began

    def table(self, model: Model, own: Mapping[str, float], precision: Precision) -> list[dict[str, Any]]:
        """Measure again, and put both together.

        Args:
            model: trained.
            own: its scores on the run's own text.
            precision: of matrix products.

        Returns:
            A row a corpus: `corpus`, `role` (`new`, `replay` or `watch`), and `before` and `after` with `mlm_loss`
            (nats) and `mlm_accuracy`, and `rtd_loss` and `rtd_accuracy` where they are measured.
        """
        names = [("new", ", ".join(self.facts["inputs"])), *((other.role, other.name) for other in self.others)]
        after = [own, *self._measured(model, precision)]
        return [
            {"corpus": name, "role": role, "before": _shown(old), "after": _shown(new)}
            for (role, name), old, new in zip(names, self.facts["before"], after, strict=True)
        ]

    def _measured(self, model: Model, precision: Precision) -> list[dict[str, float]]:
        return [held_out_scores(model, self.task, batches, precision, self.ranks.gather) for batches in self.batches]


def told(table: Sequence[Mapping[str, Any]]) -> str:
    """The table as lines for the screen."""
    whose = " of the generator" if "rtd_loss" in table[0]["after"] else ""
    lines = [f"held-out MLM loss{whose} (and words right) before → after:"]
    for row in table:
        old, new = ("{mlm_loss:.3f} ({mlm_accuracy:.1%})".format(**row[when]) for when in ("before", "after"))
        lines.append(f"  {row['role']} {row['corpus']}: {old} → {new}")
    return "\n".join(lines)


def _shown(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: scores[name] for name in SHOWN if name in scores}
