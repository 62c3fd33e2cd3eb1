"""How much faster our pretraining loop is than `transformers.Trainer`, on the same machine and the same sequences.

Claims, as times the useful tokens/s (padding is not useful) of Trainer as it comes (fp32) and of Trainer with bf16:

    --case small    4 layers, 256 wide, sequences of exactly 128: 6 and 3 times
    --case deep     6 layers, 384 wide, sequences of exactly 128: 3 and 2 times
    --case uneven   4 layers, 256 wide, whole documents in sequences of up to 512, Trainer pads to 512: 8 times its fp32

and in the first two at least 65 % of the rate at which this machine multiplies matrices of the model's shapes.

What is compared: a BERT with MLM and NSP heads, heads 64 wide, feed-forward 4 times the width, over the same vocabulary
file (30,522 pieces where the real data is) and the same sequences, 4,096 tokens a batch. Where sequences have one
length, shorter ones are left out: neither side pads, so nothing there comes from packing. Both sides compute the sum of
both losses, its gradient, clipping at norm 1 and fused AdamW. Reading and masking are part of each step on both sides.

    ours      What `bertsmith pretrain` runs: `train.loop.steps` over a token store, bf16 where the processor has it,
              vocabulary logits at masked positions only, `compile=auto`, no dropout, as the preset `laptop` has none
              (`--dropout 0.1` gives ours what Trainer's model has).
    trainer   `BertForPreTraining` with its own defaults (dropout 0.1 on hidden states and attention, sdpa attention),
              `DataCollatorForLanguageModeling` as run_mlm.py has it, `TrainingArguments` as they come but for batch
              size, `use_cpu`, and saving switched off; in fp32, its default, and, where the processor has bf16, with
              `bf16=True` (elsewhere bf16 is emulated, a hundred times slower, and a ratio to that would say nothing).

How it is measured: every measurement is a process of its own, the three sides in turn, their order rotated from round
to round. Each step's end is stamped; the first steps are left out, and the speed is tokens over the median step. What a
ratio is taken of is always the same round. Start-up (imports, model, first step; for ours that compiles) is reported
for itself, and counted in "whole run": tokens/s of a run of `--minutes` minutes from the start of the process, at the
measured speed. The machine's own rate is measured beside each round: every matrix product that a step of ours cannot do
without, forwards and backwards (vocabulary logits at masked positions only), in the precision of ours, one by one on
operands of its own; the share is the time of those products over the time of our step.

    python benchmarks/pretrain_vs_transformers.py                  # about ten minutes
    python benchmarks/pretrain_vs_transformers.py --rounds 5 --steps 50 --json > speed.jsonl

Last result (2026-11-26, AMD EPYC, 2 cores with bf16, two rounds, other work at lower priority): `small` 6.69 x fp32
and 5.30 x bf16, `deep` 4.88 x and 3.21 x; matrix products by themselves 69 and 80 % of a step. `uneven` 5.63 x: missed;
77 % of those sequences are full, so that Trainer pads little. Without bf16 on either side (2026-11-25) `small` came to
2.68 x.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
from _ground import data_folder, machine, published_vocabulary, with_spread

if TYPE_CHECKING:
    from bertsmith.tasks.pretraining import Pretraining

SIDES = ("ours", "trainer-fp32", "trainer-bf16")
PRODUCTS = "products"
SHARE = 0.65
MASKED = 0.15
SEQUENCES = "sequences.npz"


@dataclass(frozen=True)
class Size:
    """What is trained, and on how much a step."""

    layers: int = 4
    width: int = 256
    heads: int = 4
    inner: int = 1024
    length: int = 128
    batch: int = 32
    uneven: bool = False


@dataclass(frozen=True)
class Case:
    """A size and what is claimed for it, by Trainer's side."""

    size: Size
    claims: Mapping[str, float]


CASES = {
    "small": Case(Size(), {"trainer-fp32": 6.0, "trainer-bf16": 3.0}),
    "deep": Case(Size(layers=6, width=384, heads=6, inner=1536), {"trainer-fp32": 3.0, "trainer-bf16": 2.0}),
    "uneven": Case(Size(length=512, batch=8, uneven=True), {"trainer-fp32": 8.0}),
}


def toy(size: Size) -> Size:
    """The same case in a size that tells whether the script still runs."""
    return replace(size, layers=1, width=32, heads=2, inner=64, length=32, batch=4)


