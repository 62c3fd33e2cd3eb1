"""Writing a text from a text: translations, summaries, responses; or choosing a summary's sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.corpus.sentences import split
from bertsmith.metrics.text import bleu, is_chinese, rouge
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.decoder import Writing
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding
from bertsmith.model.search import Search, write
from bertsmith.tasks.base import Answer, Example, Loss, Outputs, check_length, say_on_stderr
from bertsmith.tasks.decisions import Decided, Decisions
from bertsmith.tasks.dialogue import turn_ids
from bertsmith.tasks.extraction import (
    IGNORED,
    Sentences,
    Spans,
    choose,
    encode_sentences,
    oracle,
    probabilities,
    sentence_spans,
)
from bertsmith.tasks.joining import join_texts
from bertsmith.tasks.parallel import read_parallel
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.tokenizer.readable import Readable

NOTHING = -1
SHORTER = 0.5
"""Where what is to be written has less than this share of the text's length, it is a summary."""
SAMPLE = 1000


class GenerationConfig(Config):
    """How texts are read, and how others are written from them."""

    pair: ClassVar[bool] = False

    mode: Literal["unilm", "decoder", "extract"] = Field(
        "unilm",
        description="unilm: the encoder's own layers write; decoder: layers of their own do; extract: a summary is "
        "made of the text's sentences",
    )
    source_column: str | None = Field(None, description="column of the text; known names are tried, then the first")
    target_column: str | None = Field(
        None, description="column of what is to be written; known names are tried, then the second"
    )
    parallel: str | None = Field(
        None, description="ending of a second file, de for train.de beside train.en, whose lines are to be written"
    )
    turns: bool | None = Field(
        None, description="a text's lines are turns of a dialogue, the last ones kept; by default as the first file is"
    )
    max_turns: int = Field(8, ge=1, description="of a dialogue, turns before the response")
    max_length: int = Field(256, ge=8, description="longest text in pieces; longer ones are cut, and counted")
    max_target: int = Field(64, ge=2, description="longest text to be written, in pieces")
    decoder_layers: int | None = Field(
        None, ge=1, description="decoder: its layers, which begin as the encoder's; by default as many"
    )
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="share of the target given to all pieces alike")
    num_beams: int = Field(1, ge=1, description="beginnings kept while a text is written; 1: the best piece each time")
    length_penalty: float = Field(
        1.0, allow_inf_nan=False, description="log probabilities are divided by the length to this power"
    )
    no_repeat_ngram_size: int = Field(
        0, ge=0, description="so many pieces in a row are not written twice: 3 suits summaries; 0 allows it"
    )
    min_length: int = Field(1, ge=1, description="pieces that are written at least")
    sentences: int | None = Field(
        None, ge=1, description="extract: sentences of a summary; by default as many as in the first file"
    )
    trigram_blocking: bool = Field(
        True, description="extract: no sentence that shares three words in a row with one that is chosen"
    )
    headline: Literal["bleu", "rougeL"] | None = Field(
        None, description="the score that counts; by default rougeL where much shorter texts are written, else bleu"
    )
    bleu: Literal["13a", "zh"] | None = Field(
        None, description="sacreBLEU's tokenizer; by default zh where what is to be written is Chinese, else 13a"
    )
    skip_bad_rows: bool = Field(False, description="count bad rows instead of stopping at the first")


