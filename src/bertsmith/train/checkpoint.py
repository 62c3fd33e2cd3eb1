"""Checkpoints: complete or absent, at every instant."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bertsmith.core.bundle import atomic_folder, sha256_file
from bertsmith.core.errors import BundleError
from bertsmith.train.distributed import ALONE, Ranks
from bertsmith.train.run import CHECKPOINTS
from bertsmith.train.shards import cut_like, is_cut, load_shards, save_shards

MANIFEST = "manifest.json"
OPTIMIZER = "optimizer.safetensors"
KEEP_LAST = 2


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        path: its folder.
        step: updates done.
        state: what else the run wants to remember, JSON.
    """

    path: Path
    step: int
    state: Mapping[str, Any]


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    extra: Mapping[str, Mapping[str, Tensor]] | None = None,
    *,
    keep_last: int = KEEP_LAST,
    keep_every: int | None = None,
    last: Callable[[str], None] | None = None,
    ranks: Ranks = ALONE,
) -> None:
    """Write `checkpoints/step-N/` whole or not at all, then remove those that are not to be kept.

    Each set of tensors is a safetensors file; of a model that is cut over the ranks, a folder with a file a rank.

    Args:
        run: the run folder.
        step: updates done.
        model: its weights; those that are frozen are left out.
        optimizer: its state.
        state: JSON values the run needs to go on.
        extra: further sets of tensors by file name, such as the best weights so far.
        keep_last: keep so many of the newest.
        keep_every: also keep, for good, the first one of each stretch of so many steps.
        last: given for the checkpoint at the end of a run, which lies there until the bundle does (`discard`); takes a
            line for the user where there is no room for it, since there may still be for the bundle.
        ranks: those that call this together. If the model is cut, each writes its parts; else the first one does all.

    Raises:
        BundleError: the disk is full; the checkpoints before are untouched.
        SystemExit: on the other ranks, when the first one has said why.
    """
    if not ranks.first and not is_cut(model):
        return
    if last is not None:
        try:
            save_checkpoint(
                run, step, model, optimizer, state, extra, keep_last=keep_last + 1, keep_every=keep_every, ranks=ranks
            )
        except (BundleError, SystemExit) as error:
            last(f"{error}; the result is written without a checkpoint before it")
        return
    folder = run / CHECKPOINTS / f"step-{step}"
    sets = {"model": weights(model), "optimizer": optimizer_tensors(model, optimizer), **(extra or {})}
    writers = ranks if is_cut(model) else ALONE
    with ExitStack() as stack:
        temporary = writers.once(lambda: stack.enter_context(atomic_folder(folder)))
        for name, tensors in sets.items():
            if is_cut(model):
                save_shards(temporary / name, tensors, writers)
            else:
                held = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
                save_file(held, temporary / f"{name}.safetensors")

        def seal() -> None:
            found = {file.relative_to(temporary).as_posix(): file for file in sorted(temporary.rglob("*.safetensors"))}
            manifest = {"step": step, "state": state, "files": {name: sha256_file(found[name]) for name in found}}
            text = json.dumps(manifest | {"sha256": _seal_of(manifest)}, indent=1)
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            stack.close()

        writers.once(seal)
    if ranks.first:
        _thin_out(run, keep_last, keep_every)


def _thin_out(run: Path, keep_last: int, keep_every: int | None) -> None:
    folders = _found(run)
    kept = to_keep([step_of(path) for path in folders], keep_last, keep_every)
    for path in folders:
        if step_of(path) not in kept:
            shutil.rmtree(path, ignore_errors=True)


def discard(run: Path, step: int) -> None:
    """Remove the checkpoint of a `step`: the bundle holds what it was for."""
    shutil.rmtree(run / CHECKPOINTS / f"step-{step}", ignore_errors=True)
    with suppress(OSError):
        (run / CHECKPOINTS).rmdir()


def refuse_small_disk(run: Path, model: nn.Module) -> None:
    """See that what a run saves finds room, before hours go into it.

    Args:
        run: the run folder.
        model: whose weights, twice, and their two moments are a checkpoint.

    Raises:
        BundleError: there is no room for a checkpoint and the result.
    """
    size = sum(value.numel() * value.element_size() for value in weights(model).values())
    free = shutil.disk_usage(run).free
    if free < 5 * size:
        raise BundleError(
            f"{run}: a checkpoint and the result take {5 * size / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free; "
            "free some space or choose another folder"
        )


