"""What a fine-tuning run does otherwise when only a small part of the encoder learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertsmith.core.bundle import Bundle, atomic_write
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.core.picture import grid
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch
from bertsmith.peft.adalora import Allocator, orthogonality
from bertsmith.peft.base import counts, insert
from bertsmith.peft.bundle import find_base, place_of, save_tuned
from bertsmith.peft.config import PeftConfig
from bertsmith.tasks.base import Loss
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.checkpoint import Checkpoint, load_tensors
from bertsmith.train.loop import Learnable, Step

ALLOCATOR = "allocator"
RANKS = "ranks.svg"


@dataclass(frozen=True)
class Orthogonal:
    """A task whose loss also says how far AdaLoRA's singular vectors are from orthogonal."""

    task: Learnable
    model: Model
    weight: float

    @property
    def joint(self) -> bool:
        """As the task has it."""
        return bool(getattr(self.task, "joint", False))

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """The task's loss, and `weight` times the gap for each of its targets."""
        loss = self.task.loss(outputs, batch)
        gap = orthogonality(self.model)
        parts = {**loss.parts, "orthogonality": (gap.detach() * loss.count, loss.count)}
        return Loss(loss.total + self.weight * gap * loss.count, loss.count, parts)


class Tuning:
    """The part that learns, from where it is put in to where it is saved; without a method all weights learn.

    Attributes:
        allocator: AdaLoRA's, to be called after each step; None for other methods.
    """

    def __init__(self, config: PeftConfig, base: Bundle, facts: Mapping[str, Any], out: Path) -> None:
        """Nothing is changed yet.

        Args:
            config: the method, or none.
            base: the bundle that the run starts from.
            facts: of the run: `from`, and when it was begun before, `base`.
            out: the run folder.

        Raises:
            ConfigError: the base is no longer the one that the run was begun with.
        """
        self.config, self.base, self.out = config, base, out
        self.asked = str(facts["from"])
        self.allocator: Allocator | None = None
        if config.method is not None and facts.get("base", base.hash) != base.hash:
            raise ConfigError(
                f"{out}: was begun on a base with sha256 {facts['base'][:12]}…, but {base.path} now has "
                f"{base.hash[:12]}…; put back what was there, or start a new run"
            )

    @property
    def facts(self) -> dict[str, str]:
        """What the run must remember to go on."""
        return {} if self.config.method is None else {"base": self.base.hash}

    def room(self, shape: ModelConfig) -> ModelConfig:
        """The shape whose positions are those left for text."""
        taken = self.config.length if self.config.method == "prefix" and not shape.modern else 0
        return shape.model_copy(update={"max_position_embeddings": shape.max_position_embeddings - taken})

    def insert(self, model: Model, *, seed: int, say: Callable[[str], None]) -> Model:
        """Put the small part in, and say how much moves.

        Args:
            model: on its device; changed in place.
            seed: of the small part's fresh weights.
            say: takes a line for the user.
        """
        if self.config.method is None:
            return model
        insert(model, self.config, seed=seed)
        found = counts(model)
        moving = found["encoder"] + found["head"]
        say(
            f"{self.config.method}: {found['encoder']:,} parameters of the encoder and {found['head']:,} above it "
            f"move, {moving / found['all']:.2%} of {found['all']:,}"
        )
        return model

    def learned(self, task: Learnable, model: Model, precision: Precision) -> Learnable:
        """What the loop asks for the loss.

        Args:
            task: the task.
            model: with the small part.
            precision: of matrix products.
        """
        if self.config.method != "adalora" or not self.config.orthogonality:
            return task
        return Orthogonal(task, model, self.config.orthogonality)

    def schedule(self, model: Model, optimizer: torch.optim.Optimizer, total: int) -> None:
        """Build the allocator, where there is one.

        Args:
            model: with the small part.
            optimizer: of what moves.
            total: steps of the run.
        """
        if self.config.method == "adalora":
            self.allocator = Allocator(model, self.config, total)

    def take(self, step: Step) -> str:
        """Do what belongs after a step, while its gradients are still there.

        Args:
            step: just taken.

        Returns:
            A line for the user; mostly empty.
        """
        if self.allocator is not None:
            self.allocator(step.number, skipped=step.skipped)
        return ""

    @property
    def settled(self) -> bool:
        """Whether the model has the shape that it will have in the end, so that weights may be kept as the best."""
        return self.allocator is None or self.allocator.settled

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides, as JSON values."""
        return {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from what `state` and `tensors` were when the checkpoint was written."""
        if self.allocator is not None:
            self.allocator.restore(checkpoint.step, load_tensors(checkpoint, ALLOCATOR))

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint must hold besides, as `save_checkpoint` takes it."""
        return {} if self.allocator is None else {ALLOCATOR: self.allocator.state()}

    def finish(self) -> None:
        """Cut matrices down to the ranks that are left, and draw these into the run folder."""
        if self.allocator is not None:
            self.allocator.shrink()
            atomic_write(self.out / RANKS, rank_picture(self.allocator.ranks(), self.config.start_rank).encode())

    def save(self, path: Path, model: Model, tokenizer: Tokenizer, meta: Mapping[str, Any]) -> Bundle:
        """Write the result: a whole model, or what moved.

        Args:
            path: folder of the bundle.
            model: with the best weights.
            tokenizer: of a whole model.
            meta: the content of bertsmith.json.
        """
        if self.config.method is not None:
            return save_tuned(path, model, self.config, self.base, meta, asked=self.asked)
        shape = model.config
        files = tokenizer.files(shape.architecture, max_length=shape.max_position_embeddings)
        return save_model(path, model, files, meta)

    @staticmethod
    def placed(bundle: Bundle) -> Bundle:
        """Tell a bundle that was copied within its run where its base is from there."""
        if bundle.base is None:
            return bundle
        return bundle.annotate(base=place_of(find_base(bundle), bundle.path, bundle.base.get("name", "")))


def usual(config: Any, base: Bundle, facts: Mapping[str, Any], out: Path) -> Tuning:
    """The way of a fine-tuning run.

    Args:
        config: of the run, with `peft`.
        base: the bundle that it starts from.
        facts: of the run.
        out: the run folder.
    """
    return Tuning(config.peft, base, facts, out)


def rank_picture(ranks: Mapping[str, int], start: int) -> str:
    """Ranks of all matrices, layer by layer, as SVG.

    Args:
        ranks: by name, as `Allocator.ranks` gives them.
        start: rank at the start.
    """
    cells: dict[str, dict[str, int]] = {}
    for name, rank in ranks.items():
        _, _, layer, *_, target = name.split(".")
        cells.setdefault(target, {})[f"layer {int(layer) + 1}"] = rank
    return grid(cells, title=f"Ranks that AdaLoRA left, of {start}", most=start)
