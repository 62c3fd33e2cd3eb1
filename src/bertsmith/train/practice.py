"""One fine-tuning run: rows are read, a model learns them, and the weights best on dev become a bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import Field, model_validator

from bertsmith.core.bundle import Bundle, atomic_write
from bertsmith.core.config import Cadence, Config, Count
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import Events, truncate_metrics
from bertsmith.corpus.document import Tally
from bertsmith.evaluate.score import describe
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import load_model
from bertsmith.model.heads import Model
from bertsmith.peft.config import PeftConfig, with_learning_rate
from bertsmith.predict.engine import answer
from bertsmith.tasks.base import Answer, Example, Task, say_on_stderr, task_class
from bertsmith.tasks.doctor import Ledger, examine
from bertsmith.tasks.origins import digest
from bertsmith.tasks.seen import inputs_seen, languages_seen
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.adversarial import AdversarialConfig, refuse_attack, with_passes
from bertsmith.train.average import ExponentialAverage
from bertsmith.train.best import Best, judged
from bertsmith.train.checkpoint import (
    discard,
    latest_checkpoint,
    load_checkpoint,
    put_weights,
    refuse_small_disk,
    save_checkpoint,
)
from bertsmith.train.feed import ExampleFeed
from bertsmith.train.length import Length, fit, seconds_per_step
from bertsmith.train.loop import Learnable, smaller, steps
from bertsmith.train.losses import LossConfig, refuse_misfits, shape
from bertsmith.train.optim import OptimConfig, build_optimizer
from bertsmith.train.report import REPORT, finetuning_report, sample_rows
from bertsmith.train.rows import read_data
from bertsmith.train.run import BUNDLE, SCORES, Going, remember, stoppable
from bertsmith.train.tuning import Tuning, usual

SHOWN = 20
LEAST_STEPS = 500


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
    seed: int = Field(0, ge=0, description="of fresh weights, order and dropout")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of matrix products; auto: bf16 where it is fast"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="on embeddings, on each sublayer's output and before the head")
    init: Literal["bundle", "random"] = Field("bundle", description="random: the bundle's shape with fresh weights")
    rows: Count | None = Field(None, ge=1, description="learn from so many rows only, drawn evenly")
    shots: int | None = Field(
        None, ge=1, description="learn from so many rows of each class only, drawn by the seed; dev and test stay whole"
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
        if self.peft.method == "adalora" and self.train.ema is not None:
            raise ValueError("adalora takes ranks away on the way, and train.ema would bring them back; leave one out")
        if self.train.rows is not None and self.train.shots is not None:
            raise ValueError("train.rows and train.shots both say how many rows are learned from; choose one of them")
        return self


def run_once(
    out: Path,
    config: FinetuneConfig,
    going: Going,
    way: Callable[[Any, Bundle, Mapping[str, Any], Path], Tuning] = usual,
) -> tuple[Bundle, dict[str, dict[str, float]]]:
    """One run, from its rows to its bundle; goes on from the newest checkpoint where there is one.

    Args:
        out: the run folder.
        config: made by `finetune.config_class`.
        going: its facts (`task`, `data`, `dev`, `test`, `from`, and `start` where the weights to begin with are not
            those of `from`), to which is added what it finds out; and where it computes.
        way: makes of config, bundle to start from, facts and folder what is done beside the usual.

    Returns:
        The bundle, and by split the scores of its weights.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: a row cannot be used; says where.
        KeyboardInterrupt: stopped on request, after saving.
    """
    began = time.monotonic()
    train, facts, place, precision, quiet = config.train, going.facts, going.place, going.precision, going.quiet
    parent = Bundle.open(facts.get("start", facts["from"])).whole()
    tokenizer = Tokenizer.load(parent.path)
    with Events(None, quiet=quiet) as screen:
        task = cast(Task, task_class(facts["task"])(tokenizer, cast(Any, config).task, say=screen.say))
        tally = Ledger()
        data = read_data(task, facts, train.rows, tally, screen.say, shots=train.shots, seed=train.seed)
        refuse_misfits(train, task, train.dropout)
        refuse_attack(train, task)
        if train.doctor != "off" and "steps" not in facts and not facts.get("examined"):
            found = examine(task, data.splits, tally)
            screen.say(found.text())
            if train.doctor == "strict":
                found.strict()
            tally = Ledger()
        encodings = task.encode(data.train, tally)
        if tally.counts:
            screen.say("skipped or cut:\n  " + tally.summary().replace("\n", "\n  "))
    tuning = way(config, parent, facts, out)
    model = tuning.insert(_model(parent, task, train, tuning).to(place), seed=train.seed, say=screen.say)
    shaped = tuning.learned(shape(train, task, encodings), model, precision)
    learned = with_passes(train, train.r_drop, task, model, shaped)
    feed = ExampleFeed(encodings, seed=train.seed, batch_size=train.batch_size, parts=train.accumulation)
    optimizer = build_optimizer(model, train)
    metric = metric_of(config, task.headline)
    if "steps" not in facts:
        started = time.monotonic()
        names = judged(task, model, data.dev, precision)[1]
        if metric not in names:
            raise ConfigError(f"train.metric '{metric}' is not one of {', '.join(names)}")
        evaluating = (time.monotonic() - started) * (train.evaluations + 1)
        facts |= {"headline": metric, **tuning.facts}
        facts["steps"] = _steps(train, model, learned, feed, precision, began, evaluating, screen.say)
        remember(out, facts)

    total: int = facts["steps"]
    every = -(-total // train.evaluations)
    tuning.schedule(model, optimizer, total)
    checkpoint = latest_checkpoint(out, say_on_stderr)
    if checkpoint is None:
        refuse_small_disk(out, model)
    truncate_metrics(out, checkpoint.step if checkpoint is not None else 0)
    with Events(out, total=total, quiet=quiet, track=train.track) as events, stoppable() as stop:
        done, tokens, seconds = 0, 0, 0.0
        best, average = Best(metric, train.patience), ExponentialAverage(train.ema)
        if checkpoint is not None:
            tuning.restore(checkpoint)
            load_checkpoint(checkpoint, model, optimizer)
            state = checkpoint.state
            done, tokens, seconds = checkpoint.step, state["tokens"], state["seconds"]
            best.restore(checkpoint, model)
            average.restore(checkpoint, model)
            events.say(f"resumed at step {done} of {total}")
        saved_at, saved_step = time.monotonic(), done
        began_at = time.monotonic() - seconds
        for step in steps(
            model, learned, feed, optimizer, train,
            total=total, start=total if best.weary else done, dtype=precision.dtype, seed=train.seed,
        ):  # fmt: skip
            done = step.number
            if said := tuning.take(step):
                events.say(said)
            average.take(done, model)
            if step.halved:
                events.say(smaller(step))
            tokens += step.tokens
            speed = step.tokens / step.seconds
            seconds = time.monotonic() - began_at
            line = {"tokens": tokens, "seconds": seconds, "train/loss": float(step.loss)}
            line |= {f"train/{name}": float(value) for name, value in step.parts.items()}
            line |= {"lr": step.lr, "grad_norm": float(step.grad_norm), "tokens_per_second": speed}
            if done % every == 0 or done == total:
                with average.inside(model):
                    scores = judged(task, model, data.dev, precision)[1]
                    if tuning.settled:
                        best.judge(done, scores, model)
                line |= {f"eval/{name}": value for name, value in scores.items()}
                events.say(f"step {done}: dev {metric} {scores[metric]:.4f}")
            if step.skipped:
                events.say(f"step {done}: the gradient is not finite, the update is skipped")
            events.log(done, **line)
            events.progress(done, loss=float(step.loss), tokens_per_second=speed)
            unfinished = done < total and not best.weary
            due = train.checkpoint_every.due(done - saved_step, time.monotonic() - saved_at)
            if due or stop.asked or not unfinished:
                state = {"tokens": tokens, "seconds": seconds, "best": best.state(), **tuning.state()}
                last = None if unfinished else events.say
                more = best.tensors() | average.tensors() | tuning.tensors()
                save_checkpoint(out, done, model, optimizer, state, more, last=last)
                saved_at, saved_step = time.monotonic(), done
            if stop.asked and unfinished:
                raise KeyboardInterrupt
            if best.weary:
                events.say(f"no better dev {metric} in {train.patience} evaluations: stopping at step {done}")
                break

        put_weights(model, best.weights)
        tuning.finish()
        answers = {"dev": (judged(task, model, data.dev, precision)[0], data.dev)}
        if data.test:
            answers["test"] = (answer(task, model, data.test, precision=precision), data.test)
        scores_by_split = {name: task.score(*pair) for name, pair in answers.items()}
        for name, scores in scores_by_split.items():
            events.say(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in scores.items() if "/" not in key))
        origin = Bundle.open(facts["from"])
        sums = {facts[name]: digest(facts[name]) for name in ("data", "dev", "test") if facts[name]}
        meta = {
            "task": facts["task"],
            "labels": list(task.labels),
            "headline": task.headline,
            "task_config": task.config.model_dump(mode="json"),
            "lineage": {
                "parent": origin.hash if train.init == "bundle" else None,
                "base_model": origin.hub_name(facts["from"]) if train.init == "bundle" else None,
                "data": sums,
                "configs": config.model_dump(mode="json"),
                "steps": best.step,
            },
            "scores": scores_by_split,
            "splits": data.described(facts, sums),
            "languages": languages_seen(data.train),
            "inputs_seen": inputs_seen(data.train, tokenizer),
        }
        atomic_write(out / SCORES, as_json(scores_by_split))
        _report(out, config, facts, task, answers, scores_by_split, tally)
        bundle = tuning.save(out / BUNDLE, model, tokenizer, meta)
        discard(out, done)
        events.say(f"bundle: {bundle.path}\nreport: {out / REPORT}")
    return bundle, scores_by_split


def _model(parent: Bundle, task: Task, train: FinetuningRun, tuning: Tuning) -> Model:
    trained = load_model(parent)
    shape: ModelConfig = trained.config.model_copy(
        update={"hidden_dropout": train.dropout, "classifier_dropout": train.dropout}
    )
    model = Model(shape, task.head(tuning.room(shape)), seed=train.seed)
    if train.init == "bundle":
        model.load_state_dict(load_model(parent, model.heads, seed=train.seed).state_dict())
    return model


def _steps(
    train: FinetuningRun,
    model: Model,
    task: Learnable,
    feed: ExampleFeed,
    precision: Precision,
    began: float,
    evaluating: float,
    say: Callable[[str], None],
) -> int:
    count = train.count(tokens_per_step=feed.tokens_per_step, steps_per_epoch=feed.steps_per_epoch)
    if count is not None:
        return count
    if train.budget is None:
        count = max(3 * feed.steps_per_epoch, LEAST_STEPS)
        say(f"{count} updates ({count / feed.steps_per_epoch:.1f} epochs); choose with --epochs, --steps or --budget")
        return count
    each = seconds_per_step(model, task, feed, train, dtype=precision.dtype, seconds=min(5.0, train.budget / 20))
    return fit(train.budget, time.monotonic() - began, each, evaluating, say)


def _report(
    out: Path,
    config: FinetuneConfig,
    facts: Mapping[str, Any],
    task: Task,
    answers: Mapping[str, tuple[list[Answer], Sequence[Example]]],
    scores: Mapping[str, Mapping[str, float]],
    tally: Tally,
) -> None:
    split = "test" if "test" in answers else "dev"
    found, examples = answers[split]
    picture = describe(task, found, examples, tally).picture()
    rows = sample_rows(examples[:SHOWN], found[:SHOWN])
    finetuning_report(out, config, facts, scores, rows, picture)


def metric_of(config: FinetuneConfig, headline: str) -> str:
    """The score by which weights are kept: as asked, or the task's own `headline`."""
    return config.train.metric or headline


def as_json(value: Any) -> bytes:
    """JSON as files of a run hold it."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
