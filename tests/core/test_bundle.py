from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bertsmith.core.bundle import Bundle, write_bundle
from bertsmith.core.errors import BundleError


def write(path: Path, value: float = 1.0, **meta: object) -> Bundle:
    tensors = {"a": torch.full((3, 4), value), "b": torch.arange(5)}
    labels = ["neg", "pos"]
    return write_bundle(
        path,
        config={"model_type": "bert", "name": "中文"},
        tensors=tensors,
        files={"vocab.txt": b"[PAD]\n"},
        meta={"task": "classify", "labels": labels, **meta},
    )


def test_what_is_written_opens_equal(tmp_path: Path) -> None:
    write(tmp_path / "bundle", lineage={"parent": "abc", "data": {}, "configs": {}})
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.task == "classify"
    assert bundle.labels == ["neg", "pos"]
    assert bundle.config["name"] == "中文"
    assert bundle.meta["lineage"]["parent"] == "abc"
    assert set(bundle.meta["files"]) == {"config.json", "model.safetensors", "vocab.txt"}
    assert bundle.meta["versions"]["torch"] == torch.__version__
    tensors = bundle.tensors()
    assert torch.equal(tensors["a"], torch.ones(3, 4))
    assert torch.equal(tensors["b"], torch.arange(5))


def test_tensors_that_share_memory_or_are_transposed_are_written_whole(tmp_path: Path) -> None:
    table = torch.arange(6.0).reshape(2, 3)
    tensors = {"in": table, "out": table, "turned": table.T, "part": table[1]}
    bundle = write_bundle(tmp_path / "b", config={}, tensors=tensors, files={}, meta={})
    assert all(torch.equal(bundle.tensors()[name], tensor) for name, tensor in tensors.items())


def test_the_hash_follows_the_weights(tmp_path: Path) -> None:
    first, again, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "c", value=2.0)
    assert first.hash == again.hash != other.hash


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocab.txt", "bertsmith.json"])
def test_a_flipped_bit_is_found_and_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "bundle")
    file = tmp_path / "bundle" / name
    data = bytearray(file.read_bytes())
    position = data.index(b"neg") if name == "bertsmith.json" else len(data) - 3
    data[position] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=name):
        Bundle.open(tmp_path / "bundle")


def test_a_file_cut_short_or_gone_is_named(tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    weights = tmp_path / "bundle" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BundleError, match="model.safetensors: has .* bytes, not"):
        Bundle.open(tmp_path / "bundle")
    (tmp_path / "bundle" / "vocab.txt").unlink()
    weights.unlink()
    with pytest.raises(BundleError, match="no model.safetensors here"):
        Bundle.open(tmp_path / "bundle")


def test_a_run_folder_means_its_bundle(tmp_path: Path) -> None:
    write(tmp_path / "run" / "bundle")
    assert Bundle.open(tmp_path / "run").path == tmp_path / "run" / "bundle"
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    with pytest.raises(BundleError, match=r"no bundle yet; finish it .* --resume"):
        Bundle.open(tmp_path / "unfinished")


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"pytorch_model.bin: .* refused; .*bertsmith convert .*old .*--trust-pickle"):
        Bundle.open(folder)


def test_a_plain_hugging_face_folder_opens(minilm_dir: Path) -> None:
    bundle = Bundle.open(minilm_dir)
    assert (bundle.task, bundle.labels, bundle.meta) == (None, [], {})
    assert bundle.tensors()["embeddings.word_embeddings.weight"].shape == (30522, 384)
    assert len(bundle.hash) == 64


def test_weights_in_several_files_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"10": "k", "9": "j"}}))
    save_file({"a": torch.ones(2)}, tmp_path / "part-1.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "part-2.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    bundle = Bundle.open(tmp_path)
    assert set(bundle.tensors()) == {"a", "b"}
    assert bundle.labels == ["j", "k"]
    (tmp_path / "part-2.safetensors").unlink()
    with pytest.raises(BundleError, match=r"part-2\.safetensors"):
        bundle.tensors()


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    write(tmp_path / "reviews")
    with pytest.raises(BundleError, match=r"no such folder; did you mean .*reviews\?"):
        Bundle.open(tmp_path / "revews")
    with pytest.raises(BundleError, match=r"no config\.json here"):
        Bundle.open(tmp_path)
    (tmp_path / "reviews" / "config.json").write_text("{broken")
    with pytest.raises(BundleError, match="cannot be read as JSON"):
        Bundle.open(tmp_path / "reviews")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="this is a file"):
        Bundle.open(tmp_path / "file")


def test_a_hub_name_offline_says_where_to_put_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BundleError, match=r"could not be fetched .*put config\.json.* into the folder \./some-model"):
        Bundle.open("some-model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("bertsmith.core.bundle.present", lambda module: False)
    with pytest.raises(BundleError, match=r"bertsmith\[hf\]"):
        Bundle.open("some-model")


def test_annotate_keeps_the_bundle_sound(tmp_path: Path) -> None:
    write(tmp_path / "bundle").annotate(scores={"accuracy": 0.9})
    assert Bundle.open(tmp_path / "bundle").meta["scores"] == {"accuracy": 0.9}


def test_a_new_bundle_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "bundle", value=1.0)
    write(tmp_path / "bundle", value=2.0)
    assert Bundle.open(tmp_path / "bundle").tensors()["a"][0, 0] == 2.0
    assert os.listdir(tmp_path) == ["bundle"]
