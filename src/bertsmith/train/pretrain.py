"""Pretraining from text to a bundle: vocabulary, store, steps, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from bertsmith.core.bundle import Bundle, atomic_write
from bertsmith.core.config import Cadence, Config, Count
from bertsmith.core.device import Precision, choose_device, choose_precision, set_threads, usable_cores
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import Events, truncate_metrics
from bertsmith.core.lock import run_lock
from bertsmith.corpus.store import Store
from bertsmith.evaluate.pretraining import held_out_scores
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.tasks.base import say_on_stderr
from bertsmith.tasks.preparation import CorpusConfig, is_store
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.train import VocabConfig
from bertsmith.train import branch, continued
from bertsmith.train import samples as shown
from bertsmith.train.average import Average
from bertsmith.train.best import Best
from bertsmith.train.checkpoint import KEEP_LAST, is_checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from bertsmith.train.compile import compile_for
from bertsmith.train.continued import ContinuedConfig
from bertsmith.train.distributed import Ranks, local_device, ranks
from bertsmith.train.feed import PretrainingFeed, evaluation_batches
from bertsmith.train.length import Length, fit, seconds_per_step
from bertsmith.train.loop import NotFiniteError, smaller, steps
from bertsmith.train.material import open_others, token_store, vocabulary
from bertsmith.train.optim import OptimConfig, build_optimizer
from bertsmith.train.report import announce, pretraining_report
from bertsmith.train.run import (
    BUNDLE,
    SCORES,
    begin,
    go_on,
    refuse_differences,
    remember,
    resumed,
    saved_config,
    stoppable,
    terminable,
)
from bertsmith.train.stages import OwnFeed, Stage, StagedFeed, Stages, phases, staged
from bertsmith.train.trouble import go_back, record, slowed

SAMPLES = 6
DIVERGED = 1.0
"""Nats by which held-out loss must be above that of the beginning before a run is said to have lost its way."""


class PretrainingRun(OptimConfig, Length):
    """How the weights are trained and watched."""

    batch_tokens: Count = Field(4096, ge=64, description="packed tokens of an update")
    accumulation: int = Field(1, ge=1, description="cut an update into so many batches, to save memory")
    seed: int = Field(0, ge=0, description="where all random choices start from")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="of matrix products; auto: bf16 where it is fast"
    )
    compile: Literal["auto", "off", "loss", "layers"] = Field("auto", description="what torch.compile takes")
    checkpoint_activations: bool = Field(
        False, description="compute each layer again in the backward pass, to save memory at a third more time"
    )
    stages: Stages = Field(
        (), description="parts of the run that differ in max_length, batch_tokens or objective (masked, causal)"
    )
    average: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the last steps whose mean weights are measured and kept; 0: no mean",
    )
    evaluations: int = Field(10, ge=1, description="how often held-out text is measured over the run")
    checkpoint_every: Cadence = Field(Cadence(seconds=600.0), description="how often the run is saved: 10m, 500steps")
    keep_last: int = Field(KEEP_LAST, ge=1, description="how many of the newest checkpoints are kept")
    keep_every: Count | None = Field(
        None, ge=1, description="also keep a checkpoint for each stretch of so many steps, to branch from"
    )
    metric: Literal["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "sop_loss", "sop_accuracy"] = Field(
        "mlm_loss", description="the held-out score by which the best weights are kept"
    )
    patience: int | None = Field(None, ge=1, description="stop after so many evaluations without a better one")
    track: tuple[Literal["tensorboard", "wandb"], ...] = Field((), description="also send figures there")


class PretrainConfig(Config):
    """Everything a pretraining run is described by."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    task: PretrainingConfig = Field(default_factory=PretrainingConfig)
    vocab: VocabConfig = Field(default_factory=VocabConfig)
    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    train: PretrainingRun = Field(default_factory=PretrainingRun)
    continued: ContinuedConfig = Field(default_factory=ContinuedConfig)


