"""Keys, tokens and passwords in text: by the prefixes of those who issue them, or by what they are called."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from bertsmith.corpus.context import NEAR, Candidate, pattern

_KEY = pattern(
    r"""[sprghnALETxyde](?<![A-Za-z0-9_-].)(?:
    (?<=s)k-[A-Za-z0-9_-]{20,}+ | (?<=[spr])k_(?:live|test)_[A-Za-z0-9]{16,}+
    | (?<=g)(?:h[pousr]_[A-Za-z0-9]{36,}+ | ithub_pat_[A-Za-z0-9_]{22,}+
        | lpat-[A-Za-z0-9_-]{20,}+ | sk_[A-Za-z0-9]{40,}+)
    | (?<=A)(?:KIA[A-Z0-9]{16}+ | SIA[A-Z0-9]{16}+ | Iza[A-Za-z0-9_-]{35}+ | KID[A-Za-z0-9]{13,}+)
    | (?<=L)TAI[A-Za-z0-9]{12,30}+ | (?<=x)ox[abeoprs]-[A-Za-z0-9-]{10,}+ | (?<=h)f_[A-Za-z0-9]{30,}+
    | (?<=n)pm_[A-Za-z0-9]{36}+ | (?<=p)ypi-[A-Za-z0-9_-]{50,}+ | (?<=y)a29\.[A-Za-z0-9_-]{20,}+
    | (?<=d)(?:op_v1_[a-f0-9]{64}+ | ckr_[a-z]{2,8}_[A-Za-z0-9_-]{20,}+) | (?<=r)8_[A-Za-z0-9]{37}+
    | (?<=e)yJ[A-Za-z0-9_-]{10,}+\.eyJ[A-Za-z0-9_-]{10,}+\.[A-Za-z0-9_-]{10,}+
    )(?![A-Za-z0-9])"""
)
_ONE_PREFIX = {
    "SG.": pattern(r"SG\.(?<![A-Za-z0-9_-]...)[A-Za-z0-9_-]{16,32}+\.[A-Za-z0-9_-]{16,64}+(?![A-Za-z0-9])"),
    "SK": pattern(r"SK(?<![A-Za-z0-9_-]..)[0-9a-f]{32}(?![A-Za-z0-9])"),
    "GOCSPX-": pattern(r"GOCSPX-(?<![A-Za-z0-9_-].{7})[A-Za-z0-9_-]{20,}+"),
    "whsec_": pattern(r"whsec_(?<![A-Za-z0-9_-].{6})[A-Za-z0-9+/]{24,}+={0,2}"),
    ":AA": pattern(r"(?<![0-9A-Za-z])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
    "hooks.slack": pattern(r"(?<=hooks\.slack\.com/services/)T[A-Z0-9]{6,12}/B[A-Z0-9]{6,12}/[A-Za-z0-9]{20,}+"),
}
_ONE_PREFIX |= {
    prefix: pattern(rf"{prefix}(?<![A-Za-z0-9_-].{{{len(prefix)}}})[A-Za-z0-9_-]{{20,}}+")
    for prefix in str.split(
        "shpat_ shpss_ tvly- lin_api_ nvapi- pplx- glsa_ sq0csp- sq0atp- ntn_ figd_ PMAK- xai- rpa_ xapp- dapi key- "
        "AGE-SECRET-KEY-1"
    )
}
"""Looked for only in text that has the prefix, which is found out faster."""
_PEM = pattern(r"-----(?P<side>BEGIN|END)\ [A-Z0-9 ]{0,30}PRIVATE\ KEY-----")
_VALUE = pattern(
    r"(?:[=:：是为]|[Bb]earer\ )[ ]{0,2}(?:(?:[Bb]asic|[Tt]oken)[ ])?[\"'`]?"
    r"(?=[A-Za-z_+/.~!@\#$%^*-]{0,64}+[0-9])(?=(?P<value>[A-Za-z0-9_+/.~!@\#$%^*-]{8,}+={0,2}))"
)
_BEFORE_VALUE = ("=", ":", "：", "是", "为", "earer ")
_BEARER = "Bb"
_LONG = re.compile(r"[A-Za-z0-9_+/.~-]{16,}={0,2}", re.ASCII)
# The last word of a name: `api_key`, `apiKey` and `apikey`, but neither `monkey` nor `keyboard`.
_NAMES_SECRET = re.compile(
    r"(?:(?:(?<![A-Za-z])(?i:(?:api|app|access|auth|client|secret|private|account|shared|master|refresh)?"
    r"(?:key|secret|token)|credential|authorization|bearer|password|passwd|passphrase|passcode|pwd|pass))"
    r"|(?<=[a-z])(?:Key|Secret|Token|Credential|Password|Passwd|Pwd))(?i:s?)(?![a-z])"
    r"|密钥|秘钥|密码|令牌|口令",
    re.ASCII,
)
_NAMES_PASSWORD = re.compile(r"(?i:passw|passphrase|passcode|pwd)|密码|口令", re.ASCII)
# Pairs of letters that words in English and in code are made of: nine in ten of theirs, a quarter of all.
_PAIRS = frozenset(
    group[0] + second
    for group in str.split(
        "abcdgilmnprsty baeilou caehiklortu daeiosu eacdefglmnprstvx faefio gaeir haeio iabcdefglmnoprstvz ke "
        "ladeilostuy mabeiop nacdegiost obcdklmnoprstuvw paeiloprtu qu racdeimnorsty sacehiopstu taehiorstuy "
        "uabelmnprst vaei waei ze"
    )
    for second in group[1:]
)
_TOKEN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_PLAIN_PIECES = pattern(
    r"(?:(?:[A-Za-z]*+[0-9]*+|[0-9]++[A-Za-z]++|[0-9]{2,8}T[0-9]{2,6}Z?)(?:[-_./~+]|$))+"  # a piece reads in one way
)
_WORDS = 0.6
"""Share of known pairs among a value's pairs of letters, from which on it is taken for words."""
_SOME_WORDS = 0.4
"""The same where letters and digits do not mix within the pieces between signs, as in a date or a numbered name."""
_WORD_LENGTH = 2.8
"""Mean length of the words and figures that a value falls into; chance makes it about 2."""


