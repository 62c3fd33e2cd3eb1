from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bertsmith.core import device
from bertsmith.core.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "dtype", "said"),
    [
        ({"avx2", "avx512_bf16"}, torch.bfloat16, "has avx512_bf16"),
        ({"amx_bf16"}, torch.bfloat16, "has amx_bf16"),
        ({"avx2", "avx512f"}, torch.float32, "has neither"),
    ],
)
def test_the_processor_decides_the_precision_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: torch.dtype, said: str
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    chosen = device.choose_precision(CPU)
    assert chosen.dtype == dtype
    assert said in chosen.reason
    assert device.choose_precision(CPU, "fp32").dtype == torch.float32
    assert device.choose_precision(CPU, "bf16").dtype == torch.bfloat16


def test_what_cannot_be_had_is_refused() -> None:
    assert device.choose_device("cpu") == CPU
    for name in ("gpu", "cuda:99", "meta", ""):
        with pytest.raises(ConfigError, match="--device"):
            device.choose_device(name)
    with pytest.raises(ConfigError, match="auto, bf16, fp32"):
        device.choose_precision(CPU, "fp16")
    with pytest.raises(ConfigError, match="--threads 0"):
        device.set_threads(0)


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        assert device.set_threads(1) == torch.get_num_threads() == 1
        assert device.set_threads() == torch.get_num_threads() == device.usable_cores()
    finally:
        torch.set_num_threads(before)


def test_the_environment_names_versions_and_hardware() -> None:
    facts = device.environment()
    assert facts["torch"] == torch.__version__
    assert all(facts[name] for name in ("python", "processor", "cores", "memory", "gpu"))


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is asked")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    device.release_memory()
    before = resident()
    many = [bytes(600 + number % 7) for number in range(200_000)]
    held = resident() - before
    keep = many[-1]  # on top of the heap, so that the C library cannot shrink it by itself
    del many
    device.release_memory()
    assert resident() - before < held / 2
    assert len(keep) >= 600


def test_bf16_where_it_is_slow_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "cpu_flags", frozenset)
    reason = device.choose_precision(torch.device("cpu"), "bf16").reason
    assert reason.startswith("bf16 (as asked; ")
    assert "many times slower" in reason
    assert "slower" not in device.choose_precision(torch.device("cpu"), "fp32").reason
