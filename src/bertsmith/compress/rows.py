"""Compressing a model for a task: fine-tuning of something smaller, beside the model that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from bertsmith.compress import report
from bertsmith.compress.start import entry, refuse_small_parts
from bertsmith.compress.teach import Taught
from bertsmith.core.bundle import Bundle
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.corpus.document import Tally
from bertsmith.model.convert import load_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Task, task_class
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.finetuning import FinetuneConfig
from bertsmith.train.loop import Learnable
from bertsmith.train.practice import run_once
from bertsmith.train.rows import read_data
from bertsmith.train.run import BUNDLE, Going, conducted, flatten, remember
from bertsmith.train.tuning import Tuning

COMPARISON = "comparison"


class Shrinking(Tuning):
    """What a run does beside fine-tuning when its model is, or becomes, smaller than its parent.

    Attributes:
        verb: `distil` or `prune`.
        parent: the bundle that the run was asked to make smaller.
        taught: the task beside its teacher; None where nothing is learned from one.
    """

    verb = ""

    def __init__(self, config: Any, base: Bundle, facts: Any, out: Path) -> None:
        """Nothing is changed yet; see `Tuning`."""
        super().__init__(config.peft, base, facts, out)
        self.settings, self.parent = config, Bundle.open(facts["from"]).whole()
        self.taught: Taught | None = None

    def learned(self, task: Learnable, model: Model, precision: Precision) -> Learnable:
        """The task beside its teacher.

        Args:
            task: the task.
            model: the smaller one.
            precision: of matrix products.
        """
        self.task, self.precision = task, precision
        self.prepared(model)
        return task if self.taught is None else self.taught

    def prepared(self, model: Model) -> None:
        """Choose the teacher.

        Args:
            model: the one that learns.
        """
        raise NotImplementedError

    def beside(self, model: Model, layers: Sequence[int], dims: Sequence[int] | None) -> Taught | None:
        """The task beside a teacher that reads the same pieces as `model`; None where no lesson has any weight.

        Args:
            model: the one that learns.
            layers: the teacher's layers that its own follow, from 1.
            dims: which of the teacher's dimensions it has; None: all.
        """
        lessons = self.settings.distil
        if not (lessons.logits or lessons.hidden or lessons.relations):
            return None
        teacher = load_model(self.teacher()).to(next(model.parameters()).device).eval().requires_grad_(False)
        taught = Taught(self.task, teacher, lessons, layers, dims, self.precision.dtype)
        taught.ready(model)
        return taught

    def teacher(self) -> Bundle:
        """The model to learn from: the one that the run begins with."""
        return self.base

    def save(self, path: Path, model: Model, tokenizer: Tokenizer, meta: Any) -> Bundle:
        """Write the result with the history of what was done to it.

        Args:
            path: folder of the bundle.
            model: with the best weights.
            tokenizer: of the model.
            meta: the content of bertsmith.json.
        """
        sections = [name for name in ("student", "prune", "distil") if hasattr(self.settings, name)]
        settings = {name: getattr(self.settings, name).model_dump(mode="json") for name in sections}
        done = [*self.parent.meta.get("compressed", []), entry(self.parent, model, self.verb, settings)]
        return super().save(path, model, tokenizer, {**meta, "compressed": done})


def compress_rows(
    way: type[Shrinking],
    bundle: str | Path,
    data: Path,
    out: Path,
    config: FinetuneConfig,
    begin: Callable[[Bundle, Going], Path],
    *,
    dev: Path | None = None,
    test: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
    command: str = "",
) -> Bundle:
    """Make a smaller model for the task of another, and measure both side by side.

    Args:
        way: what is done beside fine-tuning.
        bundle: the model.
        data: labelled rows.
        out: the run folder.
        config: with `train`, `task`, `distil` and the section of `way.verb`.
        begin: writes what the run begins with, and says where.
        dev: rows to choose the best weights by; None splits off a tenth of `data`.
        test: rows that are scored once, at the end.
        resume: go on with the run in `out`.
        device: where to compute; None chooses.
        threads: processor threads; None takes one for each core.
        quiet: print no progress.
        command: what a person would type to repeat this.
    """
    refuse_small_parts(config)
    parent = Bundle.open(bundle).whole()
    predictor = Predictor(parent, device="cpu", engine="torch")
    task = predictor.task_name
    config = _as_parent(config, predictor)
    files = {"data": str(data), "dev": str(dev) if dev else None, "test": str(test) if test else None}
    asked: dict[str, Any] = {"task": task, **files, "from": str(bundle)}

    def work(going: Going) -> Bundle:
        if going.facts.setdefault("parent", parent.hash) != parent.hash:
            raise ConfigError(f"{bundle}: no longer the model that {out} was begun with; put back what was there")
        if (out / BUNDLE).exists():  # stopped while both were compared
            result = Bundle.open(out)
        else:
            going.facts["start"] = str(begin(parent, going))
            remember(out, going.facts)
            result = run_once(out, config, going, way)[0][""]
        compare(out, parent, result, going, config)
        return result

    again = ("compress", way.verb, str(bundle), "--data", data, "--out", out)
    how: dict[str, Any] = {"device": device, "threads": threads, "quiet": quiet, "resume": resume}
    how["last"] = f"{COMPARISON}/scores.json"
    return conducted(way.verb, out, config, asked, work, finished=Bundle.open, again=again, command=command, **how)


def _as_parent(config: FinetuneConfig, parent: Predictor) -> FinetuneConfig:
    """The settings, those of the task being its parent's where no other was given."""
    if parent.task is None:
        raise ConfigError(
            f"{parent.bundle.path}: a pretrained model has no task, so labelled rows say nothing of it; run `bertsmith "
            "finetune` on it first, or distil it on text"
        )
    given: Any = cast(Any, config).task
    changes = {name: getattr(given, name) for name in given.model_fields_set}
    if parent.model.heads.decoder:
        # By default as many as the encoder's, of which there will be fewer.
        changes["decoder_layers"] = parent.model.heads.decoder
    return config.model_copy(update={"task": parent.task.config.model_copy(update=changes)})


