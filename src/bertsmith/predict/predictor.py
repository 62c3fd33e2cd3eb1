"""A bundle, answering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from bertsmith.core.bundle import Bundle
from bertsmith.core.config import Config
from bertsmith.core.device import choose_device, choose_precision
from bertsmith.core.errors import BundleError, ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.model.convert import load_model
from bertsmith.model.embedding import Pooling, read_embedding
from bertsmith.model.heads import Model
from bertsmith.peft.bundle import Base, find_base, load_tuned
from bertsmith.predict import pretrained
from bertsmith.predict.engine import answer, forward
from bertsmith.predict.engines import Engine, choose_engine
from bertsmith.predict.inputs import Input
from bertsmith.tasks.base import Answer, Example, Task, task_class
from bertsmith.tasks.choice import ChoiceConfig
from bertsmith.tasks.classification import ClassificationConfig
from bertsmith.tasks.generation import GenerationConfig
from bertsmith.tasks.joining import join_texts
from bertsmith.tasks.matching import Matching, MatchingConfig
from bertsmith.tasks.questions import QuestionsConfig
from bertsmith.tasks.relations import RelationsConfig
from bertsmith.tasks.tagging import TaggingConfig
from bertsmith.tokenizer.load import Tokenizer

CONFIGS: Mapping[str, type[Config]] = {
    "classify": ClassificationConfig,
    "match": MatchingConfig,
    "tag": TaggingConfig,
    "relate": RelationsConfig,
    "answer": QuestionsConfig,
    "choose": ChoiceConfig,
    "generate": GenerationConfig,
}


class Predictor:
    """Answers questions with a bundle: texts in, answers out, in the same order.

    A classifier gives `{"label", "score", "probabilities"}` (or `{"value"}` when it predicts numbers, `{"labels",
    "probabilities"}` when there may be several), a bi-encoder
    `{"embedding"}` of a text and `{"similarity"}` of a pair, a tagger `{"text", "entities", "words", "tags"}` with
    character offsets, a model for questions `{"answer", "start", "end", "score", "n_best"}` from a question and a text
    of any length, a model that chooses `{"choice", "chosen", "score", "scores"}` from a text and its choices, one that
    writes `{"generated", "score"}`, a pretrained model fills [MASK]s and tells whether one text follows another.

    Attributes:
        task: what the bundle is for; None for a pretrained model.
        tally: counts what had to be cut, over all calls.
        precision: of torch's matrix products, with the reason.
        model: as saved, in fp32.
        engine: what computes; its model has the same heads.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        batch_tokens: int = 8192,
        precision: str = "auto",
        base: Base | None = None,
        engine: str = "auto",
    ) -> None:
        """Load a bundle's model.

        Args:
            bundle: a trained or pretrained bundle, or a Hugging Face folder.
            device: such as `cpu` or `cuda:0`; None takes the best there is.
            batch_tokens: pieces a batch, 1 or more; a longer sequence goes alone.
            precision: `auto`, `bf16` or `fp32`.
            base: for a bundle that holds a small part only, a base that is in memory already, whose device is taken;
                None: the one that the bundle names is read.
            engine: `torch`, `onnx`, or `auto`: what `bertsmith bench` found faster here; see `predict.engines`.

        Raises:
            BundleError: the bundle has no head that could answer, its labels do not fit its head, or it belongs to
                another base.
            ConfigError: no such device, precision or engine.
        """
        if batch_tokens < 1:
            raise ConfigError(f"batch_tokens is {batch_tokens}; it must be at least 1")
        self.bundle = bundle
        self.tally = Tally()
        chosen = choose_device(device) if base is None else next(base.encoder.parameters()).device
        if bundle.base is None:
            self.model: Model = load_model(bundle).to(chosen).eval()
        else:
            base = base or Base.load(find_base(bundle), chosen)
            self.model = load_tuned(bundle, base)
        self.tokenizer = Tokenizer.load(bundle.path if base is None else base.bundle.path)
        self.task_name = bundle.task or _task_of(self.model, bundle)
        self.task: Task | None = None if self.task_name == "pretraining" else self._build_task()
        self.batch_tokens, self.precision = batch_tokens, choose_precision(chosen, precision)
        writes = getattr(self.task, "ask", None) is not None
        self.engine = choose_engine(bundle, self.model, self.precision, engine, writes=writes)
        self._how: dict[str, Any] = {"batch_tokens": batch_tokens, "precision": self.engine.precision}

    @classmethod
    def open(cls, path: str | Path, **options: Any) -> Self:
        """Open a bundle folder, run folder, Hugging Face folder or hub name; options as for the class."""
        return cls(Bundle.open(path), **options)

    def on(self, engine: Engine) -> Self:
        """The same predictor, answering by another engine.

        Args:
            engine: of this predictor's model.
        """
        other = copy(self)
        other.engine, other._how = engine, {**self._how, "precision": engine.precision}
        return other

    @property
    def weights_bytes(self) -> int:
        """Size of the files that the engine's weights came from."""
        names = self.bundle.shards()
        if self.engine.name.startswith("onnx"):
            names = [self.bundle.meta["onnx"]["file"]]
        return sum((self.bundle.path / name).stat().st_size for name in names)

    @property
    def max_length(self) -> int:
        """The longest sequence in pieces."""
        positions = self.model.encoder.max_length
        return positions if self.task is None else min(positions, self.task.config.max_length)

    def __call__(self, inputs: Input | Sequence[Input], *, top_k: int = 5) -> Any:
        """Answer one text or pair with one answer, a list of them with a list.

        Args:
            inputs: a text; a pair as a tuple of two texts, such as a question and what may hold its answer; a tuple of
                a text and its choices; an example as a task reads it; or a list of these.
            top_k: how many words to offer for each [MASK].

        Raises:
            DataError: a pair where the model takes single texts, or the other way round; a text without [MASK] for a
                pretrained model.
        """
        if isinstance(inputs, str | tuple | Example):
            return self._answer([cast(Input, inputs)], top_k)[0]
        return self._answer(list(inputs), top_k)

    def fill_mask(self, texts: Sequence[str], *, top_k: int = 5) -> list[Answer]:
        """The most probable words for each [MASK] of each text; see `predict.pretrained.fill_masks`."""
        self._needs("mlm")
        if top_k < 1:
            raise ConfigError(f"top_k is {top_k}; it must be at least 1")
        return pretrained.fill_masks(
            self.engine.model,
            self.tokenizer,
            texts,
            top_k=top_k,
            max_length=self.max_length,
            tally=self.tally,
            **self._how,
        )

    def next_sentence(self, pairs: Sequence[tuple[str, str]]) -> list[Answer]:
        """For each pair `{"is_next": probability}` that the second text follows the first."""
        self._needs("nsp")
        return pretrained.follows(
            self.engine.model, self.tokenizer, pairs, max_length=self.max_length, tally=self.tally, **self._how
        )

    def encode(
        self, texts: Sequence[str], *, normalize: bool | None = None, pooling: Pooling | None = None
    ) -> NDArray[np.float32]:
        """One vector a text, to search and to compare by.

        Args:
            texts: N of them; each is cut to `max_length` pieces, and that is counted.
            normalize: scale vectors to length 1; None: as the model has it.
            pooling: `mean` or `cls`; None: as the model has it. To be given for a model that was not made for this.

        Returns:
            `[N, H]` float32, in the order of the texts.

        Raises:
            BundleError: the model was not made to give vectors, and `pooling` is not given.
        """
        task = self.task if isinstance(self.task, Matching) and self.task.config.mode == "bi" else None
        if task is None and pooling is None:
            raise BundleError(
                f"{self.bundle.path}: this model was not made to give vectors of texts; train one with `bertsmith "
                "finetune match … --set task.mode=bi`, or say how to make them: pooling='mean'"
            )
        examples = [Example({"text": text}, where=f"text {n}") for n, text in enumerate(texts, start=1)]
        if task is not None:
            encodings = task.encode(examples, self.tally)
            pooling, unit = pooling or task.config.pooling, task.config.normalize
        else:
            joined = [
                join_texts(self.tokenizer, ids, None, self.max_length) for ids, _ in self.tokenizer.encode_ids(texts)
            ]
            encodings, unit = [encoding for encoding, _ in joined], True
            for example, (_, cut) in zip(examples, joined, strict=True):
                if cut:
                    self.tally.add("cut_to_max_length", example.where)
        vectors = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        for indices, _, outputs in forward(self.engine.model, encodings, pooling=pooling, **self._how):
            vectors[indices] = outputs["embed"].float().cpu().numpy()
        return _unit(vectors) if (unit if normalize is None else normalize) else vectors

    def similarity(self, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float32]:
        """How well each text of one list goes with each of another.

        Args:
            first: A texts.
            second: B texts.

        Returns:
            `[A, B]` float32: cosines of a bi-encoder; of a cross-encoder, which reads all A x B pairs, the probability
            of the second of its two labels, or its number.

        Raises:
            BundleError: the model does not compare texts, or learned more than two labels.
        """
        task = self.task
        if isinstance(task, Matching) and task.config.mode == "bi":
            return _unit(self.encode(first)) @ _unit(self.encode(second)).T
        if task is None or not task.config.pair or len(task.labels) not in (0, 2):
            raise BundleError(
                f"{self.bundle.path}: this model does not say how well two texts go together; train one with "
                "`bertsmith finetune match`"
            )
        answers = self([(a, b) for a in first for b in second])
        scores = [one["value"] if "value" in one else one["probabilities"][task.labels[1]] for one in answers]
        return np.array(scores, np.float32).reshape(len(first), len(second))

    def rerank(self, query: str, candidates: Sequence[str], *, top_k: int | None = None) -> list[Answer]:
        """Candidates in the order in which they go with a query.

        Args:
            query: a text.
            candidates: the texts among which to choose.
            top_k: how many to give back; None: all.

        Returns:
            `{"index", "text", "score"}` each, best first; scores are those of `similarity`.
        """
        scores = self.similarity([query], candidates)[0]
        order = np.argsort(-scores, kind="stable")[:top_k].tolist()
        return [{"index": i, "text": candidates[i], "score": float(scores[i])} for i in order]

    def examples(self, examples: Sequence[Example]) -> list[Answer]:
        """Answers to examples that the bundle's task has read."""
        if self.task is None:
            raise BundleError(f"{self.bundle.path}: a pretrained model has no task yet; run `bertsmith finetune` on it")
        return answer(self.task, self.engine.model, examples, self.tally, **self._how)

    def _answer(self, inputs: Sequence[Input], top_k: int) -> list[Answer]:
        if self.task is not None:
            return self.examples([self._example(item, n) for n, item in enumerate(inputs, start=1)])
        texts = [(i, item) for i, item in enumerate(inputs) if isinstance(item, str)]
        pairs = [(i, item) for i, item in enumerate(inputs) if isinstance(item, tuple)]
        answers: list[Answer] = [{}] * len(inputs)
        filled = self.fill_mask([text for _, text in texts], top_k=top_k) if texts else []
        followed = self.next_sentence([(pair[0], pair[1]) for _, pair in pairs]) if pairs else []
        for (i, _), one in zip([*texts, *pairs], [*filled, *followed], strict=True):
            answers[i] = one
        return answers

    def _example(self, item: Input, number: int) -> Example:
        if isinstance(item, Example):
            return item
        where, names = f"input {number}", input_names(self.task)
        if (asked := getattr(self.task, "asked", None)) is not None:
            return cast(Example, asked(item, where))
        paired = takes_pairs(self.task)
        if isinstance(item, str):
            if paired and names[0] == "question":
                raise DataError(f"{where}: this model answers a question about a text; give both, as a pair")
            if paired:
                raise DataError(f"{where}: this model compares two texts; give a pair, on the command line with --pair")
            return Example({names[0]: item}, where=where)
        if paired is False or len(item) != 2:
            raise DataError(f"{where}: this model takes single texts, not {len(item)} at once")
        return Example(dict(zip(names, item, strict=True)), where=where)

    def _needs(self, head: str) -> None:
        if not getattr(self.model.heads, head):
            what = {"mlm": "fill in masks", "nsp": "tell whether a text follows another"}[head]
            raise BundleError(f"{self.bundle.path}: this model has no {head} head, so it cannot {what}")

    def _build_task(self) -> Task:
        name, heads = self.task_name, self.model.heads
        kind = task_class(name)
        settings = dict(self.bundle.meta.get("task_config") or {})
        if not settings:
            settings = self._settings_of_folder()
        if name == "relate" and heads.classify:
            settings.setdefault("read", "cls")  # bundles from before there was a choice
        settings["max_length"] = min(settings.get("max_length") or 512, self.model.encoder.max_length)
        task = cast(Task, kind(self.tokenizer, CONFIGS[name](**settings)))
        if task.head(self.model.config) not in (heads, heads.model_copy(update={"mlm": False, "nsp": False})):
            raise BundleError(
                f"{self.bundle.path}: its labels ({len(task.labels)}) do not fit its head; train or convert it again"
            )
        return task

    def _settings_of_folder(self) -> dict[str, Any]:
        """A task's settings where only Hugging Face's files say what the model is."""
        if self.model.heads.embed:
            embedding = read_embedding(self.bundle.path)
            assert embedding is not None
            return {"mode": "bi", **embedding._asdict()}
        if self.task_name in ("answer", "choose", "generate"):
            return {"mode": "decoder", "decoder_layers": self.model.heads.decoder} if self.model.heads.decoder else {}
        if self.task_name == "tag":
            return {"labels": self.bundle.labels}
        heads = self.model.heads
        numbers = heads.classify == 1 and not heads.multi
        labels = () if numbers else self.bundle.labels
        return {"labels": labels, "regression": numbers, "multi_label": heads.multi}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return result


def input_names(task: Task | None) -> tuple[str, str]:
    """What a task calls the first text that it is given, and the second."""
    names: tuple[str, str] = getattr(task, "inputs", ("text", "pair"))
    return names


def takes_pairs(task: Task | None) -> bool | None:
    """Whether a task must be given two texts at once; None: it may be either."""
    if task is None:
        return None
    pair: bool | None = getattr(task.config, "pair", hasattr(task, "inputs"))
    return pair


def _task_of(model: Model, bundle: Bundle) -> str:
    heads = model.heads
    known = {
        "classify": heads.classify,
        "tag": heads.tag,
        "match": heads.embed,
        "answer": heads.answer,
        "choose": heads.choose,
        "generate": heads.decoder,
        "pretraining": heads.mlm or heads.nsp or heads.rtd,
    }
    for name, there in known.items():
        if there:
            return name
    raise BundleError(f"{bundle.path}: this is an encoder without a head; give it a task with `bertsmith finetune`")
