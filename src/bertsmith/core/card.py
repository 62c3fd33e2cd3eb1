"""Card: the README.md of a bundle, written from `bertsmith.json` and `config.json` alone, so equal for equal ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from bertsmith.core.front_matter import columns, front_matter, letters
from bertsmith.core.snippets import commands, in_transformers, makes_vectors, settings_of

CARD = "README.md"

PURPOSE = {
    None: "encodes text; it has no head that answers anything",
    "pretraining": "reads text and tells the words that are hidden in it: an encoder to start other models from",
    "classify": "sorts texts into classes",
    "match": "tells whether texts go together",
    "tag": "finds stretches of a text, such as names",
    "relate": "tells how two marked stretches of a text are related",
    "answer": "finds the stretch of a text that answers a question, or that there is none",
    "choose": "chooses the right one of several texts",
    "generate": "writes a text from a text, or chooses the sentences of a summary",
}
SETTINGS = (
    "lr", "batch_size", "batch_tokens", "accumulation", "schedule", "warmup_ratio", "weight_decay", "name", "dropout",
    "init", "seed", "precision", "loss", "class_weights", "label_smoothing",
)  # fmt: skip
"""Of a run's settings under `train`, those that matter to somebody who only has the result."""
SHOWN = 200


def card(config: Mapping[str, Any], meta: Mapping[str, Any]) -> bytes:
    """The card of a bundle.

    It has no sum among the bundle's files: people complete it (the licence, what the texts were), and a bundle whose
    card was completed is not damaged.

    Args:
        config: what `config.json` says.
        meta: what `bertsmith.json` says.

    Returns:
        Markdown with the front matter that the Hugging Face hub reads.
    """
    chinese = next(iter(letters(meta)), "") in ("han", "zh")
    parts = [
        *front_matter(config, meta),
        *_what(config, meta),
        *_data(meta),
        *_training(meta),
        *_scores(meta),
        *_limits(config, meta),
        *_usage(config, meta, chinese),
    ]
    return ("\n".join(parts).rstrip() + "\n").encode(errors="replace")


def _what(config: Mapping[str, Any], meta: Mapping[str, Any]) -> Iterator[str]:
    task = meta.get("task")
    purpose = PURPOSE.get(task, f"is for the task {task}")
    vectors = " Each text gets a vector, and vectors are compared." if makes_vectors(meta) else ""
    yield f"# {str(task).capitalize() if task else 'Encoder'}: a model made with bertsmith"
    yield ""
    yield f"This model {purpose}.{vectors}"
    yield ""
    shape = ", ".join(
        f"{config[key]:,} {words}"
        for key, words in (
            ("num_hidden_layers", "layers"),
            ("hidden_size", "wide"),
            ("num_attention_heads", "attention heads"),
            ("max_position_embeddings", "positions"),
        )
        if isinstance(config.get(key), int)
    )
    rows = [("type", f"`{config.get('model_type', '?')}`, class `{(config.get('architectures') or ['?'])[0]}`")]
    rows += [("shape", shape)] if shape else []
    if "parameters" in meta:
        rows.append(("numbers in the file", f"{meta['parameters']:,}"))
    if "peft" in meta:
        moved = meta["peft"].get("parameters") or {}
        share = f", {moved['encoder'] + moved['head']:,} of {moved['all']:,} parameters" if "all" in moved else ""
        rows.append(("small part", f"{(meta['peft'].get('settings') or {}).get('method')}{share}"))
        base = meta.get("base") or {}
        named = f"`{_cell(base['name'])}`, " if "name" in base else ""
        rows.append(("stands on", f"{named}the weights with sha256 `{base.get('sha256', '?')}`, and no others"))
    if "onnx" in meta:
        kept = meta["onnx"].get("fp32")
        told = f", {len(kept)} parts left in fp32" if kept else ""
        rows.append(("for ONNX Runtime", f"`{meta['onnx'].get('file', '?')}`: {meta['onnx'].get('kind', '?')}{told}"))
    lineage = meta.get("lineage") or {}
    parent = lineage.get("parent_sha256") or lineage.get("parent")
    if parent and re.fullmatch("[0-9a-f]{64}", str(parent)):
        named = f"`{_cell(lineage['base_model'])}`, " if lineage.get("base_model") else ""
        rows.append(("made from", f"{named}weights with sha256 `{parent}`"))
    rows.append(("made with", f"bertsmith {meta.get('bertsmith', '?')}"))
    yield from _table(("", ""), rows)


