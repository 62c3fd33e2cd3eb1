from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bertsmith.core.errors import ConfigError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model, Taps
from bertsmith.model.packing import Batch, Encoding, pack
from bertsmith.model.shrink import Kept, cut, shape_of, size

SHAPES = {
    "bert": ModelConfig(
        vocab_size=40, hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=16,
    ),
    "modernbert": ModelConfig(
        architecture="modernbert", vocab_size=40, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
        intermediate_size=20, max_position_embeddings=16,
    ),
}  # fmt: skip
HEADS = Heads(mlm=True, classify=2, tag=3, answer=True)
UNITS = [[0, 2, 3, 5, 9], [1, 2, 3, 4, 5], [15, 16, 17, 18, 19]]


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Model:
    made = Model(SHAPES[request.param], HEADS, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return made


@pytest.fixture(scope="module")
def batch() -> Batch:
    draw = np.random.default_rng(0)
    ids = [draw.integers(0, 30, n).astype(np.int32) for n in (4, 7, 7)]
    return pack([Encoding(one, np.zeros(len(one), np.int32)) for one in ids])


def outputs(model: Model, batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        return model.eval()(batch)  # type: ignore[no-any-return]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value - other[name]).abs().max() < 1e-5, name


def test_units_that_give_nothing_can_go_without_a_trace(model: Model, batch: Batch) -> None:
    with torch.no_grad():
        for layer, units in zip(model.layers, UNITS, strict=True):
            gone = [n for n in range(20) if n not in units]
            layer.mlp.down.weight[:, gone] = 0.0
    before = outputs(model, batch)
    cut(model, Kept(units=UNITS))
    assert model.layers[0].mlp.down.weight.shape == (24, 5)
    assert model.config.intermediate_size == 5
    assert_same(before, outputs(model, batch))


def test_heads_and_dimensions_go_together(model: Model, batch: Batch) -> None:
    """The small model is the one that a whole one would be if it had been built of the same rows and columns."""
    kept = Kept(heads=[[0, 2], [0, 1], [1, 2]], dims=[*range(10), *range(14, 20)])
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    cut(model, kept)
    again = Model(model.config, HEADS)
    again.load_state_dict(model.state_dict())
    assert_same(outputs(again, batch), outputs(model, batch))
    rows = whole["encoder.layers.1.attention.qkv.weight"].view(3, 3, 8, 24)[:, [0, 1]][..., list(kept.dims or ())]
    assert torch.equal(model.layers[1].attention.qkv.weight, rows.reshape(48, 16))
    out = whole["encoder.layers.0.attention.out.weight"].view(24, 3, 8)[list(kept.dims or ())][:, [0, 2]]
    assert torch.equal(model.layers[0].attention.out.weight, out.reshape(16, 16))


def test_layers_and_pieces() -> None:
    model = Model(SHAPES["bert"], HEADS, seed=3)
    third = model.layers[2].mlp.up.weight.clone()
    words = model.encoder.embeddings.word.weight[[1, 5, 7, 8, 9, 11]].clone()
    cut(model, Kept(layers=[0, 2], pieces=[1, 5, 7, 8, 9, 11]))
    assert model.config.num_hidden_layers == len(model.layers) == 2
    assert torch.equal(model.layers[1].mlp.up.weight, third)
    assert torch.equal(model.encoder.embeddings.word.weight, words)
    assert model.state_dict()["head.mlm.bias"].shape == (6,)
    assert sum(parameter.numel() for parameter in model.parameters()) == size(model.config, HEADS)


def test_the_optimiser_goes_on_as_if_the_model_had_always_been_small(model: Model, batch: Batch) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss(model, batch).backward()
    optimizer.step()
    cut(model, Kept(units=UNITS), optimizer)
    twin = Model(model.config, HEADS)
    twin.load_state_dict(model.state_dict())
    other = torch.optim.AdamW(twin.parameters(), lr=1e-3)
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        other.state[theirs] = {key: value.clone() for key, value in optimizer.state[mine].items()}
        if mine in optimizer.state and "exp_avg" in optimizer.state[mine]:
            assert optimizer.state[mine]["exp_avg"].shape == mine.shape
    for one, by in ((model, optimizer), (twin, other)):
        loss(one.eval(), batch).backward()
        by.step()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def loss(model: Model, batch: Batch) -> Tensor:
    found = model.eval()(batch)
    return torch.stack([found[name].square().sum() for name in ("classify", "tag", "answer")]).sum()


OTHERS = Heads(tag=3, crf=True, span=2, relate=4, choose=True)


def test_every_head_is_cut_where_it_reads_the_residual_stream(batch: Batch) -> None:
    """Those that know nothing of it stay as they are; relations read it twice, side by side."""
    model = Model(SHAPES["bert"], OTHERS, seed=1).eval()
    marked = replace(batch, reads=torch.tensor([[1, 2], [5, 4], [12, 11]]))
    kept = Kept(heads=[[0, 2], [0, 1], [1, 2]], dims=[*range(10), *range(14, 20)])
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    cut(model, kept)
    dims = torch.tensor(kept.dims)
    both = torch.cat([dims, 24 + dims])
    expected = {
        "head.crf.table": whole["head.crf.table"],
        "head.span.types.weight": whole["head.span.types.weight"],
        "head.span.ends.weight": whole["head.span.ends.weight"][:, dims],
        "head.span.ends.bias": whole["head.span.ends.bias"],
        "head.relate.dense.weight": whole["head.relate.dense.weight"][dims][:, both],
        "head.relate.dense.bias": whole["head.relate.dense.bias"][dims],
        "head.relate.output.weight": whole["head.relate.output.weight"][:, dims],
        "head.choose.weight": whole["head.choose.weight"][:, dims],
        "head.tag.weight": whole["head.tag.weight"][:, dims],
    }
    found = model.state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert sum(parameter.numel() for parameter in model.parameters()) == size(model.config, OTHERS)
    again = Model(model.config, OTHERS)
    again.load_state_dict(found)
    assert_same(outputs(again, marked), outputs(model, marked))


def test_layers_that_write_stay_as_wide_as_the_encoder() -> None:
    model = Model(SHAPES["bert"], Heads(mlm=True, decoder=1), seed=1)
    with pytest.raises(ConfigError, match="take out whole layers of the encoder"):
        cut(model, Kept(units=UNITS))
    cut(model, Kept(layers=[0, 2]))
    assert model.config.num_hidden_layers == len(model.layers) == 2


def test_a_shape_that_no_config_has_is_refused_and_nothing_changes(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"2 heads of 8 and a width of 24"):
        cut(model, Kept(heads=[[0, 1]] * 3))
    assert model.layers[0].attention.qkv.weight.shape == (72, 24)


def test_layers_of_a_modernbert_cannot_go() -> None:
    with pytest.raises(ConfigError, match="which of them see far follows from their places"):
        shape_of(SHAPES["modernbert"], Kept(layers=[0, 2]))


def test_what_is_shown_besides(model: Model, batch: Batch) -> None:
    taps = Taps(hidden=(0, 1, 3), qkv=(3,))
    with torch.no_grad():
        shown, plain = model.outputs(batch, taps), model(batch)
    assert shown.keys() - plain.keys() == {"hidden.0", "hidden.1", "hidden.3", "qkv.3"}
    assert_same(plain, {name: shown[name] for name in plain})
    assert shown["qkv.3"].shape == (18, 3, 3, 8)
    with torch.no_grad():
        assert torch.equal(model.encoder.last(shown["hidden.3"]), model.hidden(batch))
    model.taps = taps
    assert model.eval()(batch).keys() == plain.keys()
    assert model.train()(batch).keys() == shown.keys()
