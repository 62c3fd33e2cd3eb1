"""Shapes of encoders as Hugging Face's config.json spells them, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig

# Which of our heads each of Hugging Face's classes carries; the first that fits a model names its bundle.
KINDS: dict[str, tuple[str, ...]] = {
    "ForSequenceClassification": ("classify",),
    "ForTokenClassification": ("tag",),
    "ForMultipleChoice": ("choose",),
    "ForQuestionAnswering": ("answer",),
    "ForPreTraining": ("mlm", "nsp"),
    "ForMaskedLM": ("mlm",),
    "ForNextSentencePrediction": ("nsp",),
    "Discriminator": ("rtd",),  # ELECTRA's class has the name of BERT's own for MLM and NSP: ForPreTraining
    "Model": (),
}
ELECTRA = {"ElectraForPreTraining": "Discriminator", "ElectraModel": "Model"}
CLASSES = {
    "bert": {f"Bert{kind}": kind for kind in KINDS if kind != "Discriminator"} | ELECTRA,
    "modernbert": {f"ModernBert{kind}": kind for kind, heads in KINDS.items() if not {"nsp", "rtd"} & set(heads)},
}

WRITTEN_BY = "5.23.0"  # the version of transformers whose spelling is written

# What transformers takes where a key is absent.
BERT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
ELECTRA_DEFAULTS = BERT_DEFAULTS | {
    "embedding_size": 128,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
MODERN_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50368,
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "hidden_activation": "gelu",
    "attention_dropout": 0.0,
    "embedding_dropout": 0.0,
    "mlp_dropout": 0.0,
    "max_position_embeddings": 8192,
    "initializer_range": 0.02,
    "norm_eps": 1e-5,
    "pad_token_id": 50283,
    "tie_word_embeddings": True,
    "local_attention": 128,
    "classifier_pooling": "cls",
    "classifier_dropout": 0.0,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160_000.0,
    "local_rope_theta": 10_000.0,
}
# What transformers writes of heads of ELECTRA's that are not here.
SUMMARY = {
    "summary_type": "first",
    "summary_use_proj": True,
    "summary_activation": "gelu",
    "summary_last_dropout": 0.1,
}
DEFAULTS = {"bert": BERT_DEFAULTS, "modernbert": MODERN_DEFAULTS, "electra": ELECTRA_DEFAULTS}
SHARED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "initializer_range",
    "tie_word_embeddings",
)
# Keys that would change what the model computes: any value but these is refused by name.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "is_encoder_decoder": (None, False),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "rope_scaling": (None,),
    "auto_map": (None, {}),  # code of the folder's own
    "problem_type": (None, "regression", "single_label_classification", "multi_label_classification"),
}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",  # the same formula
    "relu": "relu",
}


def kind_of(config: ModelConfig, heads: Heads) -> str:
    """Which of Hugging Face's classes a model is written as: the suffix of its name, a key of `KINDS`."""
    kinds = CLASSES[config.architecture].values()
    return next(kind for kind in KINDS if kind in kinds and all(getattr(heads, head) for head in KINDS[kind]))


def write_config(config: ModelConfig, heads: Heads, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """The config.json of a model, as transformers writes it.

    Args:
        config: the encoder's shape.
        heads: its heads; they decide `architectures`.
        labels: names of the classes or tags, in order; default LABEL_0, LABEL_1, ... as in transformers.

    Raises:
        BundleError: the number of labels is not that of the head.
    """
    kind = kind_of(config, heads)
    written = {key: getattr(config, key) for key in SHARED} | (
        _write_modern(config) if config.modern else _write_bert(config)
    )
    written |= {
        "model_type": config.architecture,
        "architectures": [next(name for name, its in CLASSES[config.architecture].items() if its == kind)],
        "pad_token_id": config.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": "float32",
        "transformers_version": WRITTEN_BY,
    }
    size = {"ForSequenceClassification": heads.classify, "ForTokenClassification": heads.tag}.get(kind, 0)
    if size:
        names = list(labels or [f"LABEL_{i}" for i in range(size)])
        if len(names) != size or len(set(names)) != size:
            raise BundleError(
                f"{len(names)} labels ({', '.join(names[:8])}) for a head of {size}; give each class one name"
            )
        written["id2label"] = {str(index): name for index, name in enumerate(names)}
        written["label2id"] = {name: index for index, name in enumerate(names)}
    if heads.multi or heads.classify == 1:
        written["problem_type"] = "multi_label_classification" if heads.multi else "regression"
    if kind == "Discriminator":
        written |= {"model_type": "electra", "embedding_size": config.hidden_size} | SUMMARY
    return dict(sorted(written.items()))


def _write_bert(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_act": config.hidden_act,
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "classifier_dropout": config.classifier_dropout,
        "layer_norm_eps": config.layer_norm_eps,
        "type_vocab_size": config.type_vocab_size,
        "use_cache": True,
        "is_decoder": False,
        "add_cross_attention": False,
    }


def _write_modern(config: ModelConfig) -> dict[str, Any]:
    layers = range(config.num_hidden_layers)
    return {
        "hidden_activation": config.hidden_act,
        "classifier_activation": config.hidden_act,
        "embedding_dropout": config.hidden_dropout,
        "mlp_dropout": config.hidden_dropout,
        "attention_dropout": config.attention_dropout,
        "classifier_dropout": config.classifier_dropout,
        "classifier_pooling": config.classifier_pooling,
        "norm_eps": config.layer_norm_eps,
        **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), config.bias),
        "decoder_bias": True,
        "local_attention": config.local_attention,
        "layer_types": ["full_attention" if config.window(i) is None else "sliding_attention" for i in layers],
        "rope_parameters": {
            "full_attention": {"rope_theta": config.global_rope_theta, "rope_type": "default"},
            "sliding_attention": {"rope_theta": config.local_rope_theta, "rope_type": "default"},
        },
        "cls_token_id": None,
        "sep_token_id": None,
        "initializer_cutoff_factor": 2.0,
        "deterministic_flash_attn": False,
        "sparse_prediction": False,
        "sparse_pred_ignore_index": -100,
    }