def compare(out: Path, parent: Bundle, child: Bundle, going: Going, config: FinetuneConfig) -> None:
    """Measure size, speed and score of both models on the dev rows, and write the page.

    Args:
        out: the run folder.
        parent: the model that was made smaller.
        child: the result.
        going: the run.
        config: its settings.
    """
    task = cast(Task, task_class(going.facts["task"])(Tokenizer.load(child.path), cast(Any, config).task))
    rows = read_data(task, going.facts, config.train.rows, Tally(), lambda text: None).dev
    where: dict[str, Any] = {"device": str(going.place), "precision": config.train.precision, "engine": "torch"}
    named = parent.path.parent if parent.path.name == BUNDLE else parent.path
    before = named.name if named.name != out.name else str(named)
    models = {before: Predictor(parent, **where), out.name: Predictor(child, **where)}
    sides = report.measure({name: report.knowing(one, task) for name, one in models.items()}, rows)
    (out / COMPARISON).mkdir(exist_ok=True)
    done = child.meta["compressed"]
    result = report.write(
        out / COMPARISON,
        *sides,
        title=f"Compressed: {' → '.join(step['how'] for step in done)}",
        settings=flatten(done[-1]["settings"]),
        notes=f"Scores are those on dev, by which the weights were chosen; its rows: {len(rows):,}.",
    )
    lost = f", {result['drop']:.2f} points of {sides[1].headline} lost" if result["drop"] is not None else ""
    faster = ", ".join(f"{ratio:.2f} x faster at batch {size}" for size, ratio in result["faster"].items())
    going.say(f"{result['smaller']:.2f} x smaller, {faster}{lost}\ncomparison: {out / COMPARISON / 'report.html'}")
