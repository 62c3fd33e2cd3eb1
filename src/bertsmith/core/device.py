"""Where to compute and how precisely, chosen by what the machine has and said in words."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from bertsmith.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

BF16_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True, slots=True)
class Precision:
    """What matrix products are computed in.

    Attributes:
        dtype: torch.bfloat16 or torch.float32; weights and optimiser state stay in float32.
        reason: a sentence for the screen.
    """

    dtype: torch.dtype
    reason: str


def choose_device(name: str | None = None) -> torch.device:
    """Choose where to compute: CUDA when there is one, else the CPU.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, `mps`; None or `auto` to choose.

    Raises:
        ConfigError: the machine has no such device.
    """
    import torch

    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
    except RuntimeError:
        raise ConfigError(f"--device {name}: not a device; use cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ConfigError(f"--device {name}: this machine has {count} CUDA devices; use cpu or leave --device out")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device {name}: no Apple GPU here; use cpu or leave --device out")
    elif device.type not in ("cpu", "mps"):
        raise ConfigError(f"--device {name}: not supported; use cpu, cuda, cuda:1 or mps")
    return device


def choose_precision(device: torch.device, name: str = "auto") -> Precision:
    """Choose bf16 where the hardware computes in it, else fp32.

    Args:
        device: where the computing happens.
        name: `auto`, `bf16` or `fp32`.

    Raises:
        ConfigError: `name` is none of the three.
    """
    import torch

    if name not in ("auto", "bf16", "fp32"):
        raise ConfigError(f"precision '{name}' is not one of auto, bf16, fp32")
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
        hardware = f"{torch.cuda.get_device_name(device)} {'computes' if able else 'does not compute'} in bf16"
    elif device.type == "cpu":
        flags = [flag for flag in BF16_FLAGS if flag in cpu_flags()]
        able = bool(flags)
        hardware = f"the processor has {flags[0]}" if able else f"the processor has neither of {', '.join(BF16_FLAGS)}"
    else:
        able, hardware = False, f"bf16 is not used on {device.type}"
    use_bf16 = able if name == "auto" else name == "bf16"
    reason = hardware if name == "auto" else f"as asked; {hardware}"
    if use_bf16 and not able:
        reason += ", so expect it to be many times slower than fp32"
    if use_bf16:
        return Precision(torch.bfloat16, f"bf16 ({reason})")
    return Precision(torch.float32, f"fp32 ({reason})")


def set_threads(count: int | None = None) -> int:
    """Set how many threads the CPU work uses.

    Args:
        count: number of threads; None: one for each processor core that this process may use.

    Returns:
        The number in effect.

    Raises:
        ConfigError: `count` is below 1.
    """
    import torch

    if count is None:
        count = usable_cores()
    if count < 1:
        raise ConfigError(f"--threads {count}: must be 1 or more")
    torch.set_num_threads(count)
    return count


def usable_cores() -> int:
    """How many processor cores this process may use, which in a container is fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):
        return allowed


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in reversed(text.splitlines()))
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_flags() -> frozenset[str]:
    """The instruction sets that the processor says it has; empty where the system does not tell."""
    return frozenset(_cpuinfo().get("flags", "").split())


def memory_bytes() -> tuple[int, int]:
    """Memory of this machine in bytes: all of it, and what is free to use; (0, 0) where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines)}
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def release_memory() -> None:
    """Give memory that is free again back to the system, where the C library keeps it (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def environment() -> dict[str, str]:
    """What a result depends on: versions and hardware, for reports and `doctor`."""
    import torch

    facts = {"bertsmith": _version("bertsmith"), "python": platform.python_version(), "system": platform.platform()}
    facts |= {name: _version(name) for name in ("torch", "numpy", "tokenizers", "safetensors", "pydantic")}
    facts["processor"] = _cpuinfo().get("model name", platform.processor() or platform.machine())
    facts["cores"] = str(usable_cores())
    facts["threads"] = str(torch.get_num_threads())
    facts["memory"] = f"{memory_bytes()[0] / 2**30:.1f} GiB"
    facts["gpu"] = (
        ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        if torch.cuda.is_available()
        else "none"
    )
    return facts


def _version(name: str) -> str:
    if name == "bertsmith":
        from bertsmith import __version__

        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
