"""Weights and configs of Hugging Face folders, both ways, and the two doors that the rest of the house uses.

Every tensor of ours has its names in one table, read in both directions: `to_hf` splits and renames, `from_hf` renames
and joins. A head that transformers has no class for is written as `bertsmith.<our name>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bertsmith.core.bundle import Bundle, write_bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.embedding import Embedding, read_embedding, write_embedding
from bertsmith.model.heads import Model
from bertsmith.model.hf_config import CLASSES, KINDS, kind_of, read_config, write_config

State = dict[str, Tensor]

LAYERS = {"bert": "encoder.layer", "modernbert": "layers"}
PREFIX = {"bert": "bert.", "modernbert": "model."}
ELECTRA_PREFIX = "electra."
GENERATOR = "generator.safetensors"
"""Beside the weights of an encoder that learned to find replaced tokens: its generator, needed to learn on."""
INSIDE = "head.generator."
# Modules inside a layer, ours to theirs; several of theirs are stacked in ours.
LAYER: dict[str, dict[str, tuple[str, ...]]] = {
    "bert": {
        "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "mlp.up": ("intermediate.dense",),
        "mlp.down": ("output.dense",),
        "mlp_norm": ("output.LayerNorm",),
    },
    "modernbert": {
        "attention.qkv": ("attn.Wqkv",),
        "attention.out": ("attn.Wo",),
        "attention_norm": ("attn_norm",),
        "mlp.up": ("mlp.Wi",),
        "mlp.down": ("mlp.Wo",),
        "mlp_norm": ("mlp_norm",),
    },
}
# Modules around the layers; they carry PREFIX in every class but the bare model.
BASE: dict[str, dict[str, str]] = {
    "bert": {
        "encoder.embeddings.word": "embeddings.word_embeddings",
        "encoder.embeddings.position": "embeddings.position_embeddings",
        "encoder.embeddings.segment": "embeddings.token_type_embeddings",
        "encoder.embeddings.norm": "embeddings.LayerNorm",
        "pooler.dense": "pooler.dense",
    },
    "modernbert": {
        "encoder.embeddings.word": "embeddings.tok_embeddings",
        "encoder.embeddings.norm": "embeddings.norm",
        "encoder.final_norm": "final_norm",
    },
}
BERT_HEADS = {
    "head.mlm": "cls.predictions",
    "head.mlm.dense": "cls.predictions.transform.dense",
    "head.mlm.norm": "cls.predictions.transform.LayerNorm",
    "head.mlm.decoder": "cls.predictions.decoder",
    "head.nsp": "cls.seq_relationship",
}
HEADS: dict[str, dict[str, dict[str, str]]] = {
    "bert": {
        **dict.fromkeys(KINDS, BERT_HEADS),
        "Discriminator": {
            "head.rtd.dense": "discriminator_predictions.dense",
            "head.rtd.output": "discriminator_predictions.dense_prediction",
        },
        "ForSequenceClassification": BERT_HEADS | {"head.classify": "classifier"},
        "ForTokenClassification": BERT_HEADS | {"head.tag": "classifier"},
        "ForQuestionAnswering": BERT_HEADS | {"head.answer": "qa_outputs"},
        "ForMultipleChoice": BERT_HEADS | {"head.choose": "classifier"},
    },
    "modernbert": {
        "ForMaskedLM": {
            "head.mlm": "decoder",
            "head.mlm.decoder": "decoder",
            "head.mlm.dense": "head.dense",
            "head.mlm.norm": "head.norm",
        },
        "ForSequenceClassification": {
            "head.classify": "classifier",
            "head.classify_transform.dense": "head.dense",
            "head.classify_transform.norm": "head.norm",
        },
        "ForTokenClassification": {
            "head.tag": "classifier",
            "head.tag_transform.dense": "head.dense",
            "head.tag_transform.norm": "head.norm",
        },
        "ForQuestionAnswering": {
            "head.answer": "classifier",
            "head.answer_transform.dense": "head.dense",
            "head.answer_transform.norm": "head.norm",
        },
        "ForMultipleChoice": {
            "head.choose": "classifier",
            "head.choose_transform.dense": "head.dense",
            "head.choose_transform.norm": "head.norm",
        },
        "Model": {},
    },
}
DECODER = {"bert": "cls.predictions.decoder", "modernbert": "decoder"}
DECODER_LAYER = re.compile(r"bertsmith\.head\.decoder\.layers\.(\d+)\.")


def to_hf(
    config: ModelConfig, state: Mapping[str, Tensor], heads: Heads, labels: Sequence[str] | None = None
) -> tuple[dict[str, Any], State]:
    """A model's config and weights as a Hugging Face folder holds them.

    Args:
        config: the encoder's shape.
        state: `Model.state_dict()`.
        heads: the model's heads; they decide the class that transformers opens.
        labels: names of the classes or tags, in order.

    Returns:
        The content of config.json, and fp32 tensors on the CPU by Hugging Face's names.

    Raises:
        BundleError: a tensor or a label has no place there.
    """
    kind = kind_of(config, heads)
    prefix = {"Model": "", "Discriminator": ELECTRA_PREFIX}.get(kind, PREFIX[config.architecture])
    tensors: State = {}
    for name, value in state.items():
        value = value.detach().to("cpu", torch.float32)
        theirs = _theirs(name, config, kind)
        parts = value.chunk(len(theirs)) if len(theirs) > 1 else (value,)
        for their_name, part in zip(theirs, parts, strict=True):
            own = name.startswith("head.")
            tensors[their_name if own else prefix + their_name] = part.clone()
    if heads.mlm and not config.modern and not config.tie_word_embeddings:
        # BERT's classes hold this bias twice, and read the second where weights are not tied.
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    return write_config(config, heads, labels), tensors


def from_hf(
    hf_config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str = "bundle"
) -> tuple[ModelConfig, State, Heads]:
    """A model's config, weights and heads from what a Hugging Face folder holds.

    Heads are those that `architectures` names and those whose tensors are there (published BERTs often call
    themselves BertForMaskedLM and carry the NSP head as well). Names may lack the `bert.` or `model.` prefix, norms may
    be spelled gamma and beta. A pooler that no head reads is kept in the state.

    Args:
        hf_config: the parsed config.json.
        tensors: by Hugging Face's names.
        where: names the folder in errors.

    Returns:
        Config, state by our names (complete for a `Model` of these heads), heads.

    Raises:
        BundleError: something in the config is not supported, or tensors are missing, unexpected or of another shape;
            all are named.
    """
    config = read_config(hf_config, f"{where}: config.json")
    found = _plain_names(tensors, config, where)
    kind = _kind(hf_config, found, config, where)
    heads = _heads(found, config, kind, where)
    if (heads.classify or heads.mean) and hf_config.get("problem_type") == "multi_label_classification":
        heads = heads.model_copy(update={"multi": True})
    _untangle_decoder(found, config, heads, where)
    expected = _shapes(config, heads)
    if not config.modern and "pooler.dense.weight" in found:
        width = config.hidden_size
        expected |= {"pooler.dense.weight": torch.Size([width, width]), "pooler.dense.bias": torch.Size([width])}

    state: State = {}
    missing, wrong = [], []
    for name, shape in expected.items():
        theirs = _theirs(name, config, kind)
        part_shape = [shape[0] // len(theirs), *shape[1:]]
        parts = [found.pop(part) for part in theirs if part in found]
        if len(parts) < len(theirs):
            missing.append(" + ".join(theirs))
        elif bad := [part for part in parts if list(part.shape) != part_shape or not part.is_floating_point()]:
            wrong.append(f"{theirs[0]} is {bad[0].dtype} {list(bad[0].shape)}, config.json asks for {part_shape}")
        else:
            state[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    problems = [("missing", missing), ("unexpected", sorted(found)), ("of the wrong shape", wrong)]
    if any(names for _, names in problems):
        told = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems if names)
        raise BundleError(
            f"{where}: tensors do not fit config.json ({', '.join(hf_config.get('architectures') or [kind])}): {told}"
        )
    return config, state, heads


def load_model(bundle: Bundle, heads: Heads | None = None, *, seed: int = 0) -> Model:
    """A bundle's model, in fp32 on the CPU.

    Args:
        bundle: a bundle or Hugging Face folder, opened.
        heads: the heads wanted; None: those that are saved, but no generator. A head that is not saved with this size
            starts from fresh weights, and a saved one that is not asked for is left out. ModernBERT's classification
            heads start from the layer before its MLM output, as in transformers; a decoder's layers from the encoder's
            (Rothe et al. 2020, arXiv:1907.12461).
        seed: of fresh weights.

    Raises:
        BundleError: the folder's config or weights are not those of a supported model, or only a small part of one.
    """
    config, state, saved = from_hf(bundle.whole().config, bundle.tensors(), str(bundle.path))
    if heads is None and (embedding := read_embedding(bundle.path)) is not None:
        saved = saved.model_copy(update={"embed": embedding.pooling})
    model = Model(config, saved if heads is None else heads, seed=seed)
    own = model.state_dict()
    if model.heads.generator:
        state |= _generator(bundle, own)
    with torch.no_grad():
        for name, value in own.items():
            source = state.get(name)
            if source is None:
                source = state.get(re.sub(r"^head\.\w+_transform", "head.mlm", name))
            if source is None:
                source = state.get(re.sub(r"^head\.decoder\.layers", "encoder.layers", name))
            if source is not None and source.shape == value.shape:
                value.copy_(source)
    return model


def save_model(path: str | Path, model: Model, tokenizer_files: Mapping[str, bytes], meta: Mapping[str, Any]) -> Bundle:
    """Write a model as a bundle that transformers opens too.

    Args:
        path: folder of the bundle; replaced when it is there.
        model: the model.
        tokenizer_files: `Tokenizer.files()`.
        meta: the content of bertsmith.json; `labels` go to config.json as well, and of `task_config` what says how
            texts become vectors to the files of sentence-transformers, where the model makes vectors.

    A generator is no part of the model that transformers opens, and goes into a file of its own.

    Returns:
        The bundle as written.
    """
    state = model.state_dict()
    beside = {name: state.pop(name).detach().cpu().contiguous() for name in list(state) if name.startswith(INSIDE)}
    config, tensors = to_hf(model.config, state, model.heads, meta.get("labels"))
    files = dict(tokenizer_files) | ({GENERATOR: save(beside)} if beside else {})
    if model.heads.embed:
        settings = meta.get("task_config") or {}
        known = {name: settings[name] for name in ("normalize", "max_length", "prompt") if name in settings}
        files |= write_embedding(Embedding(model.heads.embed, **known), model.config.hidden_size)
    return write_bundle(path, config=config, tensors=tensors, files=files, meta=meta)


def _generator(bundle: Bundle, own: Mapping[str, Tensor]) -> State:
    """The generator beside a bundle's weights, if there is one of the shape that the state `own` has."""
    file = bundle.path / GENERATOR
    if not file.is_file():
        return {}
    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file}: cannot read the generator ({error}); copy it again, or remove it") from None
    wanted = {name: value.shape for name, value in own.items() if name.startswith(INSIDE)}
    return found if {name: value.shape for name, value in found.items()} == wanted else {}


