"""The settings of all methods: one frozen value, in which each method reads its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bertsmith.core.config import Config

MethodName = Literal["houlsby", "pfeiffer", "lora", "adalora", "prefix", "bitfit"]
Target = Literal["query", "key", "value", "qkv", "out", "up", "down"]

# Which settings a method reads; another one that is given would be ignored, and is refused instead.
READS: dict[str, tuple[str, ...]] = {
    "houlsby": ("width",),
    "pfeiffer": ("width",),
    "lora": ("rank", "alpha", "dropout", "targets"),
    "adalora": (
        "rank",
        "alpha",
        "dropout",
        "targets",
        "start_rank",
        "warmup",
        "settle",
        "every",
        "smoothing",
        "orthogonality",
    ),
    "prefix": ("length",),
    "bitfit": (),
}
# Small parts want larger steps than whole models do. The order of magnitude is that of the papers; not tuned here.
LEARNING_RATES: dict[str, float] = {
    "houlsby": 1e-3,
    "pfeiffer": 1e-3,
    "lora": 1e-3,
    "adalora": 2e-3,
    "prefix": 5e-3,
    "bitfit": 1e-3,
}


class PeftConfig(Config):
    """Which parameters move: by default all."""

    method: MethodName | None = Field(
        None, description="train a small part of the encoder, and the head; not given: everything is trained"
    )
    rank: int = Field(8, ge=1, description="LoRA: rank of each matrix's change; AdaLoRA: mean rank at the end")
    alpha: float = Field(16.0, gt=0, description="LoRA, AdaLoRA: the change is multiplied by alpha / (starting) rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="LoRA, AdaLoRA: on what the small matrices read")
    targets: tuple[Target, ...] = Field(
        (),
        description="LoRA, AdaLoRA: which matrices change; by default LoRA: query and value, AdaLoRA: all six "
        "(modernbert has one matrix qkv for query, key and value)",
    )
    start_rank: int = Field(12, ge=1, description="AdaLoRA: rank of each matrix at the start")
    warmup: float = Field(0.1, ge=0, lt=1, description="AdaLoRA: share of the steps before ranks begin to fall")
    settle: float = Field(0.3, ge=0, lt=1, description="AdaLoRA: share of the steps after they have fallen")
    every: int = Field(1, ge=1, description="AdaLoRA: steps between two allocations of ranks")
    smoothing: float = Field(0.85, gt=0, lt=1, description="AdaLoRA: how slowly importances follow the gradient")
    orthogonality: float = Field(
        0.1, ge=0, description="AdaLoRA: weight in the loss of how far the small matrices are from orthogonal"
    )
    width: int = Field(64, ge=1, description="Houlsby, Pfeiffer: width of the bottleneck")
    length: int = Field(16, ge=1, description="prefix: keys and values learned before every sequence, a layer")

    @model_validator(mode="after")
    def _nothing_ignored(self) -> Self:
        reads = READS.get(self.method or "", ())
        for name, field in type(self).model_fields.items():
            if name == "method" or name in reads or getattr(self, name) == field.default:
                continue
            readers = " or ".join(method for method, names in READS.items() if name in names)
            asked = "no method is chosen" if self.method is None else f"the method is {self.method}"
            raise ValueError(f"{name} is a setting of {readers}, but {asked}; choose with --peft METHOD")
        if self.method == "adalora" and self.start_rank < self.rank:
            raise ValueError(f"ranks only fall, so start_rank ({self.start_rank}) must be at least rank ({self.rank})")
        if self.warmup + self.settle >= 1:
            raise ValueError(f"warmup + settle is {self.warmup + self.settle:g}; leave steps in which ranks fall")
        return self


def with_learning_rate(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a fine-tuning config, with the learning rate that suits its method where none is given.

    Args:
        values: nested, as given by a user.
    """
    peft, train = values.get("peft"), values.get("train", {})
    method = peft.get("method") if isinstance(peft, Mapping) else getattr(peft, "method", None)
    if method not in LEARNING_RATES or not isinstance(train, Mapping) or "lr" in train:
        return dict(values)
    return {**values, "train": {**train, "lr": LEARNING_RATES[method]}}
