"""Pruning: heads, feed-forward units, layers and pieces are taken out of a model for a task, a few at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, create_model, model_validator
from torch import Tensor

from bertsmith.compress.importance import Taylor
from bertsmith.compress.rows import Shrinking, compress_rows
from bertsmith.compress.start import START, written
from bertsmith.compress.teach import TeachConfig
from bertsmith.core.bundle import Bundle
from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model
from bertsmith.model.heads import Model
from bertsmith.model.shrink import NARROW_DECODER, Kept, cut, size
from bertsmith.predict.predictor import CONFIGS, Predictor
from bertsmith.tasks.base import task_class
from bertsmith.tokenizer.shrink import keep_pieces, needed_pieces
from bertsmith.train.checkpoint import Checkpoint, load_tensors
from bertsmith.train.finetune import FinetuneConfig
from bertsmith.train.loop import Step
from bertsmith.train.run import Going
from bertsmith.train.vocabulary import cut_to, pieces_used, told

MULTIPLE = 8
"""Units are left in multiples of this, which processors like."""
GATES = "gates"


class PruneConfig(Config):
    """What is taken out, and when."""

    keep: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the parameters that stays, reached by taking out feed-forward units; 0.6 where neither "
        "units, heads nor layers are given",
    )
    units: int | None = Field(None, ge=1, description="feed-forward units left in each layer")
    heads: int | None = Field(
        None,
        ge=1,
        description="attention heads left in each layer; the hidden size becomes this many times a head's, since "
        "Hugging Face's config has no other shape",
    )
    layers: int | None = Field(None, ge=1, description="layers left")
    vocabulary: Literal["used", "all"] = Field(
        "used", description="used: keep only pieces that occur in the rows to learn from, and single characters"
    )
    rounds: int = Field(8, ge=1, description="in how many cuts")
    share: float = Field(0.5, gt=0, lt=1, description="of the steps, in which the cuts are made; the rest mends")
    retrain: bool = Field(True, description="train between the cuts and after them; false: measure and cut only")
    batches: int = Field(32, ge=1, description="without training: batches by which each round measures importance")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.keep is not None and self.units is not None:
            raise ValueError("give keep, from which the units follow, or units")
        return self

    def targets(self, shape: ModelConfig, heads: Heads, whole: int) -> dict[str, int]:
        """How many layers, heads and units stay.

        Args:
            shape: of the model, unused pieces taken out already.
            heads: its heads.
            whole: parameters of the model before anything was taken out.

        Raises:
            ConfigError: more than there are is to stay, or too little is left for units; says what to change.
        """
        there = {
            "layers": shape.num_hidden_layers,
            "heads": shape.num_attention_heads,
            "units": shape.intermediate_size,
        }
        asked = {name: value for name in there if (value := getattr(self, name)) is not None}
        for name, value in asked.items():
            if value > there[name]:
                raise ConfigError(f"prune.{name} is {value}, but the model has only {there[name]}; choose fewer")
        found = there | asked
        if heads.decoder and (self.keep is not None or list(asked) != ["layers"]):
            raise ConfigError(NARROW_DECODER)
        keep = self.keep if self.keep is not None or asked else 0.6
        if keep is None:
            return found

        def parameters(units: int) -> int:
            changes = {
                "num_hidden_layers": found["layers"],
                "num_attention_heads": found["heads"],
                "hidden_size": found["heads"] * shape.head_size,
                "intermediate_size": units,
            }
            return size(shape.model_copy(update=changes), heads)

        one = parameters(2) - parameters(1)
        room = int((keep * whole - parameters(1)) / one) + 1
        least = min(MULTIPLE, there["units"])
        if room < least:
            raise ConfigError(
                f"prune.keep={keep:g} asks for {keep * whole:,.0f} of {whole:,} parameters, but without a single "
                f"feed-forward unit {parameters(1):,} are left; keep more, or fewer prune.layers or prune.heads"
                + ("" if self.vocabulary == "used" else ", or set prune.vocabulary=used")
            )
        return found | {"units": min(there["units"], room // least * least)}


class Pruner:
    """Cuts a model down, from the first round to the last; called once a step, while gradients are still there.

    Between the numbers at the start and at the end, each round leaves what the third power of the rounds that are left
    says. What a round takes out is what has mattered least since the round before.

    Attributes:
        rounds: the steps after which a cut is made.
        cuts: what each cut so far has left.
        layers: the numbers, from 0, that the layers had at the beginning.
        dims: likewise of the dimensions of the residual stream.

    Source: Zhu & Gupta 2017 (arXiv:1710.01878) for the schedule; see `Taylor` for the importance.
    """

    def __init__(
        self,
        model: Model,
        optimizer: torch.optim.Optimizer,
        config: PruneConfig,
        targets: Mapping[str, int],
        total: int,
    ) -> None:
        """Nothing is cut yet.

        Args:
            model: of the shape at the start; becomes smaller.
            optimizer: its state becomes smaller too; without training its rates become 0.
            config: the schedule.
            targets: how many layers, heads and units stay in the end.
            total: steps of the run.
        """
        self.model, self.optimizer, self.targets = model, optimizer, dict(targets)
        last = max(1, int(config.share * total)) if config.retrain else total
        count = min(config.rounds, last)
        self.rounds = [last * (n + 1) // count for n in range(count)]
        shape = model.config
        self.start = {
            "layers": shape.num_hidden_layers,
            "heads": shape.num_attention_heads,
            "units": shape.intermediate_size,
        }
        self.layers, self.dims = list(range(shape.num_hidden_layers)), list(range(shape.hidden_size))
        self.cuts: list[Kept] = []
        self.taylor = Taylor()
        if not config.retrain:
            for group in optimizer.param_groups:
                group["peak_lr"] = 0.0

    @property
    def settled(self) -> bool:
        """Whether the last cut is made."""
        return len(self.cuts) == len(self.rounds)

    def take(self, step: Step, scale: float) -> str:
        """Take a step into account, and cut when it is time.

        Args:
            step: just taken.
            scale: by which its gradients must be multiplied to undo their clipping.

        Returns:
            A line for the user about a cut.
        """
        if self.settled:
            return ""
        if not step.skipped:
            self.taylor(self.model, scale)
        if step.number < self.rounds[len(self.cuts)] or not self.taylor.count:
            return ""
        left = (1 - (len(self.cuts) + 1) / len(self.rounds)) ** 3
        counts = {name: end + round((self.start[name] - end) * left) for name, end in self.targets.items()}
        shape = self.model.config
        now = (shape.num_hidden_layers, shape.num_attention_heads, shape.intermediate_size)
        wanted = {
            name: None if counts[name] == have else counts[name]
            for name, have in zip(("layers", "heads", "units"), now, strict=True)
        }
        self._cut(self.taylor.importance().kept(**wanted, head_size=shape.head_size))
        shape = self.model.config
        return (
            f"step {step.number}: cut {len(self.cuts)} of {len(self.rounds)}: {shape.num_hidden_layers} layers of "
            f"{shape.num_attention_heads} heads and {shape.intermediate_size} units, "
            f"{size(shape, self.model.heads):,} parameters"
        )

    def _cut(self, kept: Kept) -> None:
        cut(self.model, kept, self.optimizer)
        if kept.layers is not None:
            self.layers = [self.layers[number] for number in kept.layers]
        if kept.dims is not None:
            self.dims = [self.dims[number] for number in kept.dims]
        self.cuts.append(kept)
        self.taylor = Taylor()

    def state(self) -> dict[str, Any]:
        """What `restore` needs beside the tensors; JSON values."""
        return {"cuts": [asdict(kept) for kept in self.cuts], "measured": self.taylor.count}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Cut the model as it was cut when the checkpoint was written, and go on measuring from there."""
        for kept in checkpoint.state["cuts"]:
            self._cut(Kept(**kept))
        where = next(self.model.parameters()).device
        sums = {name: value.to(where) for name, value in load_tensors(checkpoint, GATES).items()}
        self.taylor.restore(checkpoint.state["measured"], sums)


