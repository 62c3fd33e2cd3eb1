"""Many small bundles on one base that is in memory once, each asked by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from bertsmith.core.bundle import Bundle
from bertsmith.core.device import choose_device
from bertsmith.core.errors import BundleError, ConfigError
from bertsmith.peft.bundle import Base, find_base
from bertsmith.predict.inputs import Input
from bertsmith.predict.predictor import Predictor


class Adapters(Mapping[str, Predictor]):
    """Predictors by name, whose models share the weights of one base.

    Nothing is switched over: each is a model of its own that holds its small part and borrows the rest. So requests for
    different names may come in any order, and from several threads.
    """

    def __init__(self, bundles: Mapping[str, Bundle], *, device: str | None = None, **options: Any) -> None:
        """Load the base and all small parts.

        Args:
            bundles: what `finetune --peft` wrote, by the name under which each is asked.
            device: such as `cpu` or `cuda:0`; None takes the best there is.
            options: as for `Predictor`.

        Raises:
            BundleError: a bundle is a whole model, or belongs to another base than the first; names both.
            ConfigError: there is no bundle.
        """
        if not bundles:
            raise ConfigError("give at least one bundle, such as {'reviews': 'runs/reviews'}")
        if whole := [name for name, bundle in bundles.items() if bundle.base is None]:
            raise BundleError(f"{bundles[whole[0]].path}: this is a whole model, not an adapter; open it by itself")
        self.base = Base.load(find_base(next(iter(bundles.values()))), choose_device(device))
        self._each = {name: Predictor(bundle, base=self.base, **options) for name, bundle in bundles.items()}

    @classmethod
    def open(cls, paths: Mapping[str, str | Path], **options: Any) -> Self:
        """Open bundle or run folders by name; options as for the class."""
        return cls({name: Bundle.open(path) for name, path in paths.items()}, **options)

    def __call__(self, name: str, inputs: Input | Sequence[Input]) -> Any:
        """Ask the small part called `name`; inputs and answers as for `Predictor`.

        Raises:
            ConfigError: there is none of this name.
        """
        return self[name](inputs)

    def __getitem__(self, name: str) -> Predictor:
        if name not in self._each:
            raise ConfigError(f"there is no adapter {name!r}; the adapters are {', '.join(self._each)}")
        return self._each[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._each)

    def __len__(self) -> int:
        return len(self._each)
