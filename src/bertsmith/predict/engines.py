"""One interface, two engines: torch and ONNX Runtime, chosen by what was measured on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bertsmith.core.bundle import Bundle
from bertsmith.core.device import Precision, environment
from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.model.heads import Model
from bertsmith.model.lowered import is_plain, lower, with_encoder
from bertsmith.model.packing import Batch
from bertsmith.predict.runtime import OnnxEncoder, onnx_file, read_whole

Name = Literal["auto", "torch", "onnx"]
SHORT = 64
"""The longest text, in pieces, that counts as short."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What computes.

    Attributes:
        name: for the screen, such as `torch bf16, 2 threads`.
        model: takes a Batch to outputs; its encoder is the engine's.
        precision: of torch's matrix products; None where the model's encoder sees to it.
        kind: in what it computes: `fp32`, `bf16`, `int8`, or two of them for short and long texts.
    """

    name: str
    model: Model
    precision: Precision | None
    kind: str


class Switch(nn.Module):
    """An encoder that hands short texts to one engine and long ones to another."""

    def __init__(self, short: Any, long: Any) -> None:
        """Both take a Batch to `[T, H]`."""
        super().__init__()
        self.short, self.long = short, long
        self.config, self.max_length, self.embeddings = long.config, long.max_length, long.embeddings

    def forward(self, batch: Batch) -> Tensor:
        """`[T, H]`, by the engine for the batch's longest text."""
        hidden: Tensor = (self.short if batch.max_seqlen <= SHORT else self.long)(batch)
        return hidden


def torch_engine(model: Model, precision: Precision, *, writes: bool = False) -> Engine:
    """Packed sequences in torch; on a CPU in bf16 with weights laid out for it, where the model is plain.

    Args:
        model: on its device.
        precision: of matrix products.
        writes: whether texts are written, for which the layers themselves are asked.
    """
    device = next(model.parameters()).device
    kind = str(precision.dtype).removeprefix("torch.").replace("bfloat16", "bf16").replace("float32", "fp32")
    said = f"torch {kind}, {f'{torch.get_num_threads()} threads' if device.type == 'cpu' else device}"
    low = device.type == "cpu" and precision.dtype == torch.bfloat16 and not writes
    if low and is_plain(model.encoder):
        return Engine(said, lower(model), None, kind)
    return Engine(said, model, precision, kind)


def onnx_engine(model: Model, data: bytes, kind: str) -> Engine:
    """Padded groups in ONNX Runtime; heads stay in torch, in fp32.

    Args:
        model: whose heads are wanted.
        data: the ONNX model.
        kind: `fp32` or `int8`, for the name.
    """
    encoder = OnnxEncoder(data, model.encoder)
    return Engine(f"onnx {kind}, {encoder.threads} threads", with_encoder(model, encoder), None, kind)


def choose_engine(
    bundle: Bundle, model: Model, precision: Precision, name: str = "auto", *, writes: bool = False
) -> Engine:
    """The engine asked for, or the one that `bertsmith bench` found faster on a processor like this one.

    Where nothing was measured: ONNX Runtime for a bundle that was quantised for it, else torch.

    Args:
        bundle: may hold an ONNX model and what `bench` recorded.
        model: on its device.
        precision: of torch's matrix products.
        name: `auto`, `torch` or `onnx`.
        writes: whether the model writes texts, which torch does.

    Raises:
        ConfigError: no engine of this name, or not for this model.
        BundleError: `onnx` is asked for and the bundle holds no ONNX model, or a refused one.
    """
    if name not in get_args(Name):
        raise ConfigError(f"--engine {name}: not one of {', '.join(get_args(Name))}")
    if writes and name == "onnx":
        raise ConfigError(f"{bundle.path}: writes texts, which only the torch engine does; leave --engine onnx out")
    file = None if writes or name == "torch" or next(model.parameters()).device.type != "cpu" else onnx_file(bundle)
    if name == "onnx" and file is None:
        raise BundleError(
            f"{bundle.path}: no ONNX model for the CPU in it; `bertsmith bench {bundle.path}` or "
            f"`bertsmith compress quantize {bundle.path} --data DEV --out RUN` makes one"
        )
    kind = bundle.meta.get("onnx", {}).get("kind", "fp32")
    chosen = {"short": name, "long": name}
    if name == "auto":
        measured = bundle.meta.get("bench", {})
        known = measured.get("processor") == environment()["processor"] and file is not None
        usual = "onnx" if file is not None and kind == "int8" else "torch"
        chosen = {size: measured[size] if known else usual for size in chosen}
    if set(chosen.values()) == {"torch"}:
        return torch_engine(model, precision, writes=writes)
    assert file is not None
    onnx = onnx_engine(model, read_whole(file), kind)
    if set(chosen.values()) == {"onnx"}:
        return onnx
    torch_one = torch_engine(model, precision)
    both = {"torch": torch_one, "onnx": onnx}
    short, long = both[chosen["short"]], both[chosen["long"]]
    switch = Switch(short.model.encoder, long.model.encoder)
    said = f"{short.name} up to {SHORT} pieces, else {long.name}"
    kinds = "/".join(dict.fromkeys([short.kind, long.kind]))
    return Engine(said, with_encoder(model, switch), torch_one.precision, kinds)
