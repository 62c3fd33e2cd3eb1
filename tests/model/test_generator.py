"""The generator's draws follow its probabilities, and the encoder is asked about what they make of the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import GENERATOR, load_model, save_model
from bertsmith.model.extend import extend_model
from bertsmith.model.generator import drawn, draws_of, generator_heads
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding, pack

BERT = ModelConfig(
    vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    max_position_embeddings=64,
)  # fmt: skip
MODERN = ModelConfig(
    architecture="modernbert", vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
    intermediate_size=48, max_position_embeddings=64, local_attention=8,
)  # fmt: skip
SHAPES = {"bert": BERT, "modernbert": MODERN}
HEADS = Heads(rtd=True, generator=1)


def batch_of(lengths: tuple[int, ...] = (9, 30, 17), seed: int = 0, **targets: torch.Tensor) -> Batch:
    rng = np.random.default_rng(seed)
    encodings = [
        Encoding(rng.integers(5, 50, n).astype(np.int32), (np.arange(n) > n // 2).astype(np.int32)) for n in lengths
    ]
    return pack(encodings, targets)


def masked(seed: int = 0) -> Batch:
    places = torch.tensor([1, 4, 12, 20, 33, 41, 50])
    draws = torch.rand(len(places), draws_of(50), generator=torch.Generator().manual_seed(seed))
    batch = batch_of(mlm_positions=places, mlm_draws=draws)
    return pack_with(batch, mlm_labels=batch.input_ids[places].clone())


def pack_with(batch: Batch, **targets: torch.Tensor) -> Batch:
    from dataclasses import replace

    ids = batch.input_ids.clone()
    ids[batch.targets["mlm_positions"]] = 4
    return replace(batch, input_ids=ids, targets={**batch.targets, **targets})


@pytest.mark.parametrize("vocabulary", [1, 2, 5, 16, 17, 300])
def test_pieces_are_drawn_as_often_as_they_are_probable(vocabulary: int) -> None:
    many = 40_000
    logits = 2 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    draws = torch.from_numpy(np.random.default_rng(1).random((many, draws_of(vocabulary)), np.float32))
    found = drawn(logits.expand(many, -1), draws)
    counts = torch.bincount(found, minlength=vocabulary).double()
    expected = many * torch.softmax(logits.double(), -1)
    assert len(counts) == vocabulary
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    # Mean V - 1, variance 2 (V - 1): five standard deviations off would be a mistake.
    assert abs(chi_squared - (vocabulary - 1)) <= 5 * max(1, 2 * (vocabulary - 1)) ** 0.5


def test_the_draw_of_a_row_does_not_depend_on_other_rows() -> None:
    logits, draws = torch.randn(30, 77), torch.rand(30, draws_of(77))
    whole = drawn(logits, draws)
    assert torch.equal(whole, torch.cat([drawn(logits[:11], draws[:11]), drawn(logits[11:], draws[11:])]))


def test_rounding_hardly_ever_changes_a_draw() -> None:
    """What two ways to cut a step differ by: with cumulated probabilities some 4 in 1,000 would change."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 30_000, generator=generator)
    draws = torch.rand(2000, draws_of(30_000), generator=generator)
    other = logits * (1 + 1e-6 * torch.randn(logits.shape, generator=generator))
    assert (drawn(logits, draws) != drawn(other, draws)).sum() <= 1


def test_extreme_numbers_still_draw_a_piece() -> None:
    logits = torch.full((3, 10), float("-inf"))
    logits[:, 7] = 0.0
    draws = torch.stack([torch.zeros(8), torch.full((8,), 1 - 2.0**-24), torch.full((8,), 0.5)])
    assert drawn(logits, draws).tolist() == [7, 7, 7]


def test_a_generator_is_a_share_of_the_encoder_in_whole_heads() -> None:
    assert [generator_heads(BERT, size) for size in (0.01, 0.25, 0.5, 0.6, 1.0)] == [1, 1, 2, 2, 4]
    for shape in SHAPES.values():
        model = Model(shape, Heads(rtd=True, generator=2))
        generator = model.head["generator"]
        assert generator.layers[0].attention.out.weight.shape == (16, 16)
        assert len(generator.layers) == shape.num_hidden_layers
        names = [name for name, _ in model.named_parameters() if "embeddings.word" in name]
        assert names == ["encoder.embeddings.word.weight"], "the table is there once"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_encoder_sees_the_generators_pieces_and_is_told_which_differ(shape: str) -> None:
    model = Model(SHAPES[shape], HEADS, seed=1).eval()
    batch = masked()
    places, labels = batch.targets["mlm_positions"], batch.targets["mlm_labels"]
    seen: list[Batch] = []
    model.encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    outputs = model(batch)
    generator = model.head["generator"]
    logits = F.linear(generator(model.encoder, batch), model.encoder.embeddings.word.weight, generator.bias)
    pieces = drawn(logits, batch.targets["mlm_draws"])
    assert torch.allclose(outputs["mlm_losses"], F.cross_entropy(logits, labels, reduction="none"))
    expected = batch.input_ids.clone()
    expected[places] = pieces
    assert torch.equal(seen[0].input_ids, expected)
    original = batch.input_ids.clone()
    original[places] = labels
    assert torch.equal(outputs["replaced"], expected != original)
    assert outputs["replaced"].any()
    assert outputs["rtd"].shape == (batch.num_tokens,)


