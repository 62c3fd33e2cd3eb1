"""Several processes that take one run's steps together: who they are, what they add up, and who is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from bertsmith.core.errors import ConfigError
from bertsmith.model.heads import Model
from bertsmith.train.pulse import Pulse
from bertsmith.train.shards import is_cut

PATIENCE = timedelta(seconds=45)
"""How long a rank waits in a step for the others before it gives them up."""
PREPARATION = timedelta(days=2)
"""How long the other ranks wait while the first one prepares the text."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those of its run.

    Attributes:
        rank: 0 to `size - 1`; rank 0 writes and speaks.
        size: how many processes there are.
        group: what a step's sums go through; None where there is one process.
        waiting: what the long waits go through.
        pulse: the watch over the other ranks.
    """

    rank: int = 0
    size: int = 1
    group: Any = None
    waiting: Any = None
    pulse: Pulse | None = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """How many processes share this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.size > 1 else 1

    def wait(self) -> None:
        """Go on when all have come here, however long that takes."""
        if self.size > 1:
            dist.barrier(group=self.waiting)

    def share(self, value: Any) -> Any:
        """The first rank's value, on every rank; anything that can be pickled."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.waiting)
        return box[0]

    def total(self, values: Sequence[Tensor | float], device: torch.device) -> list[Tensor]:
        """Each value added up over the ranks, in fp64; one exchange for all of them.

        Args:
            values: scalars, as many on every rank.
            device: where the exchange happens.
        """
        sums = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=device) for value in values])
        if self.size > 1:
            dist.all_reduce(sums, group=self.group)
        return list(sums.unbind())

    def once(self, work: Callable[[], T]) -> T:
        """What `work` returns when the first rank does it, on every rank; where it fails, the first rank says why.

        Raises:
            SystemExit: on the other ranks, when the first one failed.
        """
        if self.size == 1:
            return work()
        if not self.first:
            done, value = self.share(None)
            if not done:
                raise SystemExit(2)
            return value  # type: ignore[no-any-return]
        try:
            value = work()
        except BaseException:
            self.share((False, None))
            raise
        return self.share((True, value))[1]  # type: ignore[no-any-return]

    def first_then_all(self, work: Callable[[], T]) -> T:
        """Work whose result lies on disk: the first rank does it, then the others do it again and find it done."""
        mine: list[T] = []
        self.once(lambda: mine.append(work()))
        return mine[0] if mine else work()

    def gather(self, values: Sequence[Any]) -> list[Any]:
        """What every rank brings, in the order of the ranks, on every rank; anything that can be pickled."""
        if self.size == 1:
            return list(values)
        boxes: list[Any] = [None] * self.size
        dist.all_gather_object(boxes, list(values), group=self.waiting)
        return [value for box in boxes for value in box]

    def beat(self, step: int) -> None:
        """Tell the others that this rank has come to `step`."""
        if self.pulse is not None:
            self.pulse.beat(step)


ALONE = Ranks()


@contextmanager
def ranks(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; alone where it did not.

    Args:
        device: where this process computes; decides between NCCL and gloo.

    Raises:
        ConfigError: another rank died or hangs; names it.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    # Long waits go through gloo, which does not keep a GPU busy.
    waiting = dist.new_group(backend="gloo", timeout=PREPARATION)
    store: Any = dist.distributed_c10d._get_default_store()
    pulse = Pulse(dist.get_rank(), size, store.clone())
    mine = Ranks(dist.get_rank(), size, dist.group.WORLD, waiting, pulse)
    try:
        yield mine
    except RuntimeError as error:
        time.sleep(4.0)  # a rank that is only slow has told its step by now
        culprit = pulse.missing()
        raise ConfigError(
            f"rank {mine.rank}: the others did not answer within {PATIENCE.seconds} s; "
            f"{f'{culprit} fell silent or behind' if culprit else 'all came to the same step'}: {error}"
        ) from error
    finally:
        pulse.end()
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The device of this rank: `torchrun` gives each process of a machine its own GPU."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    local = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
        raise ConfigError(f"rank {os.environ['LOCAL_RANK']} of this machine has no GPU; start fewer with --nproc")
    torch.cuda.set_device(local)
    return local


def spread(model: Model, mine: Ranks) -> Any:
    """The model as the loop calls it: with several ranks, their gradients meet in the backward pass.

    Source: Li et al. 2020 (arXiv:2006.15704).
    """
    if mine.size == 1 or is_cut(model):  # what is cut over the ranks exchanges gradients itself
        return model
    return DistributedDataParallel(model, process_group=mine.group, gradient_as_bucket_view=True)


def apart(call: Any) -> AbstractContextManager[None]:
    """Let gradients of a model made by `spread` add up on each rank before they meet, where there is room for that."""
    return call.no_sync() if isinstance(call, DistributedDataParallel) else nullcontext()