def read_config(hf: Mapping[str, Any], where: str = "config.json") -> ModelConfig:
    """The shape of an encoder from a config.json of type `bert`, `modernbert` or `electra`, of any version.

    An `electra` whose embeddings are as wide as its layers is a `bert` with other names. Dropout is a setting of
    training that transformers places elsewhere in ModernBERT; the larger of its two is kept.

    Args:
        hf: the parsed config.json.
        where: names the file in errors.

    Raises:
        BundleError: a key asks for something that is not built here; names it and its value.
    """
    architecture = hf.get("model_type")
    if architecture not in DEFAULTS:
        raise BundleError(f"{where}: model_type {architecture!r} is not one of {', '.join(DEFAULTS)}")
    for key, values in HARMLESS.items():
        if hf.get(key) not in values:
            allowed = " or ".join(repr(value) for value in values if value is not None) or "nothing"
            raise BundleError(f"{where}: {key} = {hf[key]!r} is not supported; only {allowed} is")
    keys = DEFAULTS[architecture] | dict(hf)
    if architecture == "electra" and keys["embedding_size"] != keys["hidden_size"]:
        raise BundleError(
            f"{where}: embedding_size = {keys['embedding_size']} is not supported; only that of hidden_size, "
            f"{keys['hidden_size']}, is"
        )
    ours = {key: keys[key] for key in SHARED} | {
        "architecture": "modernbert" if architecture == "modernbert" else "bert",
        "pad_token_id": keys["pad_token_id"] or 0,
    }
    ours |= _read_modern(keys, where) if architecture == "modernbert" else _read_bert(keys, where)
    try:
        return ModelConfig.model_validate(ours)
    except ValidationError as error:
        told = [": ".join([*map(str, problem["loc"]), problem["msg"]]) for problem in error.errors()]
        raise BundleError(f"{where}: {'; '.join(told)}") from None


def _read_bert(keys: dict[str, Any], where: str) -> dict[str, Any]:
    dropout = keys.get("classifier_dropout")
    return {
        "hidden_act": _activation(keys, "hidden_act", where),
        "hidden_dropout": keys["hidden_dropout_prob"],
        "attention_dropout": keys["attention_probs_dropout_prob"],
        "classifier_dropout": keys["hidden_dropout_prob"] if dropout is None else dropout,
        "layer_norm_eps": keys["layer_norm_eps"],
        "type_vocab_size": keys["type_vocab_size"],
    }


def _read_modern(keys: dict[str, Any], where: str) -> dict[str, Any]:
    biases = {key: bool(keys.get(key)) for key in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias")}
    if len(set(biases.values())) > 1:
        raise BundleError(f"{where}: {biases} differ; only all true or all false is supported")
    if not keys.get("decoder_bias", True):
        raise BundleError(f"{where}: decoder_bias = false is not supported; only true is")
    activation = _activation(keys, "hidden_activation", where)
    if _activation({"classifier_activation": "gelu"} | keys, "classifier_activation", where) != activation:
        raise BundleError(f"{where}: classifier_activation differs from hidden_activation; only the same is supported")
    full, local = _rope(keys, where)
    return {
        "hidden_act": activation,
        "hidden_dropout": max(keys["embedding_dropout"], keys["mlp_dropout"]),
        "attention_dropout": keys["attention_dropout"],
        "classifier_dropout": keys["classifier_dropout"],
        "classifier_pooling": keys["classifier_pooling"],
        "layer_norm_eps": keys["norm_eps"],
        "bias": biases["norm_bias"],
        "local_attention": keys["local_attention"],
        "global_attention_every": _global_every(keys, where),
        "global_rope_theta": full,
        "local_rope_theta": local,
    }


def _activation(keys: Mapping[str, Any], key: str, where: str) -> str:
    if keys[key] not in ACTIVATIONS:
        raise BundleError(f"{where}: {key} = {keys[key]!r} is not one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[str(keys[key])]


def _global_every(keys: dict[str, Any], where: str) -> int:
    """The n of "every n-th layer is global", from `layer_types` (new) or `global_attn_every_n_layers` (old)."""
    default: int = keys["global_attn_every_n_layers"]
    if (types := keys.get("layer_types")) is None:
        return default
    layers = range(int(keys["num_hidden_layers"]))
    # A short stack can fit several n: the usual one first, so that it survives being written and read.
    candidates: list[int] = [default, *range(1, len(layers) + 1)]
    for every in candidates:
        if list(types) == ["sliding_attention" if i % every else "full_attention" for i in layers]:
            return every
    raise BundleError(
        f"{where}: layer_types {types} is not supported; only full_attention at every n-th of {len(layers)} layers is"
    )


def _rope(keys: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Rotary bases of global and local layers, from `rope_parameters` (new) or `*_rope_theta` (old)."""
    thetas: list[float] = []
    rope = keys.get("rope_parameters") or {}
    for name, old in (("full_attention", "global_rope_theta"), ("sliding_attention", "local_rope_theta")):
        parameters = rope.get(name) or {}
        kind = parameters.get("rope_type", "default")
        if kind != "default":
            raise BundleError(
                f"{where}: rope_parameters.{name}.rope_type = {kind!r} is not supported; only 'default' is"
            )
        theta = parameters.get("rope_theta", keys[old])
        thetas.append(float(thetas[0] if theta is None else theta))  # an old null meant: as in global layers
    return thetas[0], thetas[1]