class Generation:
    """A text is written piece by piece from another one, or a summary is made of a text's own sentences.

    Sources: Dong et al. 2019 (UniLM, arXiv:1905.03197) and Rothe et al. 2020 (arXiv:1907.12461) for writing with an
    encoder's weights; Liu & Lapata 2019 (arXiv:1908.08345) for choosing sentences. Differs: a sentence is judged at its
    [SEP].
    """

    name = "generate"
    weighed = "gold"

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: GenerationConfig | None = None,
        *,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        """Build the task; the first file that it reads completes `config`.

        Args:
            tokenizer: turns text into pieces, and pieces into text.
            config: what is already known.
            say: takes sentences meant for the user.
        """
        self.tokenizer = tokenizer
        self.config = config or GenerationConfig()
        self.say = say

    @property
    def headline(self) -> str:
        """BLEU, or ROUGE-L for summaries."""
        return self.config.headline or "bleu"

    @property
    def labels(self) -> tuple[str, ...]:
        """What a sentence can be, where sentences are chosen."""
        return ("left_out", "summary") if self.config.mode == "extract" else ()

    @property
    def ask(self) -> Callable[[Model, Batch], dict[str, Tensor]] | None:
        """What writes a text; None where the heads' logits are enough."""
        return None if self.config.mode == "extract" else self._write

    def rows(self, path: Path, tally: Tally) -> list[Example]:
        """Read texts with what is to be written from each; the first file settles how they are scored.

        Raises:
            DataError: names file, line and what to do.
        """
        examples = self._read(path, tally, labelled=True)
        self._settle(path, examples)
        return examples

    def unlabelled(self, path: Path, tally: Tally) -> list[Example]:
        """Read texts; what is to be written need not be known. A file that is no table has a text a line.

        Raises:
            DataError: names file and line.
        """
        return self._read(path, tally, labelled=False)

    def encode(self, examples: Sequence[Example], tally: Tally | None = None) -> list[Encoding]:
        """`[CLS] text [SEP]`, a dialogue with [SEP] after each turn; what is to be written is a target of its own.

        Where sentences are chosen: `[CLS] first [SEP] second [SEP] …`, as many sequences as it takes.
        """
        tally = Tally() if tally is None else tally
        if self.config.mode == "extract":
            return self._sentences(examples, tally)
        texts = [example.fields["text"] for example in examples]
        if self.config.turns:
            sources = turn_ids(self.tokenizer, texts)
        else:
            sources = [ids for ids, _ in self.tokenizer.encode_ids(texts)]
        golds = [example.label[0] if example.label else "" for example in examples]
        written = [ids for ids, _ in self.tokenizer.encode_ids(golds)]
        cls, sep = (np.array([piece], np.int32) for piece in (self.tokenizer.cls_id, self.tokenizer.sep_id))
        encodings = []
        for example, source, target in zip(examples, sources, written, strict=True):
            room = self.config.max_length - 2
            if len(source) > room:
                tally.add("cut_to_max_length", example.where)
                source = source[-room:] if self.config.turns else source[:room]
            encoding, _ = join_texts(self.tokenizer, source, None, self.config.max_length)
            targets: dict[str, Any] = {}
            if example.label is not None:
                if len(target) >= self.config.max_target:
                    tally.add("target_cut_to_max_target", example.where)
                target = target[: self.config.max_target - 1]
                targets = {
                    "target_ids": np.concatenate([cls, target]),
                    "target_labels": np.concatenate([target, sep]),
                    "target_length": len(target) + 1,
                }
            encodings.append(Encoding(encoding.input_ids, encoding.segment_ids, targets))
        return encodings

    def head(self, model_config: ModelConfig) -> Heads:
        """The MLM head, which says what comes next, with layers of a decoder; or two scores a sentence.

        Raises:
            ConfigError: the model has too few positions.
        """
        config, positions = self.config, model_config.max_position_embeddings
        check_length(config.max_length, model_config)
        if config.mode == "extract":
            return Heads(tag=len(self.labels))
        together = config.max_length + config.max_target if config.mode == "unilm" else config.max_target
        if together > positions:
            raise ConfigError(
                f"max_length {config.max_length} and max_target {config.max_target} do not fit the model, which has "
                f"{positions} positions; choose smaller ones, such as --set task.max_length="
                f"{max(8, positions - config.max_target)}"
            )
        if config.mode != "decoder":
            return Heads(mlm=True)
        layers = config.decoder_layers or model_config.num_hidden_layers
        self.config = config.model_copy(update={"decoder_layers": layers})  # the encoder may lose some of its own
        return Heads(mlm=True, decoder=layers)

    @property
    def decides(self) -> Decided:
        """The next piece, or whether a sentence is one of the summary's."""
        return "classes" if self.config.mode == "extract" else "pieces"

    def decisions(self, outputs: Mapping[str, Tensor], batch: Batch) -> list[Decisions]:
        """One for each piece to be written, or for each sentence."""
        if self.config.mode != "extract":
            return [Decisions("classes", outputs["next"].float(), batch.targets["target_labels"])]
        counted = (gold := batch.targets["gold"]) != IGNORED
        return [Decisions("classes", outputs["tag"].float()[counted], gold[counted])]

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch) -> Loss:
        """Cross-entropy of each piece to be written, smoothed; or of each sentence."""
        if self.config.mode == "extract":
            logits, gold = outputs["tag"].float(), batch.targets["gold"]
            total = F.cross_entropy(logits, gold, ignore_index=IGNORED, reduction="sum")
            return Loss(total, (gold != IGNORED).sum())
        logits, gold = outputs["next"].float(), batch.targets["target_labels"]
        total = F.cross_entropy(logits, gold, label_smoothing=self.config.label_smoothing, reduction="sum")
        return Loss(total, len(gold), {"accuracy": ((logits.detach().argmax(-1) == gold).sum(), len(gold))})

    def decode(
        self, outputs: Sequence[Outputs], encodings: Sequence[Encoding], examples: Sequence[Example]
    ) -> list[Answer]:
        """`{"generated", "score"}`: the text, and the mean probability of its pieces (geometric).

        Where sentences are chosen, `score` is their mean probability, and `sentences` says where they stand, in
        characters of the text, end not included.
        """
        if self.config.mode == "extract":
            found: list[list[tuple[tuple[int, int], float]]] = [[] for _ in examples]
            for output, window in zip(outputs, encodings, strict=True):
                assert isinstance(window, Sentences)
                found[window.example] += probabilities(output["tag"], window)
            count, block = self.config.sentences or 1, self.config.trigram_blocking
            return [
                choose(example.fields["text"], scored, count, block=block)
                for example, scored in zip(examples, found, strict=True)
            ]
        return [
            {"generated": self._readable.text(_pieces(output["ids"])), "score": math.exp(float(output["score"]))}
            for output in outputs
        ]

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> dict[str, float]:
        """BLEU as sacreBLEU counts it, ROUGE-1, 2 and L (F1), and the share of texts that are a reference exactly.

        Where the vocabulary knows no capital letters, `bleu_lowercase` compares without them; `bleu` never does.
        """
        texts = [answer["generated"] for answer in answers]
        golds = [example.label for example in examples]
        how = self.config.bleu or "13a"
        scores = {"bleu": bleu(golds, texts, how), **rouge(golds, texts)}
        if self._readable.folds_case:
            lower = [[gold.lower() for gold in several] for several in golds]
            scores["bleu_lowercase"] = bleu(lower, [text.lower() for text in texts], how)
        plain = [{self._readable.normal(gold) for gold in several} for several in golds]
        return scores | {
            "exact": fmean(self._readable.normal(text) in several for text, several in zip(texts, plain, strict=True))
        }

    @cached_property
    def _readable(self) -> Readable:
        return Readable(self.tokenizer)

    @cached_property
    def _never(self) -> tuple[int, ...]:
        kept = self.tokenizer.sep_id
        return tuple(i for i, token in enumerate(self.tokenizer.tokens) if token in SPECIAL_TOKENS and i != kept)

    def _write(self, model: Model, batch: Batch) -> dict[str, Tensor]:
        """Texts for the sources of a batch: pieces `ids` `[S, n]`, -1 where there are no more, and `score` `[S]`."""
        config = self.config
        how = Search(
            start=self.tokenizer.cls_id,
            stop=self.tokenizer.sep_id,
            banned=self._never,
            num_beams=config.num_beams,
            max_length=config.max_target,
            min_length=min(config.min_length + 1, config.max_target),
            length_penalty=config.length_penalty,
            no_repeat_ngram_size=config.no_repeat_ngram_size,
        )
        found = write(Writing.read(model, batch), how)
        ids = torch.full((len(found), max(1, *(len(one.ids) for one in found), 1)), NOTHING)
        for row, one in zip(ids, found, strict=True):
            row[: len(one.ids)] = torch.tensor(one.ids, dtype=torch.int64)
        return {"ids": ids, "score": torch.tensor([one.mean for one in found])}

    def _sentences(self, examples: Sequence[Example], tally: Tally) -> list[Encoding]:
        windows: list[Encoding] = []
        for number, example in enumerate(examples):
            text, spans = example.fields["text"], _spans(example)
            gold = None if example.label is None else oracle(text, spans, example.label, self.config.sentences or 1)
            mine, cut = encode_sentences(self.tokenizer, number, text, spans, gold, self.config.max_length)
            if cut:
                tally.add("sentence_cut_to_max_length", example.where)
            if len(mine) > 1:
                tally.add("read_in_parts", example.where)
            windows += mine
        return windows

    def _read(self, path: Path, tally: Tally, *, labelled: bool) -> list[Example]:
        config = self.config
        examples = read_parallel(
            path,
            tally,
            source=config.source_column,
            target=config.target_column,
            parallel=config.parallel,
            max_turns=config.max_turns,
            labelled=labelled,
            skip_bad_rows=config.skip_bad_rows,
        )
        if config.turns is not None and labelled and config.turns != ("turns" in examples[0].fields):
            was, now = ("dialogues", "texts") if config.turns else ("texts", "dialogues")
            if "turns" in examples[0].fields or "\n" not in examples[0].fields["text"]:
                raise DataError(f"{path}: {now}, where the file before had {was}; give a file of the same kind")
        return examples

    def _settle(self, path: Path, examples: Sequence[Example]) -> None:
        """Complete the config from the first file."""
        config = self.config
        turns = "turns" in examples[0].fields if config.turns is None else config.turns
        sample = examples[:: max(1, len(examples) // SAMPLE)]
        texts, written = [one.fields["text"] for one in sample], [one.label[0] for one in sample]
        # Chinese takes fewer characters than English, so a translation is no summary for being short.
        shorter = SHORTER * sum(map(len, texts)) > sum(map(len, written)) and is_chinese(texts) == is_chinese(written)
        summary = config.mode == "extract" or (shorter and not turns)
        update: dict[str, Any] = {"turns": turns}
        update["headline"] = config.headline or ("rougeL" if summary else "bleu")
        update["bleu"] = config.bleu or ("zh" if is_chinese(written) else "13a")
        if config.mode == "extract":
            usual = fmean(len(split(text)) for text in written)
            update["sentences"] = config.sentences or max(1, round(usual))
        if config.headline is None or config.bleu is None:
            length = f", {update['sentences']} sentences a summary" if config.mode == "extract" else ""
            kind = "turns of dialogues" if turns else "summaries" if summary else "texts"
            self.say(
                f"{path}: {kind} are to be written{length}; {update['headline']} counts, BLEU by sacreBLEU's "
                f"{update['bleu']} (override with task.headline, task.bleu)"
            )
        self.config = config.model_copy(update=update)


def _spans(example: Example) -> Spans:
    given: Spans = example.fields.get("sentences") or sentence_spans(example.fields["text"])
    return given


def _pieces(ids: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.compress(ids != NOTHING, ids).astype(np.int64)