def _data(meta: Mapping[str, Any]) -> Iterator[str]:
    lineage = meta.get("lineage") or {}
    rows = [
        (split, f"`{_cell(one['name'])}`", f"{one['rows']:,}", f"`{one['sha256']}`")
        for split, one in (meta.get("splits") or {}).items()
    ]
    data = lineage.get("data") or {}
    text = isinstance(data.get("inputs"), list)
    if not rows and not text and not data:
        return
    yield "## Data"
    yield ""
    if rows:
        yield from _table(("split", "file", "rows", "sha256"), rows)
        if meta["splits"].get("dev", {}).get("held_out"):
            yield "Dev rows were held out of the training file, with the classes' shares kept."
            yield ""
    elif text:
        counts = meta.get("text") or {}
        found = [(f"`{_cell(_file(name))}`",) for name in data["inputs"]]
        yield from _table(("text",), found)
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        yield f"As tokens{f' ({told})' if told else ''}: sha256 `{data.get('store', '?')}` of the store's manifest."
        yield ""
    else:
        yield from _table(("file", "sha256"), [(f"`{_cell(_file(name))}`", f"`{sum}`") for name, sum in data.items()])


def _training(meta: Mapping[str, Any]) -> Iterator[str]:
    lineage = meta.get("lineage") or {}
    configs = lineage.get("configs") or {}
    train = configs.get("train") or {}
    rows = [("steps to these weights", f"{lineage['steps']:,}")] if isinstance(lineage.get("steps"), int) else []
    if lineage.get("together"):
        rows.append(("one encoder with", ", ".join(f"`{_cell(name)}`" for name in lineage["together"])))
    rows += [(f"train.{key}", _value(train[key])) for key in SETTINGS if train.get(key) not in (None, "", [])]
    peft = configs.get("peft") or {}
    if peft.get("method"):
        rows += [(f"peft.{key}", _value(value)) for key, value in peft.items() if value not in (None, [])]
    wanted = {"max_length", "mask_rate", "masking", "pairs", "head", "mode", "pooling", "read", "stride"}
    rows += [(f"task.{key}", _value(value)) for key, value in settings_of(meta).items() if key in wanted and value]
    rows += [(f"quantize.{key}", _value(value)) for key, value in (configs.get("quantize") or {}).items()]
    if rows:
        yield "## Training"
        yield ""
        yield from _table(("setting", "value"), rows)
        yield "`bertsmith.json` has all settings, and the versions of what it was made with."
        yield ""


def _scores(meta: Mapping[str, Any]) -> Iterator[str]:
    measured = columns(meta)
    if not measured:
        return
    seeds = meta.get("seeds") or {}
    spread = {f"{split}, mean ± sd": found for split, found in (seeds.get("scores") or {}).items()}
    names = list(dict.fromkeys(name for _, found in measured for name in found))
    rows = []
    for name in names[:SHOWN]:
        cells = [_score(found.get(name)) for _, found in measured]
        for found in spread.values():
            one = found.get(name)
            cells.append(f"{_score(one['mean'])} ± {_score(one['sd'])}" if one else "")
        rows.append((f"{_cell(name)}{' (the one that counts)' if name == meta.get('headline') else ''}", *cells))
    yield "## Scores"
    yield ""
    yield from _table(("score", *(title for title, _ in measured), *spread), rows)
    if spread:
        listed = ", ".join(str(seed) for seed in seeds["seeds"])
        yield f"Mean and standard deviation over the seeds {listed}; this is the one of them that was best on dev."
        yield ""
    if "quantize" in (meta.get("scores") or {}):
        lost = meta["scores"]["quantize"].get("drop") or 0.0
        yield f"In int8 the score that counts drops by {lost:.2f} points (hundredths) on the rows of the gate."
        yield ""


