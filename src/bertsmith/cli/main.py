"""The command line: one verb, one module, one function; only the verb that is asked for is imported."""

from __future__ import annotations

import functools
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from bertsmith import __version__
from bertsmith.cli.options import Debug
from bertsmith.core.errors import BertsmithError

COMMANDS: dict[str, tuple[str, str]] = {
    "corpus prepare": ("bertsmith.cli.corpus_prepare:command", "Turn text into a clean token store."),
    "vocab": ("bertsmith.cli.vocab:command", "Train, choose or extend a vocabulary."),
    "corpus stats": ("bertsmith.cli.corpus:stats", "Show what a token store holds, as a table and a page."),
    "corpus sample": ("bertsmith.cli.corpus:sample", "Print some documents of a store."),
    "corpus diff": ("bertsmith.cli.corpus:diff", "Compare two stores."),
    "corpus search": ("bertsmith.cli.corpus:search", "Find text in a store."),
    "pretrain": ("bertsmith.cli.pretrain:command", "Train an encoder on text of your own."),
    "finetune": ("bertsmith.cli.finetune:command", "Turn an encoder into a model for a task."),
    "compress prune": ("bertsmith.cli.compress:prune", "Take out of a model what matters least."),
    "compress distil": ("bertsmith.cli.compress:distil", "Let a smaller model learn from a larger one."),
    "compress quantize": ("bertsmith.cli.compress:quantize", "Make a model int8 within a drop allowed."),
    "evaluate": ("bertsmith.cli.evaluate:command", "Score a model on labelled rows."),
    "predict": ("bertsmith.cli.predict:command", "Ask a model about texts."),
    "serve": ("bertsmith.cli.serve:command", "Serve models over HTTP."),
    "loadtest": ("bertsmith.cli.loadtest:command", "Measure how much a service can take."),
    "keys add": ("bertsmith.cli.keys:add", "Make an API key."),
    "keys list": ("bertsmith.cli.keys:show", "List the API keys of a file."),
    "keys revoke": ("bertsmith.cli.keys:revoke", "Take an API key out of a file."),
    "bench": ("bertsmith.cli.bench:command", "Find the faster engine on this machine."),
    "convert": ("bertsmith.cli.convert:command", "Make a bundle of a Hugging Face folder or trusted pickle."),
    "runs": ("bertsmith.cli.runs:command", "List the runs in a folder, or compare some."),
    "doctor": ("bertsmith.cli.doctor:command", "Show what this machine offers."),
    "demo": ("bertsmith.cli.demo:command", "Watch the whole journey, from text to an answer."),
}
"""What is typed, a verb or a group and its verb, to the function and a line of help."""

GROUPS = {
    "corpus": "Make token stores, and look into them.",
    "compress": "Make a model smaller and faster, beside its score.",
    "keys": "Make API keys for a service, and list them.",
}
"""The first words of the commands that have two."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with 0, 1 (failure), 2 (bad request) or 130 (Ctrl-C).

    Args:
        arguments: what follows the program's name; None: as given to this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.casefold().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")  # a terminal in GBK shows what it can, and loses no answer
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    given = [text for text in given[:end] if text != "--debug"] + given[end:]
    verb = next((text for text in given if not text.startswith("-")), None)
    _explained(lambda: build(verb, debug), debug)()(args=given, prog_name="bertsmith")


def build(verb: str | None = None, debug: bool = False) -> typer.Typer:
    """Put the command line together.

    Args:
        verb: the command, or the group of commands, that is imported; the others are there by name and one line of
            help.
        debug: show the traceback of an error.

    Returns:
        The typer application.
    """
    app = typer.Typer(
        name="bertsmith",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_top)
    groups = {"": app}
    for name, (target, line) in COMMANDS.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
            app.add_typer(groups[group], name=group, help=GROUPS[group])
        if verb == (group or name):
            module, _, function = target.partition(":")
            groups[group].command(word, short_help=line)(_explained(getattr(import_module(module), function), debug))
        else:
            groups[group].command(word, help=line)(_not_imported)
    return app


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", callback=_version)] = False,
    debug: Debug = False,
) -> None:
    """From a folder of text to an encoder you own, and from that encoder to answers.

    Start with `bertsmith demo`; every command explains itself with --help.
    """


def _not_imported() -> None:
    """Stands for a command that was not asked for."""


def _explained(function: Callable[..., Any], debug: bool) -> Callable[..., Any]:
    """The same function, whose errors end the process with a message and the exit code that belongs to them."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except BertsmithError as error:
            _tell(f"error: {error}", debug)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            _tell("interrupted", debug)
            raise SystemExit(130) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            hint = "" if debug else " (add --debug for the traceback)"
            _tell(f"failed: {type(error).__name__}: {error}{hint}", debug)
            raise SystemExit(1) from None

    return run


def _tell(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc(file=sys.stderr)
    print(message, file=sys.stderr)


if __name__ == "__main__":
    main()
