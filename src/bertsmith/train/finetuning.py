"""How a task is learned: the settings of a fine-tuning run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, cast

from pydantic import Field, model_validator

from bertsmith.core.config import Cadence, Config, Count, Seed
from bertsmith.peft.config import PeftConfig, with_learning_rate
from bertsmith.train.adversarial import AdversarialConfig
from bertsmith.train.length import Length
from bertsmith.train.losses import LossConfig
from bertsmith.train.optim import OptimConfig


class FinetuningRun(OptimConfig, Length, LossConfig, AdversarialConfig):
    """How a task is learned."""

    lr: float = Field(
        3e-4,
        gt=0,
        allow_inf_nan=False,
        description="peak learning rate; 2e-5 to 5e-5 suits encoders 768 wide, 3e-4 those 256 wide; "
        "with --peft the method's own where none is given",
    )
    batch_size: int = Field(32, ge=1, description="sequences of an update")
    accumulation: int = Field(1, ge=1, description="cut an update into so many batches, to save memory")
    seed: Seed = Field(0, description="of fresh weights, order and dropout")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of matrix products; auto: bf16 where it is fast"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="on embeddings, on each sublayer's output and before the head")
    init: Literal["bundle", "random"] = Field("bundle", description="random: the bundle's shape with fresh weights")
    rows: Count | None = Field(None, ge=1, description="learn from so many rows only, drawn evenly")
    shots: int | None = Field(
        None, ge=1, description="learn from so many rows of each class only, drawn by the seed; dev and test stay whole"
    )
    contrastive: bool = Field(
        False,
        description="for few rows: learn that texts of one class have similar vectors, and fit the classifier to "
        "these, as SetFit does; with task.pooling=mean",
    )
    shrink_vocab: bool = Field(
        False,
        description="cut the vocabulary to the pieces that occur in the rows to learn from, and single characters",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="judge and keep an exponential moving average of the weights, with this decay: 0.99 to 0.999",
    )
    evaluations: int = Field(5, ge=1, description="how often dev is scored over the run")
    metric: str | None = Field(
        None, description="the dev score by which the best weights are kept; the task's by default"
    )
    patience: int | None = Field(None, ge=1, description="stop after so many evaluations without a better one")
    checkpoint_every: Cadence = Field(Cadence(seconds=600.0), description="how often the run is saved: 10m, 500steps")
    doctor: Literal["warn", "strict", "off"] = Field(
        "warn", description="look at the data first; strict: stop when there is something amiss"
    )
    track: tuple[Literal["tensorboard", "wandb"], ...] = Field((), description="also send figures there")


class FinetuneConfig(Config):
    """Everything a fine-tuning run is described by, but the task's own settings."""

    train: FinetuningRun = Field(default_factory=FinetuningRun)
    peft: PeftConfig = Field(default_factory=PeftConfig)

    @model_validator(mode="before")
    @classmethod
    def _learning_rate(cls, values: Any) -> Any:
        return with_learning_rate(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _base_is_kept(self) -> Self:
        if self.peft.method is not None and self.train.init == "random":
            raise ValueError(f"{self.peft.method} stands on the bundle's weights, and train.init=random drops them")
        if self.peft.method is not None and self.train.shrink_vocab:
            raise ValueError(f"{self.peft.method} stands on the bundle as it is, and train.shrink_vocab cuts it")
        if self.peft.method == "adalora" and self.train.ema is not None:
            raise ValueError("adalora takes ranks away on the way, and train.ema would bring them back; leave one out")
        if self.train.rows is not None and self.train.shots is not None:
            raise ValueError("train.rows and train.shots both say how many rows are learned from; choose one of them")
        return self

    @property
    def temperature(self) -> float:
        """Of the shares of several tasks; there is one."""
        return 1.0

    def asked(self, facts: Mapping[str, Any]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
        """What is to be learned: by name, which is empty for a single task, its settings and where its rows are.

        Args:
            facts: of the run.
        """
        return {"": (cast(Any, self).task, facts)}
