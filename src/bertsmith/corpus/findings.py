"""What cleaning did, by rule: how often, how much text, and up to ten samples of each; sums do not depend on order."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Self

from bertsmith.corpus.document import Document

SAMPLES = 10
SHOWN = 300
"""Characters of a sample."""


class Findings:
    """Counts and samples by reason.

    The samples of a reason are the ten with the smallest hash of where they stand and what they say: an even draw, and
    the same one in whatever order the documents come and however they are shared out.

    Attributes:
        documents: how many were looked at.
        characters: how many characters they had.
        kept_documents: how many of them stayed.
        kept_characters: how many characters those had in the end.
    """

    def __init__(self) -> None:
        self.documents = self.characters = self.kept_documents = self.kept_characters = 0
        self._rules: dict[str, dict[str, int]] = {}
        self._samples: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, what: str, document: Document, text: str, characters: int, note: str = "") -> None:
        """Count one thing.

        Args:
            reason: a snake_case name; always with the same `what`.
            what: what is counted: `documents` or `lines` that were left out, or `mended` documents.
            document: where.
            text: what is shown of it, of any length.
            characters: how many characters are lost by it.
            note: what it was judged by.
        """
        rule = self._rules.setdefault(reason, {what: 0, "characters": 0})
        self._first.setdefault(reason, document.id)
        rule[what] += 1
        rule["characters"] += characters
        sample = {"id": document.id, "text": text[:SHOWN]}
        key = blake2b(f"{document.source}\0{document.id}\0{sample['text']}".encode("utf-8", "surrogatepass"))
        self._keep(reason, key.hexdigest()[:16], sample | ({"note": note} if note else {}))

    def take_back(self, characters: int) -> None:
        """Count a document of so many `characters` no longer among those that stay."""
        self.kept_documents -= 1
        self.kept_characters -= characters

    def counts(self) -> dict[str, int]:
        """How many documents or lines were left out or mended, by reason."""
        return {reason: next(iter(rule.values())) for reason, rule in self._rules.items()}

    def first(self, reason: str) -> str:
        """The document in which a reason was first met."""
        return self._first[reason]

    def left_out(self) -> dict[str, int]:
        """How many documents were left out, by reason, the most frequent first."""
        found = {reason: rule["documents"] for reason, rule in self._rules.items() if "documents" in rule}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def merge(self, other: Findings) -> None:
        """Take in what was found in later documents, `other`."""
        self.documents += other.documents
        self.characters += other.characters
        self.kept_documents += other.kept_documents
        self.kept_characters += other.kept_characters
        for reason, rule in other._rules.items():
            mine = self._rules.setdefault(reason, dict.fromkeys(rule, 0))
            self._first.setdefault(reason, other._first[reason])
            for what, count in rule.items():
                mine[what] += count
            for key, sample in other._samples[reason]:
                self._keep(reason, key, sample)

    def to_json(self, *, keys: bool = True) -> dict[str, Any]:
        """Everything, as JSON values; reasons and samples in an order of their own.

        Args:
            keys: with what `from_json` needs.
        """
        rules = {
            reason: rule
            | {"samples": [({"key": key} if keys else {}) | one for key, one in self._samples[reason]]}
            | ({"first": self._first[reason]} if keys else {})
            for reason, rule in sorted(self._rules.items())
        }
        totals = {
            name: getattr(self, name) for name in ("documents", "characters", "kept_documents", "kept_characters")
        }
        return totals | {"rules": rules}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` wrote.

        Args:
            values: as read.
        """
        found = cls()
        for name in ("documents", "characters", "kept_documents", "kept_characters"):
            setattr(found, name, values[name])
        for reason, rule in values["rules"].items():
            found._rules[reason] = {what: count for what, count in rule.items() if what not in ("samples", "first")}
            found._first[reason] = rule["first"]
            found._samples[reason] = []
            for sample in rule["samples"]:
                found._keep(reason, sample["key"], {name: value for name, value in sample.items() if name != "key"})
        return found

    def _keep(self, reason: str, key: str, sample: dict[str, Any]) -> None:
        kept = self._samples.setdefault(reason, [])
        if len(kept) < SAMPLES or key < kept[-1][0]:
            kept.append((key, sample))
            kept[:] = heapq.nsmallest(SAMPLES, kept, key=lambda item: (item[0], item[1]["id"]))
