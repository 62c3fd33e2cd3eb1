"""`bertsmith convert`: a Hugging Face folder, or an adapter of the peft library, into a bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertsmith.cli.options import Debug


def command(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="Hugging Face or peft folder, bundle, run, or hub name")
    ],
    target: Annotated[Path, typer.Argument(metavar="TO", help="folder to write; transformers opens it too")],
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="read a pytorch_model.bin whose maker you trust")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="make one plain model of an adapter (LoRA, AdaLoRA, BitFit) and its base")
    ] = False,
    base: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="where an adapter's base is", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn a Hugging Face model (bert, modernbert, electra) into a bundle that bertsmith and transformers both open.

    An adapter becomes a plain model with --merge, and finds a base that has moved with --base.
    """
    from bertsmith.core.bundle import META
    from bertsmith.core.card import CARD
    from bertsmith.core.errors import ConfigError
    from bertsmith.model.adopt import adopt
    from bertsmith.tokenizer.load import Tokenizer

    folder = Path(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: already there; choose a new folder or remove it first")
    if _adapter(folder, target, merge, base):
        return
    if merge or base is not None:
        raise ConfigError(
            f"{source}: no adapter, so there is nothing to merge and no base; leave --merge and --base out"
        )
    files = {}
    if (folder / "vocab.txt").is_file() and not (folder / "tokenizer.json").is_file():
        files = Tokenizer.load(folder).files()
    bundle = adopt(source, target, tokenizer_files=files, trust_pickle=trust_pickle)

    print(bundle.path)
    if not (bundle.path / "tokenizer.json").is_file():
        print("no tokenizer came with it: put tokenizer.json or vocab.txt beside the weights", file=sys.stderr)
    if folder.is_dir():
        weights = (".safetensors", ".bin", ".index.json")
        theirs = "" if (folder / META).is_file() else CARD  # a new card is there, which says less than a person's own
        left = [
            file.name
            for file in sorted(folder.iterdir())
            if file.name == theirs or not (bundle.path / file.name).exists()
        ]
        if left := [name for name in left if not name.endswith(weights)]:
            print(f"left behind: {', '.join(left)}", file=sys.stderr)


def _adapter(source: Path, target: Path, merge: bool, base: str | None) -> bool:
    """Convert an adapter, which may be the peft library's; False where `source` is something else."""
    from bertsmith.core.bundle import ADAPTER, Bundle
    from bertsmith.core.errors import ConfigError

    theirs = (source / ADAPTER).is_file() and not (source / "config.json").is_file()
    if not theirs:
        if not source.is_dir() or not any((source / inner / ADAPTER).is_file() for inner in (".", "bundle")):
            return False
        bundle = Bundle.open(source)
        if not merge and base is None:
            raise ConfigError(
                f"{bundle.path}: a bundle already; --merge makes a plain model of it, --base says where its base is now"
            )
    from bertsmith.peft.bundle import adopt_adapter, merged, moved

    ground = None if base is None else Bundle.open(base)
    if theirs and merge:
        raise ConfigError(f"{source}: make a bundle of it first, without --merge, and merge that")
    if theirs:
        made = adopt_adapter(source, target, ground)
    elif merge or ground is None:
        made = merged(bundle, target, ground)
    else:
        made = moved(bundle, target, ground)
    print(made.path)
    return True
