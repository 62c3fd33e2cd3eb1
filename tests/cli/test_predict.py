"""`bertsmith predict` and `bertsmith evaluate` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bertsmith.cli.main import build
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.convert import save_model
from bertsmith.model.heads import Model
from bertsmith.tokenizer.load import Tokenizer

Command = Callable[..., subprocess.CompletedProcess[str]]
CONFIGS: dict[str, dict[str, object]] = {
    "classify": {"labels": ["bad", "good"], "regression": False, "pair": False, "max_length": 32},
    "match": {"labels": ["no", "yes"], "regression": False, "pair": True, "max_length": 32},
    "vectors": {"mode": "bi", "max_length": 32},
    "tag": {"labels": ["B-PER", "I-PER"], "max_length": 32},
    "relate": {"labels": ["in", "no"], "max_length": 32},
    "answer": {"no_answer": True, "threshold": 1e9, "scorer": "squad", "max_length": 32, "stride": 8},
    "choose": {"max_length": 32},
    "generate": {"max_length": 32, "max_target": 6, "turns": False, "headline": "bleu", "bleu": "13a"},
    "pretraining": {},
}
HEADS = {
    "classify": Heads(classify=2),
    "match": Heads(classify=2),
    "vectors": Heads(embed="mean"),
    "tag": Heads(tag=2),
    "relate": Heads(classify=2),
    "answer": Heads(answer=True),
    "choose": Heads(choose=True),
    "generate": Heads(mlm=True),
    "pretraining": Heads(mlm=True, nsp=True),
}


@pytest.fixture
def bundles(tmp_path: Path, toy_tokenizer: Tokenizer, toy_shape: ModelConfig) -> Path:
    """A bundle with fresh weights for each task; the tagger knows nothing but persons."""
    for task, config in CONFIGS.items():
        meta = {
            "task": "match" if task == "vectors" else task,
            "labels": config.get("labels", []),
            "task_config": config,
        }
        save_model(tmp_path / task, Model(toy_shape, HEADS[task]), toy_tokenizer.files(), meta)
    return tmp_path


def run(verb: str, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(build(verb), [verb, *arguments, "--device", "cpu"], input=stdin)


def documents(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_arguments_standard_input_and_files_give_the_same_answers(bundles: Path) -> None:
    (bundles / "a.txt").write_text("good film\nbad film\n")
    bundle = str(bundles / "classify")
    typed = documents(run("predict", bundle, "good film", "bad film", "--json"))
    assert [answer["text"] for answer in typed] == ["good film", "bad film"]
    for stdin, arguments in (
        ("good film\nbad film", []),
        ("good film\nbad film\n", ["-"]),
        (None, ["--file", str(bundles / "a.txt")]),
    ):
        again = documents(run("predict", bundle, *arguments, "--json", stdin=stdin))
        assert [answer["label"] for answer in again] == [answer["label"] for answer in typed]


def test_a_terminal_that_lacks_a_character_shows_the_rest(bundles: Path, command_line: Command) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "gbk", "PYTHONUTF8": "0"}
    text = "房间很干净 ok™"
    done = command_line("predict", bundles / "classify", text, env=environment, encoding="gbk", errors="strict")
    assert done.returncode == 0, done.stderr
    assert "房间很干净 ok\\u2122" in done.stdout


def test_pairs_come_two_by_two_or_with_a_tab(bundles: Path) -> None:
    bundle = str(bundles / "match")
    typed = documents(run("predict", bundle, "a b", "c d", "--json"))
    assert (typed[0]["text"], typed[0]["pair"]) == ("a b", "c d")
    assert documents(run("predict", bundle, "--json", stdin="a b\tc d\n")) == typed
    odd = run("predict", bundle, "a b", "c d", "e f")
    assert (odd.exit_code, "even number" in odd.stderr) == (2, True)
    (following,) = documents(run("predict", str(bundles / "pretraining"), "--pair", "a b", "c d", "--json"))
    assert 0 <= following["is_next"] <= 1  # type: ignore[operator]


def test_a_bi_encoder_gives_vectors_similarities_and_what_goes_best(bundles: Path) -> None:
    bundle = str(bundles / "vectors")
    (alone,) = documents(run("predict", bundle, "a film", "--json"))
    assert len(alone["embedding"]) == 32  # type: ignore[arg-type]
    (both,) = documents(run("predict", bundle, "--pair", "a film", "anna", "--json"))
    assert -1 <= both["similarity"] <= 1  # type: ignore[operator]
    (bundles / "among.txt").write_text("paris\na film\n\nanna lives\n")
    for name in ("vectors", "match"):
        arguments = [str(bundles / name), "--among", str(bundles / "among.txt"), "--top-k", "2"]
        found = documents(run("predict", *arguments, "a film", "anna", "--json"))
        for answer in found:
            hits: list[dict[str, object]] = answer["found"]  # type: ignore[assignment]
            assert len(hits) == 2
            assert hits[0]["score"] >= hits[1]["score"]  # type: ignore[operator]
            assert all(hit["text"] == ["paris", "a film", "anna lives"][hit["index"]] for hit in hits)  # type: ignore[call-overload]
        if name == "vectors":
            assert found[0]["found"][0]["text"] == "a film"  # type: ignore[index]
        shown = run("predict", *arguments, "a film")
        assert "empty_line: 1" in shown.stderr
        assert len(shown.stdout.splitlines()) == 3
    assert "32 numbers" in run("predict", bundle, "a film").stdout
    assert "a film ↔ anna" in run("predict", bundle, "--pair", "a film", "anna").stdout
    refused = run("predict", bundle, "--among", str(bundles / "among.txt"), "--pair", "a", "b")
    assert (refused.exit_code, "not both" in refused.stderr) == (2, True)


def test_questions_are_pairs_or_all_about_one_file(bundles: Path) -> None:
    bundle, text = str(bundles / "answer"), "Anna lives in Paris.\n\nBert is in London. " * 30
    (bundles / "letter.txt").write_text(text)
    (pair,) = documents(run("predict", bundle, "where is anna?", text, "--json"))
    assert pair["answer"] == text[pair["start"] : pair["end"]]  # type: ignore[misc]
    assert "context" not in pair
    both = documents(
        run("predict", bundle, "where is anna?", "who?", "--context", str(bundles / "letter.txt"), "--json")
    )
    assert [answer["question"] for answer in both] == ["where is anna?", "who?"]
    assert (both[0]["answer"], both[0]["start"]) == (pair["answer"], pair["start"])
    tabbed = documents(run("predict", bundle, "--json", stdin="where?\tin paris\n"))
    assert tabbed[0]["question"] == "where?"
    shown = run("predict", bundle, "where?", text).stdout
    assert "where?" in shown
    (plain,) = documents(run("predict", bundle, "where?", text, "--json"))
    assert f"[{' '.join(str(plain['answer']).split())}]" in shown.replace("[ ", "[").replace(" ]", "]")
    assert "(no answer)" in run("predict", bundle, "where?", "").stdout
    refused = run("predict", str(bundles / "classify"), "a", "--context", str(bundles / "letter.txt"))
    assert (refused.exit_code, "are for models that answer questions" in refused.stderr) == (2, True)


def test_predictions_are_written_as_the_scripts_take_them(bundles: Path) -> None:
    rows = [
        {"id": "x", "question": "where is anna?", "context": "anna \ud800 lives in paris", "answers": ["paris"]},
        {"id": "y", "question": "who?", "context": "bert lives in london", "answers": []},
    ]
    data = bundles / "dev.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    answers = documents(
        run("predict", str(bundles / "answer"), "--file", str(data), "--json", "--out", str(bundles / "a"))
    )
    assert [answer["id"] for answer in answers] == ["x", "y"]
    predictions = {str(answer["id"]): answer["answer"] for answer in answers}
    assert json.loads((bundles / "a" / "predictions.json").read_text()) == predictions
    odds = json.loads((bundles / "a" / "null_odds.json").read_text())
    assert odds == {str(answer["id"]): answer["null_odds"] for answer in answers}
    (document,) = documents(
        run("evaluate", str(bundles / "answer"), "--data", str(data), "--json", "--out", str(bundles / "b"))
    )
    assert {"f1", "exact", "best_f1", "has_answer_f1", "no_answer_exact"} <= document["scores"].keys()  # type: ignore[attr-defined]
    for name in ("predictions.json", "nbest_predictions.json", "null_odds.json"):
        assert (bundles / "b" / name).read_text() == (bundles / "a" / name).read_text()


def test_relations_are_asked_by_marks_or_by_offsets(bundles: Path) -> None:
    bundle, text = str(bundles / "relate"), "anna lives in paris"
    marked = "<e1>anna</e1> lives in <e2>paris</e2>"
    (typed,) = documents(run("predict", bundle, marked, "--json"))
    (bundles / "a.jsonl").write_text(json.dumps({"text": text, "first": [0, 4], "second": [14, 19]}))
    (bundles / "a.txt").write_text(f'1\t"{marked}"\nin\nComment:\n')
    for name in ("a.jsonl", "a.txt"):
        (read,) = documents(run("predict", bundle, "--file", str(bundles / name), "--json"))
        assert read["probabilities"] == typed["probabilities"]
        assert read["text"] == text
        assert read["first"] == {"start": 0, "end": 4, "type": ""}
    assert f"%  {text}" in run("predict", bundle, "--file", str(bundles / "a.jsonl")).stdout
    refused = run("predict", bundle, text)
    assert (refused.exit_code, "mark the two stretches" in refused.stderr) == (2, True)
    (document,) = documents(run("evaluate", bundle, "--data", str(bundles / "a.txt"), "--json"))
    assert document["scores"].keys() == {"macro_f1", "micro_f1", "accuracy", "f1/in"}  # type: ignore[attr-defined]
    assert list(document["classes"]) == ["in"]  # type: ignore[call-overload]


def test_answers_for_eyes(bundles: Path) -> None:
    marked = run("predict", str(bundles / "tag"), "anna lives here")
    assert marked.stdout.count("PER]") >= 1
    assert marked.stdout.replace("[", "").replace(" PER]", "") == "anna lives here\n"
    filled = run("predict", str(bundles / "pretraining"), "anna is [MASK] .", "--top-k", "4")
    assert len(filled.stdout.splitlines()) == 5
    classified = run("predict", str(bundles / "classify"), "a good [film]")
    assert "%  a good [film]" in classified.stdout
    follows = run("predict", str(bundles / "pretraining"), "--pair", "a", "b")
    assert "a ↔ b" in follows.stdout


def test_a_text_and_its_choices(bundles: Path) -> None:
    place = str(bundles / "choose")
    typed = documents(run("predict", place, "is it good?", "it is", "not", "--json"))
    assert typed == documents(run("predict", place, "-", "--json", stdin="is it good?\tit is\tnot\n"))
    (found,) = typed
    assert found["text"] == "is it good?"
    assert found["choices"] == ["it is", "not"]
    assert found["chosen"] == found["choices"][found["choice"]]  # type: ignore[index]
    rows = bundles / "rows.csv"
    rows.write_text("text,question,choice1,choice2\nanna is here,is it good?,it is,not\n")
    (asked,) = documents(run("predict", place, "--file", str(rows), "--json"))
    assert asked["question"] == "is it good?"
    shown = run("predict", place, "is it good?", "it is", "not").stdout.splitlines()
    assert shown[0] == "is it good?"
    assert [line.partition("%  ")[2] for line in shown[1:]] == ["it is", "not"]
    few = run("predict", place, "is it good?", "it is")
    assert (few.exit_code, few.stdout) == (2, "")
    assert "give a text and after it two choices or more" in few.stderr


def test_a_text_is_written(bundles: Path) -> None:
    place = str(bundles / "generate")
    one, two = documents(run("predict", place, "anna is good", "he", "--json"))
    assert {*one} == {"text", "generated", "score"}
    lines = bundles / "lines.txt"
    lines.write_text("anna is good\n\nhe\n")
    assert documents(run("predict", place, "--file", str(lines), "--json")) == [one, two]
    assert str(one["generated"]) in run("predict", place, "anna is good").stdout
    rows = bundles / "rows.tsv"
    rows.write_text("anna is good\tit is he\nhe\tit is she\n")
    for beams in (1, 3):
        scored = documents(run("evaluate", place, "--data", str(rows), "--json", "--set", f"task.num_beams={beams}"))
        assert {"bleu", "rouge1", "rouge2", "rougeL", "exact", "bleu_lowercase"} == {*scored[0]["scores"]}  # type: ignore[misc]
    wrong = run("predict", place, "--pair", "a", "b")
    assert wrong.exit_code != 0
    assert "takes single texts" in wrong.stderr


def test_what_was_cut_or_left_out_is_said_on_standard_error(bundles: Path) -> None:
    result = run("predict", str(bundles / "classify"), "--json", stdin="a film\n\n" + "a " * 100)
    assert len(documents(result)) == 2
    assert "empty_line: 1 (first: standard input:2)" in result.stderr
    assert "cut_to_max_length: 1" in result.stderr
    assert run("predict", str(bundles / "classify"), "a " * 100, "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "text"], "nowhere"),
        (["classify", "text", "--file", "a.txt"], "not both"),
        (["classify", "--file", "none.txt"], "none.txt: no such file"),
        (["classify", "text", "--precision", "fp8"], "fp8"),
    ],
)
def test_bad_requests_end_with_2(
    bundles: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(bundles)
    result = run("predict", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_evaluate_prints_tables_or_one_document_and_writes_files(bundles: Path) -> None:
    (bundles / "dev.csv").write_text("text,label\ngood film,good\nbad film,bad\nfilm,meh\n")
    arguments = [str(bundles / "classify"), "--data", str(bundles / "dev.csv")]
    refused = run("evaluate", *arguments)
    assert (refused.exit_code, "dev.csv:4: label 'meh' is not one of bad, good" in refused.stderr) == (2, True)
    result = run("evaluate", *arguments, "--skip-bad-rows", "--json", "--out", str(bundles / "out"))
    (document,) = documents(result)
    assert document["examples"] == 2
    assert document["notices"] == {"unknown_label": 1}
    assert "unknown_label: 1" in result.stderr
    assert json.loads((bundles / "out" / "scores.json").read_text()) == document
    assert (bundles / "out" / "confusion.svg").read_text().startswith("<svg")
    shown = run("evaluate", *arguments, "--skip-bad-rows").stdout
    assert all(word in shown for word in ("2 examples", "accuracy", "precision", "good"))


def test_evaluate_scores_a_pretrained_bundle_on_text(bundles: Path) -> None:
    (bundles / "held.txt").write_text(
        "\n\n".join(f"Anna lives in Paris {n}. She works here. It is good." for n in range(30))
    )
    result = run("evaluate", str(bundles / "pretraining"), "--data", str(bundles / "held.txt"), "--json")
    (document,) = documents(result)
    assert document["scores"].keys() == {"mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"}  # type: ignore[attr-defined]
