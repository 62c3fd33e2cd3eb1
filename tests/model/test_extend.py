"""Rows for new pieces: means of the old ones, everything else as it was, and transformers agrees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.extend import ROWS, extend_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding, pack
from bertsmith.tasks.joining import join_texts
from bertsmith.tokenizer.extend import extend, old_pieces
from bertsmith.tokenizer.load import Tokenizer

WORDS = ["cardiology", "stent"]


def masked(tokenizer: Tokenizer, text: str) -> Encoding:
    return join_texts(tokenizer, tokenizer.encode([text], specials=True)[0].ids, None, 64)[0]


def shaped(architecture: str, tied: bool, vocab_size: int) -> ModelConfig:
    return ModelConfig(
        architecture=architecture,  # type: ignore[arg-type]
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=tied,
    )


def fresh(config: ModelConfig, heads: Heads) -> Model:
    model = Model(config, heads, seed=1).eval()
    with torch.no_grad():
        model.head["mlm"].bias.normal_(generator=torch.Generator().manual_seed(2))  # type: ignore[union-attr, operator]
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_new_rows_are_means_and_transformers_gives_the_same_logits(
    toy_tokenizer: Tokenizer, tmp_path: Path, architecture: str, tied: bool
) -> None:
    from transformers import AutoModelForMaskedLM

    longer = extend(toy_tokenizer, WORDS)
    pieces = old_pieces(toy_tokenizer, longer)
    model = fresh(shaped(architecture, tied, toy_tokenizer.vocab_size), Heads(mlm=True))
    extended = extend_model(model, pieces)
    old, new = model.state_dict(), extended.state_dict()
    assert extended.config.vocab_size == longer.vocab_size
    assert not extended.training
    size = toy_tokenizer.vocab_size
    for name, value in old.items():
        assert torch.equal(new[name][: len(value)], value)
        if name in ROWS:
            for number, parts in pieces.items():
                assert torch.equal(new[name][number], value[parts].mean(0))
    assert ("head.mlm.decoder.weight" in new) is not tied

    same = masked(toy_tokenizer, "the [MASK] is good")
    batch = pack([same], {"mlm_positions": torch.tensor([2])})
    with torch.no_grad():
        torch.testing.assert_close(extended(batch)["mlm"][:, :size], model(batch)["mlm"], rtol=0, atol=1e-5)
        sentence = masked(longer, "the stent is [MASK]")
        ours = extended(pack([sentence], {"mlm_positions": torch.arange(len(sentence))}))["mlm"]
    bundle = save_model(tmp_path / "b", extended, longer.files(architecture), {"task": "pretraining", "labels": []})
    theirs = AutoModelForMaskedLM.from_pretrained(bundle.path, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = theirs(torch.from_numpy(sentence.input_ids.astype("int64"))[None]).logits[0]
    assert logits.shape[1] == longer.vocab_size
    torch.testing.assert_close(ours, logits, rtol=0, atol=1e-4)


def test_rows_kept_free_are_filled_before_the_table_grows(toy_tokenizer: Tokenizer) -> None:
    size = toy_tokenizer.vocab_size
    pieces = old_pieces(toy_tokenizer, extend(toy_tokenizer, WORDS))
    model = fresh(shaped("bert", True, size + 1), Heads(mlm=True, nsp=True))
    extended = extend_model(model, pieces)
    assert extended.config.vocab_size == size + 2
    word = model.encoder.embeddings.word.weight
    assert torch.equal(extended.encoder.embeddings.word.weight[size], word[pieces[size]].mean(0))
    assert extend_model(fresh(shaped("bert", True, size + 64), Heads(mlm=True)), pieces).config.vocab_size == size + 64


def test_a_model_without_an_mlm_head(toy_tokenizer: Tokenizer) -> None:
    size = toy_tokenizer.vocab_size
    model = Model(shaped("bert", True, size), Heads(classify=2)).train()
    extended = extend_model(model, {size: [5, 6]})
    assert extended.training
    assert extended.heads == model.heads
    assert extended.encoder.embeddings.word.weight.shape[0] == size + 1