def _theirs(name: str, config: ModelConfig, kind: str) -> tuple[str, ...]:
    """Hugging Face's names of our tensor `name`, without prefix."""
    module, _, leaf = name.rpartition(".")
    architecture = config.architecture
    if (layer := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", module)) and layer[2] in LAYER[architecture]:
        return tuple(f"{LAYERS[architecture]}.{layer[1]}.{part}.{leaf}" for part in LAYER[architecture][layer[2]])
    if theirs := (BASE[architecture] | HEADS[architecture][kind]).get(module):
        return (f"{theirs}.{leaf}",)
    if name.startswith("head."):
        return (f"bertsmith.{name}",)
    raise BundleError(
        f"tensor {name} has no place in a Hugging Face folder of type {architecture}; merge or remove it first"
    )


def _plain_names(tensors: Mapping[str, Tensor], config: ModelConfig, where: str) -> State:
    """Tensors without prefix, old spellings of norms and constant buffers."""
    found: State = {}
    for name, value in tensors.items():
        plain = name.removeprefix(PREFIX[config.architecture]).removeprefix(ELECTRA_PREFIX)
        plain = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", plain)
        plain = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", plain)
        if plain == "embeddings.position_ids" and torch.equal(value.flatten(), torch.arange(value.numel())):
            continue
        if plain in found:
            raise BundleError(f"{where}: tensor {name} is there twice, with and without prefix or in two spellings")
        found[plain] = value
    return found


def _kind(hf_config: Mapping[str, Any], found: State, config: ModelConfig, where: str) -> str:
    """Which class wrote the folder."""
    architectures = hf_config.get("architectures") or []
    known = CLASSES[config.architecture]
    for name in architectures:
        if name in known:
            return known[name]
    if architectures:
        raise BundleError(f"{where}: config.json: architectures {architectures} is not one of {', '.join(known)}")
    if "classifier.weight" in found:
        raise BundleError(f"{where}: config.json: architectures is missing; say which class the classifier belongs to")
    return "ForMaskedLM" if any(name.startswith(("decoder.", "cls.predictions.")) for name in found) else "Model"


def _heads(found: State, config: ModelConfig, kind: str, where: str) -> Heads:
    """Heads declared by the class or betrayed by their tensors."""

    def size(head: str) -> int:
        (name,) = _theirs(f"head.{head}.weight", config, kind)
        if name in found:
            return int(found[name].shape[0])
        if head in KINDS[kind] and head in ("classify", "tag", "answer", "choose"):
            raise BundleError(f"{where}: tensor {name} is missing")
        return 0

    def own(tensor: str) -> int:
        name = f"bertsmith.head.{tensor}"
        return int(found[name].shape[0]) if name in found else 0

    (mlm,) = _theirs("head.mlm.dense.weight", config, kind)
    return Heads(
        mlm="mlm" in KINDS[kind] or mlm in found,
        nsp="nsp" in KINDS[kind] or size("nsp") > 0,
        rtd="rtd" in KINDS[kind] or own("rtd.output.weight") > 0,
        classify=size("classify"),
        mean=own("mean.weight"),
        tag=size("tag"),
        crf=own("crf.table") > 0,
        span=own("span.types.weight") // 2,
        relate=own("relate.output.weight"),
        answer=size("answer") > 0,
        choose=size("choose") > 0,
        decoder=len({layer[1] for name in found if (layer := DECODER_LAYER.match(name))}),
    )


def _untangle_decoder(found: State, config: ModelConfig, heads: Heads, where: str) -> None:
    """Drop the second names of tensors that are held once here, after checking that they agree."""
    if not heads.mlm:
        return
    weight, bias = f"{DECODER[config.architecture]}.weight", f"{DECODER[config.architecture]}.bias"
    (embedding,) = _theirs("encoder.embeddings.word.weight", config, "Model")
    if config.tie_word_embeddings and weight in found and embedding in found:
        if not torch.equal(found[weight], found[embedding]):
            raise BundleError(
                f"{where}: {weight} differs from {embedding}, but config.json ties them; "
                "set tie_word_embeddings to false there"
            )
        del found[weight]
    if not config.modern and bias in found:
        second = found.pop(bias)
        first = found.get("cls.predictions.bias", second)
        if config.tie_word_embeddings and not torch.equal(first, second):
            raise BundleError(f"{where}: {bias} differs from cls.predictions.bias; remove the one that was not trained")
        found["cls.predictions.bias"] = second


def _shapes(config: ModelConfig, heads: Heads) -> dict[str, torch.Size]:
    """Names and shapes of a model's state, without its weights."""
    with torch.device("meta"):
        return {name: value.shape for name, value in Model(config, heads).state_dict().items()}


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
