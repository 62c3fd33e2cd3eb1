"""What torch.compile is given: measured, not hoped for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Literal

import torch

from bertsmith.model.heads import Model

Choice = Literal["auto", "off", "loss", "layers"]


def has_compiler() -> bool:
    """Whether a C++ compiler is there, which torch.compile needs on a CPU."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None or shutil.which("clang++") is not None


def compile_for(model: Model, choice: Choice, device: torch.device, say: Callable[[str], None]) -> None:
    """Compile what pays on this device; without a compiler nothing, which is said.

    `auto` takes the vocabulary loss on a CPU, and the layers too on a GPU.

    Args:
        model: whose parts are compiled in place.
        choice: what to compile.
        device: where it runs.
        say: takes a line for the user.
    """
    if choice == "off" or (choice == "auto" and device.type not in ("cpu", "cuda")):
        return
    if device.type == "cpu" and not has_compiler():
        say("no C++ compiler here, so nothing is compiled and training is slower; install g++")
        return
    model.compile_parts(layers=choice == "layers" or (choice == "auto" and device.type == "cuda"))
