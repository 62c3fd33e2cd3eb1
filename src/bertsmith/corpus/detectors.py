"""What personal data looks like: for each kind a pattern that proposes and a check that decides.

Every pattern starts at the beginning of a word or at a rare sign, and what it may read from there is bounded or is
consumed, so no character is read more than a fixed number of times.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator

from bertsmith.corpus.checksums import PROVINCES, credit_code
from bertsmith.corpus.context import (
    CREDIT_WORDS,
    MAC_WORDS,
    NEAR,
    PASSPORT_WORDS,
    Candidate,
    Kind,
    is_called,
    is_other,
    is_part,
    pattern,
)
from bertsmith.corpus.keys import find_api_keys
from bertsmith.corpus.numbers import find_numbers

_DOMAIN = pattern(r"@(?:[A-Za-z0-9\u00c0-\u024f-]{1,63}+\.){1,8}[A-Za-z]{2,24}+(?![0-9])")
_LOCAL = string.ascii_letters + string.digits + "._%+-'&#!$*^~" + "".join(map(chr, range(0xC0, 0x250)))
_FILES = frozenset(
    ["png", "jpg", "jpeg", "gif", "webp", "svg", "ico", "bmp", "pdf", "css", "js", "json", "py", "html", "htm"]
)
_AUTHORITY = pattern(
    r"://(?!\[)(?P<user>[^\s/?\#<>\"`,;@\u2e80-\uffff]{1,512}+ (?:@[^\s/?\#<>\"`,;@\u2e80-\uffff]{1,512}+)++)"
)


def find_emails(text: str) -> Iterator[Candidate]:
    """E-mail addresses: from each @ a domain to the right, a local part to the left; `icon@2x.png` is none.

    Args:
        text: folded.
    """
    last = 0
    for found in _DOMAIN.finditer(text):
        at, end = found.span()
        reach = text[max(last, at - 65) : at]
        local = reach[len(reach.rstrip(_LOCAL)) :]
        last = end
        stripped = local.lstrip("._%+-'&#!$*^~")
        start = at - len(stripped)
        if not stripped or len(local) > 64 or local.endswith(".") or stripped.lower() == "git":
            continue
        if text[at:end].rpartition(".")[2].lower() not in _FILES:
            yield start, end, "email"


def find_url_credentials(text: str) -> Iterator[Candidate]:
    """What stands before the host in a URL: `user:password`, or a token; a lone `git` is nobody's.

    Args:
        text: folded.
    """
    for found in _AUTHORITY.finditer(text):
        start = found.start("user")
        end = text.rindex("@", start, found.end())
        host = text[end + 1]
        if (host.isalnum() or host == "[") and text[start:end].lower() not in ("git", "hg", "svn"):
            yield start, end, "url_credentials"


_HARDWARE = pattern(
    r"""[0-9A-Fa-f](?<![0-9A-Za-z].)[0-9A-Fa-f](?:
    (?P<sign>[:：-])[0-9A-Fa-f]{2}(?:(?P=sign)[0-9A-Fa-f]{2}){4}
    | [ ](?<![^0-9A-Za-z][0-9A-Fa-f]{2}[ ]...)[0-9A-Fa-f]{2}(?:[ ][0-9A-Fa-f]{2}){4}(?P<spaced>)
    | [0-9A-Fa-f]{2}(?:\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}|[0-9A-Fa-f]{8}(?P<bare>))
    )(?![:：.-]?[0-9A-Za-z])"""
)
_CALLED_MAC = re.compile(
    r"(?:(?<![a-z])(?:mac|hwaddr|bssid|ether)|物理地址|网卡)[^a-z0-9]{0,4}(?:addr(?:ess)?|地址)?[^a-z0-9]{0,4}(?:is )?$"
)
_GROUP_BEFORE = re.compile(r"(?:^|[^0-9A-Za-z])(?:[0-9A-Fa-f]{2}[:：-]|[0-9A-Fa-f]{4}\.)$")
_IPV6 = pattern(
    r"""[0-9A-Fa-f](?<![0-9A-Za-z:.].)[0-9A-Fa-f]{0,3}+ (?:
    (?P<whole>(?::[0-9A-Fa-f]{1,4}+){7})
    | (?::[0-9A-Fa-f]{1,4}+){0,6} ::(?:[0-9A-Fa-f]{1,4}+(?::[0-9A-Fa-f]{1,4}+){0,5}+)?
    )(?![0-9A-Za-z:])"""
)
_ASSIGNED = re.compile(r"[23][0-9a-f]{3}:|fe[89ab][0-9a-f]:|f[cd][0-9a-f]{2}:|ff0[0-9a-f]:|64:ff9b:", re.IGNORECASE)


def find_macs(text: str) -> Iterator[Candidate]:
    """Hardware addresses of six bytes, with colons, hyphens or as Cisco writes them; six numbers of a lottery are none.

    Args:
        text: folded.
    """
    for found in _HARDWARE.finditer(text):
        start, end = found.span()
        if _GROUP_BEFORE.search(text[max(0, start - 6) : start]):
            continue
        if found["spaced"] is not None or found["bare"] is not None:
            if not found[0].isalpha() and _CALLED_MAC.search(text[max(0, start - NEAR) : start].lower()):
                yield start, end, "mac"
            continue
        lettered = found["sign"] in (":", "：") or any(map(str.isalpha, found[0]))
        if lettered or is_called(text, start, MAC_WORDS):
            yield start, end, "mac"


def find_ipv6(text: str) -> Iterator[Candidate]:
    """IPv6 addresses in assigned ranges, and whole ones that are long enough to be nothing else.

    Args:
        text: folded.
    """
    for found in _IPV6.finditer(text) if ":" in text else ():
        groups = found[0].count(":") + (not found[0].endswith("::"))
        if groups <= 8 and (_ASSIGNED.match(found[0]) or (found["whole"] and len(found[0]) >= 27)):
            yield *found.span(), "ip"


_CREDIT_CODE = pattern(r"[1-9ANYany](?<![0-9A-Za-z].)[1-9A-Ya-y][0-9]{6}[0-9A-Ya-y]{10}(?![0-9A-Za-z])")
_REGIONS = PROVINCES | {"10"}
_PASSPORT = pattern(
    r"[EGDSPKH](?<![0-9A-Za-z_-].)(?:(?<=[EG])[0-9]{8}|(?<=E)[A-HJ-NP-Z][0-9]{7}|(?<=[DSP])E[0-9]{7})(?![0-9A-Za-z-])"
)
_PATENTS = ("EP", "DE", "SE")
"""Such numbers of seven digits are patents of Europe, Germany and Sweden, unless they are called a passport."""
_CALLED_PASSPORT = pattern(
    r"""[Pp护護通](?:assport|ASSPORT|照|行证|行證)[ ]?[(（]?(?:[Nn]o\.?|NO\.?|[Nn]umber|NUMBER|编?号码?|號碼?)?[ ]?
    (?:[Ii]s|IS|是|为)?[:：\#]{0,2}[ ]?
    (?P<number>(?:[A-Z]{1,2}|[A-Z](?=[0-9]{2}[A-Z])|[A-Za-z](?=[0-9]{8})|[EG][ ](?=[0-9]{8}))?[0-9][0-9A-Z]{5,8})
    (?![0-9A-Za-z])"""
)
_PLATE = pattern(
    r"""[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Za-hj-np-z][ ·•・.-]?
    (?P<number>[DFdf][A-HJ-NP-Za-hj-np-z0-9][0-9]{4}|[0-9]{5}[DFdf]|[A-HJ-NP-Za-hj-np-z0-9]{4}[A-HJ-NP-Za-hj-np-z0-9挂学警港澳])
    (?![0-9A-Za-z]|次(?![日月年]))"""
)


def find_credit_codes(text: str) -> Iterator[Candidate]:
    """Unified social credit codes with a right check sign, of a known region unless the text says what they are.

    Args:
        text: folded.
    """
    for found in _CREDIT_CODE.finditer(text):
        start, end = found.span()
        known = found[0][2:4] in _REGIONS and not is_other(text, start)
        known = known or is_called(text, start, CREDIT_WORDS)
        if known and credit_code(found[0].upper()) and not is_part(text, start, end):
            yield start, end, "credit_code"


def find_passports(text: str) -> Iterator[Candidate]:
    """Passport numbers: of mainland China by their shape, of any country after the word.

    Args:
        text: folded.
    """
    for found in _CALLED_PASSPORT.finditer(text):
        yield *found.span("number"), "passport"
    for found in _PASSPORT.finditer(text):
        known = found[0][:2] not in _PATENTS or is_called(text, found.start(), PASSPORT_WORDS)
        if known and not is_other(text, found.start()):
            yield *found.span(), "passport"


def find_plates(text: str) -> Iterator[Candidate]:
    """Vehicle plates of mainland China, those of electric cars too; at most two of five signs are letters.

    Args:
        text: folded.
    """
    for found in _PLATE.finditer(text):
        figures = sum(map(str.isdigit, found["number"]))
        if figures >= max(3, len(found["number"]) - 2):
            yield *found.span(), "plate"


FINDERS: tuple[tuple[frozenset[Kind], Callable[[str], Iterator[Candidate]]], ...] = (
    (frozenset({"url_credentials"}), find_url_credentials),
    (frozenset({"api_key"}), find_api_keys),
    (frozenset({"email"}), find_emails),
    (frozenset({"mac"}), find_macs),
    (frozenset({"ip"}), find_ipv6),
    (frozenset({"resident_id", "bank_card", "phone", "ip"}), find_numbers),
    (frozenset({"credit_code"}), find_credit_codes),
    (frozenset({"passport"}), find_passports),
    (frozenset({"plate"}), find_plates),
)
"""What finds which kinds; where two candidates overlap, the earlier line wins."""
