"""Writing from a source: one pass, step by step, and the search for the best text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from bertsmith.core.bundle import Bundle
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.decoder import Writing
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding, pack
from bertsmith.model.search import Search, write

BERT = ModelConfig(
    vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=64,
)  # fmt: skip
MODERN = ModelConfig(
    architecture="modernbert", vocab_size=40, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
    intermediate_size=48, max_position_embeddings=64, global_attention_every=2, local_attention=6,
)  # fmt: skip
MODELS = {
    "bert": (BERT, Heads(mlm=True)),
    "modernbert": (MODERN, Heads(mlm=True)),
    "bert with a decoder": (BERT, Heads(mlm=True, decoder=3)),
    "modernbert with a decoder": (MODERN, Heads(mlm=True, decoder=3)),
}
SOURCES, TEXTS = [9, 4, 4, 17], [5, 7, 7, 2]
CLS, SEP = 2, 3


def stirred(name: str) -> Model:
    """A model whose answers differ enough for a mistake to show."""
    model = Model(*MODELS[name], seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return model.eval()


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return stirred(request.param)


def sources(sizes: Sequence[int] = SOURCES) -> Batch:
    draw = np.random.default_rng(0)
    ids = [draw.integers(5, 40, size).astype(np.int32) for size in sizes]
    return pack([Encoding(one, np.zeros(len(one), np.int32)) for one in ids])


def texts(sizes: Sequence[int] = TEXTS) -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [[CLS, *draw.integers(5, 40, size - 1).tolist()] for size in sizes]


def taught(model: Model, batch: Batch, written: Sequence[Sequence[int]]) -> list[Tensor]:
    lengths = [len(ids) for ids in written]
    batch = replace(batch, targets=_targets(written, lengths))
    outputs = model(batch)["next"]
    return list(outputs.split(lengths))


def _targets(written: Sequence[Sequence[int]], lengths: list[int]) -> dict[str, Tensor]:
    return {
        "target_ids": torch.tensor([piece for ids in written for piece in ids]),
        "target_length": torch.tensor(lengths),
    }


def alone(batch: Batch, index: int) -> Batch:
    begin, end = batch.cu_seqlens[index : index + 2].tolist()
    ids = batch.input_ids[begin:end].numpy().astype(np.int32)
    return pack([Encoding(ids, np.zeros(len(ids), np.int32))])


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_one_pass_is_transformers_with_unilms_mask(name: str, tmp_path: Path) -> None:
    model, batch, written = stirred(name), sources(), texts()
    save_model(tmp_path / "bundle", model, {}, {})
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "bundle", attn_implementation="eager").eval()
    assert type(theirs).__name__ == ("BertForMaskedLM" if name == "bert" else "ModernBertForMaskedLM")
    if name == "bert":
        _, loading = transformers.BertLMHeadModel.from_pretrained(tmp_path / "bundle", output_loading_info=True)
        assert not any(loading.values()), loading
    with torch.inference_mode():
        ours = taught(model, batch, written)
    for index, (source, text) in enumerate(zip(SOURCES, TEXTS, strict=True)):
        ids = torch.cat([alone(batch, index).input_ids, torch.tensor(written[index])])[None]
        place = torch.arange(source + text)
        seen = (place[None, :] < source) | (place[None, :] <= place[:, None])
        segments = (place >= source).long()[None]
        full = torch.zeros(1, 1, source + text, source + text).masked_fill(~seen, torch.finfo(torch.float32).min)
        near = full.masked_fill((place[:, None] - place[None, :]).abs() > 3, torch.finfo(torch.float32).min)
        with torch.inference_mode():
            if name == "bert":
                logits = theirs(input_ids=ids, attention_mask=full, token_type_ids=segments).logits
            else:
                logits = theirs(
                    input_ids=ids, attention_mask={"full_attention": full, "sliding_attention": near}
                ).logits
        assert logits.std() > 0.1
        assert (logits[0, source:] - ours[index]).abs().max() < 2e-5


def test_the_source_does_not_depend_on_what_is_written(model: Model) -> None:
    with torch.inference_mode():
        many = taught(model, sources(), texts())
        for index, ids in enumerate(texts()):
            changed = [*ids[:-1], 39 - ids[-1] + 5]
            (one,) = taught(model, alone(sources(), index), [changed])
            assert (one[:-1] - many[index][:-1]).abs().max() < 1e-5  # packed equals single, and nobody looks ahead
            assert (one[-1] - many[index][-1]).abs().max() > 1e-3


def test_step_by_step_is_one_pass(model: Model) -> None:
    batch = sources()
    first, second = texts([8] * 4), [ids[::-1] for ids in texts([8] * 4)]
    with torch.inference_mode():
        one, other = taught(model, batch, first), taught(model, batch, second)
        writing = Writing.read(model, batch)
        writing.prepare(2, 8)
        for place in range(8):
            ids = torch.tensor([[a[place], b[place]] for a, b in zip(first, second, strict=True)])
            found = writing.step(ids)
            for index in range(4):
                assert (found[index, 0] - one[index][place]).abs().max() < 1e-5
                assert (found[index, 1] - other[index][place]).abs().max() < 1e-5


def test_gradients_reach_the_source_and_all_parts(model: Model) -> None:
    model.train()
    sum(logits.square().sum() for logits in taught(model, sources(), texts())).backward()  # type: ignore[union-attr]
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not without


def slow(model: Model, batch: Batch, how: Search) -> list[tuple[list[int], float]]:
    """Beam search as it is written in a book: the whole text again for every piece."""
    results = []
    for index in range(batch.num_sequences):
        going: list[tuple[list[int], float]] = [([], 0.0)]
        done: list[tuple[list[int], float, float]] = []
        for length in range(1, how.max_length + 1):
            options = []
            for ids, total in going:
                with torch.inference_mode():
                    (logits,) = taught(model, alone(batch, index), [[how.start, *ids]])
                scores = torch.log_softmax(logits[-1], -1).tolist()
                grams = {tuple(ids[at : at + 3]) for at in range(len(ids) - 2)}
                for piece, score in enumerate(scores):
                    if piece in how.banned or (piece == how.stop and length < how.min_length):
                        continue
                    if how.no_repeat_ngram_size and (*ids[-2:], piece) in grams:
                        continue
                    options.append((total + score, ids, piece))
            options.sort(key=lambda option: -option[0])
            going = []
            for rank, (total, ids, piece) in enumerate(options[: 2 * how.num_beams]):
                if piece == how.stop and rank < how.num_beams:
                    done.append((ids, total / length**how.length_penalty, total))
                elif piece != how.stop and len(going) < how.num_beams:
                    going.append(([*ids, piece], total))
            done = sorted(done, key=lambda one: -one[1])[: how.num_beams]
            best = going[0][1] / length**how.length_penalty
            if len(done) == how.num_beams and (how.num_beams == 1 or best <= done[-1][1]):
                break
        else:
            done += [(ids, total / length**how.length_penalty, total) for ids, total in going]
        ids, score, _ = max(done, key=lambda one: one[1])
        results.append((ids, score))
    return results


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("penalty", "ngram"), [(1.0, 0), (0.0, 0), (2.0, 3)])
def test_the_search_with_a_cache_is_the_search_without(model: Model, beams: int, penalty: float, ngram: int) -> None:
    batch = sources()
    how = Search(CLS, SEP, (0, 1, 2, 4), beams, 9, 2, penalty, ngram)
    with torch.no_grad():
        model.head["mlm"].bias[SEP] += 2.0  # so that some texts end and others do not
    with torch.inference_mode():
        found = write(Writing.read(model, batch), how)
    wanted = slow(model, batch, how)
    assert [one.ids for one in found] == [ids for ids, _ in wanted]
    assert [one.score for one in found] == pytest.approx([score for _, score in wanted], abs=1e-4)
    for one in found:
        ended = len(one.ids) < how.max_length  # by `stop`, which counts as a piece
        assert one.mean == pytest.approx(one.log_probability / (len(one.ids) + ended))
        assert not set(one.ids) & {0, 1, 2, 3, 4}
        grams = list(zip(one.ids, one.ids[1:], one.ids[2:], strict=False))
        assert not ngram or len(grams) == len(set(grams))


def test_enough_beams_find_the_best_of_all_texts() -> None:
    model = stirred("bert")
    batch = sources([6])
    allowed, longest = [5, 6, 7, SEP], 3
    how = Search(CLS, SEP, tuple(set(range(40)) - set(allowed)), 30, longest, 1, 0.0)
    best, text = -np.inf, None
    for size in range(longest + 1):
        for ids in itertools.product(allowed[:-1], repeat=size):
            with torch.inference_mode():
                (logits,) = taught(model, batch, [[CLS, *ids]])
            scores = torch.log_softmax(logits, -1)
            total = sum(float(scores[at, piece]) for at, piece in enumerate(ids))
            total += float(scores[size, SEP]) if size < longest else 0.0
            if total > best:
                best, text = total, list(ids)
    with torch.inference_mode():
        (found,) = write(Writing.read(model, batch), how)
    assert (found.ids, found.score) == (text, pytest.approx(best, abs=1e-4))


@pytest.mark.parametrize("name", MODELS)
def test_a_bundle_writes_as_the_model_did(name: str, tmp_path: Path) -> None:
    model = stirred(name)
    save_model(tmp_path / "bundle", model, {}, {})
    again = load_model(Bundle.open(tmp_path / "bundle")).eval()
    assert again.heads == model.heads
    with torch.inference_mode():
        for one, other in zip(taught(model, sources(), texts()), taught(again, sources(), texts()), strict=True):
            assert torch.equal(one, other)


def test_a_decoder_starts_from_the_encoders_layers(tmp_path: Path) -> None:
    model = stirred("bert")
    save_model(tmp_path / "bundle", model, {}, {})
    grown = load_model(Bundle.open(tmp_path / "bundle"), Heads(mlm=True, decoder=2))
    for index in range(2):
        ours, theirs = grown.head["decoder"].layers[index], model.encoder.layers[index]  # type: ignore[union-attr,index]
        assert torch.equal(ours.attention.qkv.weight, theirs.attention.qkv.weight)
        assert torch.equal(ours.mlp.down.bias, theirs.mlp.down.bias)
        assert ours.cross["kv"].weight.std() > 0
