"""How fast one GPU pretrains, and whether packed sequences give there what padded ones give.

No claim yet: this has run on CPUs only, in toy size.

What it does, in this order:

1. **The same numbers.** One model, sequences of 1 to 512 pieces: packed by us against padded in `transformers` (same
   weights, fp32 on both sides), and packed in the precision of training (varlen attention in bf16) against packed in
   fp32. Prints the largest absolute difference of hidden states; the first above 1e-3 ends the script with status 1.
2. **Speed.** For each size (`classic-mini` to `classic-large`) and each length, tokens/s of our loop and of
   `transformers.Trainer` with bf16 over sequences of exactly that length, in batches of `--batch-tokens`, and ours as a
   share of the card's peak (model FLOPs utilisation). FLOPs are those of matrix products that a step cannot do
   without, three times the forward pass, vocabulary logits at masked positions only, nothing counted twice. Every
   measurement is a process of its own; the first steps are left out, the speed is tokens over the median step, and the
   device is waited for at the end of each step.
3. **A run.** `bertsmith pretrain` with `classic-small` on `pydoc:` for two minutes, as a user would start it.

    python benchmarks/gpu.py                                   # about half an hour
    python benchmarks/gpu.py --sizes base --lengths 512 --peak 989

Last result: none yet.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from _ground import machine

SIZES = ("mini", "small", "medium", "base", "large")
SIDES = ("ours", "trainer")
PIECES, MASKED = 30_522, 0.15
WARM_UP = 5
SAME = 1e-3
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165, "3090": 71}
"""TFLOP/s of dense bf16 products with fp32 sums, by part of the card's name; from NVIDIA's data sheets."""


@dataclass(frozen=True)
class Speed:
    """One measurement.

    Attributes:
        size: of the model.
        length: pieces of each sequence.
        side: of SIDES.
        tokens_per_second: over the median step.
        utilisation: share of the card's peak; None where the peak is not known.
        memory_gib: most that tensors took on the card.
    """

    size: str
    length: int
    side: str
    tokens_per_second: float
    utilisation: float | None
    memory_gib: float


def shape_of(size: str) -> dict[str, Any]:
    """The model's settings; dropout off on both sides, for attention kernels differ in what they do with it.

    Args:
        size: of `train.presets.SHAPES`.
    """
    from bertsmith.train.presets import preset

    shape: dict[str, Any] = preset(f"classic-{size}")["model"]
    return shape | {"vocab_size": PIECES, "hidden_dropout": 0.0, "attention_dropout": 0.0}


def flops_per_token(size: str, length: int) -> float:
    """Operations of a training step's necessary matrix products for each token.

    Args:
        size: of the model.
        length: of the sequences.
    """
    shape = shape_of(size)
    width, inner, layers = (int(shape[name]) for name in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    layer = 4 * width * width + 2 * width * inner + 2 * length * width
    return 3 * 2.0 * (layers * layer + MASKED * (width * width + width * PIECES))


def peak_of(device: Any, given: float | None) -> float | None:
    """Operations a second that the card can do at most; None where nobody knows.

    Args:
        device: a torch.device.
        given: TFLOP/s from the command line.
    """
    import torch

    if given is not None:
        return given * 1e12
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * value for part, value in PEAKS.items() if all(word in name for word in part.split())), None)


class Made:
    """A feed of made-up sequences of one length."""

    def __init__(self, length: int, batch_tokens: int) -> None:
        """Hold the sizes.

        Args:
            length: of each sequence.
            batch_tokens: of a step.
        """
        self.length, self.count = length, max(1, batch_tokens // length)

    def __call__(self, step: int) -> Sequence[Any]:
        """The one batch of `step`."""
        import torch

        from bertsmith.model.packing import pack_arrays

        draw = np.random.default_rng(step)
        total = self.count * self.length
        ids = draw.integers(1000, PIECES, total)
        positions = np.sort(draw.choice(total, round(MASKED * total), replace=False))
        targets = {
            "mlm_positions": torch.from_numpy(positions),
            "mlm_labels": torch.from_numpy(ids[positions]),
            "nsp_labels": torch.from_numpy(draw.integers(0, 2, self.count)),
            "nsp_weight": torch.tensor(len(positions) / self.count, dtype=torch.float32),
        }
        segments = np.arange(total) % self.length * 2 // self.length
        return [pack_arrays(ids, segments, np.full(self.count, self.length), targets)]

    def halve(self) -> None:
        """Refuse: a measurement in smaller batches would be another one."""
        raise SystemExit("out of memory: give a smaller --batch-tokens")


def run_ours(size: str, length: int, batch_tokens: int, steps: int, device: Any) -> list[float]:
    """Seconds of each step of our loop.

    Args:
        size: of the model.
        length: of the sequences.
        batch_tokens: of a step.
        steps: how many.
        device: where.
    """
    import torch

    from bertsmith.core.device import choose_precision
    from bertsmith.model.config import Heads, ModelConfig
    from bertsmith.model.heads import Model
    from bertsmith.tasks.base import say_on_stderr
    from bertsmith.tasks.pretraining import Pretraining
    from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
    from bertsmith.train.compile import compile_for
    from bertsmith.train.loop import steps as take_steps
    from bertsmith.train.optim import build_optimizer
    from bertsmith.train.pretrain import PretrainingRun

    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "vocab.txt"
        plain.write_text("".join(f"{piece}\n" for piece in (*SPECIAL_TOKENS, *(f"w{n}" for n in range(PIECES - 5)))))
        task = Pretraining(Tokenizer.load(plain))
    model = Model(ModelConfig(**shape_of(size)), Heads(mlm=True, nsp=True)).to(device)
    compile_for(model, "auto", device, say_on_stderr)
    train, precision = PretrainingRun(batch_tokens=batch_tokens), choose_precision(device)
    optimizer, taken = build_optimizer(model, train), []
    began = time.perf_counter()
    for _ in take_steps(model, task, Made(length, batch_tokens), optimizer, train, total=steps, dtype=precision.dtype):
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
        began = time.perf_counter()
    return taken


def run_trainer(size: str, length: int, batch_tokens: int, steps: int, device: Any) -> list[float]:
    """Seconds of each step of Trainer with bf16, over sequences as long and as many.

    Args:
        size: of the model.
        length: of the sequences.
        batch_tokens: of a step.
        steps: how many.
        device: where.
    """
    import torch
    from transformers import BertConfig, BertForPreTraining, Trainer, TrainerCallback, TrainingArguments

    from bertsmith.core.device import choose_precision

    shape, feed = shape_of(size), Made(length, batch_tokens)
    config = BertConfig(
        vocab_size=PIECES,
        hidden_size=shape["hidden_size"],
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
        intermediate_size=shape["intermediate_size"],
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )

    class Rows(torch.utils.data.Dataset[dict[str, Any]]):
        def __len__(self) -> int:
            return steps * feed.count

        def __getitem__(self, index: int) -> dict[str, Any]:
            ids = torch.from_numpy(np.random.default_rng(index).integers(1000, PIECES, length))
            labels = torch.where(torch.rand(length) < MASKED, ids, -100)
            return {"input_ids": ids, "labels": labels, "next_sentence_label": index % 2}

    stamps: list[float] = []

    class Stamps(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            stamps.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as output:
        arguments = TrainingArguments(
            output_dir=output,
            per_device_train_batch_size=feed.count,
            max_steps=steps,
            use_cpu=device.type == "cpu",
            bf16=choose_precision(device).dtype == torch.bfloat16,
            save_strategy="no",
            disable_tqdm=True,
            dataloader_num_workers=0 if device.type == "cpu" else 4,
        )
        Trainer(model=BertForPreTraining(config), args=arguments, train_dataset=Rows(), callbacks=[Stamps()]).train()
    return [0.0, *np.diff(stamps).tolist()]


def differences(device: Any, size: str) -> dict[str, float]:
    """How far packed hidden states are from padded ones, and half precision from full.

    Args:
        device: where.
        size: of the model.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import BertModel

    from bertsmith.core.bundle import Bundle
    from bertsmith.core.device import choose_precision
    from bertsmith.model.config import Heads, ModelConfig
    from bertsmith.model.convert import load_model, to_hf
    from bertsmith.model.heads import Model
    from bertsmith.model.packing import Encoding, pack

    lengths = (1, 2, 17, 64, 128, 200, 511, 512)
    draw = np.random.default_rng(0)
    rows = [draw.integers(1000, PIECES, n).astype(np.int32) for n in lengths]
    batch = pack([Encoding(row, np.zeros_like(row)) for row in rows]).to(device)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Model(ModelConfig(**shape_of(size)), Heads(mlm=True, nsp=True))
        config, tensors = to_hf(fresh.config, fresh.state_dict(), fresh.heads)
        (Path(folder) / "config.json").write_text(json.dumps(config))
        save_file(tensors, Path(folder) / "model.safetensors", {"format": "pt"})
        ours = load_model(Bundle.open(folder)).to(device).eval()
        theirs = BertModel.from_pretrained(folder).to(device).eval()
    mask = torch.zeros(len(rows), max(lengths), dtype=torch.long)
    padded = torch.zeros_like(mask)
    for number, row in enumerate(rows):
        mask[number, : len(row)], padded[number, : len(row)] = 1, torch.from_numpy(row)
    precision = choose_precision(device)
    with torch.inference_mode():
        full = ours.hidden(batch).float()
        with torch.autocast(device.type, dtype=precision.dtype, enabled=precision.dtype != torch.float32):
            half = ours.hidden(batch).float()
        other = theirs(padded.to(device), attention_mask=mask.to(device)).last_hidden_state[mask.to(device).bool()]
    return {
        "packed - padded, fp32": float((full - other).abs().max()),
        f"packed {str(precision.dtype).removeprefix('torch.')} - packed fp32": float((half - full).abs().max()),
    }


