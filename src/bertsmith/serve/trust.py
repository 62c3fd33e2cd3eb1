"""A served bundle stays inside its folder: no link and no name in it leads elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from bertsmith.core.bundle import INDEX, META
from bertsmith.core.errors import BundleError


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files are elsewhere, by a symbolic link or by a name written in one of its files.

    Args:
        folder: of a bundle. In the cache of the Hugging Face hub, links to that model's own blobs are accepted.

    Raises:
        BundleError: names the file and where it leads.
    """
    home = folder.resolve()
    allowed = [home]
    if home.parent.name == "snapshots" and home.parents[1].name.startswith("models--"):
        allowed.append(home.parents[1] / "blobs")
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            target = path.resolve()
            if path.is_symlink() and not any(target.is_relative_to(place) for place in allowed):
                raise BundleError(f"{path}: a link that leads outside of the bundle, to {target}; copy the file there")
    for file, named in _named(folder):
        if PurePosixPath(named).is_absolute() or ".." in PurePosixPath(named).parts or PureWindowsPath(named).drive:
            raise BundleError(f"{file}: names the file {named!r}, which is outside of the bundle; it is refused")


def _named(folder: Path) -> Iterator[tuple[Path, str]]:
    """File names that files of a bundle hold, and where they stand."""
    for name, key in ((INDEX, "weight_map"), (META, "files")):
        path = folder / name
        if path.is_file():
            listed = json.loads(path.read_text(encoding="utf-8")).get(key) or {}
            yield from ((path, str(value)) for value in (listed.values() if name == INDEX else listed))
    if graphs := sorted(folder.glob("**/*.onnx")):
        try:
            import onnx
        except ImportError:
            return  # without it no graph is run either
        for path in graphs:
            for tensor in onnx.load(path, load_external_data=False).graph.initializer:
                yield from ((path, entry.value) for entry in tensor.external_data if entry.key == "location")
