"""Classification: what its files may look like, and what is said about bad ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.document import Tally
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.tasks.base import Example
from bertsmith.tasks.classification import Classification, ClassificationConfig
from bertsmith.tasks.joining import join_texts
from bertsmith.tasks.matching import Matching
from bertsmith.tokenizer.load import Tokenizer

COLA = "gj04\t1\t\tThe sailors rode the breeze.\ngj04\t0\t*\tThe weights rope made.\ncj99\t1\t\tIt rains here often.\n"
MRPC = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t12\t13\t" a b\tc d\n0\t22\t23\te f\tg "h"\n'
STSB = "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\ta b\tc d\t5.000\n1\tnews\te f\tg h\t2.750\n"
ATEC = "\ufeff1\t\ufeff怎么更改\t我的号码\t1\n2\t也开不了\t真的嘛\t0\n3\t还能开通\t可以开通\t0\n"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def task(toy_tokenizer: Tokenizer, said: list[str]) -> Classification:
    return Classification(toy_tokenizer, say=said.append)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_a_class_may_be_called_minus(task: Classification, tmp_path: Path) -> None:
    examples = task.rows(write(tmp_path / "a.csv", "text,label\na,+\nb,-\nc,0\n"), Tally())
    assert [example.label for example in examples] == ["+", "-", "0"]


def test_what_pandas_writes_for_a_missing_label_is_none(task: Classification, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv:3: label 'nan' is not a finite number; pandas writes it"):
        task.rows(write(tmp_path / "a.csv", "text,label\na,1.0\nb,nan\nc,2.0\n"), Tally())
    examples = task.rows(write(tmp_path / "b.csv", "text,label\na,mum\nb,nan\nc,dad\n"), Tally())
    assert [example.label for example in examples] == ["mum", "nan", "dad"]


def test_a_header_alone_is_no_row(task: Classification, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable row is left; there is none below the header"):
        task.rows(write(tmp_path / "a.csv", "text,label\n"), Tally())


@pytest.mark.parametrize(
    ("name", "text", "fields", "label"),
    [
        ("cola.tsv", COLA, {"text": "The sailors rode the breeze."}, "1"),
        ("mrpc.tsv", MRPC, {"text": '" a b', "pair": "c d"}, "1"),
        ("stsb.tsv", STSB, {"text": "a b", "pair": "c d"}, 5.0),
        ("atec.csv", ATEC, {"text": "怎么更改", "pair": "我的号码"}, "1"),
        (
            "qnli.tsv",
            "index\tquestion\tsentence\tlabel\n0\twho?\tme\tyes\n1\twhy?\tso\tno\n",
            {"text": "who?", "pair": "me"},
            "yes",
        ),
        ("chn.tsv", "label\ttext_a\n1\t很好\n0\t差\n", {"text": "很好"}, "1"),
        ("zh.csv", "编号,文本,标签\n1,很好,好评\n2,太差,差评\n3,还行,好评\n", {"text": "很好"}, "好评"),
        ("own.csv", "Remark,Verdict\nfine,ok\nbad,no\nmeh,no\n", None, None),
        ("own2.csv", "Remark,label\nfine,ok\nbad,no\nmeh,no\n", {"text": "fine"}, "ok"),
    ],
)
def test_columns_are_found(
    tmp_path: Path, task: Classification, name: str, text: str, fields: dict[str, str] | None, label: object
) -> None:
    path = write(tmp_path / name, text)
    if fields is None:
        with pytest.raises(
            DataError, match=r"cannot tell which column holds the text; the columns are Remark, Verdict"
        ):
            task.rows(path, Tally())
        return
    first = task.rows(path, Tally())[0]
    assert (first.fields, first.label) == (fields, label)


def test_the_guess_is_said_and_can_be_overridden(tmp_path: Path, toy_tokenizer: Tokenizer, said: list[str]) -> None:
    path = write(tmp_path / "a.csv", "text,label,stars,title\ngood film,yes,5,one\nbad film,no,1,two\n")
    Classification(toy_tokenizer, say=said.append).rows(path, Tally())
    assert "text = column 'text', label = column 'label'" in said[0]
    config = ClassificationConfig(text_column="title", label_column="stars")
    other = Classification(toy_tokenizer, config, say=said.append)
    assert other.rows(path, Tally())[0] == Example({"text": "one"}, "5", f"{path}:2")
    assert len(said) == 1


def test_the_first_file_settles_classes_and_their_order(tmp_path: Path, task: Classification) -> None:
    task.rows(write(tmp_path / "a.csv", "text,label\na,10\nb,9\nc,2\n"), Tally())
    assert task.labels == ("2", "9", "10")
    assert (task.config.regression, task.config.pair, task.headline) == (False, False, "accuracy")


def test_a_label_seen_only_in_dev_is_named(tmp_path: Path, task: Classification) -> None:
    task.rows(write(tmp_path / "train.csv", "text,label\na,negative\nb,positive\n"), Tally())
    dev = write(tmp_path / "dev.csv", "text,label\na,negative\nb,postive\n")
    message = f"{dev}:3: label 'postive' is not one of negative, positive; fix the row or pass --skip-bad-rows"
    with pytest.raises(DataError, match=re.escape(message)):
        task.rows(dev, Tally())
    task.config = task.config.model_copy(update={"skip_bad_rows": True})
    tally = Tally()
    assert len(task.rows(dev, tally)) == 1
    assert tally.counts == {"unknown_label": 1}


def test_a_missing_label_column_lists_those_there_are(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "a.csv", "id,text,lang\n1,a b,en\n2,c d,en\n")
    with pytest.raises(DataError, match=r"cannot tell which column holds the label; the columns are id, text, lang"):
        Classification(toy_tokenizer).rows(path, Tally())
    with pytest.raises(DataError, match=r"there is no column 'labl'; the columns are id, text, lang"):
        Classification(toy_tokenizer, ClassificationConfig(label_column="labl")).rows(path, Tally())


def test_one_class_only_is_refused(tmp_path: Path, task: Classification) -> None:
    with pytest.raises(DataError, match="all 2 rows have the label 'x'"):
        task.rows(write(tmp_path / "a.csv", "text,label\na,x\nb,x\n"), Tally())


def test_one_score_only_is_refused(tmp_path: Path, task: Classification) -> None:
    with pytest.raises(DataError, match=r"all 2 rows have the score 0\.5; give rows that differ"):
        task.rows(write(tmp_path / "a.csv", "text,label\na,0.5\nb,0.5\n"), Tally())


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "high"])
def test_a_regression_label_must_be_a_finite_number(tmp_path: Path, toy_tokenizer: Tokenizer, value: str) -> None:
    path = write(tmp_path / "a.csv", f"text,label\na,1.5\nb,{value}\nc,2.5\n")
    task = Classification(toy_tokenizer, ClassificationConfig(regression=True))
    with pytest.raises(DataError, match=rf"a\.csv:3: label '{value}' is not a finite number"):
        task.rows(path, Tally())


def test_decimals_make_a_regression_and_whole_numbers_classes(tmp_path: Path, task: Classification) -> None:
    examples = task.rows(write(tmp_path / "a.csv", "text,label\na,1.5\nb,2\n"), Tally())
    assert ([example.label for example in examples], task.labels, task.headline) == ([1.5, 2.0], (), "pearson")
    assert task.head(ModelConfig(max_position_embeddings=512)) == Heads(classify=1)


SCORES = "".join(f"text {n},{n / 7:.2f}\n" for n in range(1, 20))


@pytest.mark.parametrize(
    ("rows", "where"),
    [(SCORES + "a,abc\n", "a.csv:21"), ("a,nan\nb,nan\n", "a.csv:2"), ("a,inf\nb,1.5\n", "a.csv:2")],
    ids=["a word among scores", "nothing but NaN", "infinity first"],
)
def test_scores_with_a_bad_row_are_scores(tmp_path: Path, task: Classification, rows: str, where: str) -> None:
    with pytest.raises(DataError, match=rf"{where}: label '\w+' is not a finite number"):
        task.rows(write(tmp_path / "a.csv", "text,label\n" + rows), Tally())


def test_a_few_decimals_among_words_are_classes(tmp_path: Path, task: Classification) -> None:
    task.rows(write(tmp_path / "a.csv", "text,label\na,1.5\nb,beta\nc,rc\n"), Tally())
    assert task.labels == ("1.5", "beta", "rc")


@pytest.mark.parametrize(("row", "reason"), [("  ,x", "empty_text"), ("b,", "no_label")])
def test_empty_cells(tmp_path: Path, toy_tokenizer: Tokenizer, row: str, reason: str) -> None:
    path = write(tmp_path / "a.csv", f"text,label\na,x\n{row}\nc,y\n")
    with pytest.raises(DataError, match=r"a\.csv:3: the \w+ is empty"):
        Classification(toy_tokenizer).rows(path, Tally())
    tally = Tally()
    assert len(Classification(toy_tokenizer, ClassificationConfig(skip_bad_rows=True)).rows(path, tally)) == 2
    assert tally.counts == {reason: 1}


def test_nothing_usable_says_why(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "a.csv", "text,label\n,x\n,y\n")
    with pytest.raises(DataError, match=r"no usable row is left; empty_text: 2"):
        Classification(toy_tokenizer, ClassificationConfig(skip_bad_rows=True)).rows(path, Tally())


def test_rows_without_an_agreed_label_are_counted(tmp_path: Path, task: Classification) -> None:
    tally = Tally()
    rows = '{"sentence1": "a", "sentence2": "b", "label": "%s"}\n'
    path = write(tmp_path / "a.json", "".join(rows % label for label in ("yes", "-", "no")))
    assert [example.where for example in task.rows(path, tally)] == [f"{path}:1", f"{path}:3"]
    assert tally.counts == {"no_agreed_label": 1}


def test_matching_needs_pairs(tmp_path: Path, toy_tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,x\nb,y\n")
    with pytest.raises(DataError, match="which column holds the second text"):
        Matching(toy_tokenizer).rows(path, Tally())


def test_long_texts_are_cut_and_counted(toy_tokenizer: Tokenizer) -> None:
    task = Classification(toy_tokenizer, ClassificationConfig(labels=("x", "y"), max_length=10))
    tally = Tally()
    examples = [Example({"text": "a " * 500}, "x", "f:1"), Example({"text": "a"}, "y", "f:2")]
    long, short = task.encode(examples, tally)
    assert (len(long), len(short)) == (10, 3)
    assert (tally.counts, tally.first) == ({"cut_to_max_length": 1}, {"cut_to_max_length": "f:1"})
    assert long.input_ids[-1] == toy_tokenizer.sep_id


@pytest.mark.parametrize("lengths", [(1, 40), (40, 1), (40, 40), (9, 9), (5, 12), (12, 5), (0, 40)])
def test_pairs_lose_the_end_of_the_longer_text_first(toy_tokenizer: Tokenizer, lengths: tuple[int, int]) -> None:
    a, b = (pieces.ids for pieces in toy_tokenizer.encode(["a " * lengths[0], "b " * lengths[1]]))
    encoding, cut = join_texts(toy_tokenizer, a, b, 20)
    expected = list(lengths)
    while sum(expected) > 17:
        expected[0 if expected[0] > expected[1] else 1] -= 1
    kept = [int((encoding.segment_ids == segment).sum()) for segment in (0, 1)]
    assert kept == [expected[0] + 2, expected[1] + 1]
    assert cut == (sum(lengths) > 17)


def test_a_model_with_fewer_positions_is_refused(toy_tokenizer: Tokenizer) -> None:
    task = Classification(toy_tokenizer, ClassificationConfig(labels=("x", "y"), max_length=128))
    with pytest.raises(
        ConfigError, match=r"^task.max_length is 128, but the model has only 64 positions.*--set task.max_length=64"
    ):
        task.head(ModelConfig(max_position_embeddings=64))


# The figures are those of the table in the data's README.
REAL = {
    "sst2": (["train.tsv.xz", "dev.tsv.xz", "test-labeled.tsv.xz"], [67349, 872, 1821], 2),
    "cola": (["train.tsv.xz", "dev.tsv.xz"], [8551, 1043], 2),
    "mrpc": (["train.tsv.xz", "dev.tsv.xz", "msr_paraphrase_test.txt.xz"], [3667, 408, 1725], 2),
    "rte": (["train.tsv.xz", "dev.tsv.xz"], [2490, 277], 2),
    "stsb": (["train.tsv.xz", "dev.tsv.xz"], [5749, 1500], 0),
    "banking77": (["train.csv.xz", "test.csv.xz"], [10003, 3080], 77),
    "financial-phrasebank": (["Sentences_50Agree.txt.xz"], [4846], 3),
    "chnsenticorp": (["train.tsv.xz", "dev.tsv.xz", "test.tsv.xz"], [9600, 1200, 1200], 2),
    "ocnli": (["train.10k.json.xz", "dev.json.xz"], [10000, 3000], 3),
    "atec": (["atec_nlp_sim_train.csv.xz"], [39346], 2),
    "cold": (["train.csv.xz", "dev.csv.xz", "test.csv.xz"], [25726, 6431, 5323], 2),
    "fincuge/finfe": (["train.json.xz", "eval.json.xz"], [16157, 2020], 3),
    "imdb": (["train.jsonl.xz", "test.jsonl.xz"], [6000, 5000], 2),
}


@pytest.mark.parametrize("name", REAL)
def test_published_files_are_read_whole(data_dir: Path, task: Classification, name: str) -> None:
    files, counts, classes = REAL[name]
    for file, count in zip(files, counts, strict=True):
        tally = Tally()
        examples = task.rows(data_dir / "tasks" / name / file, tally)
        assert len(examples) + sum(tally.counts.values()) == count
        assert set(tally.counts) <= ({"no_agreed_label"} if name == "ocnli" else set())
        pairs = name in ("mrpc", "rte", "stsb", "ocnli", "atec")
        assert all(("pair" in example.fields) == pairs for example in examples)
    assert len(task.labels) == classes