def test_a_piece_that_happens_to_be_right_is_not_replaced() -> None:
    model = Model(BERT, HEADS, seed=1).eval()
    batch = masked()
    with torch.no_grad():
        model.head["generator"].bias[batch.targets["mlm_labels"][0]] = 100.0
    outputs = model(batch)
    same = batch.targets["mlm_labels"] == batch.targets["mlm_labels"][0]
    assert torch.equal(outputs["replaced"][batch.targets["mlm_positions"]], ~same)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_gradient_of_the_encoders_loss_reaches_the_generators_layers(shape: str) -> None:
    model = Model(SHAPES[shape], HEADS, seed=1)
    outputs = model(masked())
    outputs["rtd"].sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not [name for name in reached if name.startswith("head.generator")]
    assert {"encoder.embeddings.word.weight", "head.rtd.dense.weight"} <= reached
    model.zero_grad()
    model(masked())["mlm_losses"].sum().backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert "encoder.embeddings.word.weight" in reached
    assert {name for name in reached if name.startswith("encoder.layers")} == set()
    assert {name for name, _ in model.named_parameters() if name.startswith("head.generator")} <= reached


def test_keeping_less_of_each_layer_changes_no_gradient() -> None:
    found = []
    for again in (False, True):
        model = Model(BERT.model_copy(update={"hidden_dropout": 0.1}), HEADS, seed=1)
        model.encoder.checkpoint_activations = again
        torch.manual_seed(3)
        outputs = model(masked())
        (outputs["mlm_losses"].sum() + outputs["rtd"].sum()).backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_without_labels_the_generator_answers_for_the_masks() -> None:
    model = Model(BERT, HEADS, seed=1).eval()
    batch = batch_of(mlm_positions=torch.tensor([3, 11]))
    outputs = model(batch)
    assert outputs["mlm"].shape == (2, 50)
    assert "replaced" not in outputs


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of itself
def test_compiled_parts_draw_the_same() -> None:
    plain, compiled = (Model(BERT, HEADS, seed=1).eval() for _ in range(2))
    compiled.compile_parts(layers=True)
    one, two = plain(masked()), compiled(masked())
    assert torch.equal(one["replaced"], two["replaced"])
    for name in ("mlm_losses", "rtd"):
        assert torch.allclose(one[name], two[name], atol=1e-5)


def test_a_bundle_is_an_encoder_with_its_generator_beside_it(tmp_path: Path) -> None:
    model = Model(BERT, HEADS, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    bundle = save_model(tmp_path / "bundle", model, {}, {"task": "pretraining"})
    assert bundle.config["model_type"] == "electra"
    assert not [name for name in bundle.tensors() if "generator" in name]
    assert load_model(bundle).heads == Heads(rtd=True)
    whole = load_model(bundle, HEADS, seed=7).state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())
    other = load_model(bundle, Heads(rtd=True, generator=2), seed=7).state_dict()
    fresh = Model(BERT, Heads(rtd=True, generator=2), seed=7).state_dict()
    assert torch.equal(other["head.generator.dense.weight"], fresh["head.generator.dense.weight"])
    assert torch.equal(other["encoder.layers.1.mlp.up.weight"], whole["encoder.layers.1.mlp.up.weight"])
    learning = load_model(bundle, Heads(classify=3))
    assert torch.equal(learning.encoder.layers[0].mlp.up.weight, model.encoder.layers[0].mlp.up.weight)
    (bundle.path / GENERATOR).write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="cannot read the generator"):
        load_model(Bundle.open(bundle.path, verify=False), HEADS)


def test_a_longer_vocabulary_keeps_the_generator() -> None:
    model = Model(BERT, HEADS, seed=1)
    with torch.no_grad():
        model.head["generator"].bias.copy_(torch.arange(50.0))
    grown = extend_model(model, {50: [3, 5], 51: [7]})
    assert grown.head["generator"].bias[50:].tolist() == [4.0, 7.0]
    assert torch.equal(grown.head["generator"].dense.weight, model.head["generator"].dense.weight)