def to_keep(steps: Sequence[int], last: int, every: int | None) -> set[int]:
    """The checkpoints that stay: the newest ones, and the first of each stretch of `every` steps.

    Removing the others does not change the answer, whenever it is asked.

    Args:
        steps: of the checkpoints there are, ascending.
        last: how many of the newest.
        every: length of a stretch; the first begins at step `every`.
    """
    kept = set(steps[-last:])
    if every is not None:
        first = {step // every: step for step in reversed(steps) if step >= every}
        kept |= set(first.values())
    return kept


def latest_checkpoint(run: Path, say: Callable[[str], None]) -> Checkpoint | None:
    """The newest complete checkpoint of a run; a broken one is passed over, and that is said.

    Args:
        run: the run folder.
        say: takes a line for the user.
    """
    folders = _found(run)
    for folder in reversed(folders):
        try:
            return open_checkpoint(folder)
        except BundleError as error:
            say(f"{error}; passed over, going back to the checkpoint before it")
    if folders:
        say(f"{run}: no checkpoint is whole, so the run starts from its first step again")
    return None


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is a checkpoint of some run: `RUN/checkpoints/step-N`."""
    return path.parent.name == CHECKPOINTS and (path / MANIFEST).is_file()


def open_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint whose files are those that were written, the manifest among them.

    Raises:
        BundleError: a file is missing or damaged; names it.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        seal = manifest.pop("sha256", None)  # checkpoints of before it was written have none
        if seal is not None and seal != _seal_of(manifest):
            raise BundleError(f"{folder}: {MANIFEST} is damaged")
        for name, expected in manifest["files"].items():
            if sha256_file(folder / name) != expected:
                raise BundleError(f"{folder}: {name} is damaged")
        return Checkpoint(folder, int(manifest["step"]), manifest["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder}: no whole checkpoint ({error})") from None


def _seal_of(manifest: Mapping[str, Any]) -> str:
    """The sha256 sum of what a manifest says, however it is laid out."""
    read_back = json.loads(json.dumps(manifest))  # keys that are numbers become text, and sort as such
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()


def load_checkpoint(checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and optimiser state back.

    Raises:
        BundleError: it belongs to a model of another shape.
    """
    try:
        put_weights(model, load_tensors(checkpoint, "model", model))
    except RuntimeError as error:
        raise BundleError(f"{checkpoint.path}: does not fit this run's model: {error}") from None
    put_state(load_tensors(checkpoint, "optimizer", model), model, optimizer)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model that training can change: all of it but parameters that are frozen. No copy is made."""
    frozen = _frozen(model)
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def put_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the state that `weights` took from it; what is frozen stays as it is.

    Args:
        model: of the same shape, and with the same parameters frozen.
        tensors: by name.

    Raises:
        RuntimeError: a tensor is missing, left over or of another shape.
    """
    missing, left = model.load_state_dict(tensors, strict=False)
    if lost := left + [name for name in missing if name not in _frozen(model)]:
        raise RuntimeError(f"missing or left over: {', '.join(lost[:8])}")


def _frozen(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


def put_state(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give an optimiser the state that another had for the same parameters.

    Args:
        tensors: made by `optimizer_tensors`, whole or cut as the model is; a parameter that now has another shape
            starts without state.
        model: names the parameters.
        optimizer: of the same kind.
    """
    for name, parameter in model.named_parameters():
        prefix = f"{name}::"
        found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if found and all(value.shape in ((), parameter.shape) for value in found.values()):
            # The fused optimiser wants its step count, too, on the parameter's device.
            optimizer.state[parameter] = {
                key: cut_like(value, parameter).to(parameter.device) for key, value in found.items()
            }


def load_tensors(checkpoint: Checkpoint, name: str, model: nn.Module | None = None) -> dict[str, Tensor]:
    """The set of tensors that was saved under `name`, whole or in parts; empty when there is none.

    Args:
        checkpoint: where.
        name: `model`, `optimizer`, or that of a further set.
        model: if it is cut over ranks, what belongs to its parameters is cut as they are; None: all come whole.
    """
    like = dict(model.named_parameters()) if model is not None else {}
    if (folder := checkpoint.path / name).is_dir():
        return load_shards(folder, like)
    file = checkpoint.path / f"{name}.safetensors"
    found = load_file(file) if file.exists() else {}
    return {key: cut_like(value, like.get(key.partition("::")[0])) for key, value in found.items()}


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name: `encoder.layers.0.mlp.up.weight::exp_avg` and so on."""
    return {
        f"{name}::{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def _found(run: Path) -> list[Path]:
    folders = [path for path in (run / CHECKPOINTS).glob("step-*") if path.name[5:].isdigit()]
    return sorted(folders, key=step_of)


def step_of(folder: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(folder.name.removeprefix("step-"))
