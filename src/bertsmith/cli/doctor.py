"""`bertsmith doctor`: what this machine offers, what is missing, and the command that installs it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bertsmith.cli.options import AsJson, Debug
from bertsmith.core.device import choose_device, choose_precision, environment, memory_bytes
from bertsmith.core.extras import EXTRAS, install_command, present

GIB = 2**30


def examine() -> dict[str, Any]:
    """Look at the machine.

    Returns:
        `environment` (text by name), `device`, `precision`, `compiler` (path or None), `memory_free_gib`,
        `disk_free_gib` (where the process stands), `extras` (name: packages, missing ones, install command).
    """
    device = choose_device()
    return {
        "environment": environment(),
        "device": str(device),
        "precision": choose_precision(device).reason,
        "compiler": next((path for name in _compilers() if (path := shutil.which(name))), None),
        "memory_free_gib": round(memory_bytes()[1] / GIB, 1),
        "disk_free_gib": round(shutil.disk_usage(Path.cwd()).free / GIB, 1),
        "extras": {
            extra: {
                "packages": list(packages),
                "missing": [name for name, module in packages.items() if not present(module)],
                "install": install_command(extra),
            }
            for extra, packages in EXTRAS.items()
        },
    }


def command(as_json: AsJson = False, debug: Debug = False) -> None:
    """Show what this machine offers and what is missing, with the command that installs it."""
    found = examine()
    if as_json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    console = Console(stderr=True, highlight=False)
    facts = Table.grid(padding=(0, 2))
    compiler = found["compiler"] or f"none: install one ({_install_compiler()}) to train faster"
    rows = {
        **found["environment"],
        "device": found["device"],
        "precision": found["precision"],
        "C++ compiler": f"{compiler} (torch.compile can be used)" if found["compiler"] else compiler,
        "memory free": f"{found['memory_free_gib']} GiB",
        "disk free": f"{found['disk_free_gib']} GiB in {Path.cwd()}",
    }
    for name, value in rows.items():
        facts.add_row(name, Text(value))
    console.print(facts)
    console.print("\noptional packages")
    for extra, entry in found["extras"].items():
        state = f"missing {', '.join(entry['missing'])}" if entry["missing"] else "complete"
        console.print(f"{extra:<8}{state}", markup=False)
        if entry["missing"]:
            console.print(f"        {entry['install']}", markup=False, soft_wrap=True)


def _compilers() -> list[str]:
    return [name for name in (os.environ.get("CXX"), "g++", "clang++", "c++") if name]


def _install_compiler() -> str:
    return "xcode-select --install" if sys.platform == "darwin" else "apt-get install g++"
