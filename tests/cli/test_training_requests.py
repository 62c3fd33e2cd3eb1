"""Bad requests to pretrain and finetune: exit code 2, one message that says what, where and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bertsmith.cli.main import main

Ask = Callable[..., str]
GOOD = "text,label\n" + "".join(f"Anna {verb} the book,{i % 2}\n" for i, verb in enumerate(["reads", "writes"] * 6))


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Runs a command that must be refused; what was said on standard error."""

    def ask(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        shown = capfd.readouterr()
        assert ended.value.code == 2, shown.err
        assert "Traceback" not in shown.err
        assert shown.err.count("error: ") == 1, shown.err
        assert shown.out == ""
        return shown.err

    return ask


def small(tiny: dict[str, object], **changes: object) -> list[str]:
    values = tiny | {key.replace("__", "."): value for key, value in changes.items()}
    return ["--steps", "2", *(word for key, value in values.items() for word in ("--set", f"{key}={value}"))]


def texts(folder: Path) -> dict[str, tuple[Path, Sequence[str]]]:
    """Bad texts by name, with what the message must hold."""
    for name in ("empty", "hollow"):
        (folder / name).mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / "hollow" / name).write_text("")
    (folder / "photo.txt").write_bytes(bytes(range(256)) * 64)
    (folder / "one.txt").write_text("There is one sentence here.")
    return {
        "absent": (folder / "absnt.txt", ["absnt.txt"]),
        "empty folder": (folder / "empty", ["empty"]),
        "empty files": (folder / "hollow", ["hollow", "empty"]),
        "binary": (folder / "photo.txt", ["photo.txt", "binary"]),
        "one sentence": (folder / "one.txt", ["at least four documents"]),
    }


@pytest.mark.parametrize("name", ["absent", "empty folder", "empty files", "binary", "one sentence"])
def test_text_that_cannot_be_learned_from(refused: Ask, tmp_path: Path, tiny: dict[str, object], name: str) -> None:
    path, expected = texts(tmp_path)[name]
    message = refused("pretrain", path, "--out", tmp_path / "run", *small(tiny, vocab__min_frequency=1))
    for words in expected:
        assert words in message


def test_the_corrected_command_works_in_the_same_folder(
    refused: Ask, tmp_path: Path, small_text: Path, tiny: dict[str, object]
) -> None:
    refused("pretrain", tmp_path / "absent", "--out", tmp_path / "run", *small(tiny))
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(small_text), "--out", str(tmp_path / "run"), *small(tiny)])
    assert not ended.value.code
    assert (tmp_path / "run" / "bundle").exists()


def test_a_vocabulary_larger_than_the_text_supports(
    tmp_path: Path, small_text: Path, tiny: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(small_text), "--out", str(tmp_path / "run"), *small(tiny, vocab__size=30000)])
    assert not ended.value.code
    assert "of the 30,000 pieces asked for; all are kept" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "train.leraning_rate=1"], "train.leraning_rate"),
        (["--set", "train.warmup_ration=0.1"], "train.warmup_ratio"),
        (["--preset", "lptop"], "laptop"),
        (["--steps", "5", "--budget", "1m"], "give one of"),
        (["--budget", "soon"], "budget"),
        (["--threads", "0"], "--threads 0"),
        (["--from", "nowhere/at/all"], "nowhere/at/all"),
        (["--vocab", "nowhere"], "nowhere"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["--resume"], "no run to resume here"),
    ],
)
def test_requests_that_make_no_sense(
    refused: Ask, tmp_path: Path, small_text: Path, arguments: list[str], expected: str
) -> None:
    assert expected in refused("pretrain", small_text, "--out", tmp_path / "run", *arguments)


@pytest.mark.parametrize("metric", ["mlm_loss", "mlm_accuracy"])
def test_weights_that_were_never_finite_are_not_kept(
    refused: Ask, tmp_path: Path, small_text: Path, tiny: dict[str, object], metric: str
) -> None:
    out = tmp_path / "run"
    asked = small(tiny, train__metric=metric, model__initializer_range=1e30)
    for words in ([small_text, *asked], ["--resume"]):
        message = refused("pretrain", *words, "--out", out)
        assert "no evaluation had a finite loss" in message
        assert "lower train.lr" in message
    assert "preset: laptop before, classic-tiny now" in refused(
        "pretrain", "--out", out, "--resume", "--preset", "classic-tiny"
    )
    assert not (out / "bundle").exists()


