"""Find personal data and secrets in text, and replace, mask or hash them; positions map back to the original.

Training and serving call the same `redact`, so a model never meets a text prepared in another way. Linear in the length
of the text, whatever the text.
"""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from pydantic import Field

from bertsmith.core.config import Config
from bertsmith.core.errors import ConfigError
from bertsmith.corpus.context import Kind, fold
from bertsmith.corpus.detectors import FINDERS

How = Literal["replace", "mask", "hash"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MIN_KEY = 16
"""Bytes; telephone numbers are so few that a hash under a key that can be guessed gives them away."""

_KEPT: dict[Kind, tuple[int, int]] = {
    "phone": (3, 4),
    "resident_id": (3, 4),
    "bank_card": (4, 4),
    "credit_code": (4, 4),
    "passport": (1, 3),
    "plate": (2, 1),
    "mac": (6, 0),
    "api_key": (3, 0),
}
"""Letters and digits that a mask leaves at the beginning and at the end; of other kinds none, but see `_mask`."""


class PrivacyConfig(Config):
    """What counts as personal, and what is put in its place."""

    kinds: tuple[Kind, ...] = Field(KINDS, description="what to look for")
    how: How = Field(
        "replace", description="[EMAIL] in its place, a mask of the same length, or a keyed hash: one value, one name"
    )
    how_by_kind: dict[Kind, How] = Field({}, description="another way for some kinds, such as {phone = 'mask'}")

    def way(self, kind: Kind) -> How:
        """What is done with a kind."""
        return self.how_by_kind.get(kind, self.how)


class Finding(NamedTuple):
    """A piece of personal data; `text` is what stands at `start:end`, in characters, of the text searched."""

    start: int
    end: int
    kind: Kind
    text: str


@dataclass(frozen=True)
class Redacted:
    """A text without its personal data.

    Attributes:
        text: the new text.
        findings: what was found in the original, in order.
        places: where the new text has what stands for each finding: start and end.
    """

    text: str
    findings: tuple[Finding, ...]
    places: tuple[tuple[int, int], ...]

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original that a span of the new text came from.

        Text between findings maps character by character. A span that holds any part of a replacement gets the whole of
        what was replaced, so no half of a number is shown.

        Args:
            start: of a span in the new text, in characters, 0 <= start.
            end: after its last character, start <= end <= length of the new text.

        Raises:
            ValueError: there is no such span in the new text.
        """
        if not 0 <= start <= end <= len(self.text):
            raise ValueError(f"no span {start}:{end} in a text of {len(self.text)} characters")
        first = bisect_right(self.places, start, key=lambda place: place[0]) - 1
        last = bisect_left(self.places, end, key=lambda place: place[0]) - 1
        inside = first >= 0 and start < self.places[first][1]
        begin = self.findings[first].start if inside else start + self._shift(first)
        inside = last >= 0 and end <= self.places[last][1]
        return begin, self.findings[last].end if inside else end + self._shift(last)

    def _shift(self, number: int) -> int:
        """How much further right the original is, after the replacement of that number; -1: before the first."""
        return self.findings[number].end - self.places[number][1] if number >= 0 else 0


def find(text: str, config: PrivacyConfig | None = None) -> list[Finding]:
    """Find personal data and secrets.

    Numbers with a check digit count only when it is right. A number that is called an order, a version or the like
    directly before it is not taken for a telephone, a card, a passport or an address.

    Args:
        text: any text, of any length.
        config: which kinds; all by default.

    Returns:
        What was found, in order; nothing overlaps, and of candidates that do the more telling kind stays.
    """
    wanted = frozenset((config or PrivacyConfig()).kinds)
    folded = fold(text)
    taken = bytearray(len(text))
    findings: list[Finding] = []
    for kinds, finder in FINDERS:
        if not kinds & wanted:
            continue
        for start, end, kind in finder(folded):
            if kind in wanted and taken.find(1, start, end) < 0:
                taken[start:end] = b"\1" * (end - start)
                findings.append(Finding(start, end, kind, text[start:end]))
    findings.sort()
    return findings


def redact(text: str, config: PrivacyConfig | None = None, *, key: bytes | None = None) -> Redacted:
    """Put something else in the place of personal data.

    Args:
        text: any text, of any length.
        config: which kinds and how; by default all, each replaced by its name in brackets.
        key: for `hash`, at least 16 bytes that nobody else has. It is no setting, because settings are saved with runs
            and bundles; keep it where secrets are kept. Under one key, one value always has the same name, however it
            is written; who has the key can try all telephone numbers.

    Returns:
        The new text, what was found, and the way back.

    Raises:
        ConfigError: something is to be hashed and there is no key, or one that is too short.
    """
    config = config or PrivacyConfig()
    if any(config.way(kind) == "hash" for kind in config.kinds) and len(key or b"") < MIN_KEY:
        raise ConfigError(f"hashing personal data needs a secret key of at least {MIN_KEY} bytes; pass key=…")
    findings = find(text, config)
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    done = length = 0
    for finding in findings:
        new = _instead(finding, config.way(finding.kind), key or b"")
        begin = length + finding.start - done
        length = begin + len(new)
        parts += (text[done : finding.start], new)
        places.append((begin, length))
        done = finding.end
    parts.append(text[done:])
    return Redacted("".join(parts), tuple(findings), tuple(places))


def _instead(finding: Finding, how: How, key: bytes) -> str:
    if how == "mask":
        return _mask(finding)
    name = finding.kind.upper()
    if how == "replace":
        return f"[{name}]"
    message = f"{finding.kind}\0{_plain(finding)}".encode(errors="surrogatepass")
    return f"[{name}_{hmac.digest(key, message, hashlib.sha256).hex()[:16]}]"


def _mask(finding: Finding) -> str:
    """The same length and the same separators; of an e-mail address the first letter and the domain stay."""
    if finding.kind == "email":
        local, at, domain = finding.text.replace("＠", "@").rpartition("@")
        return local[0] + "*" * (len(local) - 1) + at + domain if len(local) > 2 else "*" * len(local) + at + domain
    masked = list(finding.text)
    secret = finding.kind in ("url_credentials", "api_key")
    signs = [place for place, sign in enumerate(masked) if secret or sign.isalnum()]
    head, tail = _KEPT.get(finding.kind, (0, 0))
    for place in signs[head : len(signs) - tail]:
        masked[place] = "*"
    return "".join(masked)


def _plain(finding: Finding) -> str:
    """A value in one way of writing, so that all ways get one name."""
    text = fold(finding.text)
    if finding.kind in ("url_credentials", "api_key"):
        return text
    if finding.kind in ("email", "ip"):
        return text.lower()
    signs = "".join(filter(str.isalnum, text)).lower()
    if finding.kind == "phone" and (stripped := signs.removeprefix("00")).startswith("861") and len(stripped) >= 13:
        return stripped[2:]
    return signs