@dataclass(frozen=True)
class Measured:
    """One process's figures.

    Attributes:
        side: one of SIDES.
        round: counted from 1.
        tokens_per_second: useful tokens of a mean step over the median step.
        startup: seconds from the start of the process to the end of the first step.
        first_step: seconds that the first step took longer than the median; with ours mostly compiling.
        whole_run: tokens/s of a run of so many minutes, start-up included.
        loss: of the last step.
        precision: of matrix products.
        share: time of the step's matrix products by themselves over the time of the step; only for ours.
    """

    side: str
    round: int
    tokens_per_second: float
    startup: float
    first_step: float
    whole_run: float
    loss: float
    precision: str
    share: float | None


def task_of(prepared: Path, size: Size) -> Pretraining:
    """Our pretraining task, over full sequences only.

    Args:
        prepared: the folder with `vocab`.
        size: for the length.
    """
    from bertsmith.corpus.store import Store
    from bertsmith.tasks.pretraining import Pretraining, PretrainingConfig
    from bertsmith.tasks.windows import Passages, Windows
    from bertsmith.tokenizer.load import Tokenizer

    config = PretrainingConfig(max_length=size.length)
    if size.uneven:
        return Pretraining(Tokenizer.load(prepared / "vocab"), config)

    class FullSequences(Pretraining):
        def plan(self, store: Store, source: Passages, *key: int) -> Windows:
            windows = super().plan(store, source, *key)
            return windows.take(np.flatnonzero(windows.lengths == self.config.max_length))

    return FullSequences(Tokenizer.load(prepared / "vocab"), config)


def prepare_once(prepared: Path, text: Sequence[str], vocab: Path | None, size: Size, steps: int) -> str:
    """Make vocabulary and store, if they are not there, and write down the sequences of our first steps for Trainer.

    Args:
        prepared: the folder to fill; one of an earlier `bertsmith pretrain` run will do.
        text: what to read.
        vocab: a vocabulary file; None trains one of at most 30,522 pieces.
        size: sequences and batches.
        steps: how many batches.

    Returns:
        What the corpus is, in words.
    """
    from bertsmith.corpus.store import Store
    from bertsmith.tasks.base import say_on_stderr
    from bertsmith.tasks.preparation import is_store, make_vocabulary, prepare
    from bertsmith.tasks.vocabulary import save_vocabulary
    from bertsmith.tokenizer.load import Tokenizer
    from bertsmith.tokenizer.train import VocabConfig
    from bertsmith.train.feed import PretrainingFeed

    if not (prepared / "vocab").exists():
        made = Tokenizer.load(vocab) if vocab else make_vocabulary(text, VocabConfig(size=30_522), say_on_stderr)
        save_vocabulary(made, prepared / "vocab")
    task = task_of(prepared, size)
    if not is_store(prepared / "store"):
        prepare(text, task.tokenizer, prepared / "store", say_on_stderr)
    store = Store.open(prepared / "store")
    feed = PretrainingFeed(task, store, task.rows(store)[0], seed=0, batch_tokens=size.batch * size.length)
    ids, segments, follows, lengths = [], [], [], []
    for step in range(steps):
        (batch,) = feed(step)
        whole = batch.input_ids.clone()
        whole[batch.targets["mlm_positions"]] = batch.targets["mlm_labels"]
        ids.append(whole.numpy())
        segments.append(batch.segment_ids.numpy())
        follows.append(batch.targets["nsp_labels"].numpy())
        lengths.append(batch.cu_seqlens.diff().numpy())
    joined = [np.concatenate(parts) for parts in (ids, segments, follows, lengths)]
    np.savez(prepared / SEQUENCES, ids=joined[0], segments=joined[1], follows=joined[2], lengths=joined[3])
    return f"{store.num_tokens / 1e6:.1f} M tokens, {task.tokenizer.vocab_size:,} pieces"


