"""How a person calls this program here, for commands that are shown to be pasted."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def program() -> str:
    """What to type for this program here, quoted for a shell: it may lie in an environment that is not on the path."""
    own = Path(sys.executable).with_name("bertsmith")
    found = shutil.which("bertsmith")
    if found is not None and Path(found).absolute() == own.absolute():
        return "bertsmith"
    if not own.exists():
        return f"{quoted(Path(sys.executable))} -m bertsmith"
    return quoted(own)


def quoted(path: Path) -> str:
    """A path from the working folder where it lies inside, quoted for a shell."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path))


def typed() -> str:
    """The command that was typed, to be shown and repeated."""
    return shlex.join(["bertsmith", *sys.argv[1:]])
