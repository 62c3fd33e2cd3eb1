"""The words of the command line that people, scripts and documentation rely on; more may be added, none may go."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from bertsmith.cli.main import build

SHARED = "--debug"
TRAINING = (
    "--out --resume --checkpoint-every --config --set --seed --threads --device --quiet --steps --epochs --budget"
)
FROZEN = {
    "corpus prepare": f"--out --vocab --engine --nproc --config --set --quiet {SHARED}",
    "vocab": f"--size --out --cased --cover --extend --terms --config --set --threads --quiet --json {SHARED}",
    "corpus stats": f"--vocab --out --json {SHARED}",
    "corpus sample": f"--vocab --count --seed --json {SHARED}",
    "corpus diff": f"--vocab --json {SHARED}",
    "corpus search": f"--vocab --regex --count --json {SHARED}",
    "pretrain": f"{TRAINING} --preset --tokens --vocab --from {SHARED}",
    "finetune": f"{TRAINING} --data --dev --test --from --seeds --folds --shots --peft --check --strict --json "
    f"{SHARED}",
    "compress prune": f"{TRAINING} --data --dev --test --keep {SHARED}",
    "compress distil": f"{TRAINING} --data --dev --test --layers {SHARED}",
    "compress quantize": f"--data --out --max-drop --config --set --threads --quiet --json {SHARED}",
    "evaluate": f"--data --json --threads --device {SHARED}",
    "predict": f"--file --json --skip-bad-rows --threads --device {SHARED}",
    "bench": f"--rounds --threads --json {SHARED}",
    "convert": f"--trust-pickle --base --merge {SHARED}",
    "runs": f"--compare --sort --x --out --json {SHARED}",
    "serve": "--host --port --keys --without-keys --tls-cert --tls-key --audit --config --set --threads --device "
    f"--quiet {SHARED}",
    "loadtest": f"--file --body --rate --connections --duration --key --out --set --json --quiet {SHARED}",
    "keys add": f"--scope --model --per-minute --tokens-per-day --days {SHARED}",
    "keys list": f"--json {SHARED}",
    "keys revoke": SHARED,
    "doctor": f"--json {SHARED}",
    "demo": SHARED,
}


@pytest.mark.parametrize("verb", FROZEN)
def test_every_promised_word_is_there(verb: str) -> None:
    shown = CliRunner().invoke(build(verb.split()[0]), [*verb.split(), "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    words = set(re.split(r"[\s,\[\]]+", shown.stdout))
    assert set(FROZEN[verb].split()) <= words


def test_every_verb_of_the_table_is_frozen() -> None:
    from bertsmith.cli.main import COMMANDS

    assert set(COMMANDS) == set(FROZEN)
