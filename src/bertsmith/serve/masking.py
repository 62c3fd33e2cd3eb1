"""Personal data out of a text before the model sees it, and positions back into the text as it was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from bertsmith.core.errors import ConfigError
from bertsmith.corpus.privacy import PrivacyConfig, Redacted, redact


class Masked(NamedTuple):
    """What the model gets to see.

    Attributes:
        payload: a text, or several that belong together.
        parts: of each text what was masked in it.
    """

    payload: str | tuple[str, ...]
    parts: tuple[Redacted, ...] = ()

    @property
    def kinds(self) -> Counter[str]:
        """What was found, counted by kind."""
        return Counter(finding.kind for part in self.parts for finding in part.findings)


def privacy_of(facts: Mapping[str, Any], wanted: bool | None, always: bool) -> PrivacyConfig | None:
    """How personal data is masked for a model, or None: not at all.

    A bundle that was trained on masked text says so in `bertsmith.json`, under `privacy`; serving does the same then,
    whatever is asked.

    Args:
        facts: of the model.
        wanted: as the request has it.
        always: as the service has it.
    """
    trained = facts.get("privacy")
    if isinstance(trained, Mapping):
        try:
            config = PrivacyConfig.model_validate(trained)
        except ValidationError as error:
            issue = error.errors()[0]
            place = ".".join(map(str, issue["loc"]))
            message = f"what the bundle says of personal data makes no sense: {place}: {issue['msg']}"
            raise ConfigError(message) from error
        if any(config.way(kind) == "hash" for kind in config.kinds):
            raise ConfigError("this bundle was trained on hashed personal data; it cannot be served without its key")
        return config
    return PrivacyConfig() if trained or wanted or always else None


def mask(payload: str | tuple[str, ...], config: PrivacyConfig | None) -> Masked:
    """Mask a text, or each of several.

    Args:
        payload: as it was asked.
        config: how; None: not at all.
    """
    if config is None:
        return Masked(payload)
    if isinstance(payload, str):
        found = redact(payload, config)
        return Masked(found.text, (found,))
    parts = tuple(redact(text, config) for text in payload)
    return Masked(tuple(part.text for part in parts), parts)


def placed(value: Mapping[str, Any], part: Redacted | None) -> dict[str, Any]:
    """An answer's stretch of text, at its place in the text as it was asked.

    Args:
        value: with `start` and `end`, in the text that the model saw; None where there is no stretch.
        part: that text; None: it was the text as it was asked.
    """
    if part is None or value.get("start") is None:
        return dict(value)
    start, end = part.original_span(value["start"], value["end"])
    return {**value, "start": start, "end": end}
