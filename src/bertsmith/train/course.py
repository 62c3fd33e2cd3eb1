"""The course of a pretraining run: its steps, what is measured and saved on the way, and the bundle at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import ValidationError

from bertsmith.core.bundle import Bundle
from bertsmith.core.device import Precision
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import Events, truncate_metrics
from bertsmith.corpus.store import Store
from bertsmith.evaluate.pretraining import held_out_scores
from bertsmith.model.convert import load_model
from bertsmith.model.heads import Model
from bertsmith.tasks.base import say_on_stderr
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.tasks.windows import Passages
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train import branch, continued
from bertsmith.train import samples as shown
from bertsmith.train.average import Average
from bertsmith.train.best import Best
from bertsmith.train.checkpoint import discard, latest_checkpoint, load_checkpoint, refuse_small_disk, save_checkpoint
from bertsmith.train.compile import compile_for
from bertsmith.train.distributed import Ranks
from bertsmith.train.ending import finish
from bertsmith.train.feed import MixedFeed, PretrainingFeed, evaluation_batches
from bertsmith.train.length import fit, seconds_per_step
from bertsmith.train.loop import Learnable, Step, smaller, steps
from bertsmith.train.optim import build_optimizer
from bertsmith.train.probe import Probe
from bertsmith.train.report import announce
from bertsmith.train.run import refuse_differences, remember, stoppable
from bertsmith.train.schedule import phased
from bertsmith.train.shards import shard, whole
from bertsmith.train.stages import OwnFeed, Stage, StagedFeed, begins, phases, staged
from bertsmith.train.trouble import record, slowed

if TYPE_CHECKING:
    from bertsmith.train.pretrain import PretrainConfig

SAMPLES = 6
DIVERGED = 1.0
"""Nats by which held-out loss must be above that of the beginning before a run is said to have lost its way."""
RECENT = 20
"""Steps over which the speed on the screen is a mean."""
LATER_STAGE, OTHER_OBJECTIVE = 7_368_787, 3_000_017
"""What the seeds of two stages or objectives differ by, so that each reads the text in another order."""

Watch = Callable[[int, list[shown.Guess]], None]
Taught = Callable[[Pretraining, Model], Learnable]
Parallel = Literal["ddp", "fsdp"]
"""What each rank holds: all weights and all of the optimiser's state (DDP), or its part of them (FSDP2)."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a pretraining run stands on.

    Attributes:
        out: its folder.
        config: its settings.
        facts: of `run.json`; what is found out is added.
        tokenizer: its vocabulary.
        store: its text.
        others: corpora beside it.
        start: the bundle it goes on from.
        place: where it computes.
        precision: of matrix products.
        mine: this process among those that share the run.
    """

    out: Path
    config: PretrainConfig
    facts: dict[str, Any]
    tokenizer: Tokenizer
    store: Store
    others: Sequence[continued.Other]
    start: Path | None
    place: torch.device
    precision: Precision
    mine: Ranks

    def note(self, **facts: Any) -> None:
        """Add to the facts, on disk too."""
        self.facts.update(facts)
        if self.mine.first:
            remember(self.out, self.facts)

    @property
    def ground(self) -> dict[str, Any]:
        """What a checkpoint of this run must have been made with."""
        return {
            "config": self.config.model_dump(mode="json"),
            "store": self.store.hash,
            "vocabulary": self.tokenizer.hash,
        }


def learn(run: Run, *, began: float, quiet: bool, watch: Watch | None = None, taught: Taught | None = None) -> Bundle:
    """Take the run's steps from where it stands to its end.

    Args:
        run: what it stands on.
        began: when the command did, by `time.monotonic()`; a budget counts from there.
        quiet: print no progress.
        watch: called at each evaluation with the step and guesses at hidden words.
        taught: makes of the task and the model what the loop asks for the loss; None: the task is asked.

    Returns:
        The bundle, with the best weights.

    Raises:
        ConfigError: the settings cannot be followed, or left nothing finite to keep; says what to change.
        NotFiniteError: the gradient stays infinite or NaN.
        KeyboardInterrupt: stopped on request, after saving.
    """
    config, facts, mine, precision = run.config, run.facts, run.mine, run.precision
    train, quiet = slowed(config.train, facts), quiet or not mine.first
    task = Pretraining(run.tokenizer, config.task)
    passages, held_out = task.rows(run.store)
    model = build_model(run, task)
    if facts.get("parallel") == "fsdp":
        shard(model, mine)
    learned = task if taught is None else taught(task, model)
    feed = build_feed(run, passages)
    others = run.others if run.start is not None else ()
    forgetting = continued.Forgetting(task, others, train.batch_tokens, facts, mine)
    judge = evaluation_batches(task, run.store, held_out, train.batch_tokens)[mine.rank :: mine.size]

    def judged() -> dict[str, float]:
        return held_out_scores(whole(model), task, judge, precision, mine.gather)

    probe = Probe(
        config.probe, run.tokenizer, shown.draw_samples(run.store, held_out, run.tokenizer, SAMPLES), precision
    )

    def probed(step: int, seconds: float) -> tuple[list[shown.Guess], dict[str, float]]:
        seen = whole(model)
        return probe(seen, step, seconds) if mine.first else ([], {})

    with Events(None, quiet=quiet) as screen:
        compile_for(model, train.compile, run.place, screen.say)
        if feed.steps_per_epoch == 1:
            screen.say(
                f"the text has {feed.tokens_per_step:,.0f} tokens to learn from, no more than one update takes "
                f"(train.batch_tokens={train.batch_tokens:,}): every update reads all of it"
            )
        checkpoint = mine.once(lambda: latest_checkpoint(run.out, say_on_stderr))
        first: dict[str, float] = {}
        if checkpoint is None:
            first = judged()
            if train.metric not in first:
                raise ConfigError(f"train.metric '{train.metric}' is not measured here; use one of {', '.join(first)}")
            after = forgetting.before(whole(model), first, precision)
            if "steps" not in facts:
                offsets = run.store.sentence_offsets
                run.note(
                    steps=_length(run, model, learned, feed, judged, began, after, screen.say),
                    tokens_per_epoch=int((offsets[passages.stop] - offsets[passages.first]).sum()),
                )

    total: int = facts["steps"]
    feed.total = total
    train = phased(train, total, feed.tokens_per_step)
    every = -(-total // train.evaluations)
    optimizer = build_optimizer(model, train)
    if mine.first:
        if checkpoint is None:
            refuse_small_disk(run.out, model)
        truncate_metrics(run.out, checkpoint.step if checkpoint is not None else -1)
    diary = {"run": run.out, "track": train.track} if mine.first else {"run": None}
    with Events(total=total, quiet=quiet, **diary) as events, stoppable() as stop:
        done, tokens, seconds = 0, 0, 0.0
        best, average = Best(train.metric, train.patience), Average(train.average, total)
        if checkpoint is not None:
            refuse_differences(
                run.out, _as_now(checkpoint.state, config), run.ground, "put back what was there, or start a new run"
            )
            load_checkpoint(checkpoint, model, optimizer)
            done, tokens, seconds = checkpoint.step, checkpoint.state["tokens"], checkpoint.state["seconds"]
            best.restore(checkpoint, model)
            average.restore(checkpoint, model)
            events.say(f"resumed at step {done} of {total}")
        else:
            for said in (
                branch.take_state(facts, model, optimizer, train.name),
                branch.read_again(facts, run.store, config),
            ):
                if said:
                    events.say(said)
            events.log(0, tokens=0, seconds=0.0, **_prefixed(first))
        saved_at, saved_step = time.monotonic(), done
        began_at, recent = time.monotonic() - seconds, list[float]()

        for step in steps(
            model, learned, feed, optimizer, train,
            total=total, start=total if best.weary else done, dtype=precision.dtype, seed=train.seed, ranks=mine,
        ):  # fmt: skip
            if said := begins(train.stages, feed, step.number - 1):
                events.say(said)
            done = step.number
            tokens += step.tokens
            seconds = time.monotonic() - began_at
            recent = [*recent[1 - RECENT :], step.tokens / step.seconds]
            line = {"tokens": tokens, "seconds": seconds, **figures_of(step)}
            if config.continued.replay:
                line["source"] = feed.source_of(done - 1)
            average.take(done, model)
            if step.halved:
                events.say(smaller(step))
            if step.skipped:
                kept = record(run.out, step, run.tokenizer, mine.rank)
                events.say(f"step {done}: the gradient is not finite, the update is skipped; the batch is in {kept}")
            if done % every == 0 or done == total:
                with average.inside(model):
                    scores = judged()
                    guesses, found = probed(done, seconds)
                    best.judge(done, scores, model)
                line |= _prefixed(scores) | found
                if mine.first:
                    announce(events, done, scores | found, guesses)
                said = lost(done, scores, facts["before"][0], train.lr)
                if said and "clm_loss" not in step.parts and mine.first:
                    (say_on_stderr if quiet else events.say)(said)
                if mine.first and watch is not None:
                    watch(done, guesses)
            elif config.probe.every is not None and mine.share(probe.due(done, seconds)):
                guesses, found = probed(done, seconds)
                line |= found
                if mine.first:
                    announce(events, done, found, guesses)
            events.log(done, **line)
            events.progress(done, loss=line["train/loss"], tokens_per_second=sum(recent) / len(recent))
            due = train.checkpoint_every.due(done - saved_step, time.monotonic() - saved_at)
            due, asked = map(any, zip(*mine.gather([(due, stop.asked)]), strict=True))
            unfinished = done < total and not best.weary
            # Weights after which a gradient is not finite may be beyond help, and would push out those before them.
            if (due or asked or not unfinished) and not step.skipped:
                save_checkpoint(
                    run.out, done, model, optimizer,
                    {"tokens": tokens, "seconds": seconds, "best": best.state(), **run.ground},
                    best.tensors() | average.tensors(), keep_last=train.keep_last, keep_every=train.keep_every,
                    last=None if unfinished else events.say, ranks=mine,
                )  # fmt: skip
                mine.wait()
                saved_at, saved_step = time.monotonic(), done
            if asked and unfinished:
                raise KeyboardInterrupt
            if best.weary:
                events.say(f"no better {train.metric} in {train.patience} evaluations: stopping at step {done}")
                break

        model.load_state_dict(best.chosen(run.out, config.train.lr))
        model = whole(model)
        table = forgetting.table(model, best.scores, precision) if run.start is not None else []
        if mine.first:
            finish(run, model, best, table, probe(model, done, seconds)[0], events.say)
            discard(run.out, done)
        mine.wait()
    return Bundle.open(run.out)


def _as_now(state: Mapping[str, Any], config: PretrainConfig) -> dict[str, Any]:
    """What a checkpoint was made with; settings that its version did not know have their defaults."""
    with suppress(ValidationError):
        then = type(config).model_validate(state["config"])
        return {**state, "config": then.model_dump(mode="json")}
    return dict(state)


def build_model(run: Run, task: Pretraining) -> Model:
    """The model with the heads of the task: fresh weights, or those of the bundle that the run goes on from.

    Args:
        run: says which.
        task: says which heads.
    """
    tokenizer = run.tokenizer
    shape = run.config.model.model_copy(update={"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id})
    heads = task.head(shape)
    if run.start is None:
        model = Model(shape, heads, seed=run.config.train.seed)
    else:
        model = continued.grown(load_model(Bundle.open(run.start), heads), run.start, tokenizer)
    model.encoder.checkpoint_activations = run.config.train.checkpoint_activations
    return model.to(run.place)


def build_feed(run: Run, passages: Passages) -> OwnFeed | StagedFeed:
    """What the run reads: its stages, each with the corpora that are mixed in.

    Args:
        run: whose feed it is.
        passages: of its own text, to learn from.
    """
    task, train = run.config.task, run.config.train

    def feed_of(number: int, stage: Stage) -> OwnFeed:
        its = Pretraining(run.tokenizer, task.model_copy(update={"max_length": stage.max_length or task.max_length}))
        how: dict[str, Any] = {
            "batch_tokens": stage.batch_tokens or train.batch_tokens,
            "predicted": stage.predicted,
            "parts": train.accumulation,
            "ranks": run.mine,
        }

        def reads(store: Store, passages: Passages, seed: int, skip: int = 0) -> OwnFeed:
            seed += train.seed + LATER_STAGE * number
            shares = stage.objectives
            if len(shares) == 1:
                return PretrainingFeed(its, store, passages, seed=seed, objective=stage.objective, skip=skip, **how)
            feeds = [
                PretrainingFeed(its, store, passages, seed=seed + OTHER_OBJECTIVE * place, objective=objective, **how)
                for place, objective in enumerate(shares)
            ]
            return MixedFeed(feeds, list(shares.values()), same=True, skip=skip)

        own = reads(run.store, passages, 0, branch.passed_over(run.facts, run.store))
        return continued.mixed_feed(own, its, reads, run.others, run.config.continued)

    return staged(train.stages, task.max_length, feed_of)


def figures_of(step: Step) -> dict[str, float]:
    """What `metrics.jsonl` says of a step, by name."""
    return {
        "train/loss": float(step.loss),
        **{f"train/{name}": float(value) for name, value in step.parts.items()},
        "lr": step.lr,
        "grad_norm": float(step.grad_norm),
        "tokens_per_second": step.tokens / step.seconds,
        "data_wait": step.waited,
    }


def lost(step: int, scores: Mapping[str, float], first: Mapping[str, float], lr: float) -> str:
    """A line for somebody whose run makes the model worse; empty for one that does not.

    Args:
        step: updates done.
        scores: now.
        first: before the first step.
        lr: the peak rate.
    """
    if scores["mlm_loss"] <= first["mlm_loss"] + DIVERGED:
        return ""
    return (
        f"step {step}: held-out MLM loss is {scores['mlm_loss']:.4g}, and it was {first['mlm_loss']:.4g} before the "
        f"first step: this run has lost its way; start again with a lower train.lr (now {lr:g})"
    )


def _length(
    run: Run,
    model: Model,
    task: Learnable,
    feed: OwnFeed | StagedFeed,
    judged: Callable[[], object],
    began: float,
    after: float,
    say: Callable[[str], None],
) -> int:
    """The run's steps: counted, or as many as fit into its budget."""
    train, mine = run.config.train, run.mine
    asked = train.count(tokens_per_step=feed.tokens_per_step, steps_per_epoch=feed.steps_per_epoch)
    if asked is not None:
        return asked
    measuring = time.monotonic()
    judged()  # for the second time: the first was with compiling
    evaluating = (time.monotonic() - measuring) * (train.evaluations + 1) + after
    budget = train.budget if train.budget is not None else 600.0
    parts, dtype = phases(feed), run.precision.dtype
    seconds = min(10.0, budget / 30) / len(parts)
    each = sum(
        share * seconds_per_step(model, task, part, train, dtype=dtype, seconds=seconds, ranks=mine)
        for share, part in parts
    )
    return mine.once(lambda: fit(budget, time.monotonic() - began, each, evaluating, say))


def _prefixed(scores: Mapping[str, float]) -> dict[str, float]:
    return {f"eval/{name}": value for name, value in scores.items()}
