"""`bertsmith convert`: a Hugging Face folder into a bundle, which is a Hugging Face folder too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.cli.options import Debug


def command(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Hugging Face folder, bundle, run, or hub name")],
    target: Annotated[Path, typer.Argument(metavar="TO", help="folder to write; transformers opens it too")],
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="read a pytorch_model.bin whose maker you trust")
    ] = False,
    debug: Debug = False,
) -> None:
    """Turn a Hugging Face model (bert, modernbert) into a bundle that bertsmith and transformers both open."""
    from bertsmith.core.errors import ConfigError
    from bertsmith.model.adopt import adopt
    from bertsmith.tokenizer.load import Tokenizer

    folder = Path(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: already there; choose a new folder or remove it first")
    files = {}
    if (folder / "vocab.txt").is_file() and not (folder / "tokenizer.json").is_file():
        files = Tokenizer.load(folder).files()
    bundle = adopt(source, target, tokenizer_files=files, trust_pickle=trust_pickle)

    print(bundle.path)
    if not (bundle.path / "tokenizer.json").is_file():
        print("no tokenizer came with it: put tokenizer.json or vocab.txt beside the weights", file=sys.stderr)
    if folder.is_dir():
        weights = (".safetensors", ".bin", ".index.json")
        left = [file.name for file in sorted(folder.iterdir()) if not (bundle.path / file.name).exists()]
        if left := [name for name in left if not name.endswith(weights)]:
            print(f"left behind: {', '.join(left)}", file=sys.stderr)
