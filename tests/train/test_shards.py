"""A model cut over ranks learns what a whole one learns, each rank holds its part, and any number of ranks goes on."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bertsmith.core.errors import BundleError
from bertsmith.model.config import Heads, ModelConfig
from bertsmith.model.heads import Model
from bertsmith.model.packing import Batch, Encoding
from bertsmith.tasks.base import collate
from bertsmith.tasks.classification import Classification
from bertsmith.tokenizer.load import SPECIAL_TOKENS, Tokenizer
from bertsmith.train.average import Average
from bertsmith.train.checkpoint import latest_checkpoint, load_checkpoint, load_tensors, save_checkpoint
from bertsmith.train.distributed import Ranks, ranks
from bertsmith.train.loop import steps
from bertsmith.train.optim import OptimConfig, build_optimizer
from bertsmith.train.shards import own, shard, whole

SHAPE = ModelConfig(
    architecture="modernbert",
    vocab_size=101,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)
NAMES = ("adamw", "lamb", "muon", "sgd")
HALF, TOTAL = 4, 8


class Feed:
    """Eight sequences a step, of which each rank takes its share in two batches."""

    def __init__(self, task: Classification, mine: Ranks) -> None:
        self.task, self.mine = task, mine

    def __call__(self, step: int) -> list[Batch]:
        draw = np.random.default_rng(step)
        made = []
        for number in range(8):
            ids = np.array([2, *draw.integers(10, 90, int(draw.integers(3, 20))), 91 + number % 2, 3], np.int32)
            made.append(Encoding(ids, np.zeros_like(ids), {"label": number % 2}))
        share = made[self.mine.rank :: self.mine.size]
        return [collate(share[part::2]) for part in range(2)]

    def halve(self) -> None:
        raise AssertionError


class Learner:
    """A toy run of one optimiser."""

    def __init__(self, name: str, mine: Ranks) -> None:
        tokens = [*SPECIAL_TOKENS, *(chr(0x4E00 + i) for i in range(SHAPE.vocab_size - len(SPECIAL_TOKENS)))]
        self.mine, self.task = mine, Classification(Tokenizer.from_tokens(tokens, lowercase=True))
        self.model = Model(SHAPE, Heads(classify=2), seed=0)
        shard(self.model, mine)
        self.config = OptimConfig.model_validate({"name": name, "lr": 1e-2, "warmup_ratio": 0.0})
        self.optimizer = build_optimizer(self.model, self.config)
        self.average, self.done = Average(0.75, TOTAL), 0

    def go_on(self, run: Path) -> None:
        found = latest_checkpoint(run, pytest.fail)
        assert found is not None
        load_checkpoint(found, self.model, self.optimizer)
        self.average.restore(found, self.model)
        self.done = found.step

    def learn(self, stop: int, run: Path) -> list[tuple[float, float]]:
        """Losses and gradient norms up to `stop`, at which it is saved in `run`."""
        feed, figures = Feed(self.task, self.mine), []
        for step in steps(
            self.model, self.task, feed, self.optimizer, self.config, total=TOTAL, start=self.done, ranks=self.mine
        ):
            figures.append((float(step.loss), float(step.grad_norm)))
            self.done = step.number
            self.average.take(self.done, self.model)
            if self.done == stop:
                break
        save_checkpoint(run, stop, self.model, self.optimizer, {}, self.average.tensors(), ranks=self.mine)
        return figures

    def held(self) -> int:
        """Numbers that this rank keeps between steps: weights, optimiser state and mean."""
        tensors = [*self.model.parameters(), *self.average.mean.values()]
        tensors += [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(part.numel() for part in own(tensors))

    def result(self) -> dict[str, torch.Tensor]:
        with self.average.inside(self.model):
            mean = whole(self.model).state_dict()
            mean = {f"mean.{name}": value.clone() for name, value in mean.items()}
        return mean | {name: value.clone() for name, value in whole(self.model).state_dict().items()}


def work(out: Path, before: Path, mine: Ranks) -> None:
    """Each optimiser: half a run, unless one lies in `before`; the other half; and that again from the checkpoint."""
    for name in NAMES:
        learner, figures = Learner(name, mine), list[tuple[float, float]]()
        if (before / name).exists():
            learner.go_on(before / name)
        else:
            figures = learner.learn(HALF, out / name)
        again = Learner(name, mine)
        again.go_on((before if (before / name).exists() else out) / name)
        figures += learner.learn(TOTAL, out / f"{name}-whole")
        again.learn(TOTAL, out / f"{name}-again")
        result, twin = learner.result(), again.result()
        same = all(torch.equal(result[key], twin[key]) for key in result)
        if mine.first:
            save_file(result, out / f"{name}.safetensors")
        report = {"figures": figures, "held": learner.held(), "same": same}
        (out / f"{name}-{mine.rank}.json").write_text(json.dumps(report))


def refused(out: Path, mine: Ranks) -> None:
    """The last rank's disk takes no more: one save that must not count, and one at the end of a run."""
    learner, said = Learner("adamw", mine), list[str]()
    learner.learn(1, out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if mine.rank == mine.size - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    with pytest.raises((BundleError, SystemExit)) as trouble:
        save_checkpoint(out, 2, learner.model, learner.optimizer, {}, ranks=mine)
    save_checkpoint(out, 3, learner.model, learner.optimizer, {}, ranks=mine, last=said.append)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    save_checkpoint(out, 4, learner.model, learner.optimizer, {}, ranks=mine)
    report = {"kind": trouble.typename, "text": str(trouble.value), "said": said}
    (out / f"{mine.rank}.json").write_text(json.dumps(report))


def launched(count: int, out: Path, before: Path = Path("none")) -> Path:
    """`work` by so many processes."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", __file__, str(out), str(before)],
            env={**os.environ, **meeting, "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    work(out, Path("none"), Ranks())
    yield out
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(2, tmp_path_factory.mktemp("two") / "out")


def assert_alike(one: Path, other: Path, name: str) -> None:
    """Losses, norms and weights of two runs agree where both have them."""
    ours, theirs = (json.loads((path / f"{name}-0.json").read_text())["figures"] for path in (one, other))
    shared = min(len(ours), len(theirs))
    assert shared >= TOTAL - HALF
    np.testing.assert_allclose(ours[-shared:], theirs[-shared:], rtol=1e-5, atol=1e-5)
    mine, yours = (load_file(path / f"{name}.safetensors") for path in (one, other))
    assert mine.keys() == yours.keys()
    for key in mine:
        torch.testing.assert_close(mine[key], yours[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_learn_what_one_does(alone: Path, two: Path, name: str) -> None:
    assert_alike(two, alone, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_the_same_to_the_bit(two: Path, name: str) -> None:
    assert [json.loads((two / f"{name}-{rank}.json").read_text())["same"] for rank in range(2)] == [True, True]


@pytest.mark.parametrize("name", NAMES)
def test_each_rank_holds_its_part(alone: Path, two: Path, name: str) -> None:
    everything = json.loads((alone / f"{name}-0.json").read_text())["held"]
    parts = [json.loads((two / f"{name}-{rank}.json").read_text())["held"] for rank in range(2)]
    assert max(parts) < 0.52 * everything


@pytest.mark.parametrize("name", NAMES)
def test_one_process_goes_on_from_two(alone: Path, two: Path, tmp_path: Path, name: str) -> None:
    learner = Learner(name, Ranks())
    learner.go_on(two / name)
    figures = learner.learn(TOTAL, tmp_path / "run")
    expected = json.loads((alone / f"{name}-0.json").read_text())["figures"]
    np.testing.assert_allclose(figures, expected[HALF:], rtol=1e-5, atol=1e-5)
    assert (tmp_path / "run" / "checkpoints" / f"step-{TOTAL}" / "model.safetensors").is_file()


def test_a_damaged_part_is_found(two: Path, tmp_path: Path) -> None:
    learner = Learner("adamw", Ranks())
    learner.go_on(two / "adamw")
    learner.learn(HALF + 1, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / f"step-{TOTAL}"
    shutil.copytree(two / "adamw-again" / "checkpoints" / f"step-{TOTAL}", newest)
    files = sorted(path for path in newest.rglob("*.safetensors"))
    assert {path.parent.name for path in files} == {"model", "optimizer", "average"}
    assert len(files) == 6
    content = bytearray(files[-1].read_bytes())
    content[-1] ^= 1
    files[-1].write_bytes(content)
    said: list[str] = []
    found = latest_checkpoint(tmp_path / "run", said.append)
    assert found is not None
    assert found.step == HALF + 1
    assert files[-1].relative_to(newest).as_posix() in said[0]


def test_whole_tensors_come_from_parts(two: Path) -> None:
    found = latest_checkpoint(two / "adamw-whole", pytest.fail)
    assert found is not None
    expected = load_file(two / "adamw.safetensors")
    for name, prefix in (("model", ""), ("average", "mean.")):
        tensors = load_tensors(found, name)
        assert {f"{prefix}{key}" for key in tensors} == {
            key for key in expected if key.startswith("mean.") == bool(prefix)
        }
        assert all(torch.equal(value, expected[f"{prefix}{key}"]) for key, value in tensors.items())


def test_what_one_rank_cannot_write_counts_for_none(two: Path) -> None:
    first, second = (json.loads((two / "refused" / f"{rank}.json").read_text()) for rank in range(2))
    assert (first["kind"], second["kind"]) == ("BundleError", "SystemExit")
    assert "rank 1 could not write its part" in first["text"]
    assert "File too large" in first["text"]
    assert "the result is written without a checkpoint" in first["said"][0]
    assert sorted(path.name for path in (two / "refused" / "checkpoints").iterdir()) == ["step-1", "step-4"]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "before"), [(3, "two"), (2, "alone")])
def test_other_numbers_of_ranks_go_on(alone: Path, two: Path, tmp_path: Path, count: int, before: str) -> None:
    out = launched(count, tmp_path / "out", two if before == "two" else alone)
    for name in NAMES:
        assert_alike(out, alone, name)
        assert all(json.loads((out / f"{name}-{rank}.json").read_text())["same"] for rank in range(count))


if __name__ == "__main__":
    with ranks(torch.device("cpu")) as joined:
        work(Path(sys.argv[1]), Path(sys.argv[2]), joined)
        refused(Path(sys.argv[1]) / "refused", joined)
