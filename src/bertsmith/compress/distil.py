"""Distillation: a student with fewer layers, or a narrower one, learns from a larger model, by rows or by raw text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, create_model, model_validator

from bertsmith.compress.importance import by_weights
from bertsmith.compress.rows import Shrinking, compress_rows
from bertsmith.compress.start import START, entry, written
from bertsmith.compress.teach import Taught, TeachConfig, TextTeachConfig
from bertsmith.core.bundle import Bundle
from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.model.convert import load_model
from bertsmith.model.heads import Model
from bertsmith.model.shrink import Kept, cut
from bertsmith.predict.predictor import CONFIGS
from bertsmith.tasks.pretraining import Pretraining
from bertsmith.tokenizer.load import Tokenizer
from bertsmith.train.course import Run, learn
from bertsmith.train.distributed import ALONE
from bertsmith.train.finetune import FinetuneConfig
from bertsmith.train.loop import Learnable
from bertsmith.train.material import token_store, vocabulary
from bertsmith.train.pretrain import PretrainConfig
from bertsmith.train.run import Going, conducted, remember

TEXT = "pretraining"


class StudentConfig(Config):
    """The shape of the student, and what it begins with."""

    layers: int | None = Field(
        None, ge=1, description="how many layers, spread evenly over the teacher's, the last among them; default: half"
    )
    from_layers: tuple[int, ...] = Field((), description="the teacher's layers to take instead, from 1, ascending")
    heads: int | None = Field(
        None, ge=1, description="attention heads of a layer; the hidden size becomes this many times a head's"
    )
    units: int | None = Field(None, ge=1, description="feed-forward units of a layer")
    init: Literal["teacher", "random"] = Field(
        "teacher", description="weights to begin with: those of the teacher's layers, or fresh ones"
    )

    @model_validator(mode="after")
    def _layers(self) -> Self:
        if self.layers is not None and self.from_layers:
            raise ValueError("give layers or from_layers")
        if list(self.from_layers) != sorted(set(self.from_layers)) or any(n < 1 for n in self.from_layers):
            raise ValueError("from_layers are numbers from 1, ascending, each once")
        return self

    def numbers(self, count: int) -> list[int]:
        """Which of `count` layers of a teacher are taken, from 1.

        Raises:
            ConfigError: there are not so many.
        """
        if self.from_layers:
            if self.from_layers[-1] > count:
                raise ConfigError(f"student.from_layers: there is no layer {self.from_layers[-1]} among {count}")
            return list(self.from_layers)
        wanted = self.layers if self.layers is not None else max(1, count // 2)
        if wanted > count:
            raise ConfigError(f"student.layers is {wanted}, but the teacher has only {count}; choose fewer")
        return [(n + 1) * count // wanted for n in range(wanted)]

    def kept(self, model: Model) -> Kept:
        """What of a teacher makes the student; where it is narrower, what has the largest weights.

        Args:
            model: the teacher.

        Raises:
            ConfigError: the student would be larger somewhere, or is the teacher itself.
        """
        shape = model.config
        for name, there in (("heads", shape.num_attention_heads), ("units", shape.intermediate_size)):
            value = getattr(self, name)
            if value is not None and value > there:
                raise ConfigError(f"student.{name} is {value}, but the teacher has only {there}; choose fewer")
        layers = [number - 1 for number in self.numbers(shape.num_hidden_layers)]
        if shape.modern and layers[0]:
            others = [n * shape.num_hidden_layers // len(layers) + 1 for n in range(len(layers))]
            raise ConfigError(
                "the first layer of a modernbert has no norm before its attention, so a student begins with it, too; "
                f"--set 'student.from_layers={others}'"
            )
        same = (None, shape.num_attention_heads), (None, shape.intermediate_size)
        if len(layers) == shape.num_hidden_layers and self.heads in same[0] and self.units in same[1]:
            raise ConfigError("this student is as large as its teacher; set student.layers, student.heads or units")
        whole = layers == list(range(shape.num_hidden_layers))
        return by_weights(model).kept(
            layers=None if whole else layers, heads=self.heads, units=self.units, head_size=shape.head_size
        )


def distil_class(task: str) -> type[Config]:
    """The config of distilling a model for `task`: that of fine-tuning, or of pretraining, with `student` and `distil`.

    Args:
        task: that labelled rows are for, or `pretraining`.

    Raises:
        ConfigError: no such task.
    """
    student = (StudentConfig, Field(default_factory=StudentConfig))
    if task == TEXT:
        lessons = (TextTeachConfig, Field(default_factory=TextTeachConfig))
        return create_model("TextDistilConfig", __base__=PretrainConfig, student=student, distil=lessons)
    if task not in CONFIGS:
        raise ConfigError(f"a model for {task} cannot be distilled; the tasks are {', '.join([TEXT, *CONFIGS])}")
    return create_model(
        "DistilConfig",
        __base__=FinetuneConfig,
        task=(CONFIGS[task], Field(default_factory=CONFIGS[task])),
        student=student,
        distil=(TeachConfig, Field(default_factory=TeachConfig)),
    )


def student_of(parent: Bundle, path: Path, config: StudentConfig, *, seed: int) -> Bundle:
    """Make the student before it has learned anything.

    Args:
        parent: the teacher.
        path: where the student's bundle is written; one that is there is left alone.
        config: its shape.
        seed: of fresh weights.

    Raises:
        ConfigError: the shape is none that can be cut from the teacher.
    """
    model = load_model(parent)
    cut(model, config.kept(model))
    if config.init == "random":
        model.reset(seed)
    return written(path, model, Tokenizer.load(parent.path), parent, "distil", config.model_dump(mode="json"))


def dims_of(parent: Model, config: StudentConfig) -> Sequence[int] | None:
    """Which of the teacher's dimensions a student has; None: all."""
    return config.kept(parent).dims