def measure(size: str, length: int, side: str, options: argparse.Namespace, peak: float | None) -> Speed:
    """Measure one side in a process of its own.

    Args:
        size: of the model.
        length: of the sequences.
        side: of SIDES.
        options: the command line.
        peak: operations a second.
    """
    command = [sys.executable, __file__, "--side", side, "--sizes", size, "--lengths", str(length)]
    command += ["--batch-tokens", str(options.batch_tokens), "--steps", str(options.steps)]
    command += ["--device", options.device] if options.device else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    each = median(found["seconds"][WARM_UP:])
    speed = max(1, options.batch_tokens // length) * length / each
    share = speed * flops_per_token(size, length) / peak if peak else None
    return Speed(size, length, side, speed, share, found["memory_gib"])


def main() -> None:
    """Check, measure, train; with `--side`, be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default=",".join(SIZES), help="of the classic presets")
    parser.add_argument("--lengths", default="128,512", help="pieces of each sequence")
    parser.add_argument("--batch-tokens", type=int, default=65_536, help="tokens of a step")
    parser.add_argument("--steps", type=int, default=30, help=f"of a measurement, {WARM_UP} of them to warm up")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the card in bf16 [default: by its name]")
    parser.add_argument("--minutes", type=float, default=2.0, help="of the run at the end; 0 leaves it out")
    parser.add_argument("--device", help="where [default: the GPU]")
    parser.add_argument("--results", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--json", action="store_true", help="print a JSON line a measurement instead of the table")
    parser.add_argument("--tiny", action="store_true", help="toy sizes on the CPU: does this script still run?")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.sizes, options.lengths, options.device, options.minutes = "tiny", "32", "cpu", 0.0
        options.batch_tokens, options.steps = 64, WARM_UP + 2
    import torch

    from bertsmith.core.device import choose_device

    device = choose_device(options.device)
    if device.type != "cuda" and not options.device:
        raise SystemExit("no GPU here; --device cpu measures the processor, for hours")
    sizes, lengths = options.sizes.split(","), [int(length) for length in options.lengths.split(",")]
    if options.side:
        take = {"ours": run_ours, "trainer": run_trainer}[options.side]
        seconds = take(sizes[0], lengths[0], options.batch_tokens, options.steps, device)
        memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
        print(json.dumps({"seconds": seconds, "memory_gib": memory}))
        return

    same = differences(device, sizes[0])
    if not options.json:
        print(machine())
        for name, value in same.items():
            print(f"{name}: {value:.2g}")
    if next(iter(same.values())) > SAME:
        raise SystemExit(f"packed and padded hidden states differ by more than {SAME:g}")
    peak, found = peak_of(device, options.peak), list[Speed]()
    for size in sizes:
        for length in lengths:
            for side in SIDES:
                found.append(measure(size, length, side, options, peak))
                if options.json:
                    print(json.dumps(asdict(found[-1])), flush=True)
            if not options.json:
                ours, theirs = found[-2:]
                share = f", {ours.utilisation:.0%} of the peak" if ours.utilisation is not None else ""
                print(
                    f"{size:7}{length:5}  ours {ours.tokens_per_second:12,.0f} tokens/s{share}, "
                    f"{ours.memory_gib:.1f} GiB;"
                    f"  trainer {theirs.tokens_per_second:12,.0f} tokens/s, {theirs.memory_gib:.1f} GiB;"
                    f"  {ours.tokens_per_second / theirs.tokens_per_second:.2f} x",
                    flush=True,
                )
    if options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "bertsmith.cli.main", "pretrain", "pydoc:", "--preset", "classic-small"]
            command += ["--budget", f"{options.minutes:g}m", "--device", str(device), "--out", f"{folder}/run"]
            subprocess.run(command, check=True, stdout=sys.stderr)
            scores = json.loads((Path(folder) / "run" / "scores.json").read_text())
        print(json.dumps(scores["held_out"]), file=sys.stderr)
        same |= scores["held_out"]
    if options.results:
        result = {"machine": machine(), "figures": same, "speeds": [asdict(one) for one in found]}
        options.results.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
