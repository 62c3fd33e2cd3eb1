"""Front matter: what the Hugging Face hub reads at the top of a card, and the languages that letters betray."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bertsmith.core.snippets import LIBRARY, kind_of, makes_vectors, settings_of

PIPELINES = {
    None: "feature-extraction",
    "pretraining": "fill-mask",
    "classify": "text-classification",
    "match": "text-ranking",
    "tag": "token-classification",
    "relate": "text-classification",
    "answer": "question-answering",
    "choose": "multiple-choice",
    "generate": "text-generation",
}
"""The hub's names of tasks."""
METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "micro_f1": "f1",
    "macro_f1": "f1",
    "mcc": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "mse": "mse",
    "precision": "precision",
    "recall": "recall",
    "exact": "exact_match",
    "bleu": "sacrebleu",
    "rouge1": "rouge",
    "mlm_accuracy": "accuracy",
}
"""Our names of scores, and the hub's."""
LANGUAGES = {"latin": "en", "han": "zh"}
ENOUGH = 0.05
"""Share of texts, or of a vocabulary, from which a language is one of the model's."""


def scripts_of(files: Mapping[str, bytes]) -> dict[str, Any] | None:
    """What a vocabulary is made of: its `size`, and the number of pieces by the script of their first letter.

    Args:
        files: content by name; `tokenizer.json` or `vocab.txt` is looked at.

    Returns:
        None where neither is there.
    """
    if "tokenizer.json" in files:
        model = json.loads(files["tokenizer.json"]).get("model", {})
        found = model.get("vocab", {})
        pieces = [str(item[0]) if isinstance(item, list) else str(item) for item in found]
    elif "vocab.txt" in files:
        pieces = files["vocab.txt"].decode(errors="replace").split("\n")[:-1]
    else:
        return None
    counts = Counter(_script(piece) for piece in pieces if not re.fullmatch(r"\[.+\]", piece))
    counts.pop("", None)
    return {"size": len(pieces), "scripts": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))}


def _script(piece: str) -> str:
    letter = next((character for character in piece if character.isalpha()), None)
    if letter is None:
        return ""
    name = unicodedata.name(letter, "").partition(" ")[0].lower()
    return "han" if name == "cjk" else name


def languages(meta: Mapping[str, Any]) -> list[str]:
    """Codes of the languages that the model is for: those of the texts it learned from, else of its vocabulary.

    Args:
        meta: what `bertsmith.json` says.
    """
    counts = letters(meta)
    total = sum(counts.values())
    found = [LANGUAGES.get(name, name) for name, count in counts.items() if count >= ENOUGH * total]
    return sorted({name for name in found if re.fullmatch("[a-z]{2}", name)})


def letters(meta: Mapping[str, Any]) -> Mapping[str, int]:
    """Texts by language or script, the most frequent first; where these are not known, pieces by script.

    Args:
        meta: what `bertsmith.json` says.
    """
    return meta.get("languages") or (meta.get("vocabulary") or {}).get("scripts") or {}


def front_matter(config: Mapping[str, Any], meta: Mapping[str, Any]) -> Iterator[str]:
    """The lines of YAML, with the dashes around them; the licence is left to the user.

    Args:
        config: what `config.json` says.
        meta: what `bertsmith.json` says.
    """
    task = meta.get("task")
    vectors, extract = makes_vectors(meta), settings_of(meta).get("mode") == "extract"
    pipeline = "sentence-similarity" if vectors else "summarization" if extract else PIPELINES.get(task)
    if task == "match" and not vectors and settings_of(meta).get("labels"):
        pipeline = "text-classification"
    yield "---"
    yield "# license: yours to choose, such as apache-2.0; those of the data and of the base model bind it"
    if found := languages(meta):
        yield "language: # guessed from letters; mend it where it is wrong"
        yield from (f"- {name}" for name in found)
    yield f"library_name: {_library(config, meta)}"
    if pipeline:
        yield f"pipeline_tag: {pipeline}"
    base = (meta.get("base") or {}).get("name") or (meta.get("lineage") or {}).get("base_model")
    if base:
        yield f"base_model: {json.dumps(base)}"
        if relation := "adapter" if "peft" in meta else "quantized" if "int8" in str(meta.get("onnx")) else "":
            yield f"base_model_relation: {relation}"
    yield "tags:"
    tags = ["bertsmith", str(config.get("model_type", "")), str(task or ""), "int8" if "onnx" in meta else ""]
    yield from (f"- {tag}" for tag in dict.fromkeys(tags) if tag)
    names = dict.fromkeys(METRICS[name] for _, found in columns(meta) for name in found if name in METRICS)
    if names:
        yield "metrics:"
        yield from (f"- {name}" for name in names)
    yield "---"
    yield ""


def _library(config: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    if "peft" in meta:
        return "peft" if LIBRARY in meta.get("files", {}) else "bertsmith"
    if makes_vectors(meta):
        return "sentence-transformers"
    writes = meta.get("task") == "generate" and settings_of(meta).get("mode") != "extract"
    return "bertsmith" if writes or (kind_of(config) == "Model" and meta.get("task")) else "transformers"


def columns(meta: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """Scores by the rows that they were measured on.

    Args:
        meta: what `bertsmith.json` says.
    """
    scores = meta.get("scores") or {}
    plain = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    columns: list[tuple[str, Mapping[str, float]]] = [("held out", plain)] if plain else []
    for name, found in scores.items():
        if name == "quantize":
            columns.append(("int8, rows of the gate", found.get("dev") or {}))
        elif isinstance(found, Mapping):
            columns.append((name, found))
    return columns
