from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.core.lock import is_held, run_lock

HOLD = """
import sys, time
from pathlib import Path
from bertsmith.core.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_holds_the_folder_until_it_dies(tmp_run: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_run)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert is_held(tmp_run)
        with pytest.raises(ConfigError, match=f"process {other.pid} is already working .*--out"), run_lock(tmp_run):
            pass
        other.send_signal(signal.SIGKILL)
    assert not is_held(tmp_run)
    with run_lock(tmp_run):
        assert (tmp_run / ".lock").exists()


def test_a_folder_is_free_again_after_an_error(tmp_run: Path) -> None:
    assert not is_held(tmp_run)
    with pytest.raises(RuntimeError), run_lock(tmp_run):
        raise RuntimeError
    with run_lock(tmp_run), pytest.raises(ConfigError, match="already working"), run_lock(tmp_run):
        pass


def test_a_place_that_makes_no_folders_is_named() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    with pytest.raises(ConfigError, match="/proc/nothing: cannot write here .*choose another folder"):  # noqa: SIM117
        with run_lock(Path("/proc/nothing")):
            pass


def test_a_full_disk_is_told(tmp_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(BundleError, match="disk is full"), run_lock(tmp_run):
        pass