def run_ours(prepared: Path, size: Size, steps: int, dropout: float) -> dict[str, Any]:
    """Take steps as `bertsmith pretrain` takes them, and stamp each one's end.

    Args:
        prepared: vocabulary and store.
        size: the model and its batches.
        steps: how many.
        dropout: None as the preset has it.
    """
    import torch

    from bertsmith.core.device import choose_precision, set_threads
    from bertsmith.corpus.store import Store
    from bertsmith.model.config import ModelConfig
    from bertsmith.model.heads import Model
    from bertsmith.tasks.base import say_on_stderr
    from bertsmith.train.compile import compile_for
    from bertsmith.train.feed import PretrainingFeed
    from bertsmith.train.loop import steps as take_steps
    from bertsmith.train.optim import build_optimizer
    from bertsmith.train.pretrain import PretrainingRun

    set_threads()
    place = torch.device("cpu")
    task, store = task_of(prepared, size), Store.open(prepared / "store")
    shape: dict[str, Any] = {
        "architecture": "bert",
        "vocab_size": task.tokenizer.vocab_size,
        "num_hidden_layers": size.layers,
        "hidden_size": size.width,
        "num_attention_heads": size.heads,
        "intermediate_size": size.inner,
    }
    shape |= {"hidden_dropout": dropout, "attention_dropout": dropout}
    model_config = ModelConfig(**shape)
    train = PretrainingRun(batch_tokens=size.batch * size.length, steps=steps)
    precision = choose_precision(place, train.precision)
    model = Model(model_config, task.head(model_config), seed=train.seed)
    compile_for(model, train.compile, place, say_on_stderr)
    feed = PretrainingFeed(task, store, task.rows(store)[0], seed=train.seed, batch_tokens=train.batch_tokens)
    optimizer = build_optimizer(model, train)
    ready, stamps, tokens, loss = time.time(), list[float](), list[int](), 0.0
    for step in take_steps(model, task, feed, optimizer, train, total=steps, dtype=precision.dtype):
        loss = float(step.loss)
        for figure in (*step.parts.values(), step.grad_norm):
            float(figure)  # the command writes all of them down after each step
        if not size.uneven and step.tokens != size.batch * size.length:
            raise SystemExit(f"step {step.number} has {step.tokens} tokens: the corpus is too small for these steps")
        stamps.append(time.time())
        tokens.append(step.tokens)
    return {"ready": ready, "stamps": stamps, "tokens": fmean(tokens), "loss": loss, "precision": precision.reason}


def run_trainer(prepared: Path, size: Size, steps: int, bf16: bool) -> dict[str, Any]:
    """Let Trainer take steps over the same sequences, and stamp each one's end.

    Args:
        prepared: vocabulary and sequences.
        size: the model and its batches.
        steps: how many.
        bf16: Trainer's mixed precision.
    """
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForPreTraining,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from bertsmith.core.device import set_threads

    set_threads()
    ready, stamps, losses = [0.0], [], [0.0]

    class Sequences(torch.utils.data.Dataset[dict[str, Any]]):
        def __init__(self) -> None:
            with np.load(prepared / SEQUENCES) as arrays:
                ends = np.cumsum(arrays["lengths"])
                self.ids, self.segments = (np.split(arrays[name], ends[:-1]) for name in ("ids", "segments"))
                self.follows, self.mean_length = arrays["follows"], float(arrays["lengths"].mean())

        def __len__(self) -> int:
            return len(self.ids)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {
                "input_ids": self.ids[index].tolist(),
                "token_type_ids": self.segments[index].tolist(),
                "next_sentence_label": int(self.follows[index]),
            }

    class Stamps(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            ready[0] = time.time()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            stamps.append(time.time())

        def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
            losses.append(logs.get("train_loss", losses[-1]))

    tokenizer, sequences = AutoTokenizer.from_pretrained(str(prepared / "vocab")), Sequences()
    model = BertForPreTraining(
        BertConfig(
            vocab_size=len(tokenizer),
            num_hidden_layers=size.layers,
            hidden_size=size.width,
            num_attention_heads=size.heads,
            intermediate_size=size.inner,
            max_position_embeddings=max(512, size.length),
        )
    )
    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=size.batch,
            max_steps=steps,
            use_cpu=True,
            bf16=bf16,
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=sequences,
            data_collator=DataCollatorForLanguageModeling(
                tokenizer=tokenizer, mlm_probability=MASKED, pad_to_multiple_of=size.length
            ),
            callbacks=[Stamps()],
        ).train()
    tokens = sequences.mean_length * size.batch
    precision = "bf16" if bf16 else "fp32"
    return {"ready": ready[0], "stamps": stamps, "tokens": tokens, "loss": losses[-1], "precision": precision}


