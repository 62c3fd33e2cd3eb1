"""API keys: kept as salted hashes, compared in constant time, with scopes and quotas, read again when changed."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field

from bertsmith.core.config import Config, Count, load, to_toml
from bertsmith.core.errors import BertsmithError, ConfigError
from bertsmith.core.files import atomic_write
from bertsmith.serve.refusal import Refusal

ANSWERS = ("predict", "embed", "rerank", "fill-mask", "ner", "qa", "similarity")
SCOPES = (*ANSWERS, "metrics", "admin")
QUESTIONS = {f"/{name}": name for name in ANSWERS} | {"/v1/embeddings": "embed"}
"""Routes that ask a model, and the scope that each needs."""
PREFIX = "bs"
LONGEST = 256
"""Characters of a key; what is longer is none of ours."""
LOOK = 1.0
"""Seconds between looks at the file."""
DAY = 86_400

log = logging.getLogger("bertsmith.serve")


class Key(Config):
    """One API key as it is stored: who has it, what it may do, and a hash by which it is recognised."""

    name: str = Field(min_length=1, max_length=100, description="whose key it is")
    salt: str = Field(pattern="^[0-9a-f]{32}$", description="16 random bytes")
    hash: str = Field(pattern="^[0-9a-f]{64}$", description="HMAC-SHA256 of the key under the salt")
    scopes: tuple[str, ...] = Field(ANSWERS, description=f"what it may do: {', '.join(SCOPES)}")
    models: tuple[str, ...] = Field((), description="the models that it may ask; none named: all")
    requests_per_minute: Count | None = Field(None, ge=1, description="longest run of requests, refilled evenly")
    tokens_per_day: Count | None = Field(None, ge=1, description="pieces from midnight to midnight, UTC")
    created: str = Field("", description="when it was made")
    expires: str | None = Field(None, description="day from which it is refused, such as 2030-01-31")


class KeyFile(Config):
    """All keys by their public half."""

    keys: dict[str, Key] = Field(default={}, description="keys by the part that is no secret")


def digest(salt: str, key: str) -> str:
    """What is stored of a key. Its 256 random bits cannot be guessed, so one round is enough.

    Args:
        salt: hexadecimal.
        key: whole.
    """
    return hmac.digest(bytes.fromhex(salt), key.encode(errors="surrogatepass"), hashlib.sha256).hex()


def read_keys(path: Path) -> KeyFile:
    """Read a file of keys.

    Args:
        path: a TOML file as `bertsmith keys add` writes it.

    Raises:
        ConfigError: it cannot be read, or a key in it is not valid; names the place.
    """
    found = load(KeyFile, file=path)
    for number, key in found.keys.items():
        if unknown := set(key.scopes) - set(SCOPES):
            raise ConfigError(f"{path}: keys.{number}: unknown scope {min(unknown)!r}; choose from {', '.join(SCOPES)}")
        try:
            key.expires is None or datetime.fromisoformat(key.expires)
        except ValueError:
            raise ConfigError(f"{path}: keys.{number}: expires is no day; write it like 2030-01-31") from None
    return found


def add_key(path: Path, name: str, **settings: object) -> str:
    """Make a key and write its hash into a file, which only its owner may read.

    Args:
        path: the file; made when absent.
        name: whose key it is.
        settings: further fields of `Key`; those that are None are left as they are.

    Returns:
        The key. It is nowhere else and cannot be had again.

    Raises:
        ConfigError: a setting is not valid, or the file is not.
        BundleError: the file cannot be written.
    """
    known = read_keys(path) if path.exists() else KeyFile()
    number, salt = secrets.token_hex(4), secrets.token_hex(16)
    key = f"{PREFIX}_{number}_{secrets.token_urlsafe(32)}"
    given = {setting: value for setting, value in settings.items() if value is not None}
    created = datetime.now(UTC).isoformat(timespec="seconds")
    entry = load(Key, base={"name": name, "salt": salt, "hash": digest(salt, key), "created": created, **given})
    if unknown := set(entry.scopes) - set(SCOPES):
        raise ConfigError(f"unknown scope {min(unknown)!r}; choose from {', '.join(SCOPES)}")
    _write(path, KeyFile(keys={**known.keys, number: entry}))
    return key


def revoke_key(path: Path, number: str) -> Key:
    """Take a key out of a file; a running service notices within a second or two.

    Args:
        path: the file.
        number: the part of the key that is no secret, as `bertsmith keys list` shows it.

    Raises:
        ConfigError: there is no such key.
    """
    known = read_keys(path)
    if number not in known.keys:
        raise ConfigError(f"{path}: there is no key {number}; bertsmith keys list {path} shows them")
    _write(path, KeyFile(keys={other: key for other, key in known.keys.items() if other != number}))
    return known.keys[number]


def expiry(days: float | None) -> str | None:
    """The day after so many days, as `Key.expires` has it.

    Args:
        days: from now; None: never.

    Raises:
        ConfigError: that many days are not in the calendar.
    """
    if days is None:
        return None
    try:
        return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        raise ConfigError(f"--days {days}: too far away; leave it out for a key that never expires") from None


def _write(path: Path, keys: KeyFile) -> None:
    mask = os.umask(0o077)
    try:
        atomic_write(path, ("# Made by bertsmith keys; holds hashes, no keys.\n" + to_toml(keys)).encode())
    finally:
        os.umask(mask)


@dataclass
class Caller:
    """Who asks, and what they have used up.

    Attributes:
        number: the public half of the key.
        key: as it is stored.
    """

    number: str
    key: Key
    _allowance: float = 0.0
    _at: float = 0.0
    _day: int = 0
    _tokens: int = 0

    def allow(self, *scopes: str) -> None:
        """Count a request.

        Args:
            scopes: one of which it needs; none: nothing but a key.

        Raises:
            Refusal: 403 without such a scope, 429 with Retry-After when rate or quota is used up.
        """
        if scopes and not set(scopes) & set(self.key.scopes):
            wanted = f"scope {scopes[0]!r}" if len(scopes) == 1 else f"scope of {', '.join(scopes)}"
            raise Refusal(403, f"this key has no {wanted}; ask for one that has")
        now = time.time()
        if (rate := self.key.requests_per_minute) is not None:
            passed = max(0.0, now - self._at)  # a clock may be put back
            self._allowance = min(float(rate), self._allowance + passed * rate / 60) if self._at else rate
            self._at = now
            if self._allowance < 1:
                wait = math.ceil((1 - self._allowance) * 60 / rate)
                raise Refusal(
                    429, f"this key may ask {rate:,} times a minute", headers={"Retry-After": str(wait)}, reason="rate"
                )
            self._allowance -= 1
        quota = self.key.tokens_per_day
        if quota is not None and self._used(now) >= quota:
            raise Refusal(
                429,
                f"this key's {quota:,} pieces of today are used up",
                headers={"Retry-After": str(DAY - int(now) % DAY)},
                reason="quota",
            )

    def may_ask(self, model: str) -> None:
        """Check that the key is meant for a model.

        Raises:
            Refusal: 403, it is not.
        """
        if self.key.models and model not in self.key.models:
            raise Refusal(403, f"this key is for {', '.join(self.key.models)}")

    def charge(self, tokens: int) -> None:
        """Count pieces against the quota; a request that begins within it may end beyond.

        Args:
            tokens: of a request.
        """
        self._used(time.time())
        self._tokens += tokens

    def _used(self, now: float) -> int:
        if (today := int(now) // DAY) > self._day:
            self._day, self._tokens = today, 0
        return self._tokens


@dataclass
class Keys:
    """The keys of a running service, as the file has them now.

    Attributes:
        path: of the file.
    """

    path: Path
    _callers: dict[str, Caller] = field(default_factory=dict)
    _state: tuple[int, int, int] = (0, 0, 0)
    _looked: float = 0.0
    _nobody: Key = field(default_factory=lambda: Key(name="nobody", salt="0" * 32, hash="0" * 64))

    def __post_init__(self) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read, or holds no key.
        """
        self._read()
        if not self._callers:
            raise ConfigError(f"{self.path}: there is no key in it; make one: bertsmith keys add NAME {self.path}")

    def __len__(self) -> int:
        return len(self._callers)

    def caller(self, headers: dict[str, str]) -> Caller:
        """Who asks. Takes as long for a wrong key as for a right one.

        Args:
            headers: of the request, by lower-case name; `authorization: Bearer …` or `x-api-key`.

        Raises:
            Refusal: 401: no key, or none of ours.
        """
        self._look()
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        number = given.split("_", 2)[1] if given.count("_") >= 2 else ""
        caller = self._callers.get(number)
        key = self._nobody if caller is None else caller.key
        right = hmac.compare_digest(digest(key.salt, given[:LONGEST]), key.hash)
        expired = key.expires is not None and datetime.now(UTC) >= _moment(key.expires)
        if caller is None or not right or len(given) > LONGEST or expired:
            raise Refusal(
                401,
                "a valid API key is needed: send the header Authorization: Bearer KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return caller

    def _look(self) -> None:
        """Read the file again when it has changed; a broken one changes nothing, and is told."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        try:
            if self._stat() != self._state:
                self._read()
                log.info("keys read again", extra={"facts": {"keys": len(self._callers)}})
        except (BertsmithError, OSError) as error:
            log.error("keys could not be read again", extra={"facts": {"why": str(error)}})

    def _stat(self) -> tuple[int, int, int]:
        stat = self.path.stat()
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _read(self) -> None:
        if not self.path.is_file():
            raise ConfigError(f"{self.path}: no such file; make one: bertsmith keys add NAME {self.path}")
        state = self._stat()
        found = read_keys(self.path).keys
        self._callers = {number: self._kept(number, key) for number, key in found.items()}
        self._state = state

    def _kept(self, number: str, key: Key) -> Caller:
        """A caller as it was before, so that reading the file again gives nobody a new quota."""
        old = self._callers.get(number)
        if old is None or old.key.hash != key.hash:
            return Caller(number, key)
        old.key = key
        return old


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
