"""An encoder that learned to find replaced tokens is an ELECTRA: logits equal transformers', in both directions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.adopt import adopt
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding, pack

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
LENGTHS = (1, 512, 2, 37, 37, 200, 511, 9)
SHAPE = ModelConfig(
    vocab_size=211,
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    initializer_range=0.1,
)
SHAPES = {"gelu": SHAPE, "relu": SHAPE.model_copy(update={"hidden_act": "relu", "layer_norm_eps": 1e-6})}
HEADS = Heads(rtd=True)


def encodings() -> list[Encoding]:
    rng = np.random.default_rng(7)
    return [
        Encoding(rng.integers(1, 211, n, dtype=np.int32), (np.arange(n) > n // 2).astype(np.int32)) for n in LENGTHS
    ]


def stir(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def logits_of(model: Model) -> Tensor:
    with torch.inference_mode():
        return model.eval()(pack(encodings()))["rtd"]  # type: ignore[no-any-return]


def their_logits(model: torch.nn.Module) -> Tensor:
    longest = max(LENGTHS)

    def padded(rows: list[np.ndarray]) -> Tensor:  # type: ignore[type-arg]
        return torch.tensor(np.stack([np.pad(row, (0, longest - len(row))) for row in rows]), dtype=torch.long)

    mask = padded([np.ones(n) for n in LENGTHS])
    ids, segments = ([getattr(e, name) for e in encodings()] for name in ("input_ids", "segment_ids"))
    with torch.inference_mode():
        out = model.eval()(input_ids=padded(ids), attention_mask=mask, token_type_ids=padded(segments))
    return out.logits[mask.bool()]  # type: ignore[no-any-return]


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.1, "logits too flat to prove anything"
    difference = (ours - theirs).abs().max().item()
    print(f"largest difference: {difference:.2g}")
    assert difference <= TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_opens_our_bundle(shape: str, tmp_path: Path) -> None:
    model = Model(SHAPES[shape], Heads(rtd=True, generator=1), seed=3)
    stir(model)
    bundle = save_model(tmp_path / "bundle", model, {}, {"task": "pretraining"})
    auto = transformers.AutoModelForPreTraining
    opened, loading = auto.from_pretrained(bundle.path, output_loading_info=True, attn_implementation="eager")
    assert type(opened).__name__ == "ElectraForPreTraining"
    assert not any(loading.values()), loading
    assert_same(logits_of(model), their_logits(opened))
    opened.save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again | {"transformers_version": bundle.config["transformers_version"]} == bundle.config


@pytest.mark.parametrize("shape", SHAPES)
def test_we_open_their_folder(shape: str, tmp_path: Path) -> None:
    save_model(tmp_path / "shape", Model(SHAPES[shape], HEADS), {}, {})
    config = transformers.AutoConfig.from_pretrained(tmp_path / "shape")
    theirs = transformers.ElectraForPreTraining._from_config(config, attn_implementation="sdpa")
    stir(theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(Bundle.open(tmp_path / "theirs"))
    assert ours.heads == HEADS
    assert ours.config == SHAPES[shape]
    assert_same(logits_of(ours), their_logits(theirs))
    adopted = adopt(tmp_path / "theirs", tmp_path / "adopted")
    assert adopted.task == "pretraining"
    assert torch.equal(logits_of(load_model(adopted)), logits_of(ours))


def test_the_bare_encoder_of_theirs_is_a_bert(tmp_path: Path) -> None:
    config = transformers.ElectraConfig(
        vocab_size=211, embedding_size=48, hidden_size=48, num_hidden_layers=2, intermediate_size=96
    )
    theirs = transformers.ElectraModel(config)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_model(Bundle.open(tmp_path / "theirs"), Heads(tag=5))
    assert torch.equal(ours.encoder.embeddings.word.weight, theirs.embeddings.word_embeddings.weight)
    with torch.inference_mode():
        ids = torch.arange(1, 40)
        expected = theirs.eval()(input_ids=ids[None]).last_hidden_state[0]
        batch = pack([Encoding(ids.numpy().astype(np.int32), np.zeros(39, np.int32))])
        assert torch.allclose(ours.eval().hidden(batch), expected, atol=TOLERANCE)


def test_what_is_no_bert_with_other_names_is_refused(tmp_path: Path) -> None:
    small = {"vocab_size": 211, "num_hidden_layers": 1, "intermediate_size": 32}
    narrow = transformers.ElectraForPreTraining(transformers.ElectraConfig(**small, embedding_size=16, hidden_size=32))
    narrow.save_pretrained(tmp_path / "narrow")
    with pytest.raises(BundleError, match=r"embedding_size = 16 is not supported; only that of hidden_size, 32"):
        load_model(Bundle.open(tmp_path / "narrow"))
    shape = transformers.ElectraConfig(**small, embedding_size=32, hidden_size=32)
    transformers.ElectraForMaskedLM(shape).save_pretrained(tmp_path / "generator")
    with pytest.raises(BundleError, match=r"architectures \['ElectraForMaskedLM'\] is not one of"):
        load_model(Bundle.open(tmp_path / "generator"))


@pytest.mark.parametrize("pairs", [False, True])
def test_a_modern_encoder_opens_without_what_transformers_lacks(pairs: bool, tmp_path: Path) -> None:
    shape = ModelConfig(
        architecture="modernbert", vocab_size=211, hidden_size=48, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=64,
    )  # fmt: skip
    model = Model(shape, Heads(rtd=True, generator=1, nsp=pairs), seed=3)
    stir(model)
    bundle = save_model(tmp_path / "bundle", model, {}, {"task": "pretraining"})
    opened, loading = transformers.AutoModel.from_pretrained(bundle.path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert type(opened).__name__ == "ModernBertModel"
    again = load_model(bundle)
    assert again.heads == Heads(rtd=True, nsp=pairs)
    assert torch.equal(logits_of(again), logits_of(model))