def products(size: Size, vocabulary: int) -> list[tuple[int, int, int, int, int]]:
    """The matrix products of one step's forward pass; the backward pass has each of them twice, in other orders.

    Args:
        size: the model and its batch.
        vocabulary: pieces.

    Returns:
        Of each: how many in one call, rows, inner, columns, and how many calls a step makes.
    """
    tokens, width, inner, layers = size.batch * size.length, size.width, size.inner, size.layers
    masked, groups, head = round(MASKED * tokens), size.batch * size.heads, size.width // size.heads
    return [
        (1, tokens, width, 3 * width, layers),
        (1, tokens, width, width, layers),
        (1, tokens, width, inner, layers),
        (1, tokens, inner, width, layers),
        (groups, size.length, head, size.length, layers),
        (groups, size.length, size.length, head, layers),
        (1, masked, width, width, 1),
        (1, masked, width, vocabulary, 1),
    ]


def run_products(size: Size, vocabulary: int, repeats: int) -> dict[str, float]:
    """Time the products of one step by themselves, forwards and backwards, in the precision of ours.

    Args:
        size: the model and its batch.
        vocabulary: pieces.
        repeats: of each product; the median counts.
    """
    import torch

    from bertsmith.core.device import choose_precision, set_threads

    set_threads()
    dtype = choose_precision(torch.device("cpu")).dtype
    seconds = operations = 0.0
    for group, rows, inner, columns, calls in products(size, vocabulary):
        left, right, out = (
            torch.randn(group, *shape).to(dtype) for shape in ((rows, inner), (inner, columns), (rows, columns))
        )
        for first, second in ((left, right), (out, right.mT), (left.mT, out)):
            taken = []
            for _ in range(repeats + 1):
                began = time.perf_counter()
                torch.bmm(first, second)
                taken.append(time.perf_counter() - began)
            seconds += median(taken[1:]) * calls
            operations += 2.0 * group * rows * inner * columns * calls
    return {"seconds": seconds, "operations": operations}


def vocabulary_size(prepared: Path) -> int:
    """Pieces of the vocabulary that was prepared."""
    from bertsmith.tokenizer.load import Tokenizer

    return Tokenizer.load(prepared / "vocab").vocab_size


def in_a_process(side: str, options: argparse.Namespace, prepared: Path) -> dict[str, Any]:
    """Run one side in a process of its own.

    Args:
        side: one of SIDES, or PRODUCTS.
        options: the command line.
        prepared: vocabulary, store and sequences.

    Returns:
        What it found.
    """
    command = [sys.executable, __file__, "--side", side, "--prepared", str(prepared), "--case", options.case]
    command += ["--steps", str(options.warmup + options.steps)]
    command += ["--tiny"] if options.tiny else []
    command += ["--dropout", str(options.dropout)]
    with tempfile.NamedTemporaryFile("r", suffix=".json") as answer:
        subprocess.run([*command, "--answer", answer.name], check=True, stdout=sys.stderr)
        found: dict[str, Any] = json.load(answer)
    return found


def measure(side: str, round: int, options: argparse.Namespace, prepared: Path, size: Size) -> Measured:
    """Measure one side.

    Args:
        side: one of SIDES.
        round: counted from 1.
        options: the command line.
        prepared: vocabulary, store and sequences.
        size: for the products.
    """
    began = time.time()
    found = in_a_process(side, options, prepared)
    stamps: list[float] = found["stamps"]
    each = median(np.diff(stamps[options.warmup - 1 :]).tolist())
    tokens, whole = found["tokens"], 60.0 * options.minutes
    warm = stamps[options.warmup - 1] - began
    share = None
    if side == "ours" and not size.uneven:
        share = in_a_process(PRODUCTS, options, prepared)["seconds"] / each
    return Measured(
        side=side,
        round=round,
        tokens_per_second=tokens / each,
        startup=stamps[0] - began,
        first_step=stamps[0] - found["ready"] - each,
        whole_run=tokens * (options.warmup + max(0.0, whole - warm) / each) / whole,
        loss=found["loss"],
        precision=found["precision"],
        share=share,
    )


def show(measured: Sequence[Measured], claims: Mapping[str, float], minutes: float) -> None:
    """Print speeds and ratios.

    Args:
        measured: all rounds.
        claims: by Trainer's side, how many times its speed.
        minutes: of a whole run.
    """
    found = {side: [item for item in measured if item.side == side] for side in SIDES}
    sides = {side: items for side, items in found.items() if items}
    for side, items in sides.items():
        print(
            f"{side:13} {median(item.tokens_per_second for item in items):8,.0f} tokens/s, "
            f"start-up {median(item.startup for item in items):4.1f} s "
            f"(first step {median(item.first_step for item in items):+.1f} s), "
            f"whole run {median(item.whole_run for item in items):8,.0f} tokens/s; {items[0].precision}"
        )
    shares = [100 * item.share for item in sides["ours"] if item.share is not None]
    if shares:
        print(
            f"of ours, {with_spread(shares, '.0f')} % is the time of its matrix products by themselves; "
            f"claim at least {SHARE:.0%}"
        )
    for side in sides.keys() - {"ours"}:
        claim = f"claim at least {claims[side]} x" if side in claims else "no claim"
        pairs = list(zip(sides["ours"], sides[side], strict=True))
        steady = [ours.tokens_per_second / theirs.tokens_per_second for ours, theirs in pairs]
        whole = [ours.whole_run / theirs.whole_run for ours, theirs in pairs]
        print(
            f"ours / {side}: {with_spread(steady)} x over {len(pairs)} rounds; {claim}; "
            f"a run of {minutes:g} minutes with start-up: {with_spread(whole)} x"
        )


