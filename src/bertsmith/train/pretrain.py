"""Pretraining from text to a bundle: vocabulary, store, steps, report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import Cadence, Config, Count, Seed
from bertsmith.core.device import choose_device, choose_precision, set_threads, usable_cores
from bertsmith.core.errors import ConfigError
from bertsmith.core.events import Events
from bertsmith.core.lock import run_lock
from bertsmith.corpus.remote import refuse_credentials
from bertsmith.corpus.store import Store
from bertsmith.model.config import ModelConfig
from bertsmith.model.convert import load_model
from bertsmith.tasks.preparation import CorpusConfig, is_store
from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
from bertsmith.tokenizer.train import VocabConfig
from bertsmith.train import branch, continued
from bertsmith.train.checkpoint import KEEP_LAST, is_checkpoint
from bertsmith.train.continued import ContinuedConfig
from bertsmith.train.course import Parallel, Run, Watch, learn
from bertsmith.train.distributed import local_device, ranks
from bertsmith.train.length import Length
from bertsmith.train.loop import NotFiniteError
from bertsmith.train.material import open_others, refuse_changed, token_store, vocabulary
from bertsmith.train.optim import OptimConfig
from bertsmith.train.probe import ProbeConfig
from bertsmith.train.run import BUNDLE, begin, go_on, remember, resumed, saved_config, terminable
from bertsmith.train.stages import Stages
from bertsmith.train.trouble import go_back

Metric = Literal[
    "mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "sop_loss", "sop_accuracy", "rtd_loss", "rtd_accuracy"
]


class PretrainingRun(OptimConfig, Length):
    """How the weights are trained and watched."""

    batch_tokens: Count = Field(4096, ge=64, description="packed tokens of an update")
    accumulation: int = Field(1, ge=1, description="cut an update into so many batches, to save memory")
    seed: Seed = Field(0, description="where all random choices start from")
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
    metric: Metric = Field("mlm_loss", description="the held-out score by which the best weights are kept")
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
    probe: ProbeConfig = Field(default_factory=ProbeConfig)

    @model_validator(mode="after")
    def _one_objective(self) -> Self:
        """An encoder that finds replaced tokens has no masked language model; its small generator is the only one."""
        if self.task.objective != "replaced":
            return self
        causal = [number for number, stage in enumerate(self.train.stages) if "causal" in stage.objectives]
        if causal:
            raise ValueError(
                f"train.stages[{causal[0]}] predicts what comes next, for which an encoder that learns "
                "task.objective=replaced has no head; leave that stage out, or all of them: --set 'train.stages=[]'"
            )
        if not self.model.tie_word_embeddings:
            raise ValueError(
                "task.objective=replaced shares the word embedding with the generator's output, so "
                "model.tie_word_embeddings=false has nothing to untie; leave one of the two out"
            )
        if self.probe.minimal_pairs is not None:
            raise ValueError(
                "probe.minimal_pairs asks how probable a sentence is, which an encoder that learns "
                "task.objective=replaced cannot tell; leave it out"
            )
        return self


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
    watch: Watch | None = None,
    parallel: Parallel | None = None,
    preset: str | None = None,
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
        parallel: what each of several processes holds, all (`ddp`) or its part (`fsdp`); None: as before, at first all.
        preset: what `config` began with; a run that goes on compares the name. None: not known.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: the text cannot be used; says where.
        KeyboardInterrupt: stopped on request, after saving.
    """
    asked = {
        "inputs": [str(item) for item in inputs],
        "vocab": str(vocab) if vocab else None,
        "from": str(start) if start else None,
        "preset": preset,
    }
    if not resume and is_store(out):  # before the lock leaves a file in it
        raise ConfigError(f"{out}: is a token store; choose another folder for the run with --out")
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
            facts["parallel"] = parallel or facts.get("parallel", "ddp")
            if mine.first:
                remember(out, facts)
            precision = choose_precision(place, config.train.precision)
            together = f", {mine.size} ranks ({facts['parallel'].upper()})" if mine.size > 1 else ""
            screen.say(f"{place}{together}, {facts['threads']} threads, {precision.reason}")
            tokenizer = mine.first_then_all(
                lambda: vocabulary(inputs, out, config.vocab, vocab, start, screen.say, config.continued)
            )
            words = config.task.masking != "subword"

            def prepared() -> Store:
                own = out / "store"
                made = not is_store(own)
                store = token_store(inputs, own, tokenizer, config.corpus, screen.say, words=words)
                if "steps" not in facts:
                    facts["store"] = store.hash
                elif made:
                    refuse_changed(", ".join(inputs), store, own, facts.get("store", store.hash))
                return store

            def beside() -> list[continued.Other]:
                task = Pretraining(tokenizer, config.task)
                return open_others(config.continued, out, task, config.corpus, facts, screen.say)

            store = mine.first_then_all(prepared)
            others = mine.first_then_all(beside)
            if mine.first:
                remember(out, facts)
            while True:
                try:
                    run = Run(out, config, facts, tokenizer, store, others, start, place, precision, mine)
                    return learn(run, began=began, quiet=quiet, watch=watch)
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
        return config, _branched(out, resumed(out, config, asked, needed=("inputs", "vocab", "from")))
    if not asked["inputs"]:
        raise ConfigError("no text to learn from; name files, folders, a store or pydoc:")
    for name in (*asked["inputs"], *config.continued.replay, *config.continued.watch):
        refuse_credentials(name)  # before the run folder repeats them
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
        facts |= branch.unfold(start, out, old.model, old.task, old.train.name, branch.order_of(old))
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