def _limits(config: Mapping[str, Any], meta: Mapping[str, Any]) -> Iterator[str]:
    settings, scores = settings_of(meta), meta.get("scores") or {}
    yield "## Limits"
    yield ""
    vocabulary = meta.get("vocabulary") or {}
    if scripts := vocabulary.get("scripts"):
        shares = [f"{name} {count / sum(scripts.values()):.0%}" for name, count in list(scripts.items())[:4]]
        yield (
            f"- Vocabulary: {vocabulary['size']:,} pieces, by their first letter {', '.join(shares)}. Of other scripts "
            "it knows single letters at best."
        )
    if seen := meta.get("languages"):
        shares = [f"{name} {count / sum(seen.values()):.0%}" for name, count in seen.items()]
        yield f"- It learned from texts in these scripts: {', '.join(shares)}. Nothing is known about others."
    most = config.get("max_position_embeddings")
    length = min(settings.get("max_length") or most, most) if isinstance(most, int) else settings.get("max_length")
    extracts = meta.get("task") == "generate" and settings.get("mode") == "extract"
    if length:
        rest = "the rest is cut off"
        if meta.get("task") in ("tag", "answer") or extracts:
            rest = "longer texts are read in windows"
        yield f"- At most {length:,} pieces at once: {rest}."
    labels = [str(label) for label in meta.get("labels") or []]
    if meta.get("task") == "tag":
        labels = list(dict.fromkeys(re.sub("^[BI]-", "", label) for label in labels if label != "O"))
    if labels and meta.get("task") != "answer" and not extracts:  # theirs are places in the text, not answers
        shown = ", ".join(f"`{_cell(label)}`" for label in labels[:SHOWN])
        more = f" and {len(labels) - SHOWN:,} more" if len(labels) > SHOWN else ""
        if meta.get("task") == "tag":
            knows = f"finds {len(labels):,} types and no others"
        elif settings.get("multi_label"):
            knows = f"knows {len(labels):,} labels, of which it gives any number"
        else:
            knows = f"knows {len(labels):,} labels and answers with one of them whatever it is given"
        yield f"- It {knows}: {shown}{more}."
    if "dev" in scores and "test" not in scores:
        yield "- There were no test rows. Dev rows chose the weights, so their scores are a little too good."
    if scores and not meta.get("seeds"):
        yield "- One seed: how much the scores differ from seed to seed is not known."
    yield (
        "- Not measured here: texts of other kinds, places and times than those of the data above; how far its "
        "probabilities can be trusted; whether it treats groups of people differently; texts written to mislead it."
    )
    yield ""


def _usage(config: Mapping[str, Any], meta: Mapping[str, Any], chinese: bool) -> Iterator[str]:
    blocks = commands(meta, chinese=chinese)
    if blocks:
        yield "## Use in bertsmith"
        yield ""
        yield "Commands and Python are to be run in this folder; elsewhere put its path in place of the point."
        yield ""
        if "peft" in meta:
            yield (
                "The base is looked for where it stood beside this folder; where it has moved, `bertsmith convert . "
                "../moved --base BASE` says where it is."
            )
            yield ""
        for language, content in blocks:
            yield from (f"```{language}", content, "```", "")
    note, code = in_transformers(config, meta, chinese=chinese)
    yield "## Use in transformers"
    yield ""
    yield from (note, "")
    if code:
        yield from ("```python", code, "```", "")


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield f"|{' --- |' * len(headers)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _cell(text: str) -> str:
    """What came from outside, where it can neither end a cell nor a line nor a stretch of code."""
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|").replace("`", "'")


def _file(name: str) -> str:
    """A path without the folders of the machine that it was on; the names of packages as they are."""
    return name if name.startswith("pydoc:") else PurePath(name).name or name


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return _cell(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _score(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, int | float) else str(value)
