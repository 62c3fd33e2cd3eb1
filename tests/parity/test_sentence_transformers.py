"""Embeddings equal those of sentence-transformers, both ways, in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.core.bundle import Bundle
from bertsmith.model.adopt import adopt
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import load_model, save_model
from bertsmith.model.heads import Model
from bertsmith.predict.predictor import Predictor
from bertsmith.tokenizer.load import Tokenizer

sentence_transformers = pytest.importorskip("sentence_transformers")

TOLERANCE = 1e-5
TEXTS = [
    "",
    "Short.",
    "How do I send it back?",
    "naïve cafés — 你好，世界 😀 notwithstanding; 怎么退货？",
    "Neural networks are trained on text. " * 60,
]


def theirs(folder: Path) -> Any:
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def assert_same(ours: Predictor, other: Any, **how: Any) -> None:
    mine, found = ours.encode(TEXTS, **how), other.encode(TEXTS, convert_to_numpy=True)
    assert mine.shape == found.shape
    difference = float(np.abs(mine - found).max())
    print(f"largest difference: {difference:.2g}")
    assert difference <= TOLERANCE
    assert np.abs(found[1] - found[2]).max() > 1e-3


def open_ours(folder: Path) -> Predictor:
    return Predictor.open(folder, device="cpu", precision="fp32")


def test_the_published_folder_gives_the_published_vectors(minilm_dir: Path) -> None:
    predictor = open_ours(minilm_dir)
    assert_same(predictor, theirs(minilm_dir))
    assert predictor.tally.counts == {"cut_to_max_length": 1}
    assert predictor.similarity(TEXTS[2:3], TEXTS[1:2])[0, 0] == pytest.approx(
        float(theirs(minilm_dir).similarity(*theirs(minilm_dir).encode([TEXTS[2], TEXTS[1]]))), abs=TOLERANCE
    )


def test_a_folder_that_they_save_today_gives_their_vectors(minilm_dir: Path, tmp_path: Path) -> None:
    other = theirs(minilm_dir)
    other.save(str(tmp_path / "saved"), create_model_card=False)
    assert_same(open_ours(tmp_path / "saved"), other)


def test_an_adopted_folder_is_still_one_of_theirs(minilm_dir: Path, tmp_path: Path) -> None:
    bundle = adopt(minilm_dir, tmp_path / "adopted")
    assert bundle.task == "match"
    assert_same(open_ours(tmp_path / "adopted"), theirs(tmp_path / "adopted"))


@pytest.mark.parametrize(
    ("heads", "config"),
    [
        (Heads(embed="mean"), {"max_length": 64}),
        (Heads(embed="cls"), {"max_length": 128, "normalize": False}),
        (Heads(embed="mean"), {"max_length": 512, "prompt": "query: "}),
    ],
)
def test_they_open_our_bundle(minilm_dir: Path, tmp_path: Path, heads: Heads, config: dict[str, Any]) -> None:
    model = load_model(Bundle.open(minilm_dir), heads)
    tokenizer = Tokenizer.load(minilm_dir)
    settings = {"mode": "bi", "pooling": heads.embed, **config}
    files = tokenizer.files(max_length=model.config.max_position_embeddings)
    save_model(tmp_path / "bundle", model, files, {"task": "match", "labels": [], "task_config": settings})
    ours, other = open_ours(tmp_path / "bundle"), theirs(tmp_path / "bundle")
    assert other.max_seq_length == ours.max_length == config["max_length"]
    assert_same(ours, other)


@pytest.mark.parametrize("labels", [(), ("no", "yes")])
def test_their_cross_encoder_opens_ours(minilm_dir: Path, tmp_path: Path, labels: tuple[str, ...]) -> None:
    model = load_model(Bundle.open(minilm_dir), Heads(classify=max(1, len(labels))), seed=1)
    tokenizer = Tokenizer.load(minilm_dir)
    settings = {"labels": labels, "regression": not labels, "max_length": 64}
    files = tokenizer.files(max_length=model.config.max_position_embeddings)
    meta = {"task": "match", "labels": list(labels), "task_config": settings}
    save_model(tmp_path / "bundle", model, files, meta)
    pairs = [(TEXTS[2], TEXTS[1]), (TEXTS[3], TEXTS[2])]
    ours = open_ours(tmp_path / "bundle")
    other = sentence_transformers.CrossEncoder(str(tmp_path / "bundle"), device="cpu", local_files_only=True)
    if labels:
        found = other.predict(pairs, apply_softmax=True, convert_to_numpy=True)[:, 1]
        mine = [answer["probabilities"]["yes"] for answer in ours(pairs)]
    else:
        found = other.predict(pairs, activation_fn=torch.nn.Identity(), convert_to_numpy=True)
        mine = [answer["value"] for answer in ours(pairs)]
    assert mine == pytest.approx(found.tolist(), abs=TOLERANCE)
    assert ours.similarity([TEXTS[2]], [TEXTS[1]])[0, 0] == pytest.approx(mine[0], abs=TOLERANCE)


def test_they_open_our_modern_bundle(minilm_dir: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(minilm_dir)
    shape = ModelConfig(
        architecture="modernbert",
        vocab_size=tokenizer.vocab_size,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.1,
    )
    model = Model(shape, Heads(embed="mean"), seed=1)
    meta = {"task": "match", "labels": [], "task_config": {"mode": "bi", "max_length": 64}}
    save_model(tmp_path / "bundle", model, tokenizer.files("modernbert", max_length=512), meta)
    assert_same(open_ours(tmp_path / "bundle"), theirs(tmp_path / "bundle"))