def pretrain(
    inputs: Sequence[str],
    out: Path,
    config: PretrainConfig,
    *,
    vocab: Path | None = None,
    start: Path | None = None,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    quiet: bool = False,
    command: str = "",
    watch: Callable[[int, list[shown.Guess]], None] | None = None,
) -> Bundle:
    """Train an encoder on text; the result is `out/bundle`.

    Args:
        inputs: files, folders, globs, `pydoc:`, or one token store.
        out: the run folder.
        config: model, task, vocabulary, training.
        vocab: a vocabulary to use, `vocab.txt` or a folder; None trains one, or takes that of `start`.
        start: a bundle to go on from, or a checkpoint of a run to branch from.
        resume: go on with the run in `out`.
        device: where to compute; None chooses.
        threads: processor threads; None takes one for each core.
        quiet: print no progress.
        command: what a person would type to repeat this; for the report.
        watch: called at each evaluation with the step and guesses at hidden words.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: the text cannot be used; says where.
        KeyboardInterrupt: stopped on request, after saving.
    """
    asked = {
        "inputs": [str(item) for item in inputs],
        "vocab": str(vocab) if vocab else None,
        "from": str(start) if start else None,
    }
    began = time.monotonic()
    place = local_device(choose_device(device))
    with (
        ranks(place) as mine,
        run_lock(out) if mine.first else nullcontext(),
        Events(None, quiet=quiet or not mine.first) as screen,
        terminable(),
    ):
        config, facts = mine.once(lambda: _begun(out, config, asked, start, resume, command))
        if (out / BUNDLE).exists():
            screen.say(f"{out}: this run is finished")
            return Bundle.open(out)
        inputs, (vocab, start) = (
            facts["inputs"],
            (Path(name) if name else None for name in (facts["vocab"], facts.get("start", facts["from"]))),
        )
        try:
            if threads is None:
                threads = facts.get("threads", max(1, usable_cores() // mine.local_size))
            facts["threads"] = set_threads(threads)
            if mine.first:
                remember(out, facts)
            precision = choose_precision(place, config.train.precision)
            together = f", {mine.size} ranks" if mine.size > 1 else ""
            screen.say(f"{place}{together}, {facts['threads']} threads, {precision.reason}")
            tokenizer = mine.first_then_all(
                lambda: vocabulary(inputs, out, config.vocab, vocab, start, screen.say, config.continued)
            )
            words = config.task.masking != "subword"

            def prepared() -> Store:
                return token_store(inputs, out / "store", tokenizer, config.corpus, screen.say, words=words)

            def beside() -> list[continued.Other]:
                task = Pretraining(tokenizer, config.task)
                return open_others(config.continued, out, task, config.corpus, facts, screen.say)

            store = mine.first_then_all(prepared)
            others = mine.first_then_all(beside)
            if mine.first:
                remember(out, facts)
            while True:
                try:
                    return _train(
                        out, config, facts, tokenizer, store, others, start, place, precision, quiet, watch, began, mine
                    )
                except NotFiniteError as trouble:
                    go_back(out, facts, trouble, screen)
                    if mine.first:
                        remember(out, facts)
        except KeyboardInterrupt:
            screen.say(go_on("pretrain", "--out", out))
            raise


def _begun(
    out: Path, config: PretrainConfig, asked: Mapping[str, Any], start: Path | None, resume: bool, command: str
) -> tuple[PretrainConfig, dict[str, Any]]:
    """The settings and the facts of a run that begins, or goes on."""
    if resume:
        return config, _branched(out, resumed(out, config, asked))
    if not asked["inputs"]:
        raise ConfigError("no text to learn from; name files, folders, a store or pydoc:")
    continued.check(config.continued, asked["inputs"], start)
    config = _shaped_like(config, start)
    if len(asked["inputs"]) > 1 and any(map(is_store, asked["inputs"])):
        raise ConfigError("give one token store, or texts; several stores cannot be read as one")
    return config, _branched(out, begin(out, config, {"kind": "pretrain", "command": command, **asked}))


def _branched(out: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts, and those of the checkpoint that the run starts from, if it is one."""
    start = Path(facts["from"] or "")
    if "start" not in facts and is_checkpoint(start):
        old = saved_config(start.parents[1], PretrainConfig)
        facts |= branch.unfold(start, out, old.model, old.task, old.train.name)
        remember(out, facts)
    return facts


def _shaped_like(config: PretrainConfig, start: Path | None) -> PretrainConfig:
    """A run that starts from a bundle, or from a checkpoint, has its shape."""
    if start is None:
        return config
    if is_checkpoint(start):
        shape = saved_config(start.parents[1], PretrainConfig).model
    else:
        shape = load_model(Bundle.open(start)).config
    return config.model_copy(update={"model": shape})


def _train(
    out: Path,
    config: PretrainConfig,
    facts: dict[str, Any],
    tokenizer: Tokenizer,
    store: Store,
    others: Sequence[continued.Other],
    start: Path | None,
    place: torch.device,
    precision: Precision,
    quiet: bool,
    watch: Callable[[int, list[shown.Guess]], None] | None,
    began: float,
    mine: Ranks,
) -> Bundle:
    train = slowed(config.train, facts)
    quiet = quiet or not mine.first
    task = Pretraining(tokenizer, config.task)
    learn, held_out = task.rows(store)
    shape = config.model.model_copy(update={"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id})
    heads = task.head(shape)
    if start is None:
        model = Model(shape, heads, seed=train.seed).to(place)
    else:
        model = continued.grown(load_model(Bundle.open(start), heads), start, tokenizer).to(place)

    def feed_of(number: int, stage: Stage) -> OwnFeed:
        own = PretrainingFeed(
            Pretraining(tokenizer, config.task.model_copy(update={"max_length": stage.max_length or longest})),
            store,
            learn,
            # A later stage reads the text in another order than the one before it.
            seed=train.seed + 7_368_787 * number,
            batch_tokens=stage.batch_tokens or train.batch_tokens,
            objective=stage.objective,
            parts=train.accumulation,
            skip=branch.passed_over(facts, store),
            ranks=mine,
        )
        return continued.mixed_feed(own, others, config.continued)

    longest = config.task.max_length
    feed = staged(train.stages, longest, feed_of)
    forgetting = continued.Forgetting(task, others if start is not None else (), train.batch_tokens, facts, mine)
    judge = evaluation_batches(task, store, held_out, train.batch_tokens)[mine.rank :: mine.size]

    def judged() -> dict[str, float]:
        return held_out_scores(model, task, judge, precision, mine.gather)

    probes = shown.draw_samples(store, held_out, tokenizer, SAMPLES)
    model.encoder.checkpoint_activations = train.checkpoint_activations
    with Events(None, quiet=quiet) as screen:
        compile_for(model, train.compile, place, screen.say)
        if feed.steps_per_epoch == 1:
            screen.say(
                f"the text has {feed.tokens_per_step:,.0f} tokens to learn from, no more than one update takes "
                f"(train.batch_tokens={train.batch_tokens:,}): every update reads all of it"
            )
        checkpoint = mine.once(lambda: latest_checkpoint(out, say_on_stderr))
        first: dict[str, float] = {}
        if checkpoint is None:
            first = judged()
            if train.metric not in first:
                raise ConfigError(f"train.metric '{train.metric}' is not measured here; use one of {', '.join(first)}")
            after = forgetting.before(model, first, precision)
            if "steps" not in facts:
                steps_asked = train.count(tokens_per_step=feed.tokens_per_step, steps_per_epoch=feed.steps_per_epoch)
                if steps_asked is None:
                    evaluating = time.monotonic()
                    judged()  # the first time was with compiling
                    evaluating = (time.monotonic() - evaluating) * (train.evaluations + 1) + after
                    steps_asked = _fitted(model, task, feed, train, precision, began, evaluating, screen.say, mine)
                facts["steps"] = steps_asked
                facts["tokens_per_epoch"] = int(
                    (store.sentence_offsets[learn.stop] - store.sentence_offsets[learn.first]).sum()
                )
                if mine.first:
                    remember(out, facts)

    ground = {"config": config.model_dump(mode="json"), "store": store.hash, "vocabulary": tokenizer.hash}
    total: int = facts["steps"]
    feed.total = total
    every = -(-total // train.evaluations)
    optimizer = build_optimizer(model, train)
    if mine.first:
        truncate_metrics(out, checkpoint.step if checkpoint is not None else -1)
    diary = {"run": out, "track": train.track} if mine.first else {"run": None}
    with Events(total=total, quiet=quiet, **diary) as events, stoppable() as stop:
        done, tokens, seconds = 0, 0, 0.0
        best, average = Best(train.metric, train.patience), Average(train.average, total)
        if checkpoint is not None:
            refuse_differences(out, checkpoint.state, ground, "put back what was there, or start a new run")
            load_checkpoint(checkpoint, model, optimizer)
            done, tokens, seconds = checkpoint.step, checkpoint.state["tokens"], checkpoint.state["seconds"]
            best.restore(checkpoint)
            average.restore(checkpoint, model)
            events.say(f"resumed at step {done} of {total}")
        else:
            if said := branch.take_state(facts, model, optimizer, train.name):
                events.say(said)
            events.log(0, tokens=0, seconds=0.0, **_prefixed(first))
        saved_at, saved_step = time.monotonic(), done
        began_at, recent = time.monotonic() - seconds, list[float]()

        for step in steps(
            model, task, feed, optimizer, train,
            total=total, start=done, dtype=precision.dtype, seed=train.seed, ranks=mine,
        ):  # fmt: skip
            done = step.number
            if step.halved:
                events.say(smaller(step))
            tokens += step.tokens
            seconds = time.monotonic() - began_at
            recent = [*recent[-19:], step.tokens / step.seconds]
            speed = sum(recent) / len(recent)
            figures = {f"train/{name}": float(value) for name, value in step.parts.items()}
            line = {
                "tokens": tokens,
                "seconds": seconds,
                "train/loss": float(step.loss),
                **figures,
                "lr": step.lr,
                "grad_norm": float(step.grad_norm),
                "tokens_per_second": step.tokens / step.seconds,
                "data_wait": step.waited,
            }
            average.take(done, model)
            if step.skipped:
                place_of = record(out, step, tokenizer, mine.rank)
                events.say(
                    f"step {done}: the gradient is not finite, the update is skipped; the batch is in {place_of}"
                )
            if done % every == 0 or done == total:
                with average.inside(model):
                    scores = judged()
                    guesses = shown.guess(model, tokenizer, probes, precision) if mine.first else []
                    best.judge(done, scores, model)
                line |= _prefixed(scores)
                if mine.first:
                    announce(events, done, scores, guesses)
                if scores["mlm_loss"] > (at_first := facts["before"][0]["mlm_loss"]) + DIVERGED:
                    events.say(
                        f"step {done}: held-out MLM loss is {scores['mlm_loss']:.4g}, and it was {at_first:.4g} before "
                        "the first step: this run has lost its way; start again with a lower train.lr "
                        f"(now {train.lr:g})"
                    )
                if mine.first and watch is not None:
                    watch(done, guesses)
            events.log(done, **line)
            events.progress(done, loss=float(step.loss), tokens_per_second=speed)
            due = train.checkpoint_every.due(done - saved_step, time.monotonic() - saved_at)
            due, asked = map(any, zip(*mine.gather([(due, stop.asked)]), strict=True))
            unfinished = done < total and not best.weary
            if (due or asked) and unfinished:
                state = {"tokens": tokens, "seconds": seconds, "best": best.state(), **ground}
                if mine.first:
                    save_checkpoint(
                        out,
                        done,
                        model,
                        optimizer,
                        state,
                        best.tensors() | average.tensors(),
                        keep_last=train.keep_last,
                        keep_every=train.keep_every,
                    )
                mine.wait()
                saved_at, saved_step = time.monotonic(), done
            if asked and unfinished:
                raise KeyboardInterrupt
            if best.weary:
                events.say(f"no better {train.metric} in {train.patience} evaluations: stopping at step {done}")
                break

        model.load_state_dict(best.weights)
        scores = best.scores
        found: dict[str, Any] = {"held_out": scores}
        if start is not None:
            found["forgetting"] = forgetting.table(model, scores, precision)
        if not mine.first:
            mine.wait()
            return Bundle.open(out)
        meta = {
            "task": "pretraining",
            "labels": [],
            "task_config": config.task.model_dump(mode="json"),
            "lineage": {
                "parent": Bundle.open(start).hash if start is not None else None,
                "data": {
                    "store": store.hash,
                    "inputs": facts["inputs"],
                    "replay": [other.store.hash for other in others if other.role == "replay"],
                },
                "configs": config.model_dump(mode="json"),
                "steps": best.step,
            },
            "scores": scores,
        }
        if start is not None:
            events.say(continued.told(found["forgetting"]))
        atomic_write(out / SCORES, (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
        guesses = shown.guess(model, tokenizer, probes, precision)
        report = pretraining_report(
            out, config, facts, store, tokenizer, guesses, best.step, found.get("forgetting", ())
        )
        # The bundle comes last: a run that has one is finished.
        files = tokenizer.files(shape.architecture, max_length=shape.max_position_embeddings)
        bundle = save_model(out / BUNDLE, model, files, meta)
        events.say(f"bundle: {bundle.path}\nreport: {report}")
        mine.wait()
    return bundle


def _fitted(
    model: Model,
    task: Pretraining,
    feed: OwnFeed | StagedFeed,
    train: PretrainingRun,
    precision: Precision,
    began: float,
    evaluating: float,
    say: Callable[[str], None],
    mine: Ranks,
) -> int:
    budget = train.budget if train.budget is not None else 600.0
    parts = phases(feed)
    seconds = min(10.0, budget / 30) / len(parts)
    each = sum(
        share * seconds_per_step(model, task, part, train, dtype=precision.dtype, seconds=seconds, ranks=mine)
        for share, part in parts
    )
    return mine.once(lambda: fit(budget, time.monotonic() - began, each, evaluating, say))


def _prefixed(scores: Mapping[str, float]) -> dict[str, float]:
    return {f"eval/{name}": value for name, value in scores.items()}