def find_api_keys(text: str) -> Iterator[Candidate]:
    """Keys by the prefixes of those who issue them, private key blocks, and values by chance that are called a secret.

    Args:
        text: folded.
    """
    for found in _KEY.finditer(text):
        yield *found.span(), "api_key"
    for prefix, shape in _ONE_PREFIX.items():
        for found in shape.finditer(text) if prefix in text else ():
            if _is_random(found[0][:256]):
                yield *found.span(), "api_key"
    begin = -1
    for found in _PEM.finditer(text) if "PRIVATE KEY-----" in text else ():
        if found["side"] == "BEGIN":
            begin = found.start()
        elif begin >= 0:
            yield begin, found.end(), "api_key"
            begin = -1
    for found in _VALUE.finditer(text) if any(map(text.__contains__, _BEFORE_VALUE)) else ():
        name = "" if found[0][0] in _BEARER else _name(text, found.start())
        if not name and found[0][0] not in _BEARER:
            continue
        start, end = found.span("value")
        end = _ends(text, start, end, bool(_NAMES_PASSWORD.search(name)))
        if end:
            yield start, end, "api_key"


def _name(text: str, end: int) -> str:
    """What a value is called, when that is a secret; else nothing."""
    before = text[max(0, end - 2 * NEAR) : end]
    before = before[1 + max(map(before.rfind, "\n=:：,;，。、；?&")) :]
    return before if _NAMES_SECRET.search(before) else ""


def _ends(text: str, start: int, end: int, password: bool) -> int:
    """Where a secret ends, 0 when a value is none: a word, a path, a call, a variable."""
    value = text[start:end].rstrip("." if password else ".!")
    if text[start + len(value) : start + len(value) + 1] in ("(", "["):
        return 0
    long = _LONG.match(value)
    if long and (long.end() == len(value) or not password):
        return start + long.end() if _is_random(value[: min(long.end(), 256)]) else 0
    return start + len(value) if password and _is_password(value[:256]) else 0


def _is_password(value: str) -> bool:
    """Whether a value mixes letters, digits and signs, and is neither an address nor a placeholder."""
    if len(value) < 8 or value[0] in "$%/" or "://" in value or re.search(r"@[\w-]+\.[A-Za-z]{2,}$", value):
        return False
    said = value.rstrip("!")
    if sum(map("-_./".__contains__, said)) > 1 and _PLAIN_PIECES.fullmatch(said):
        return False
    return all(any(map(value.__contains__, signs)) for signs in (string.digits, string.ascii_letters, "!@#$%^*"))


def _is_random(value: str) -> bool:
    """Whether letters and digits are mixed as chance mixes them, not as words, dates and paths do."""
    if value.isalpha() or value.isdigit() or value.startswith("//") or not any(map(value.__contains__, string.digits)):
        return False
    words = _TOKEN.findall(value)
    spelled = [word.lower() for word in words if word.isalpha()]
    pairs = [word[at : at + 2] for word in spelled for at in range(len(word) - 1)]
    known = sum(map(_PAIRS.__contains__, pairs))
    if _PLAIN_PIECES.fullmatch(value) and known >= _SOME_WORDS * len(pairs):
        return False
    wordy = len(pairs) > len(value) // 4 and known > _WORDS * len(pairs)
    return not (wordy and sum(map(len, words)) > _WORD_LENGTH * len(words))
