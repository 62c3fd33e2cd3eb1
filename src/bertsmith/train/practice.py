"""One fine-tuning run: rows are read, a model learns them, and the weights best on dev become a bundle."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from bertsmith.core.bundle import Bundle, atomic_write
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import Events, truncate_metrics
from bertsmith.corpus.document import Tally
from bertsmith.evaluate.score import describe
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import load_model
from bertsmith.model.heads import Model
from bertsmith.predict.engine import answer
from bertsmith.tasks.base import Answer, Example, Task, say_on_stderr
from bertsmith.tasks.origins import digest
from bertsmith.tasks.seen import inputs_seen, languages_seen
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.adversarial import with_passes
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
from bertsmith.train.finetuning import FinetuneConfig, FinetuningRun
from bertsmith.train.length import fit, seconds_per_step
from bertsmith.train.loop import Learnable, smaller, steps
from bertsmith.train.losses import shape
from bertsmith.train.optim import build_optimizer
from bertsmith.train.report import REPORT, finetuning_report, sample_rows
from bertsmith.train.run import BUNDLE, SCORES, Going, remember, stoppable
from bertsmith.train.subject import Subject
from bertsmith.train.tuning import Tuning, usual
from bertsmith.train.vocabulary import cut_to, cut_vocabulary

SHOWN = 20
LEAST_STEPS = 500


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
    whole = tokenizer = Tokenizer.load(parent.path)
    with Events(None, quiet=quiet) as screen:
        look = "steps" not in facts and not facts.get("examined")
        subject = Subject.read(cast(Any, config).task, whole, facts, train, screen.say, look=look)
        if train.shrink_vocab:
            tokenizer = cut_vocabulary(out, whole, subject.encodings)
            subject = subject.by(tokenizer, whole)
    task, data = subject.task, subject.data
    tuning = way(config, parent, facts, out)
    model = _model(parent, task, train, tuning)
    if train.shrink_vocab:
        cut_to(model, whole, tokenizer, screen.say)
    model = tuning.insert(model.to(place), seed=train.seed, say=screen.say)
    shaped = tuning.learned(shape(train, task, subject.encodings), model, precision)
    learned = with_passes(train, train.r_drop, task, model, shaped)
    feed = ExampleFeed(subject.encodings, seed=train.seed, batch_size=train.batch_size, parts=train.accumulation)
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
        _report(out, config, facts, task, answers, scores_by_split, subject.tally)
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