def chosen(asked: str | None) -> list[str]:
    """The sides to measure: ours and those asked for, by default those that this processor is made for.

    Args:
        asked: names with commas between; None chooses.
    """
    import torch

    from bertsmith.core.device import choose_precision

    if asked is not None:
        if unknown := set(asked.split(",")) - set(SIDES):
            raise SystemExit(f"--sides {', '.join(sorted(unknown))}: the sides are {', '.join(SIDES)}")
        return [side for side in SIDES if side == "ours" or side in asked.split(",")]
    precision = choose_precision(torch.device("cpu"))
    if precision.dtype == torch.bfloat16:
        return list(SIDES)
    print(f"{precision.reason}: trainer-bf16 is left out, for it would be emulated; ask with --sides", file=sys.stderr)
    return [side for side in SIDES if not side.endswith("bf16")]


def main() -> None:
    """Measure and print; with `--side`, be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="small", help="what is trained, and on what")
    parser.add_argument("--rounds", type=int, default=3, help="each side is measured so often")
    parser.add_argument("--steps", type=int, default=20, help="measured steps of a round")
    parser.add_argument("--warmup", type=int, default=4, help="steps before those, at least 1")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of a whole run")
    parser.add_argument("--sides", help=f"of {', '.join(SIDES)} [default: all that this processor has]")
    parser.add_argument("--dropout", type=float, default=0.0, help="of ours")
    parser.add_argument("--data", type=Path, help="folder with corpus/ and vocab/ [default: BERTSMITH_DATA]")
    parser.add_argument("--text", nargs="+", help="text to read [default: enwiki of --data, else pydoc:]")
    parser.add_argument("--prepared", type=Path, help="keep or find vocab/ and store/ here, such as a pretraining run")
    parser.add_argument("--json", action="store_true", help="print a JSON line a measurement instead of the table")
    parser.add_argument("--tiny", action="store_true", help="a toy model and batch: does this script still run?")
    parser.add_argument("--side", choices=[*SIDES, PRODUCTS], help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    case = CASES[options.case]
    size = toy(case.size) if options.tiny else case.size
    if options.side:
        found: Mapping[str, Any]
        if options.side == "ours":
            found = run_ours(options.prepared, size, options.steps, options.dropout)
        elif options.side == PRODUCTS:
            found = run_products(size, vocabulary_size(options.prepared), options.steps)
        else:
            found = run_trainer(options.prepared, size, options.steps, options.side.endswith("bf16"))
        options.answer.write_text(json.dumps(found))
        return

    data = data_folder(options.data)
    corpus = data / "corpus" / "enwiki.txt.xz" if data else None
    text = options.text or [str(corpus) if corpus and corpus.exists() else "pydoc:"]
    with tempfile.TemporaryDirectory() as temporary:
        prepared = options.prepared or Path(temporary)
        prepared.mkdir(parents=True, exist_ok=True)
        vocab = published_vocabulary(data, prepared) if data else None
        facts = prepare_once(prepared, text, vocab, size, options.warmup + options.steps)
        print(f"{machine()}\n{', '.join(text)}: {facts}; {size}", file=sys.stderr)
        measured, sides = [], chosen(options.sides)
        for round in range(1, options.rounds + 1):
            for place in range(len(sides)):
                side = sides[(place + round - 1) % len(sides)]
                one = measure(side, round, options, prepared, size)
                measured.append(one)
                print(f"round {round}, {side}: {one.tokens_per_second:,.0f} tokens/s", file=sys.stderr)
                if options.json:
                    print(json.dumps(asdict(one) | {"machine": machine()}), flush=True)
    if not options.json:
        show(measured, case.claims, options.minutes)


if __name__ == "__main__":
    main()