class Distilling(Shrinking):
    """What a run does beside fine-tuning when a student learns from the model that it was cut from."""

    verb = "distil"

    def teacher(self) -> Bundle:
        """The model that was to be made smaller."""
        return self.parent

    def prepared(self, model: Model) -> None:
        """Follow those of the teacher's layers, and dimensions, that the student began with."""
        student: StudentConfig = self.settings.student
        whole = load_model(self.parent)
        layers = student.numbers(whole.config.num_hidden_layers)
        self.taught = self.beside(model, layers, dims_of(whole, student))


def distil(bundle: str | Path, data: Sequence[str | Path], out: Path, config: Config, **how: Any) -> Bundle:
    """Let a smaller model learn from a larger one; the result is `out/bundle`.

    A model for a task learns from labelled rows, a pretrained one from raw text. Of a model for a task,
    `out/comparison` holds the page with size, speed and score of both.

    Args:
        bundle: the teacher.
        data: one file of labelled rows; for a pretrained teacher files, folders, globs or a token store.
        out: the run folder.
        config: made by `distil_class(task)`.
        how: `dev` and `test` (for rows), `resume`, `device`, `threads`, `quiet` and `command`, as for `finetune`.

    Raises:
        ConfigError: the request makes no sense; says what to change.
        DataError: a row or the text cannot be used; says where.
        BundleError: the bundle is not a whole model with a head.
        KeyboardInterrupt: stopped on request, after saving.
    """
    if isinstance(config, PretrainConfig):
        return _on_text(bundle, data, out, config, **how)
    if len(data) != 1:
        raise ConfigError("a model for a task learns from one file of labelled rows; give --data once")
    assert isinstance(config, FinetuneConfig)
    student: StudentConfig = config.student  # type: ignore[attr-defined]

    def begin(parent: Bundle, going: Going) -> Path:
        return student_of(parent, out / START, student, seed=config.train.seed).path

    return compress_rows(Distilling, bundle, Path(data[0]), out, config, begin, **how)


def _on_text(
    bundle: str | Path,
    data: Sequence[str | Path],
    out: Path,
    config: PretrainConfig,
    *,
    dev: Path | None = None,
    test: Path | None = None,
    resume: bool = False,
    command: str = "",
    **how: Any,
) -> Bundle:
    """Distil a pretrained model on raw text: pretraining that goes on from the student, beside its teacher."""
    if dev is not None or test is not None:
        raise ConfigError("a pretrained model is measured on text that is held out; leave --dev and --test out")
    began = time.monotonic()
    parent = Bundle.open(bundle).whole()
    settings: Any = config
    inputs = [str(item) for item in data]
    asked = {"task": TEXT, "inputs": inputs, "from": str(bundle), "vocab": None}

    def work(going: Going) -> Bundle:
        facts = going.facts
        if facts.setdefault("parent", parent.hash) != parent.hash:
            raise ConfigError(f"{bundle}: no longer the model that {out} was begun with; put back what was there")
        start = student_of(parent, out / START, settings.student, seed=config.train.seed).path
        facts["start"] = str(start)
        remember(out, facts)
        tokenizer = vocabulary(inputs, out, config.vocab, None, start, going.say, config.continued)
        words = config.task.masking != "subword"
        store = token_store(inputs, out / "store", tokenizer, config.corpus, going.say, words=words)
        whole = load_model(parent).to(going.place).eval().requires_grad_(False)
        layers, dims = settings.student.numbers(whole.config.num_hidden_layers), dims_of(whole, settings.student)

        def beside(task: Pretraining, model: Model) -> Learnable:
            taught = Taught(task, whole, settings.distil, layers, dims, going.precision.dtype)
            taught.ready(model)
            return taught

        run = Run(out, config, facts, tokenizer, store, [], start, going.place, going.precision, ALONE)
        made = learn(run, began=began, quiet=going.quiet, taught=beside)
        by = {name: getattr(settings, name).model_dump(mode="json") for name in ("student", "distil")}
        done = [*parent.meta.get("compressed", []), entry(parent, load_model(made), "distil", by)]
        return made.annotate(lineage={**made.meta["lineage"], "parent": parent.hash}, compressed=done)

    words_of_data = [word for item in inputs for word in ("--data", item)]
    again = ["compress", "distil", str(bundle), *words_of_data, "--out", str(out)]
    how |= {"again": again, "command": command, "resume": resume}
    return conducted("distil", out, config, asked, work, finished=Bundle.open, **how)
