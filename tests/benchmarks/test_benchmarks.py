"""Each benchmark still runs, in a toy size: what cannot be run cannot be repeated."""

from __future__ import annotations

import json
import lzma
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.tokenizer.load import Tokenizer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the real data is, of made-up text in both languages."""
    data = tmp_path_factory.mktemp("data")
    chance = random.Random(0)
    words = ["".join(chance.choices("aeiounstrlk", k=chance.randint(2, 7))) for _ in range(300)]
    names = ["Anna Kern", "Berlin", "Acme"]
    characters = "我们在北京上海看书听歌很好不错吃饭工作学习中国人大家今天"

    def put(path: str, text: str) -> None:
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes(lzma.compress(text.encode()))

    def english() -> str:
        return " ".join(chance.choices(words, k=12)).capitalize() + "."

    def short() -> str:
        return " ".join(" ".join(chance.choices(words, k=3)).capitalize() + "." for _ in range(6))

    def chinese() -> str:
        return "".join(chance.choices(characters, k=15)) + "。"

    for path, sentence in (("enwiki", english), ("zhwiki", chinese)):
        documents = (
            f'<doc id="{n}" title="T{n}">\nT{n}\n\n' + " ".join(sentence() for _ in range(12)) + "\n</doc>"
            for n in range(60)
        )
        put(f"corpus/{path}.txt.xz", "\n".join(documents) + "\n")
    reviews = [json.dumps({"text": short(), "label": ("negative", "positive")[n % 2]}) + "\n" for n in range(40)]
    put("corpus/imdb-unlabelled.jsonl.xz", "".join(reviews))
    for split in ("train", "test"):
        put(f"tasks/imdb/{split}.jsonl.xz", "".join(reviews))
    tagged = "\n\n".join(
        "\n".join(
            [*(f"{word} X X O" for word in chance.sample(words, 4)), f"{names[n % 3].split()[0]} X X B-{'PLO'[n % 3]}"]
        )
        for n in range(20)
    )
    for split in ("train", "dev", "test"):
        put(f"tasks/conll2003/{split}.txt.xz", tagged + "\n")
        rows = "".join(f"{n % 2}\t{chinese()}\n" for n in range(20))
        put(f"tasks/chnsenticorp/{split}.tsv.xz", "label\ttext_a\n" + rows)
    for split in ("train", "dev", "test-labeled"):
        rows = "".join(f"{short()}\t{n % 2}\n" for n in range(24))
        put(f"tasks/sst2/{split}.tsv.xz", "sentence\tlabel\n" + rows)
    pairs = [(english(), english(), chinese(), chinese()) for _ in range(24)]
    for split in ("train", "dev"):
        rows = "".join(f"{n}\t{a}\t{b}\t{n / 5:.3f}\n" for n, (a, b, *_) in enumerate(pairs))
        put(f"tasks/stsb/{split}.tsv.xz", "index\tsentence1\tsentence2\tscore\n" + rows)
    many = "".join(f"{n}\t{chinese()}\t{chinese()}\t{n % 2}\n" for n in range(1040))
    put("tasks/atec/atec_nlp_sim_train.csv.xz", "\ufeff" + many)
    articles = [
        {
            "paragraphs": [
                {"context": b, "qas": [{"id": a, "question": a, "answers": [{"text": b[:3], "answer_start": 0}]}]}
                for a, b, *_ in pairs[n::4]
            ]
        }
        for n in range(4)
    ]
    for split in ("train", "val", "test_2016_flickr"):
        for side in ("en", "de"):
            put(f"tasks/multi30k/{split}.{side}.xz", "".join(english() + "\n" for _ in range(20)))
        named = {"val": "dev"}.get(split, split.partition("_")[0])
        abstracts = [{"source": [english() for _ in range(4)], "target": [english()]} for _ in range(12)]
        put(f"tasks/scitldr/{named}.jsonl.xz", "".join(json.dumps(row) + "\n" for row in abstracts))
    put("tasks/tatoeba-en-zh/cmn.txt.xz", "".join(f"{english()}\t{chinese()}\n" for _ in range(40)))
    for split in ("dev", "test"):
        talks = "".join(" __eou__ ".join(english() for _ in range(4)) + " __eou__\t1\t1 2 3 4\n" for _ in range(16))
        put(f"tasks/xdailydialog/en_{split}.txt.xz", talks)
    put("tasks/squad/dev-v1.1.json.xz", json.dumps({"data": articles}))
    for split in ("train", "test"):
        rows = "".join(f"{english()},intent {n % 3}\n" for n in range(30))
        put(f"tasks/banking77/{split}.csv.xz", "text,category\n" + rows)
    opinions = "".join(f"{english()}@{('neutral', 'positive', 'negative')[n % 3]}\r\n" for n in range(400))
    put("tasks/financial-phrasebank/Sentences_50Agree.txt.xz", "\ufeff" + opinions)
    for file in ("TRAIN_FILE", "TEST_FILE_FULL"):
        relations = "".join(
            f'{n}\t"The <e1>{words[n]}</e1> {words[n + 1]} the <e2>{words[n + 2]}</e2>."\n'
            f"{('Cause-Effect(e1,e2)', 'Other')[n % 2]}\nComment:\n\n"
            for n in range(24)
        )
        put(f"tasks/semeval2010-task8/{file}.TXT.xz", relations)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *letters, *(f"##{letter}" for letter in letters)]
    put("vocab/bert-base-uncased.txt.xz", "\n".join(pieces) + "\n")
    return data


@pytest.fixture(scope="module")
def toy_encoder(tmp_path_factory: pytest.TempPathFactory, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Path:
    """An encoder with fresh weights."""
    folder = tmp_path_factory.mktemp("encoder") / "bundle"
    return save_model(folder, Model(toy_shape, Heads(mlm=True)), toy_tokenizer.files(), {}).path


def run(script: str, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(BENCHMARKS / script), "--tiny", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("case", ["small", "uneven"])
def test_pretraining_is_compared_with_transformers(toy_data: Path, case: str) -> None:
    pytest.importorskip("accelerate")
    sides = "ours,trainer-fp32,trainer-bf16"
    sizes = ["--rounds", "1", "--steps", "3", "--warmup", "1", "--case", case]
    lines = run("pretrain_vs_transformers.py", "--data", str(toy_data), "--sides", sides, *sizes)
    assert [line["side"] for line in lines] == ["ours", "trainer-fp32", "trainer-bf16"]
    assert (lines[0]["share"] is None) == (case == "uneven")
    for line in lines:
        assert line["tokens_per_second"] > 0
        assert line["whole_run"] < line["tokens_per_second"] * 1.5
        assert line["startup"] > 0


@pytest.mark.slow
def test_what_becomes_smaller_is_compared_with_its_teacher(
    toy_data: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    shape = toy_shape.model_copy(update={"num_hidden_layers": 2, "intermediate_size": 256})
    base = save_model(tmp_path / "base", Model(shape, Heads(mlm=True)), toy_tokenizer.files(), {}).path
    where = ["--base", str(base), "--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--threads", "1"]
    lines = run("compress.py", *where, "--layers", "1", "--results", str(tmp_path / "compress.json"))
    by = {line["model"]: line for line in lines}
    teacher, composed = by["teacher"], by["composed"]
    assert list(by)[:4] == ["teacher", "teacher, best precision", "teacher, ONNX", "distilled"]
    assert by["pruned"]["parameters"] <= 0.6 * teacher["parameters"]
    assert composed["parameters"] < by["distilled"]["parameters"] < teacher["parameters"]
    assert composed["engine"].startswith("onnx int8")
    for line in lines:
        assert line["drop"] == pytest.approx(100 * (teacher["score"] - line["score"]))
        assert line["smaller"] == pytest.approx(teacher["mb"] / line["mb"])
        assert line["faster"]["32"] == pytest.approx(teacher["milliseconds"]["32"] / line["milliseconds"]["32"])
    assert len(json.loads((tmp_path / "compress.json").read_text())["claims"]) == 8


def test_a_command_s_memory_is_measured_phase_by_phase(toy_data: Path) -> None:
    once, twice = run("memory.py", "--data", str(toy_data), "--steps", "2")
    assert (once["copies"], twice["copies"]) == (1, 2)
    assert twice["text_mb"] == pytest.approx(2 * once["text_mb"])
    for line in (once, twice):
        assert set(line["phases"]) == {"vocabulary", "preparation", "training"}
        assert 50 < line["phases"]["training"] <= line["tree"]


def test_the_memory_of_a_preparation_is_measured(toy_data: Path) -> None:
    once, twice = run("prepare_memory.py", "--data", str(toy_data), "--rounds", "1", "2")
    assert twice["text_mb"] == pytest.approx(2 * once["text_mb"], rel=0.01)
    assert twice["documents"] == 2 * once["documents"] > 0
    for line in (once, twice):
        assert 50 < line["largest_mb"] <= line["tree_mb"] < 2000


def test_planted_copies_are_looked_for(toy_data: Path) -> None:
    english, chinese = run("duplicates.py", "--data", str(toy_data), "--grow", "2")
    assert (english["language"], chinese["language"]) == ("en", "zh")
    for line in (english, chinese):
        assert line["documents"] == 80
        assert 0 < line["planted"] <= line["left_out"] + 1
        assert min(line["recall"], line["precision"]) > 0.9
        assert line["same"]
        assert line["mb_per_second"] > 0
        assert line["peak_mb"] > 10


def test_vocabularies_are_compared_with_the_published_one(toy_data: Path) -> None:
    chinese, english = run("vocabulary.py", "--data", str(toy_data))
    assert chinese["often_unknown"] == []
    assert chinese["often"] == chinese["characters"] > 20
    assert english["published_pieces"] == 58
    assert 1 <= english["seen_ours"] <= english["held_out_ours"] < english["held_out_published"]
    assert english["seen_ratio"] == english["seen_ours"] / english["seen_published"]


def test_tasks_are_learned_from_an_encoder_and_from_nothing(toy_data: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    asked = ["--cases", "conll2003,chnsenticorp", "--seeds", "1,2"]
    lines = run("downstream.py", *places, *asked)
    assert [(line["case"], line["init"]) for line in lines] == [
        ("conll2003", "bundle"),
        ("conll2003", "random"),
        ("chnsenticorp", "bundle"),
        ("chnsenticorp", "random"),
        ("chnsenticorp", "tf-idf"),
    ]
    assert all(len(line["each"]) == (1 if line["init"] == "tf-idf" else 2) and 0 <= line["mean"] <= 1 for line in lines)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"] == lines
    assert run("downstream.py", *places, *asked) == lines, "a finished benchmark is read, not run again"


def test_tasks_are_learned_from_published_weights(toy_data: Path, toy_encoder: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    lines = run("published.py", *places, "--from", str(toy_encoder), "--seeds", "1", "--threads", "1")
    assert [(line["case"], line["how"]) for line in lines] == [
        ("banking77", "tf-idf"),
        ("banking77", "MiniLM"),
        ("phrasebank", "tf-idf"),
        ("phrasebank", "MiniLM"),
        ("semeval", "MiniLM"),
        ("squad", "MiniLM"),
    ]
    assert all(0 <= line["mean"] == line["scores"][line["score"]] <= 1 for line in lines)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"] == lines
    learned, held_out = (
        (tmp_path / "runs" / f"phrasebank-{part}.txt").read_text(encoding="utf-8").splitlines()
        for part in ("train", "test")
    )
    assert (len(learned), len(held_out), set(learned) & set(held_out)) == (320, 80, set())


def test_texts_are_compared_as_they_are_and_learned(toy_data: Path, toy_encoder: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    asked = ["--from", str(toy_encoder), "--seeds", "1,2", "--rows", "8", "--threads", "1"]
    asked += ["--set", "train.precision=fp32"]  # in bf16 so small a model may say the same of all
    lines = run("matching.py", *places, *asked)
    plain = ["tf-idf", "as it is"]
    assert [(line["case"], line["how"]) for line in lines] == [
        *(("stsb", how) for how in [*plain, "bi", "cross"]),
        *(("atec", how) for how in [*plain, "bi", "cross"]),
        *(("squad", how) for how in [*plain, "bi"]),
    ]
    for line in lines:
        assert len(line["each"]) == (1 if line["how"] in plain else 2)
        assert -1 <= line["mean"] <= 1
        assert line["mean"] == pytest.approx(line["scores"][line["score"]])
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"] == lines


def test_texts_are_written_chosen_and_found(toy_data: Path, toy_encoder: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--from", str(toy_encoder), "--runs", str(tmp_path / "runs")]
    asked = ["--measured", "8", "--beams", "2", "--threads", "1", "--results", str(tmp_path / "result.json")]
    rows = run("generation.py", *places, *asked)
    ways: dict[str, list[str]] = {}
    for row in rows:
        ways.setdefault(row["case"], []).append(row["how"])
    assert ways["multi30k"] == ways["tatoeba"] == ways["respond"] == [
        "most frequent", "copy", "learned", "learned, 2 beams",
    ]  # fmt: skip
    assert ways["scitldr"] == ["most frequent", "lead", "copy", "oracle (a bound)", "learned"]
    assert ways["select"] == ["BM25 among 20", "bi-encoder", "cross-encoder", "bi, then cross for its best 10"]
    assert ways["choose"] == ["BM25", "learned"]
    assert all(0 <= row["value"] <= 1 for row in rows)


@pytest.mark.slow
def test_small_parts_are_compared(toy_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    methods = "full,lora,adalora"
    asked = ["--cases", "conll2003", "--methods", methods, "--seeds", "1", "--base", str(tiny_run / "bundle")]
    lines = run("peft_table.py", *places, *asked, "--threads", "1")
    assert [line["method"] for line in lines] == methods.split(",")
    full, lora, adalora = lines
    assert full["share"] == 1.0
    assert lora["share"] < adalora["share"] < 0.5
    assert lora["saved_mb"] < full["saved_mb"]
    assert set(adalora["ranks"]) != set()
    assert sum(adalora["ranks"].values()) == 8 * len(adalora["ranks"])
    for line in lines:
        assert line["seconds"] > 0
        assert line["peak_mb"] > 50
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"] == lines
    assert run("peft_table.py", *places, *asked) == lines, "a finished benchmark is read, not run again"


@pytest.mark.slow
def test_fine_tuning_is_compared_with_transformers(toy_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    asked = ["--cases", "stsb,conll2003", "--seeds", "1", "--base", str(tiny_run / "bundle"), *places]
    lines = run("glue.py", *asked)
    assert [line["case"] for line in lines] == ["stsb", "conll2003"]
    for line in lines:
        assert line["speed"] > 0
        for side in ("ours", "trainer"):
            assert -1 <= line[side]["mean"] <= 1
            assert line[side]["seconds_per_epoch"] > 0
    assert {"f1", "f1_conlleval"} <= lines[1]["trainer"]["test"].keys() & lines[1]["ours"]["test"].keys()
    assert run("glue.py", *asked) == lines, "a finished benchmark is read, not run again"


def test_the_heads_of_a_tagger_are_compared(toy_encoder: Path, tmp_path: Path) -> None:
    import lzma

    rows = [{"text": "我在北京很好", "label": {"address": {"北京": [[2, 3]]}}}] * 4
    (tmp_path / "tasks" / "cluener").mkdir(parents=True)
    for split in ("train", "dev"):
        content = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
        (tmp_path / "tasks" / "cluener" / f"{split}.json.xz").write_bytes(lzma.compress(content))
    places = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    asked = ["--from", str(toy_encoder), "--seeds", "1", *places]
    lines = run("tagging_heads.py", *asked)
    assert [line["head"] for line in lines] == ["token", "crf", "span"]
    assert all(0 <= line["f1"] <= 1 and line["seconds"] > 0 for line in lines)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"] == lines
    assert run("tagging_heads.py", *asked) == lines, "a finished benchmark is read, not run again"


@pytest.mark.slow
def test_options_are_set_beside_a_plain_run(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks" / "rte").mkdir(parents=True)
    words = ("red", "old", "new", "green")
    rows = [f"{i}\tthe {w} book is {w}\tit is {v}\t{'entailment' if v == w else 'not_entailment'}"
            for i, (w, v) in enumerate((w, v) for w in words for v in words)]  # fmt: skip
    content = "\n".join(["index\tsentence1\tsentence2\tlabel", *rows]).encode()
    for split in ("train", "dev"):
        (tmp_path / "tasks" / "rte" / f"{split}.tsv.xz").write_bytes(lzma.compress(content))
    places = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    asked = ["--case", "rte", "--options", "r_drop,fgm,label_smoothing", "--seeds", "1,2", "--threads", "1"]
    lines = run("options.py", *places, *asked, "--base", str(tiny_run / "bundle"))
    assert [line["option"] for line in lines] == ["plain", "r_drop", "fgm", "label_smoothing"]
    for line in lines:
        assert len(line["each"]) == 2
        assert line["seconds"] > 0
        assert line["delta"] == pytest.approx(line["mean"] - lines[0]["mean"])
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rows"] == lines


@pytest.mark.slow
def test_tasks_together_are_set_beside_each_alone(tiny_run: Path, tmp_path: Path) -> None:
    for case in ("rte", "sst2"):
        (tmp_path / "tasks" / case).mkdir(parents=True)
    words = ("red", "old", "new", "green")
    pairs = [f"{i}\tthe {w} book is {w}\tit is {v}\t{'entailment' if v == w else 'not_entailment'}"
             for i, (w, v) in enumerate((w, v) for w in words for v in words)]  # fmt: skip
    texts = [f"the {w} {thing} is {w}\t{i % 2}" for i, w in enumerate(words) for thing in ("book", "house")]
    for split in ("train", "dev"):
        content = "\n".join(["index\tsentence1\tsentence2\tlabel", *pairs]).encode()
        (tmp_path / "tasks" / "rte" / f"{split}.tsv.xz").write_bytes(lzma.compress(content))
        content = "\n".join(["sentence\tlabel", *texts]).encode()
        (tmp_path / "tasks" / "sst2" / f"{split}.tsv.xz").write_bytes(lzma.compress(content))
    places = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    asked = [*places, "--tasks", "rte,sst2", "--seeds", "1,2", "--threads", "1", "--base", str(tiny_run / "bundle")]
    lines = run("multitask.py", *asked)
    assert [line["case"] for line in lines] == ["rte", "sst2"]
    for line in lines:
        assert len(line["alone"]) == len(line["together"]) == 2
        assert line["delta"] == pytest.approx(sum(line["together"]) / 2 - sum(line["alone"]) / 2)
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["rows"] == lines
    assert min(found["seconds"].values()) > 0
    assert run("multitask.py", *asked) == lines, "finished runs are read, not run again"


@pytest.mark.slow
def test_a_run_survives_kills() -> None:
    (found,) = run("kills.py")
    assert found["kills"] == 3
    assert found["same"]


def test_planning_and_resuming_are_timed() -> None:
    planned, resumed = run("planning.py")
    assert planned["tokens"] == pytest.approx(200_000, rel=0.2)
    assert 0 < planned["grown_mb"] < planned["peak_mb"]
    assert resumed["step"] >= 9
    assert resumed["seconds"] > 0


def test_sentences_are_compared_with_pysbd(toy_data: Path) -> None:
    pytest.importorskip("pysbd")
    lines = run("sentences.py", "--data", str(toy_data))
    scored, timed = lines[:4], lines[4:]
    assert [(line["language"], line["side"]) for line in scored] == [
        ("en", "ours"),
        ("en", "pysbd"),
        ("zh", "ours"),
        ("zh", "pysbd"),
    ]
    for ours, theirs in (scored[:2], scored[2:]):
        assert ours["f1"] >= 0.98
        assert ours["f1"] > theirs["f1"] > 0.5
    for line in timed:
        assert line["characters"] >= 2000
        assert line["ratio"][0] == pytest.approx(line["ours"][0] / line["pysbd"][0])


def test_planted_personal_data_is_found() -> None:
    scores, hostile, dense = run("privacy.py")
    assert scores["planted"] > 200
    assert scores["recall"] >= 0.98
    assert scores["precision"] >= 0.98
    assert hostile["texts"] > dense["texts"] > 5


def test_scores_climb_a_ladder_of_budgets(toy_data: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    asked = ["--cases", "conll2003", "--seeds", "1", "--budgets", "0,5m", "--picture", str(tmp_path / "ladder.svg")]
    lines = run("ladder.py", *places, *asked)
    assert [(line["case"], line["minutes"]) for line in lines] == [("conll2003", 5.0), ("conll2003", 0.0)]
    assert all(0 <= line["mean"] <= 1 for line in lines)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["rungs"] == lines
    assert "<svg" in (tmp_path / "ladder.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_choices_of_pretraining_are_compared(toy_data: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    lines = run("ablation.py", *places, "--arms", "classic,causal first,replaced", "--seeds", "1")
    assert [line["name"] for line in lines] == ["classic", "causal first", "replaced"]
    assert [line["rtd_loss"] is None for line in lines] == [True, True, False]
    assert all(line["steps"] == 4 and 0 < line["mlm_loss"] < 10 and 0 <= line["mean"] <= 1 for line in lines)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["arms"] == lines


def test_an_encoder_goes_on_with_the_text_of_a_field(toy_data: Path, tmp_path: Path) -> None:
    places = ["--data", str(toy_data), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "found.json")]
    lines = run("adaptation.py", *places, "--seeds", "1,2")
    assert [line["arm"] for line in lines] == ["none", "more", "field", "replay"]
    assert [len(line["forgetting"]) for line in lines] == [0, 2, 2, 2]
    assert all(len(line["each"]) == 2 for line in lines)


@pytest.mark.slow
def test_the_time_to_a_quality_is_compared_with_transformers(toy_data: Path) -> None:
    pytest.importorskip("accelerate")
    lines = run("time_to_quality.py", "--data", str(toy_data), "--trainer-minutes", "0.05", "--minutes", "1,2")
    assert [line["side"] for line in lines] == ["ours", "ours", "run_mlm", "tuned"]
    for line in lines:
        assert line["steps"] > 0
        assert 0 < line["mlm_loss"] < 10


def test_a_gpu_is_measured_beside_transformers() -> None:
    pytest.importorskip("accelerate")
    lines = run("gpu.py")
    assert [(line["size"], line["length"], line["side"]) for line in lines] == [
        ("tiny", 32, "ours"),
        ("tiny", 32, "trainer"),
    ]
    assert all(line["tokens_per_second"] > 0 for line in lines)


def test_preparing_is_timed_beside_others(data_dir: Path) -> None:
    pytest.importorskip("datasets")
    (row,) = run("prepare_vs_peers.py", "--data", str(data_dir))
    assert row["language"] == "en"
    assert {side: len(speeds) for side, speeds in row["mb_per_second"].items()} == {
        "ours": 1,
        "run_mlm": 1,
        "original": 1,
    }
    assert all(speed > 0 for speeds in row["mb_per_second"].values() for speed in speeds)
