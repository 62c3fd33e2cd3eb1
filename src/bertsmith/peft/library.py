"""The peft library's folders, both ways: its names of tensors and its adapter_config.json.

LoRA, AdaLoRA and (for BERT) prefixes are saved in the library's words in the first place, so that it opens such a
bundle as it is. Methods that it does not know are saved by our own names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import LAYER, LAYERS, PREFIX, to_hf
from bertsmith.model.heads import Model
from bertsmith.model.hf_config import kind_of
from bertsmith.peft.adalora import AdaLoRA
from bertsmith.peft.config import PeftConfig
from bertsmith.peft.lora import TARGETS, LoRA, targets_of

ADAPTER_CONFIG = "adapter_config.json"
TYPES = {"lora": "LORA", "adalora": "ADALORA", "prefix": "PREFIX_TUNING"}
KINDS = {"ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS"}
LEAVES = {
    "lora": {"a": "lora_A.weight", "b": "lora_B.weight"},
    "adalora": {"a": "lora_A", "b": "lora_B", "e": "lora_E"},
}
PROMPT = "prompt_embeddings"
# Settings of the library that change what is computed: any value but these is refused by name.
PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": (None, "none"),
    # Other starting values (PiSSA, OLoRA, CorDA, …) change the base as well, on each loading.
    "init_lora_weights": (None, False, "gaussian", "orthogonal", True),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    **dict.fromkeys(("use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"), (None, False)),
}


def known(shape: ModelConfig, heads: Heads, config: PeftConfig) -> bool:
    """Whether the library has this method for a model of this shape and with these heads."""
    if config.method not in TYPES or (config.method == "prefix" and shape.modern):
        return False
    return kind_of(shape, heads) in KINDS and all(not name.startswith("bertsmith.") for name in _above(shape, heads))


def to_library(model: Model, config: PeftConfig, base: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A trained small part as the library saves it.

    Args:
        model: with the small part.
        config: its settings; the library must know the method.
        base: where the library finds the base.

    Returns:
        The content of adapter_config.json, and the tensors by the library's names.
    """
    shape, heads = model.config, model.heads
    above = {ours: theirs for theirs, ours in _above(shape, heads).items()}
    state = model.state_dict()
    start = _start(config)
    tensors = {start + above[name]: state[name] for name in above}
    # The same module may be called "head" or "pooler": the library wants the name of the module itself.
    whole = sorted({name.removeprefix(PREFIX[shape.architecture]).partition(".")[0] for name in above.values()})
    written: dict[str, Any] = {
        "peft_type": TYPES[str(config.method)],
        "task_type": KINDS[kind_of(shape, heads)],
        "base_model_name_or_path": base,
        "inference_mode": True,
        "modules_to_save": whole,
    }
    if config.method == "prefix":
        prefixes = [layer.prefix.flatten(1) for layer in model.layers if layer.prefix is not None]
        tensors[PROMPT] = torch.cat(prefixes, dim=1)
        written |= {
            "num_virtual_tokens": config.length,
            "token_dim": shape.hidden_size,
            "num_layers": shape.num_hidden_layers,
            "num_attention_heads": shape.num_attention_heads,
            "num_transformer_submodules": 1,
            "encoder_hidden_size": shape.hidden_size,
            "prefix_projection": False,
        }
        return written, tensors
    parts = _parts(shape, config)
    for ours, theirs in parts.items():
        for leaf, name in LEAVES[str(config.method)].items():
            tensors[f"{start}{theirs}.{name}"] = state[f"{ours}.{leaf}"]
    written |= {
        "target_modules": list(parts.values()),
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
    }
    ranks = {theirs: len(state[f"{ours}.a"]) for ours, theirs in parts.items()}
    if config.method == "lora":
        others = {theirs: rank for theirs, rank in ranks.items() if rank != config.rank}
        alphas = {theirs: config.alpha * rank / config.rank for theirs, rank in others.items()}
        return written | {"r": config.rank, "rank_pattern": others, "alpha_pattern": alphas}, tensors
    pattern = {f"{name}.lora_E": [i < rank for i in range(config.start_rank)] for name, rank in ranks.items()}
    written |= {"init_r": config.start_rank, "target_r": config.rank, "total_step": 1, "rank_pattern": pattern}
    return written, tensors


def from_library(
    tensors: Mapping[str, Tensor], shape: ModelConfig, heads: Heads, config: PeftConfig, where: str
) -> dict[str, Tensor]:
    """A small part by our names from what the library saved. Poolers that it left to the base may be absent.

    Args:
        tensors: by the library's names.
        shape: of the base.
        heads: above it.
        config: its settings.
        where: names the folder in errors.

    Raises:
        BundleError: tensors are missing or left over; names them.
    """
    start = _start(config)
    left = {name.removeprefix(start): value for name, value in tensors.items()}
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    for theirs, ours in _above(shape, heads).items():
        if theirs in left:
            found[ours] = left.pop(theirs)
        elif not ours.startswith("pooler."):
            missing.append(start + theirs)
    if config.method == "prefix":
        whole = left.pop(PROMPT, None)
        width = shape.num_hidden_layers * 2 * shape.hidden_size
        if whole is None or whole.ndim != 2 or whole.shape[1] != width:
            raise BundleError(f"{where}: {PROMPT} must be a matrix of {width} columns for this base; it does not fit")
        for index, part in enumerate(whole.chunk(shape.num_hidden_layers, dim=1)):
            places = (len(whole), 2, shape.num_attention_heads, shape.head_size)
            found[f"encoder.layers.{index}.prefix"] = part.reshape(places)
    else:
        for ours, theirs in _parts(shape, config).items():
            for leaf, name in LEAVES[str(config.method)].items():
                if (value := left.pop(f"{theirs}.{name}", None)) is None:
                    missing.append(f"{start}{theirs}.{name}")
                else:
                    found[f"{ours}.{leaf}"] = value
    if missing or left:
        told = [
            f"{len(names)} {what}: {', '.join(names[:4])}"
            for what, names in (("missing", missing), ("left over", [*left]))
            if names
        ]
        raise BundleError(f"{where}: tensors do not fit {ADAPTER_CONFIG} and the base: {'; '.join(told)}")
    return found