class Pruning(Shrinking):
    """What a run does beside fine-tuning when its model is pruned; its teacher is the model as it was."""

    verb = "prune"

    def prepared(self, model: Model) -> None:
        """Follow the teacher's hidden states and answers with all layers and dimensions that are still there."""
        if self.settings.prune.retrain:
            self.taught = self.beside(model, range(1, model.config.num_hidden_layers + 1), None)

    def schedule(self, model: Model, optimizer: torch.optim.Optimizer, total: int) -> None:
        """Plan the cuts.

        Args:
            model: to be cut.
            optimizer: of its weights.
            total: steps of the run.
        """
        whole = load_model(self.parent)
        settings: PruneConfig = self.settings.prune
        targets = settings.targets(model.config, model.heads, size(whole.config, whole.heads))
        self.pruner = Pruner(model, optimizer, settings, targets, total)

    def take(self, step: Step) -> str:
        """Measure, and cut when it is time.

        Args:
            step: just taken.
        """
        clipped = max(1.0, float(step.grad_norm) / self.settings.train.max_grad_norm)
        said = self.pruner.take(step, clipped)
        if said:
            self._follow()
        return said

    def _follow(self) -> None:
        if self.taught is not None:
            self.taught.layers = [number + 1 for number in self.pruner.layers]
            self.taught.dims = self.pruner.dims
            self.taught.ready(self.pruner.model)

    @property
    def settled(self) -> bool:
        """Whether the last cut is made."""
        return self.pruner.settled

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides."""
        return self.pruner.state()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The importance measured since the last cut."""
        return {GATES: self.pruner.taylor.sums} if self.pruner.taylor.sums else {}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from what `state` and `tensors` were when the checkpoint was written."""
        self.pruner.restore(checkpoint)
        self._follow()


def prune_class(task: str) -> type[FinetuneConfig]:
    """The config of pruning a model for `task`.

    Args:
        task: that labelled rows are for.

    Raises:
        ConfigError: no such task.
    """
    if task not in CONFIGS:
        raise ConfigError(f"a model for {task} cannot be pruned; the tasks are {', '.join(CONFIGS)}")
    settings = CONFIGS[task]
    return create_model(
        "PruneRunConfig",
        __base__=FinetuneConfig,
        task=(settings, Field(default_factory=settings)),
        prune=(PruneConfig, Field(default_factory=PruneConfig)),
        distil=(TeachConfig, Field(default_factory=TeachConfig)),
    )


def prune(bundle: str | Path, data: Path, out: Path, config: FinetuneConfig, **how: Any) -> Bundle:
    """Take out of a model for a task what matters least; the result, a plain smaller model, is `out/bundle`.

    First pieces of the vocabulary that the rows do not use are taken out; then, over the first part of the run, heads,
    units and layers, while what is left goes on learning from the rows and from the model as it was. `out/comparison`
    holds the page with size, speed and score of both.

    Args:
        bundle: a bundle that `finetune` made, or `distil`.
        data: labelled rows.
        out: the run folder.
        config: made by `prune_class(task)`.
        how: `dev`, `test`, `resume`, `device`, `threads`, `quiet` and `command`, as for `finetune`.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: a row cannot be used; says where.
        BundleError: the bundle is not a whole model with a head.
        KeyboardInterrupt: stopped on request, after saving.
    """
    settings: PruneConfig = config.prune  # type: ignore[attr-defined]
    if config.train.ema is not None:
        raise ConfigError(
            "train.ema is a mean of weights that keep their shapes, and pruning changes these; leave it out"
        )
    if not settings.retrain:
        # Nothing is learned, so that chance and rates have no say; rounds of the batches that are wanted.
        steps = settings.rounds * settings.batches
        changes = {"steps": steps, "budget": None, "epochs": None, "tokens": None, "dropout": 0.0, "evaluations": 1}
        config = config.model_copy(update={"train": config.train.model_copy(update=changes)})

    def begin(parent: Bundle, going: Going) -> Path:
        path = out / START
        if path.exists():
            return path
        predictor = Predictor(parent, device="cpu", engine="torch")
        model, tokenizer = predictor.model, predictor.tokenizer
        whole = size(model.config, model.heads)
        if settings.vocabulary == "used":
            task = predictor.task
            assert task is not None
            used = pieces_used(task.encode(task.rows(data, Tally())))
            cut_to(model, tokenizer, fewer := keep_pieces(tokenizer, needed_pieces(tokenizer, used)), going.say)
            if how.get("dev"):  # rows that say what the fewer pieces mean for others
                rows = task.rows(how["dev"], Tally())
                other = task_class(str(parent.meta["task"]))(fewer, task.config)
                going.say(told(task.encode(rows), tokenizer, other.encode(rows), fewer))
            tokenizer = fewer
        settings.targets(model.config, model.heads, whole)
        return written(path, model, tokenizer, parent, "prune", settings.model_dump(mode="json")).path

    return compress_rows(Pruning, bundle, data, out, config, begin, **how)