def test_a_token_store_is_no_place_for_a_run(refused: Ask, tiny_run: Path) -> None:
    store = tiny_run / "store"
    before = sorted(store.iterdir())
    assert "is a token store; choose another folder" in refused("pretrain", store, "--out", store, "--steps", 2)
    assert sorted(store.iterdir()) == before


def test_no_budget_is_too_short_to_be_told(
    refused: Ask, tmp_path: Path, small_text: Path, tiny: dict[str, object]
) -> None:
    message = refused("pretrain", small_text, "--out", tmp_path / "run", "--budget", "0.1s", *small(tiny)[2:])
    assert "too short here" in message
    assert "give at least" in message


@pytest.mark.parametrize(
    ("train", "dev", "expected"),
    [
        (GOOD, "text,label\nAnna reads,2\n", ["dev.csv:2", "label '2' is not one of 0, 1"]),
        ("text,remarks\nAnna reads,x y z\nBert writes,a b c\n", None, ["train.csv", "text, remarks", "label_column"]),
        ("text,label\n" + "Anna reads,1\n" * 5, None, ["all 5 rows have the label '1'"]),
        ("text,label\n" + "Anna reads,0.5\nBert reads,nan\nBert writes,0.7\n", None, ["train.csv:3", "finite number"]),
        ("", None, ["train.csv", "empty"]),
    ],
    ids=["label only in dev", "no label column", "one class", "NaN", "empty"],
)
def test_rows_that_cannot_be_learned_from(
    refused: Ask, tmp_path: Path, tiny_run: Path, train: str, dev: str | None, expected: list[str]
) -> None:
    (tmp_path / "train.csv").write_text(train)
    words: list[object] = ["finetune", "classify", "--data", tmp_path / "train.csv", "--from", tiny_run]
    words += ["--out", tmp_path / "run", "--steps", 2, "--set", "task.max_length=32"]
    if dev is not None:
        (tmp_path / "dev.csv").write_text(dev)
        words += ["--dev", tmp_path / "dev.csv"]
    message = refused(*words)
    for part in expected:
        assert part in message


def copied(bundle: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def flipped(folder: Path) -> None:
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "bertsmith.json").unlink()


@pytest.mark.parametrize(("spoil", "expected"), [(flipped, "damaged"), (pickled, "weights in a pickle")])
@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_a_bundle_that_is_not_to_be_trusted(
    refused: Ask, tmp_path: Path, tiny_run: Path, small_text: Path, verb: str,
    spoil: Callable[[Path], None], expected: str,
) -> None:  # fmt: skip
    bundle = copied(tiny_run / "bundle", tmp_path / "bad")
    spoil(bundle)
    (tmp_path / "train.csv").write_text(GOOD)
    first = (
        ["pretrain", small_text] if verb == "pretrain" else ["finetune", "classify", "--data", tmp_path / "train.csv"]
    )
    assert expected in refused(*first, "--from", bundle, "--out", tmp_path / "run", "--steps", 2)


@pytest.mark.parametrize(("given", "meant"), [("clasify", "classify"), ("mutli", "multi")])
def test_a_task_misspelt(refused: Ask, given: str, meant: str) -> None:
    message = refused("finetune", given, "--data", "rows.csv")
    assert f"there is no task '{given}'; did you mean '{meant}'" in message


def test_seeds_that_are_no_numbers(refused: Ask, tmp_path: Path) -> None:
    rest = ["--data", "x", "--from", "y", "--out", tmp_path / "run"]
    assert "write them like 1,2,3" in refused("finetune", "tag", *rest, "--seeds", "1,two")
    assert "gives the same run twice" in refused("finetune", "tag", *rest, "--seeds", "1,2,1")
    assert "train.seed" in refused("finetune", "tag", *rest, "--seed", "99999999999999999999999")
