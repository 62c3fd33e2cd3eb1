"""Dynamic int8 with a gate: layers go back to fp32, the worst first, until the score on dev holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from bertsmith.compress.report import knowing, measure, scored, write
from bertsmith.compress.start import entry
from bertsmith.core.bundle import Bundle
from bertsmith.core.card import CARD
from bertsmith.core.config import Config
from bertsmith.core.device import cpu_flags
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.core.files import atomic_folder
from bertsmith.corpus.document import Tally
from bertsmith.model.dense import parts, to_onnx
from bertsmith.model.packing import Encoding
from bertsmith.predict.engine import answer, forward
from bertsmith.predict.engines import onnx_engine
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.base import Answer, Example, say_on_stderr

ONNX_FILE = "model.int8.onnx"
TORCH, ONNX = "fp32 in torch", "fp32 in ONNX Runtime"
VNNI = ("avx512_vnni", "avx_vnni")


class QuantizeConfig(Config):
    """How much may be lost, and on how many rows that is looked at."""

    max_drop: float = Field(
        0.5, ge=0, allow_inf_nan=False, description="largest drop of the score that counts, in points (hundredths)"
    )
    probe: int = Field(128, ge=1, description="rows of dev on which each layer's own error is measured")
    skip_bad_rows: bool = Field(False, description="count bad rows of dev instead of stopping at the first")


def quantize(
    source: Bundle,
    data: Path,
    out: Path,
    config: QuantizeConfig | None = None,
    *,
    say: Callable[[str], None] = say_on_stderr,
) -> Bundle:
    """Write a run whose bundle also holds an int8 model for ONNX Runtime, within the drop allowed.

    All products and the table of words are made int8. Where the score drops too far, each of them is made int8 alone
    and the error that it brings to the hidden states is measured; then, the worst first, as few as are needed stay in
    fp32: their number is doubled until the gate is passed, then halved back between the last two.

    Args:
        source: a bundle with a task, of type `bert`.
        data: labelled rows that the model did not learn from.
        out: folder of the run; must not hold anything yet.
        config: the gate.
        say: takes a line for the user.

    Returns:
        The new bundle, in `out/bundle`.

    Raises:
        ConfigError: `out` is taken, the model has no task, or nothing can be int8 within the drop allowed.
        DataError: a bad row, named with file and line, or rows on which the score is not defined.
        BundleError: the disk is full, or the bundle is an adapter.
    """
    config = config or QuantizeConfig()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: already there; choose a new folder or remove it first")
    source = source.whole()
    parent = Predictor(source, device="cpu", precision="fp32", engine="torch")
    task = parent.task
    if task is None:
        raise ConfigError(f"{source.path}: a pretrained model has no score to keep; fine-tune it first")
    if getattr(task, "ask", None) is not None:
        raise ConfigError(f"{source.path}: writes texts, which only torch does; int8 is for ONNX Runtime")
    task.config = task.config.model_copy(update={"skip_bad_rows": config.skip_bad_rows})
    examples = task.rows(data, parent.tally)
    if not examples:
        raise DataError(f"{data}: no labelled rows; the gate needs some")
    gate = _Gate(parent, examples, config, 8 if any(flag in cpu_flags() for flag in VNNI) else 7)
    if not np.isfinite(gate.before):
        raise DataError(f"{data}: {gate.headline} is not defined on these rows; give more of them, that differ")
    kept, model = gate.search(say)
    out.mkdir(parents=True, exist_ok=True)
    target = out / "bundle"
    with atomic_folder(target) as folder:  # complete, and measured, or absent
        shutil.copytree(source.path, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.onnx", CARD))
        made = Bundle.open(folder, verify=False)
        lineage = {
            "parent": str(source.path),
            "parent_sha256": source.hash,
            "base_model": source.hub_name(source.path),
            "configs": {"quantize": config.model_dump()},
        }
        files = {name: listed for name, listed in made.meta.get("files", {}).items() if not name.endswith(".onnx")}
        settings: dict[str, Any] = {"task": task.name, "task_config": task.config.model_dump(mode="json")} | made.meta
        settings.pop("bench", None)
        settings["compressed"] = [
            *settings.get("compressed", []),
            entry(source, parent.model, "quantize", config.model_dump(mode="json")),
        ]
        made = Bundle(made.path, made.config, settings | {"files": files, "lineage": lineage, "parent": None})
        made = made.add(ONNX_FILE, model, onnx={"file": ONNX_FILE, "kind": "int8", "fp32": sorted(kept)})
        child = knowing(Predictor(made, device="cpu", engine="onnx"), task)
        whole = gate.export(())
        models = {TORCH: parent, ONNX: parent.on(onnx_engine(parent.model, whole, "fp32")), "int8": child}
        before, between, after = measure(models, examples, sizes={ONNX: len(whole)})
    shown = write(
        out,
        before,
        after,
        title="Quantised to int8",
        settings=config.model_dump() | {"data": data, "rows": len(examples), "weights' bits": gate.bits},
        notes="Products in int8, with scales of their own for each output; activations scaled anew for each batch.",
        tables={
            "Kept in fp32": (["layer"], [[name] for name in sorted(kept)]),
            "Searched": (["parts in fp32", "score"], [[count, f"{100 * value:.2f}"] for count, value in gate.tried]),
        },
        between=[between],
    )
    made = Bundle.open(target, verify=False)
    return made.annotate(
        scores={**made.meta.get("scores", {}), "quantize": {"dev": after.scores, "drop": shown["drop"]}}
    )


class _Gate:
    """Scores models of which some parts are int8."""

    def __init__(self, parent: Predictor, examples: Sequence[Example], config: QuantizeConfig, bits: int) -> None:
        self.parent, self.examples, self.config, self.bits = parent, examples, config, bits
        self.headline, self.before = self.score(parent.examples(examples))
        self.names = parts(parent.model.encoder)
        self.tried: list[tuple[int, float]] = []

    def search(self, say: Callable[[str], None]) -> tuple[set[str], bytes]:
        """The parts that stay in fp32, and the model."""
        model = self.export(self.names)
        if self.passes(model, 0, say):
            return set(), model
        order = self.by_error()
        low, high, found = 0, 1, b""
        while not self.passes(found := self.export(set(self.names) - set(order[:high])), high, say):
            low, high = high, min(2 * high, len(order))
            if high == low:
                raise ConfigError("nothing of this model can be int8 within the drop allowed; raise --max-drop")
        while high - low > 1:
            middle = (low + high) // 2
            candidate = self.export(set(self.names) - set(order[:middle]))
            if self.passes(candidate, middle, say):
                high, found = middle, candidate
            else:
                low = middle
        if high == len(order):
            raise ConfigError("nothing of this model can be int8 within the drop allowed; raise --max-drop")
        return set(order[:high]), found

    def export(self, int8: Any) -> bytes:
        return to_onnx(self.parent.model.encoder, int8, bits=self.bits)

    def passes(self, model: bytes, count: int, say: Callable[[str], None]) -> bool:
        """Whether a model with `count` parts in fp32 keeps the score."""
        task = self.parent.task
        assert task is not None
        engine = onnx_engine(self.parent.model, model, "int8")
        _, value = self.score(answer(task, engine.model, self.examples, Tally()))
        lost = 100 * (self.before - value)
        self.tried.append((count, value))
        say(f"{count} of {len(self.names)} parts in fp32: {self.headline} {100 * value:.2f}, {lost:+.2f} lost")
        return lost <= self.config.max_drop

    def score(self, answers: Sequence[Answer]) -> tuple[str, float]:
        """The score that counts, and its value."""
        found = scored(self.parent, answers, self.examples)
        return found["headline"], float(found["scores"][found["headline"]])

    def by_error(self) -> list[str]:
        """All parts, that first which alone in int8 changes the hidden states most."""
        task = self.parent.task
        assert task is not None
        encodings = task.encode(self.examples[: self.config.probe])
        right = self.vectors(self.export(()), encodings)
        errors = {}
        for name in self.names:
            errors[name] = float(np.square(self.vectors(self.export({name}), encodings) - right).mean())
        return sorted(errors, key=lambda name: -errors[name])

    def vectors(self, model: bytes, encodings: Sequence[Encoding]) -> Any:
        engine = onnx_engine(self.parent.model, model, "int8")
        found = np.zeros((len(encodings), self.parent.model.config.hidden_size), np.float32)
        for indices, _, outputs in forward(engine.model, encodings, pooling="mean"):
            found[indices] = outputs["embed"].numpy()
        return found
