"""What is written down: a JSON line for each event and each request, and an audit of who asked what. Never a text."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import logging.handlers
import secrets
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from bertsmith.core.config import Config, Count
from bertsmith.core.errors import ConfigError
from bertsmith.corpus.privacy import redact

BASE = ("time", "level", "logger", "message", "traceback")
LONGEST = 2000
"""Characters of a text in a log line."""


class AuditConfig(Config):
    """Where it is written down who asked what."""

    file: str | None = Field(None, description="a JSON line a request: key, model, counts and hashes, no text")
    bytes: Count = Field(50_000_000, ge=10_000, description="size at which the file is set aside and a new one begun")
    keep: int = Field(10, ge=1, description="files that are kept beside the newest; older ones are removed")


class JsonLines(logging.Formatter):
    """A log record as one JSON object; personal data in it is masked."""

    def format(self, record: logging.LogRecord) -> str:
        """One line.

        Args:
            record: its `facts`, if it has some, become fields.
        """
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(safe(line), ensure_ascii=True, default=str)


class Lines(JsonLines):
    """The same for people who look at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        facts = {"level": "", "logger": "", "traceback": "", **json.loads(super().format(record))}
        shown = [f"{name}={value}" for name, value in facts.items() if name not in (*BASE, "request_id")]
        line = " ".join([facts["time"][11:19], facts["message"], *shown])
        return f"{line}\n{facts['traceback']}" if facts["traceback"] else line


def safe(value: Any) -> Any:
    """A value with the personal data in its texts masked, cut to what a log line may hold.

    Args:
        value: texts, numbers, lists, dicts.
    """
    if isinstance(value, str):
        return redact(value[:LONGEST]).text
    if isinstance(value, Mapping):
        return {key: item if key in ("time", "request_id") else safe(item) for key, item in value.items()}
    return [safe(item) for item in value] if isinstance(value, list | tuple) else value


def log_to_stderr(quiet: bool = False) -> None:
    """Write the service's log, and uvicorn's, on standard error: JSON lines, or on a terminal lines for eyes.

    Args:
        quiet: warnings and errors only.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines() if sys.stderr.isatty() else JsonLines())
    for name in ("bertsmith.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if quiet or name == "uvicorn" else logging.INFO)
    logging.getLogger("uvicorn.access").handlers = []
    logging.getLogger("uvicorn.access").propagate = False


class Audit:
    """A file of who asked what: a line a request, rotated by size.

    A text's hash is keyed by random bytes of this run, so it tells that two requests of a run were the same and
    nothing about the text; nobody can try telephone numbers until one fits.

    Args:
        config: where, and how much is kept.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, config: AuditConfig) -> None:
        self._key = secrets.token_bytes(32)
        self._handler: logging.Handler | None = None
        if config.file is not None:
            try:
                Path(config.file).parent.mkdir(parents=True, exist_ok=True)
                self._handler = logging.handlers.RotatingFileHandler(
                    config.file, maxBytes=config.bytes, backupCount=config.keep, encoding="utf-8"
                )
            except OSError as error:
                raise ConfigError(f"{config.file}: the audit cannot be written here ({error.strerror})") from None

    @property
    def wanted(self) -> bool:
        """Whether there is a file."""
        return self._handler is not None

    def hash(self, payloads: Sequence[str | tuple[str, ...]]) -> str:
        """A keyed hash of a request's texts; empty where nothing is written down.

        Args:
            payloads: texts or pairs, in their order.
        """
        if self._handler is None:
            return ""
        found = hmac.new(self._key, digestmod=hashlib.sha256)
        for payload in payloads:
            for text in (payload,) if isinstance(payload, str) else payload:
                data = text.encode(errors="surrogatepass")
                found.update(len(data).to_bytes(8) + data)
        return found.hexdigest()[:32]

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Args:
            line: plain values, none of them a text of the request.
        """
        if self._handler is not None:
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            text = json.dumps({"time": moment, **line}, ensure_ascii=True)
            self._handler.emit(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._handler.close()
