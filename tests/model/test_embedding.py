"""Folders of sentence-transformers: what is read, what is written, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertsmith.core.errors import BundleError
from bertsmith.model.embedding import Embedding, pool, read_embedding, write_embedding
from bertsmith.model.packing import Encoding, pack


def folder(path: Path, embedding: Embedding, **changes: Any) -> Path:
    """A folder with these settings; `changes` replace files, `/` in a name written as two underscores."""
    files = {name: json.loads(data) for name, data in write_embedding(embedding, 32).items()}
    files |= {name.replace("__", "/") + ".json": content for name, content in changes.items()}
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "embedding",
    [Embedding("mean", True, 128), Embedding("cls", False, None), Embedding("mean", True, 512, "query: ")],
)
def test_what_is_written_is_read(tmp_path: Path, embedding: Embedding) -> None:
    assert read_embedding(folder(tmp_path, embedding)) == embedding


def test_another_folder_says_nothing(tmp_path: Path) -> None:
    assert read_embedding(tmp_path) is None


def test_new_spellings_are_read(tmp_path: Path) -> None:
    kinds = ["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"]
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.{kind}"}
        for n, (kind, path) in enumerate(zip(kinds, ["", "1_Pooling"], strict=True))
    ]
    pooling = {"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}
    length = {"transformer_task": "feature-extraction"}
    path = folder(
        tmp_path,
        Embedding("mean"),
        modules=modules,
        **{"1_Pooling__config": pooling},
        sentence_bert_config=length,
        tokenizer_config={"model_max_length": 77},
    )
    assert read_embedding(path) == Embedding("cls", False, 77)


DENSE = [
    {"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules": DENSE}, "modules Transformer, Pooling, Dense are not supported"),
        ({"modules": [{**DENSE[0], "path": "0_Transformer"}, DENSE[1]]}, "the encoder lies in 0_Transformer/"),
        ({"modules": {"idx": 0}}, "holds no list of modules"),
        ({"1_Pooling__config": {"pooling_mode_max_tokens": True}}, "pooling max is not supported"),
        (
            {"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}},
            "pooling cls and mean is not supported",
        ),
        ({"1_Pooling__config": {}}, "pooling of no kind is not supported"),
        ({"1_Pooling__config": []}, "holds no JSON object"),
        ({"1_Pooling__config": {"pooling_mode": "mean", "include_prompt": False}}, "include_prompt = false"),
        ({"sentence_bert_config": {"do_lower_case": True}}, "do_lower_case = true is not supported"),
        ({"config_sentence_transformers": {"prompts": {}, "default_prompt_name": "q"}}, "there is no prompt 'q'"),
    ],
)
def test_what_is_not_built_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_embedding(folder(tmp_path, Embedding("mean"), **changes))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, Embedding("mean"))
    (path / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(BundleError, match=r"1_Pooling/config\.json: cannot be read as JSON"):
        read_embedding(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_text_alone_has_the_vector_that_it_has_among_others(dtype: torch.dtype) -> None:
    hidden = torch.randn(12, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    encodings = [Encoding(np.zeros(n, np.int32), np.zeros(n, np.int32)) for n in (5, 7)]
    for how in ("mean", "cls"):
        together = pool(hidden, pack(encodings), how)
        alone = [pool(part, pack([one]), how) for part, one in zip(hidden.split([5, 7]), encodings, strict=True)]
        assert together.dtype == alone[0].dtype == dtype
        assert torch.allclose(together, torch.cat(alone), atol=1e-6 if dtype == torch.float32 else 1e-2)
