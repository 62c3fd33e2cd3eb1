"""Minimal pairs: the arithmetic against one sentence at a time, the files, the command line."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from bertsmith.cli.main import main
from bertsmith.core.bundle import Bundle
from bertsmith.core.errors import ConfigError, DataError
from bertsmith.evaluate.blimp import blimp, is_minimal_pairs, pseudo_log_likelihoods, read_pairs
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.model.packing import Encoding, pack
from bertsmith.predict.predictor import Predictor
from bertsmith.tasks.joining import join_texts
from bertsmith.tokenizer.load import Tokenizer


def row(good: str, bad: str, uid: str = "agreement", term: str = "morphology") -> str:
    return json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": uid, "linguistics_term": term})


ORDER = [
    row("Anna reads the red book in London.", "Anna reads red the book in London.", "order"),
    row("Bert writes the old book in Rome.", "Bert the writes old book in Rome.", "order"),
    row("Clara builds the green bridge in Paris.", "Clara builds the green in bridge Paris.", "order"),
]
PLACE = [row("David paints the new house in Paris.", "David paints the new house in house.", "place", "semantics")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pairs"
    place.mkdir()
    (place / "order.jsonl").write_text("\n".join(ORDER) + "\n")
    (place / "place.jsonl").write_text("\n".join(PLACE) + "\n\n")
    return place


def archive(path: Path, folder: Path) -> Path:
    with tarfile.open(path, "w:xz") as made:
        for file in sorted(folder.iterdir()):
            made.add(file, f"./data/{file.name}")
    return path


def opened(folder: Path, tokenizer: Tokenizer, shape: ModelConfig, heads: Heads) -> Predictor:
    save_model(folder, Model(shape, heads, seed=3), tokenizer.files(), {"task": "pretraining", "labels": []})
    return Predictor.open(folder, device="cpu", precision="fp32", batch_tokens=64)


@pytest.mark.parametrize("within_word", [False, True])
def test_a_score_is_the_sum_over_masked_pieces(
    tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, within_word: bool
) -> None:
    predictor = opened(
        tmp_path / "b", toy_tokenizer, toy_shape.model_copy(update={"initializer_range": 0.5}), Heads(mlm=True)
    )
    sentences = toy_tokenizer.encode(["The film was good.", "anna", "Her zebra is not boring, is it?", "london"])
    found = pseudo_log_likelihoods(predictor, sentences, within_word=within_word)
    for pieces, score in zip(sentences, found, strict=True):
        expected = 0.0
        for place, piece in enumerate(pieces.ids.tolist()):
            ids = join_texts(toy_tokenizer, pieces.ids, None, 64)[0].input_ids.copy()
            same = [i for i in range(place, len(pieces)) if pieces.words[i] == pieces.words[place]]
            for other in same if within_word else [place]:
                ids[other + 1] = toy_tokenizer.mask_id
            batch = pack([Encoding(ids, ids * 0)], {"mlm_positions": torch.tensor([place + 1])})
            with torch.no_grad():
                expected += float(torch.log_softmax(predictor.model(batch)["mlm"][0], -1)[piece])
        assert score == pytest.approx(expected, abs=1e-4)
    assert len(set(found)) == len(found)


def test_a_word_of_one_piece_is_scored_the_same_either_way(
    tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig
) -> None:
    predictor = opened(tmp_path / "b", toy_tokenizer, toy_shape, Heads(mlm=True))
    sentences = toy_tokenizer.encode(["The film was good.", "zebra"])
    one, other = (pseudo_log_likelihoods(predictor, sentences, within_word=flag) for flag in (False, True))
    assert one[0] == pytest.approx(other[0], abs=1e-5)
    assert one[1] != pytest.approx(other[1], abs=1e-5)


def test_a_trained_model_prefers_what_it_has_read(tiny_run: Path, folder: Path) -> None:
    found = blimp(Predictor(Bundle.open(tiny_run), device="cpu", precision="fp32"), folder)
    assert found["pairs"] == 4
    assert found["UID"].keys() == {"order", "place"}
    assert found["linguistics_term"].keys() == {"morphology", "semantics"}
    assert found["accuracy"] == (3 * found["UID"]["order"] + found["UID"]["place"]) / 4
    assert found["accuracy"] >= 0.75


def test_equal_sentences_are_not_told_apart(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "same.jsonl").write_text(row("Anna reads.", "Anna reads."))
    assert blimp(Predictor(Bundle.open(tiny_run), device="cpu"), tmp_path / "same.jsonl")["accuracy"] == 0


def test_a_folder_a_file_and_an_archive_hold_the_same(folder: Path, tmp_path: Path) -> None:
    packed = archive(tmp_path / "pairs.tar.xz", folder)
    pairs = read_pairs(folder)
    assert [pair.where.rpartition("/")[2] for pair in pairs] == [
        *(f"order.jsonl:{n}" for n in (1, 2, 3)),
        "place.jsonl:1",
    ]
    assert [(p.good, p.bad, p.uid, p.term) for p in read_pairs(packed)] == [
        (p.good, p.bad, p.uid, p.term) for p in pairs
    ]
    assert read_pairs(folder / "order.jsonl") == pairs[:3]
    assert len(read_pairs(packed, 1)) == 2
    assert all(map(is_minimal_pairs, (folder, packed, folder / "place.jsonl")))
    (tmp_path / "text.jsonl").write_text('{"text": "Anna reads."}\n')
    assert not any(map(is_minimal_pairs, (tmp_path / "text.jsonl", tmp_path / "none.tar", "pydoc:json")))


@pytest.mark.parametrize("packed", [False, True])
def test_a_pair_with_a_missing_field_is_named(folder: Path, tmp_path: Path, packed: bool) -> None:
    bad = json.dumps({"sentence_good": "Anna reads.", "UID": "order", "linguistics_term": ""})
    (folder / "order.jsonl").write_text("\n".join([ORDER[0], bad]))
    path = archive(tmp_path / "pairs.tar.xz", folder) if packed else folder
    with pytest.raises(DataError, match=r"order\.jsonl:2: a minimal pair needs a text in sentence_bad, ling"):
        read_pairs(path)
    (folder / "order.jsonl").write_text("[1]\n{")
    with pytest.raises(DataError, match=r"order\.jsonl:1: a minimal pair needs"):
        read_pairs(folder)
    (folder / "order.jsonl").write_text(ORDER[0] + "\n{")
    with pytest.raises(DataError, match=r"order\.jsonl:2: not a JSON object"):
        read_pairs(folder)


def test_what_holds_no_pairs_is_refused(folder: Path, tmp_path: Path) -> None:
    whole = archive(tmp_path / "pairs.tar.xz", folder).read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as a tar archive"):
        read_pairs(tmp_path / "cut.tar.xz")
    with tarfile.open(tmp_path / "empty.tar", "w") as made:
        made.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(DataError, match="holds no minimal pair"):
        read_pairs(tmp_path / "empty.tar")
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "none")


def test_a_model_without_the_head_and_a_sentence_without_an_end(
    tmp_path: Path, folder: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig
) -> None:
    with pytest.raises(ConfigError, match="no MLM head"):
        blimp(opened(tmp_path / "a", toy_tokenizer, toy_shape, Heads(nsp=True)), folder)
    (folder / "order.jsonl").write_text(row("good " * 63, "bad"))
    with pytest.raises(DataError, match=r"order\.jsonl:1: a sentence of 63 pieces; this model takes 1 to 62"):
        blimp(opened(tmp_path / "b", toy_tokenizer, toy_shape, Heads(mlm=True)), folder)


def test_the_published_archive(tiny_run: Path, data_dir: Path) -> None:
    path = data_dir / "tasks" / "blimp" / "data.tar.xz"
    assert is_minimal_pairs(path)
    found = blimp(Predictor(Bundle.open(tiny_run), device="cpu"), path, 1)
    assert (found["pairs"], len(found["UID"]), len(found["linguistics_term"])) == (67, 67, 13)


def test_the_command(tiny_run: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def evaluate(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", str(tiny_run), "--data", *map(str, arguments), "--threads", "1"])
        return (ended.value.code, *capsys.readouterr())

    packed = archive(tmp_path / "pairs.tar.xz", folder)
    code, shown, _ = evaluate(packed, "--json", "--set", "pairs_per_file=2")
    result = json.loads(shown)
    assert (code, result["task"], result["pairs"]) == (0, "minimal_pairs", 3)
    assert 0 <= result["scores"]["accuracy"] <= 1
    code, shown, _ = evaluate(folder, "--out", tmp_path / "out")
    assert code == 0
    assert "4 minimal pairs" in shown
    assert "semantics" in shown
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["UID"].keys() == {"order", "place"}
    code, _, told = evaluate(folder, "--set", "pairs=2")
    assert code == 2
    assert "pairs_per_file" in told
