"""A model cut over the ranks of its run (FSDP2): each keeps a part of the weights, gradients and optimiser state.

What has a part on each rank is a `DTensor`: tensor code works on it as on the whole, when all ranks run it together.
torch's modules for it take as long to import as half of torch, so they are imported where something is cut. Run with
gloo on CPUs; not run on a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bertsmith.core.errors import BundleError
from bertsmith.model.encoder import Layer
from bertsmith.model.heads import Model

if TYPE_CHECKING:
    from bertsmith.train.distributed import Ranks


def shard(model: Model, mine: Ranks) -> None:
    """Cut the parameters of a model, each along its first dimension, into one part a rank.

    Each layer is put together for as long as it is computed, forward and backward; embeddings and heads from the
    forward pass to the end of the backward pass. Parameters are exchanged in their own precision, and the loop's
    autocast decides that of products, as without cuts. Under it, bf16 copies of the weights live until the backward
    pass, 2 bytes a parameter, unless activations are checkpointed.

    Args:
        model: the same on all ranks; changed in place, and to be called by all of them together from now on.
        mine: this rank; alone it keeps everything.

    Source: Zhao et al. 2023 (arXiv:2304.11277), as `torch.distributed.fsdp.fully_shard`.
    """
    if mine.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (mine.size,))
    for layer in [module for module in model.modules() if isinstance(module, Layer)]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def is_cut(what: nn.Module | Tensor) -> bool:
    """Whether a model, or a tensor, has a part on each rank."""
    tensor = what if isinstance(what, Tensor) else next(what.parameters(), None)
    return hasattr(tensor, "full_tensor")


def whole(model: Model) -> Model:
    """A model that this rank can call, or save, without the others; itself where it is not cut.

    Args:
        model: if it is cut, all ranks ask for it together, and each gets a copy of all weights.
    """
    if not is_cut(model):
        return model
    with torch.device("meta"):
        alone = Model(model.config, model.heads)
    alone.load_state_dict({name: full(value) for name, value in model.state_dict().items()}, assign=True)
    alone.masked_losses = model.masked_losses  # compiled, if anything is
    return alone


def full(value: Tensor) -> Tensor:
    """A tensor without its cuts; all ranks ask for it together."""
    return value.full_tensor() if is_cut(value) else value  # type: ignore[attr-defined]


def own(values: Sequence[Tensor]) -> list[Tensor]:
    """The parts of tensors that lie on this rank, sharing their memory; those that are not cut, as they are."""
    return [value.to_local() if is_cut(value) else value for value in values]  # type: ignore[attr-defined]


def cut_like(value: Tensor, other: Any) -> Tensor:
    """This rank's part of a tensor that all ranks have whole, where `other`, of the same shape, is cut; else all."""
    if other is None or not is_cut(other) or is_cut(value) or value.shape != other.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def by_matrix(stack: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    """What `work` makes of matrices, for which it needs them whole; several ranks share them out.

    Args:
        stack: `[n, rows, columns]`; on several ranks cut along the rows.
        work: from some of the matrices, `[m, rows, columns]` with m of 0 to n, to as many of the same shape.

    Returns:
        `[n, rows, columns]`, cut as `stack` is.
    """
    if not is_cut(stack):
        return work(stack)
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(stack, DTensor)
    some = stack.redistribute(placements=[Shard(0)])
    done = work(some.to_local())
    made = DTensor.from_local(done, some.device_mesh, some.placements, shape=some.shape, stride=some.stride())
    return made.redistribute(placements=stack.placements)


def save_shards(folder: Path, tensors: Mapping[str, Tensor], mine: Ranks) -> None:
    """Write tensors, one safetensors file a rank with its parts, for any number of ranks to read.

    Args:
        folder: to be made, in one that is there and that all ranks see.
        tensors: the same names on all ranks, which write together.
        mine: this rank.

    Raises:
        BundleError: a rank could not write; on the first rank, while the others raise SystemExit.
    """
    seen = mine.gather([folder.parent.is_dir()])
    if not all(seen):
        raise _refused(f"{folder.parent}: rank {seen.index(False)} does not see this folder", mine)
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(dict(tensors), storage_writer=writer, process_group=mine.waiting)
    except CheckpointException as error:
        rank, (cause, _) = next(iter(error.failures.items()))
        raise _refused(f"{folder.parent}: rank {rank} could not write its part ({cause})", mine) from error


def _refused(what: str, mine: Ranks) -> BaseException:
    advice = "See that all ranks reach the run folder and that there is room"
    return BundleError(f"{what}; what was there before is untouched. {advice}") if mine.first else SystemExit(2)


def load_shards(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read what `save_shards` wrote, on any number of ranks; each reads for itself.

    Args:
        folder: of all ranks' files.
        like: parameters by name. A tensor of a parameter's shape and name, after which `::` and more may follow, is
            cut as that parameter is; others come whole, on the CPU.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    found: Mapping[str, Any] = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Any] = {
        name: _room(entry.size, entry.properties.dtype, like.get(name.partition("::")[0]))
        for name, entry in found.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def _room(size: torch.Size, dtype: torch.dtype, other: Any) -> Tensor:
    if other is None or not is_cut(other) or other.shape != size:
        return torch.empty(size, dtype=dtype)
    from torch.distributed.tensor import empty

    return empty(*size, dtype=dtype, device_mesh=other.device_mesh, placements=other.placements)
