"""What a pretraining run reads: its vocabulary and its token stores, made once and found again on resuming."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from bertsmith.core.bundle import Bundle
from bertsmith.core.device import release_memory
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.store import Store
from bertsmith.predict.screening import screening
from bertsmith.tasks.preparation import (
    CorpusConfig,
    dedup_mode,
    has_chinese,
    has_chinese_words,
    is_store,
    make_vocabulary,
    prepare,
)
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.tasks.stored import find_vocabulary
from bertsmith.tasks.vocabulary import save_vocabulary
from bertsmith.tokenizer.extend import is_extension
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.tokenizer.train import VocabConfig
from bertsmith.train.continued import ContinuedConfig, Other, enlarged

OTHERS = "others"


def vocabulary(
    inputs: Sequence[str],
    out: Path,
    config: VocabConfig,
    vocab: Path | None,
    start: Path | None,
    say: Callable[[str], None],
    going_on: ContinuedConfig,
) -> Tokenizer:
    """The run's vocabulary, in `out/vocab`: the one that is there, the one given, or one trained on the text.

    Args:
        inputs: files, folders, globs, `pydoc:`, or one token store.
        out: the run folder.
        config: how one is trained.
        vocab: the one to use; together with `start`, that of `start` or an extension of it.
        start: the bundle to go on from, whose vocabulary is taken.
        say: takes lines for the user.
        going_on: how many pieces the vocabulary of `start` gets.

    Raises:
        ConfigError: `vocab` does not begin with that of `start`; a store's vocabulary is not beside it.
    """
    own = out / "vocab"
    if (own / "vocab.txt").exists():
        return Tokenizer.load(own)
    if vocab is not None or start is not None:
        tokenizer = Tokenizer.load(vocab if vocab is not None else Bundle.open(str(start)).whole().path)
        if (
            vocab is not None
            and start is not None
            and not is_extension(tokenizer, Tokenizer.load(Bundle.open(start).whole().path))
        ):
            raise ConfigError(
                f"{vocab}: {start} was made with another vocabulary; leave --vocab out to use its own, or give "
                "one that begins with it, as `bertsmith vocab --extend` makes it"
            )
        tokenizer = enlarged(tokenizer, inputs, going_on, say)
    elif len(inputs) == 1 and is_store(inputs[0]):
        tokenizer = find_vocabulary(Path(inputs[0]), None)
    else:
        say("reading the text for a vocabulary …")
        tokenizer = make_vocabulary(inputs, config, say)
        release_memory()  # the sample of text, up to sample_bytes of it
    save_vocabulary(tokenizer, own)
    return tokenizer


def token_store(
    inputs: Sequence[str],
    own: Path,
    tokenizer: Tokenizer,
    config: CorpusConfig,
    say: Callable[[str], None],
    *,
    words: bool = False,
) -> Store:
    """The store that was given, else the one in `own`, made when it is not there.

    Args:
        inputs: files, folders, globs, `pydoc:`, or one token store.
        own: its place in the run folder.
        tokenizer: the run's vocabulary.
        config: how text is prepared.
        say: takes lines for the user.
        words: whether whole words will be hidden, for which Chinese ones should be marked.

    Raises:
        ConfigError: Chinese words are asked for in a store that was prepared without them.
    """
    if len(inputs) == 1 and is_store(inputs[0]):
        store = Store.open(inputs[0], verify=True)
        if config.chinese_words and not has_chinese_words(store):
            raise ConfigError(
                f"{store.path}: prepared without Chinese words, so corpus.chinese_words comes too late; give the text"
            )
        if config.dedup.mode not in ("off", dedup_mode(store)):
            say(
                f"{store.path}: prepared with corpus.dedup.mode={dedup_mode(store)}, and stays as it is; "
                "to leave out duplicates, give the text"
            )
    elif is_store(own):
        store = Store.open(own, verify=True)
    else:
        store = prepare(inputs, tokenizer, own, say, config, screen=screening(config.clean))
    if words and not has_chinese_words(store) and has_chinese(store, tokenizer):
        say(
            f"{store.path}: Chinese words are not marked, so every Han character is hidden as a word of its own; "
            "to mark them, prepare the text with --set corpus.chinese_words=true"
        )
    return store


def open_others(
    config: ContinuedConfig,
    out: Path,
    task: Pretraining,
    corpus: CorpusConfig,
    facts: dict[str, Any],
    say: Callable[[str], None],
) -> list[Other]:
    """Open the stores that are replayed and watched; a text becomes a store in the run folder.

    Args:
        config: names them.
        out: the run folder.
        task: whose vocabulary they must have.
        corpus: how text that is learned from is prepared.
        facts: of the run; the stores' sums are noted there, or compared with those noted.
        say: takes lines for the user.

    Raises:
        ConfigError: Chinese words are asked for in a store that was prepared without them.
        DataError: a store of another vocabulary, one that is too small, or one that has changed since the run began.
    """
    found: list[Other] = []
    roles: list[tuple[Literal["replay", "watch"], str]] = [("replay", name) for name in config.replay]
    for role, name in roles + [("watch", name) for name in config.watch]:
        own = out / OTHERS / str(len(found))
        if not is_store(name) and not is_store(own):
            say(f"{role}: {name}")
        # What is only watched is hidden piece by piece, whatever is learned.
        learned = role == "replay"
        words = learned and task.config.masking != "subword"
        store = token_store([name], own, task.tokenizer, corpus if learned else CorpusConfig(), say, words=words)
        task.rows(store)
        found.append(Other(role, name, store))
    sums = [other.store.hash for other in found]
    for number, (other, before) in enumerate(zip(found, facts.setdefault("others", sums), strict=True)):
        refuse_changed(other.name, other.store, out / OTHERS / str(number), before)
    return found


def refuse_changed(name: str, store: Store, own: Path, before: str) -> None:
    """Compare a store with the one that a run began with; one made of a changed text does not stay in the run folder.

    Args:
        name: of the text.
        store: now.
        own: where the run folder would have it.
        before: its sum then.

    Raises:
        DataError: it is another one.
    """
    if store.hash != before:
        if store.path == own:
            shutil.rmtree(own)
        raise DataError(f"{name}: has changed since this run began; put it back, or start a new run")
