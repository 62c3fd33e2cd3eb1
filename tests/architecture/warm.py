"""A process that has imported what commands import, and forks a child for each: a document's commands start at once.

An import of torch takes seconds of processor time, which over some hundred commands is most of the time they take. The
children are processes of their own, with the caller's files, folder and environment; signals and exit status pass
through the caller. Commands that need an untouched interpreter are run as they are by other tests.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CALLER = """#!{python} -SE
import sys
sys.path.insert(0, {here!r})
import warm
warm.ask({place!r}, sys.argv)
"""


def start(folder: Path, modules: list[str]) -> subprocess.Popen[bytes]:
    """Start the process, and put a `bertsmith` into a folder that asks it.

    Args:
        folder: for the program and the socket.
        modules: to be imported before the first child.
    """
    here, place = str(Path(__file__).parent), str(folder / "socket")
    program = folder / "bertsmith"
    program.write_text(CALLER.format(python=sys.executable, here=here, place=place), encoding="utf-8")
    program.chmod(0o755)
    code = f"import sys; sys.path.insert(0, {here!r}); import warm; warm.serve({place!r}, {modules!r})"
    warm = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert warm.stdout is not None
    assert warm.stdout.readline() == b"ready\n"
    return warm


def serve(place: str, modules: list[str]) -> None:
    """Fork a child for each caller, until this process is killed."""
    for name in modules:
        __import__(name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(place)
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.path.remove(str(Path(__file__).parent))
    os.write(1, b"ready\n")
    while True:
        caller = listening.accept()[0]
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch(caller)
        caller.close()


def _watch(caller: socket.socket) -> None:
    """Fork the command, pass signals to it and its status back; a caller that is gone takes it along."""
    asked, files, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        caller.close()
        _become(json.loads(asked), files)
    ended = os.pidfd_open(child)
    while ended not in select.select([caller, ended], [], [])[0]:
        word = caller.recv(1)
        os.kill(child, word[0] if word else signal.SIGKILL)
        if not word:
            break
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        caller.sendall(str(status).encode())
    finally:
        os._exit(0)


def _become(asked: dict[str, object], files: list[int]) -> None:
    """Run a command, or a snippet after `-c`, and end as an interpreter ends."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    os.chdir(str(asked["folder"]))
    words: list[str] = asked["words"]  # type: ignore[assignment]
    if words[1:2] == ["-c"]:
        sys.argv = ["-c", *words[3:]]
        sys.path.insert(0, "")
        main = sys.modules["__main__"].__dict__
        exec(compile(words[2], "<string>", "exec"), main)
        sys.exit()
    from bertsmith.cli.main import main as bertsmith

    sys.argv = words
    sys.exit(bertsmith())


def ask(place: str, words: list[str]) -> None:
    """Have `words` run by the process behind `place`, and end as they end."""
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(place)
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: asking.send(bytes([number])))
    asked = {"words": words, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    socket.send_fds(asking, [json.dumps(asked).encode()], [0, 1, 2])
    status = int(asking.recv(64) or b"-9")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
