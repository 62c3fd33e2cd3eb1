"""One fine-tuning run: rows are read, a model learns them, and the weights best on dev become bundles."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertsmith.core.bundle import Bundle
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import Events, truncate_metrics
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import load_model
from bertsmith.model.heads import Model
from bertsmith.model.views import Shared
from bertsmith.tasks.base import Task, say_on_stderr
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.adversarial import with_passes
from bertsmith.train.average import ExponentialAverage
from bertsmith.train.best import Best
from bertsmith.train.checkpoint import (
    discard,
    latest_checkpoint,
    load_checkpoint,
    put_weights,
    refuse_small_disk,
    save_checkpoint,
)
from bertsmith.train.contrastive import EPOCHS, MOST_STEPS, Contrast, PairFeed, refuse_contrastive
from bertsmith.train.feed import ExampleFeed, TaskFeed
from bertsmith.train.finetuning import FinetuneConfig, FinetuningRun
from bertsmith.train.length import fit, seconds_per_step
from bertsmith.train.loop import Learnable, smaller, steps
from bertsmith.train.losses import shape
from bertsmith.train.optim import build_optimizer
from bertsmith.train.report import REPORT
from bertsmith.train.result import Result
from bertsmith.train.run import Going, remember, stoppable
from bertsmith.train.schedule import phased
from bertsmith.train.subject import Subject
from bertsmith.train.together import headline_of, judged_together, shown, together
from bertsmith.train.tuning import Tuning, usual
from bertsmith.train.vocabulary import cut_to, cut_vocabulary

SHOWN = 20
LEAST_STEPS = 500


def run_once(
    out: Path,
    config: FinetuneConfig,
    going: Going,
    way: Callable[[Any, Bundle, Mapping[str, Any], Path], Tuning] = usual,
) -> tuple[dict[str, Bundle], dict[str, dict[str, float]]]:
    """One run, from its rows to its bundles; goes on from the newest checkpoint where there is one.

    Args:
        out: the run folder.
        config: made by `finetune.config_class` or `multi.multi_class`.
        going: its facts (`task`, `data`, `dev`, `test`, `from`, and `start` where the weights to begin with are not
            those of `from`), to which is added what it finds out; and where it computes.
        way: makes of config, bundle to start from, facts and folder what is done beside the usual.

    Returns:
        The bundle of each task by name, which is empty for a single task; and by split the scores of the weights.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: a row cannot be used; says where.
        KeyboardInterrupt: stopped on request, after saving.
    """
    began = time.monotonic()
    train, facts, place, precision, quiet = config.train, going.facts, going.place, going.precision, going.quiet
    parent = Bundle.open(facts.get("start", facts["from"])).whole()
    with Events(None, quiet=quiet) as screen:
        tuning = way(config, parent, facts, out)
        subjects, tokenizer = _subjects(out, config, facts, Tokenizer.load(parent.path), screen.say)
        refuse_contrastive(train, {name: one.task for name, one in subjects.items()}, alone=way is usual)
        model = tuning.insert(
            _model(parent, subjects, tokenizer, train, tuning, screen.say).to(place), seed=train.seed, say=screen.say
        )
    contrast = Contrast(model, subjects[""].encodings) if train.contrastive else None
    learned = together(
        {
            name: with_passes(
                train, train.r_drop, one.task, model,
                tuning.learned(contrast or shape(train, one.task, one.encodings), model, precision),
            )
            for name, one in subjects.items()
        }
    )  # fmt: skip
    feed = _feed(config, subjects)
    optimizer = build_optimizer(model, train)
    metric = metric_of(config, headline_of(subjects))
    if "steps" not in facts:
        if isinstance(feed, TaskFeed):
            dealt = ", ".join(f"{name} {share:.0%}" for name, share in zip(subjects, feed.shares, strict=True))
            screen.say(f"updates: {dealt} (train.temperature={config.temperature:g}); weights are kept by dev {metric}")
        started = time.monotonic()
        names = judged_together(subjects, model, precision)[1]
        if metric not in names:
            raise ConfigError(f"train.metric '{metric}' is not one of {', '.join(names)}")
        evaluating = (time.monotonic() - started) * (train.evaluations + 1)
        facts |= {"headline": metric, **tuning.facts}
        facts["steps"] = _steps(train, model, learned, feed, precision, began, evaluating, screen.say)
        remember(out, facts)

    total: int = facts["steps"]
    train = phased(train, total, feed.tokens_per_step)
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
            if heads := step.batches[0].heads:
                line[f"train/{heads}/loss"] = float(step.loss)
            own = f"train/{heads}/" if heads else "train/"
            line |= {f"{own}{name}": float(value) for name, value in step.parts.items()}
            line |= {"lr": step.lr, "grad_norm": float(step.grad_norm), "tokens_per_second": speed}
            if done % every == 0 or done == total:
                with average.inside(model):
                    if contrast is not None:
                        contrast.fit(precision)
                    scores = judged_together(subjects, model, precision)[1]
                    if tuning.settled:
                        best.judge(done, scores, model)
                line |= {f"eval/{name}": value for name, value in scores.items()}
                events.say(f"step {done}: dev {metric} {scores[metric]:.4f}{shown(subjects, scores)}")
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

        put_weights(model, best.chosen(out, train.lr))
        tuning.finish()
        result = Result.of(subjects, model, precision)
        for name, scores in result.scores.items():
            told = ", ".join(f"{key} {value:.4f}" for key, value in scores.items() if "/" not in key)
            events.say(f"{name}: {told}{shown(subjects, scores)}")
        bundles = result.write(out, config, facts, tokenizer, tuning, best.step)
        discard(out, done)
        listed = "".join(f"bundle: {bundle.path}\n" for bundle in bundles.values())
        events.say(f"{listed}report: {out / REPORT}")
    return bundles, result.scores


def _subjects(
    out: Path, config: FinetuneConfig, facts: Mapping[str, Any], whole: Tokenizer, say: Callable[[str], None]
) -> tuple[dict[str, Subject], Tokenizer]:
    """What is learned, by name, and the vocabulary by which it is encoded."""
    train, look = config.train, "steps" not in facts and not facts.get("examined")
    subjects = {}
    for name, (settings, where) in config.asked(facts).items():
        with _naming(name):
            subjects[name] = Subject.read(settings, whole, where, train, _under(name, say), look=look)
    if not train.shrink_vocab:
        return subjects, whole
    tokenizer = cut_vocabulary(out, whole, [encoding for one in subjects.values() for encoding in one.encodings])
    return {name: one.by(tokenizer, whole) for name, one in subjects.items()}, tokenizer


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Let errors about the settings of one of several tasks name its section."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(re.sub(r"\btask\.(?=\w)", f"tasks.{name}.", str(error)) if name else str(error)) from None


def _under(name: str, say: Callable[[str], None]) -> Callable[[str], None]:
    return say if not name else lambda text: say(f"{name}: {text}")


def _model(
    parent: Bundle,
    subjects: Mapping[str, Subject],
    tokenizer: Tokenizer,
    train: FinetuningRun,
    tuning: Tuning,
    say: Callable[[str], None],
) -> Model:
    """The model with the heads of its task, or of all tasks on one encoder."""
    trained, whole = load_model(parent), Tokenizer.load(parent.path)
    shape: ModelConfig = trained.config.model_copy(
        update={"hidden_dropout": train.dropout, "classifier_dropout": train.dropout}
    )

    def one(name: str, task: Task, say: Callable[[str], None]) -> Model:
        with _naming(name):
            model = Model(shape, task.head(tuning.room(shape)), seed=train.seed)
        if train.init == "bundle":
            model.load_state_dict(load_model(parent, model.heads, seed=train.seed).state_dict())
        if train.shrink_vocab:
            cut_to(model, whole, tokenizer, say)
        return model

    if list(subjects) == [""]:
        return one("", subjects[""].task, say)
    quiet: Callable[[str], None] = lambda text: None  # noqa: E731
    first = next(iter(subjects))
    return Shared(
        (name, one(name, subject.task, say if name == first else quiet)) for name, subject in subjects.items()
    )


def _feed(config: FinetuneConfig, subjects: Mapping[str, Subject]) -> ExampleFeed | TaskFeed:
    train = config.train
    if train.contrastive:
        encodings = subjects[""].encodings
        return PairFeed(encodings, seed=train.seed, batch_size=train.batch_size, parts=train.accumulation)
    feeds = [
        ExampleFeed(one.encodings, seed=train.seed, batch_size=train.batch_size, parts=train.accumulation, heads=name)
        for name, one in subjects.items()
    ]
    return feeds[0] if list(subjects) == [""] else TaskFeed(feeds, config.temperature)


def _steps(
    train: FinetuningRun,
    model: Model,
    task: Learnable,
    feed: ExampleFeed | TaskFeed,
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
        if train.contrastive:
            count = min(EPOCHS * feed.steps_per_epoch, MOST_STEPS)
        say(f"{count} updates ({count / feed.steps_per_epoch:.1f} epochs); choose with --epochs, --steps or --budget")
        return count
    parts = list(zip(feed.shares, feed.feeds, strict=True)) if isinstance(feed, TaskFeed) else [(1.0, feed)]
    seconds = min(5.0, train.budget / 20) / len(parts)
    each = sum(
        share * seconds_per_step(model, task, part, train, dtype=precision.dtype, seconds=seconds)
        for share, part in parts
    )
    return fit(train.budget, time.monotonic() - began, each, evaluating, say)


def metric_of(config: FinetuneConfig, headline: str) -> str:
    """The score by which weights are kept: as asked, or the task's own `headline`."""
    return config.train.metric or headline