def read_library(
    folder: Path, tensors: Mapping[str, Tensor], shape: ModelConfig
) -> tuple[PeftConfig, Heads, dict[str, Tensor]]:
    """Settings, heads and small part of a folder that the library wrote.

    Args:
        folder: with adapter_config.json.
        tensors: by the library's names.
        shape: of the base.

    Raises:
        BundleError: the library was asked for something that is not built here; names it.
    """
    written: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    where = f"{folder / ADAPTER_CONFIG}"
    methods = {theirs: ours for ours, theirs in TYPES.items()}
    kind, task = str(written.get("peft_type")), str(written.get("task_type"))
    if kind not in methods:
        raise BundleError(f"{where}: peft_type {kind} is not one of {', '.join(methods)}")
    for key, values in PLAIN.items():
        if written.get(key) not in values:
            raise BundleError(f"{where}: {key} = {written[key]!r} is not supported; only {values[-1]!r} is")
    named = {"SEQ_CLS": "classify", "TOKEN_CLS": "tag"}
    classifier = next((value for name, value in tensors.items() if name.endswith("classifier.weight")), None)
    if task not in named or classifier is None:
        raise BundleError(
            f"{where}: task_type {task} with a saved classifier is needed; it is one of {', '.join(named)}"
        )
    heads = Heads.model_validate({named[task]: len(classifier)})
    settings = _settings(methods[kind], written, tensors, shape, where)
    found = from_library(tensors, shape, heads, settings, str(folder))
    if settings.method == "lora":
        # There the change is multiplied by each matrix's own alpha over its own rank.
        for ours, theirs in _parts(shape, settings).items():
            rank = found[f"{ours}.b"].shape[1]
            alpha = _by_pattern(written.get("alpha_pattern"), theirs, settings.alpha)
            scale = alpha / (rank**0.5 if written.get("use_rslora") else rank)
            found[f"{ours}.b"] = found[f"{ours}.b"] * (scale / (settings.alpha / settings.rank))
    elif written.get("alpha_pattern"):
        raise BundleError(f"{where}: alpha_pattern is not supported with peft_type {kind}")
    return settings, heads, found


def _settings(
    method: str, written: Mapping[str, Any], tensors: Mapping[str, Tensor], shape: ModelConfig, where: str
) -> PeftConfig:
    if method == "prefix":
        if shape.modern:
            raise BundleError(f"{where}: the library has no prefix for {shape.architecture}")
        return PeftConfig.model_validate({"method": "prefix", "length": len(tensors.get(PROMPT, ())) or 1})
    modules = LAYER[shape.architecture]
    targets = [
        target
        for target, (module, block) in TARGETS[shape.architecture].items()
        if any(f".{modules[module][block]}.lora_A" in name for name in tensors)
        and (target != "down" or any(_is_down(name) for name in tensors))
    ]
    values: dict[str, Any] = {"method": method, "targets": targets, "alpha": written["lora_alpha"]}
    values["dropout"] = written.get("lora_dropout") or 0.0
    if method == "lora":
        values["rank"] = written["r"]
    else:
        values |= {"rank": min(written["target_r"], written["init_r"]), "start_rank": written["init_r"]}
    try:
        return PeftConfig.model_validate(values)
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from None


def _by_pattern(pattern: Mapping[str, float] | None, name: str, default: float) -> float:
    """A module's own value: that of the first key, a regular expression, that its name ends with."""
    return next((value for key, value in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", name)), default)


def _is_down(name: str) -> bool:
    """Whether `…output.dense.lora_A` is the feed-forward layer's, not attention's, which ends alike in BERT."""
    return ".lora_A" in name and ".attention." not in name and ".intermediate." not in name


def _start(config: PeftConfig) -> str:
    return "base_model." if config.method == "prefix" else "base_model.model."


def _parts(shape: ModelConfig, config: PeftConfig) -> dict[str, str]:
    """Matrices that change: our name of the factors to the library's name of the module."""
    default = AdaLoRA.default if config.method == "adalora" else LoRA.default
    architecture = shape.architecture
    names = {}
    for index in range(shape.num_hidden_layers):
        for target in targets_of(shape, config, default):
            module, block = TARGETS[architecture][target]
            theirs = LAYER[architecture][module][block]
            ours = f"encoder.layers.{index}.{module}.parts.{target}"
            names[ours] = f"{PREFIX[architecture]}{LAYERS[architecture]}.{index}.{theirs}"
    return names


def _above(shape: ModelConfig, heads: Heads) -> dict[str, str]:
    """Names of what stands above the encoder: Hugging Face's to ours."""
    with torch.device("meta"):
        state = Model(shape, heads).state_dict()
    ours = [name for name in state if not name.startswith("encoder.")]
    return {next(iter(to_hf(shape, {name: torch.zeros(1)}, heads)[1])): name for name in ours}
