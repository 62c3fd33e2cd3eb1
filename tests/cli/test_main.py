from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertsmith import __version__
from bertsmith.cli import main
from bertsmith.core.errors import DataError

PROGRAM = [sys.executable, "-m", "bertsmith.cli.main"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A verb of a module made for the test, which does what its argument says."""
    (tmp_path / "odd_verb.py").write_text(
        "from bertsmith.core.errors import DataError\n"
        "def command(what: str) -> None:\n"
        "    '''Do what is asked.'''\n"
        "    if what == 'data':\n"
        "        raise DataError('a.csv:3: no label; add one')\n"
        "    if what == 'bug':\n"
        "        raise ZeroDivisionError('x / 0')\n"
        "    if what == 'stop':\n"
        "        raise KeyboardInterrupt\n"
        "    print('done', what)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(main.COMMANDS, "odd", ("odd_verb:command", "Do what is asked."))
    monkeypatch.delitem(sys.modules, "odd_verb", raising=False)
    return "odd"


def code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else 0


def test_help_lists_every_verb_fast_and_imports_nothing_heavy() -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        shown = run("--help")
        times.append(time.perf_counter() - start)
    assert shown.returncode == 0
    alone = {name: line for name, (_, line) in main.COMMANDS.items() if " " not in name}
    for name, line in {**alone, **main.GROUPS}.items():
        assert f"  {name} " in shown.stdout
        assert line in shown.stdout
    assert min(times) < 0.5
    script = (
        "import sys\nfrom bertsmith.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'transformers', 'tokenizers', 'safetensors', 'pydantic'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert listed.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("verb", sorted(main.COMMANDS))
def test_every_verb_explains_itself_without_loading_torch(verb: str) -> None:
    script = (
        "import sys\nfrom bertsmith.cli.main import main\n"
        f"try:\n    main([*{verb!r}.split(), '--help'])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"Usage: bertsmith {verb}" in shown.stdout
    assert "--debug" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "False"


def test_a_bad_request_ends_with_2_and_its_message_alone(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(verb, "data") == 2
    assert capsys.readouterr() == ("", "error: a.csv:3: no label; add one\n")


def test_a_failure_ends_with_1_and_says_how_to_see_more(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(verb, "bug") == 1
    err = capsys.readouterr().err
    assert err == "failed: ZeroDivisionError: x / 0 (add --debug for the traceback)\n"


def test_ctrl_c_ends_with_130(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(verb, "stop") == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback_wherever_it_stands(
    verb: str, capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    assert code(*(["--debug", verb, "data"] if before else [verb, "data", "--debug"])) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert f"{DataError.__name__}: a.csv:3" in err


def test_debug_after_two_dashes_is_text(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(verb, "--", "--debug") == 0
    assert capsys.readouterr().out == "done --debug\n"


def test_what_typer_refuses_ends_with_2() -> None:
    for arguments in (["nope"], ["doctor", "--nope"], []):
        assert run(*arguments).returncode == 2
    assert run("--version").stdout == f"{__version__}\n"


def test_a_closed_pipe_is_no_failure_worth_words() -> None:
    script = f"{' '.join(PROGRAM)} doctor --json | head -c 1"
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert shown.stdout == "{"
    assert shown.stderr == ""


def test_ctrl_c_while_a_verb_is_being_imported(tmp_path: Path) -> None:
    (tmp_path / "slow_verb.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    script = (
        "from bertsmith.cli import main\nmain.COMMANDS['slow'] = ('slow_verb:command', 'Slow.')\nmain.main(['slow'])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read() == "interrupted\n"
    assert process.returncode == 130


def test_doctor_tells_machine_and_missing_packages() -> None:
    shown = run("doctor", "--json")
    found = json.loads(shown.stdout)
    assert found["environment"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["device"] in ("cpu", "cuda")
    assert found["precision"].startswith(("bf16", "fp32"))
    assert found["disk_free_gib"] > 0
    extras = {
        "clean",
        "fast",
        "web",
        "office",
        "parquet",
        "remote",
        "search",
        "onnx",
        "serve",
        "track",
        "otel",
        "ray",
        "hf",
    }
    assert set(found["extras"]) == extras
    eyes = run("doctor")
    assert eyes.stdout == ""
    assert found["precision"] in eyes.stderr
    for extra, entry in found["extras"].items():
        assert (f"-m pip install 'bertsmith[{extra}]'" in eyes.stderr) == bool(entry["missing"])
