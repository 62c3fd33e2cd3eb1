"""AdaLoRA: low-rank changes as singular values and vectors, and an allocator that takes ranks away."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bertsmith.model.heads import Model
from bertsmith.peft.config import PeftConfig
from bertsmith.peft.lora import Factors, LoRA, factors_of, put_beside, rank_of


class AdaLoRA(LoRA):
    """LoRA whose changes are `b @ (e * a)`; the singular values `e` start at zero.

    Source: Zhang et al. 2023 (arXiv:2303.10512). The change is multiplied by alpha / start_rank, as the peft library
    does.
    """

    default = ("query", "key", "value", "out", "up", "down")

    def insert(self, model: Model, generator: torch.Generator, saved: Mapping[str, Tensor]) -> None:
        """See `Method.insert`."""
        config = self.config

        def fresh(name: str, inputs: int, outputs: int, where: torch.device) -> Factors:
            rank = rank_of(saved, name, config.start_rank)
            a = torch.empty(rank, inputs).normal_(0, 0.02, generator=generator).to(where)
            b = torch.empty(outputs, rank).normal_(0, 0.02, generator=generator).to(where)
            return Factors(a, b, torch.zeros(rank, 1, device=where), config.alpha / config.start_rank)

        put_beside(model, config, self.default, fresh)


def orthogonality(model: Model) -> Tensor:
    """How far singular vectors are from orthogonal: the mean of `|a aT - 1|` and `|bT b - 1|` (Frobenius), a scalar."""
    gaps = []
    for _, factors in factors_of(model):
        for vectors in (factors.a, factors.b.T):
            identity = torch.eye(len(vectors), device=vectors.device)
            gaps.append(torch.linalg.matrix_norm(vectors @ vectors.T - identity))
    return torch.stack(gaps).mean()


class Allocator:
    """Decides after each step which singular values stay, until as many are left as the budget allows.

    The caller of the training loop calls it once a step, while the step's gradients are still there. A singular value
    and its two vectors matter by the product of a smoothed sensitivity `|weight * gradient|` and of how uncertain that
    is; the least important over all matrices are set to zero. For `warmup` of the steps nothing is taken, then the
    number falls with the third power of the time that is left, and in the last `settle` of the steps it stays.

    Attributes:
        kept: which singular values of each matrix stay, `[r]` bool, by name.
        budget: how many stay in the end.

    Source: Zhang et al. 2023, sections 3.2 and 3.3 (arXiv:2303.10512). Differs: exactly the budget is kept, where the
    reference drops all that tie with the threshold; and what was taken stays zero until the next allocation.
    """

    def __init__(self, model: Model, config: PeftConfig, total: int) -> None:
        """Nothing is taken yet.

        Args:
            model: with AdaLoRA in it.
            config: the schedule.
            total: steps of the run.
        """
        self.factors = dict(factors_of(model))
        self.config = config
        self.begin, self.end = int(config.warmup * total), total - int(config.settle * total)
        self.start = sum(len(factors.a) for factors in self.factors.values())
        self.budget = config.rank * len(self.factors)
        self.step = 0
        self.kept = {
            name: torch.ones(len(f.a), dtype=torch.bool, device=f.a.device) for name, f in self.factors.items()
        }
        self._mean: dict[str, Tensor] = {}
        self._doubt: dict[str, Tensor] = {}

    @property
    def settled(self) -> bool:
        """Whether ranks have fallen as far as they will."""
        return self.step >= self.end

    @torch.no_grad()
    def __call__(self, step: int, *, skipped: bool = False) -> None:
        """Take a step into account.

        Args:
            step: updates done, this one included.
            skipped: its gradient was not finite.
        """
        self.step = step
        if step <= self.end:
            if not skipped:
                self._notice()
            if step == self.end or (step > self.begin and step % self.config.every == 0):
                self._take(self.affordable(step))
        # The optimiser's momentum moves them again.
        for name, factors in self.factors.items():
            assert factors.e is not None
            factors.e.masked_fill_(~self.kept[name][:, None], 0.0)

    def affordable(self, step: int) -> int:
        """How many singular values may stay after `step` updates."""
        if step <= self.begin:
            return self.start
        left = max(0.0, 1 - (step - self.begin) / max(1, self.end - self.begin))
        return self.budget + int((self.start - self.budget) * left**3)

    def ranks(self) -> dict[str, int]:
        """How many singular values each matrix has left, by name."""
        return {name: int(kept.sum()) for name, kept in self.kept.items()}

    def _notice(self) -> None:
        keep = self.config.smoothing
        for name, factors in self.factors.items():
            for leaf, parameter in factors.named_parameters():
                if parameter.grad is None:
                    continue
                key = f"{name}.{leaf}"
                now = (parameter * parameter.grad).abs()
                mean = self._mean.get(key, torch.zeros_like(now)).mul(keep).add(now, alpha=1 - keep)
                doubt = self._doubt.get(key, torch.zeros_like(now)).mul(keep).add((now - mean).abs(), alpha=1 - keep)
                self._mean[key], self._doubt[key] = mean, doubt

    def _take(self, count: int) -> None:
        scores = {name: self._importance(name) for name in self.factors}
        every = torch.cat(list(scores.values()))
        chosen = torch.zeros(len(every), dtype=torch.bool, device=every.device)
        # A stable order: of equals the first stays, whatever the machine.
        chosen[every.argsort(descending=True, stable=True)[:count]] = True
        pieces = chosen.split([len(score) for score in scores.values()])
        self.kept = dict(zip(scores, pieces, strict=True))

    def _importance(self, name: str) -> Tensor:
        parts = []
        for leaf, across in (("e", 1), ("a", 1), ("b", 0)):
            key = f"{name}.{leaf}"
            if key not in self._mean:
                return torch.zeros(len(self.kept[name]), device=self.kept[name].device)
            parts.append((self._mean[key] * self._doubt[key]).mean(across))
        return parts[0] + parts[1] + parts[2]

    def state(self) -> dict[str, Tensor]:
        """What `restore` needs, by name."""
        sets = {"kept": self.kept, "mean": self._mean, "doubt": self._doubt}
        return {f"{kind}:{name}": value for kind, values in sets.items() for name, value in values.items()}

    def restore(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` was after `step` updates."""
        self.step = step
        found: dict[str, dict[str, Tensor]] = {"kept": {}, "mean": {}, "doubt": {}}
        for key, value in state.items():
            kind, _, name = key.partition(":")
            found[kind][name] = value.to(next(iter(self.factors.values())).a.device)
        self.kept, self._mean, self._doubt = found["kept"], found["mean"], found["doubt"]

    @torch.no_grad()
    def shrink(self) -> None:
        """Cut the matrices down to the singular values that stay: from now on their ranks are what `ranks` says."""
        for name, factors in self.factors.items():
            kept = self.kept[name]
            assert factors.e is not None
            factors.a = nn.Parameter(factors.a[kept])
            factors.e = nn.Parameter(factors.e[kept])
            factors.b = nn.Parameter(factors.b[:, kept])
        self.kept = {
            name: torch.ones(len(f.a), dtype=torch.bool, device=f.a.device) for name, f in self.factors.items()
        }
        assert not self.settled or sum(self.ranks().values()) == self.budget
