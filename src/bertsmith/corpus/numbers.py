"""Numbers that belong to people: one pattern proposes at the beginning of each word, checks decide."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator

from bertsmith.corpus.checksums import luhn, resident_id
from bertsmith.corpus.context import (
    ADDRESS_WORDS,
    CARD_WORDS,
    PHONE_WORDS,
    Candidate,
    Kind,
    is_amount,
    is_called,
    is_identity,
    is_other,
    is_part,
    is_release,
    is_telephone,
    pattern,
)

# An empty group marks the end of each shape and names it. Where it can, a shape starts with a single sign or a class of
# them, by which the engine passes over it. Up to six figures are nothing where no figure and no separator follows.
_NUMBER = pattern(
    r"""(?<![0-9A-Za-z])(?=[0-9][0-9.]|\+[1-9]|\([0-9+][0-9]|1(?:-[2-9]|[ ]?\())(?![0-9]{1,6}+[^0-9 ()./-])(?=
    0(?=0)[0-9][1-9][0-9]{9,14}(?![0-9A-Za-z])(?P<bare>)
    | [0-9][0-9]{12,17}[0-9Xx](?![0-9A-Za-z])(?P<long>)
    | [+(081](?:(?<=1)|(?:(?<=\()(?:\+|00)?86\)[ ]?|(?<=[+])86[ -]?|(?<=0)086[ -]?|(?<=8)6[ -]?)1)
        [3-9][0-9](?P<a>[ .-]?)[0-9]{4}(?P=a)[0-9]{4}(?:-[0-9]{1,4}(?![0-9-])|转[0-9]{1,6})?(?![0-9A-Za-z])(?P<mobile>)
    | 1[3-9][0-9](?:[ -][0-9]{8}|(?P<f>[ -])[0-9]{3}(?P=f)[0-9]{5}|[0-9](?P<g>[ -])[0-9]{3}(?P=g)[0-9]{4}
        |[0-9]{2}[ -][0-9]{6}|[0-9]{4}[ -][0-9]{4})(?![0-9A-Za-z])(?P<apart>)
    | [0-9](?<!\..)(?:(?<=1)[0-9]{0,2}+|(?<=2)(?:[0-4][0-9]?|5[0-5]?|[6-9])?+|(?<=[3-9])[0-9]?+|(?<=0))
        (?:\.(?:1[0-9]{0,2}+|2(?:[0-4][0-9]?|5[0-5]?|[6-9])?+|[3-9][0-9]?+|0)){3}(?![0-9A-Za-z]|\.[0-9])(?P<ipv4>)
    | [0-9][0-9]{3}(?:
        (?P<b>[ .-])(?<!(?<![0-9])[0-9]{4}[ .-][0-9]{4}[ .-])
            [0-9]{4}(?P=b)[0-9]{4}(?P=b)(?:[0-9]{4}(?:(?P=b)[0-9]{1,3})?|(?<=3[47].{13})[0-9]{3})
        | (?<=3[47][0-9]{2})(?P<c>[ -])[0-9]{6}(?P=c)[0-9]{5}
        | [0-9]{2}[ ][0-9]{10,13}
        )(?![0-9A-Za-z])(?P<card>)
    | [0-9][0-9]{2}(?:[0-9]{3}(?P<d>[ -])(?:[0-9]{8}|[0-9]{4}(?P=d)[0-9]{4})(?P=d)
        |(?P<h>[ -])[0-9]{3}(?P=h)[0-9]{4}(?P=h)[0-9]{4}(?P=h))[0-9]{3}[0-9Xx](?![0-9A-Za-z])(?P<id>)
    | [0(](?:(?<=0)(?:10|2[0-9]|[3-9][0-9]{2})[ /-]?|0(?:10|2[0-9]|[3-9][0-9]{2})\)[ ]?)[2-8][0-9]{2,3}[ -]?[0-9]{4}
        (?:(?:-|转|[ ]?ext\.?[ ]?)[0-9]{1,6})?(?![0-9A-Za-z])(?P<land>)
    | (?:8(?:6-0?(?:10|2[0-9]|[3-9][0-9]{2})-[2-8][0-9]{2,3}-?[0-9]{4}|5[23]-[2-9][0-9]{3}-?[0-9]{4}
            |86-[2-9][0-9]{0,2}-[0-9]{3,4}-[0-9]{3,4})
        |1(?:(?P<j>[.-])[2-9][0-9]{2}(?P=j)[2-9][0-9]{2}(?P=j)|[ ]?\([2-9][0-9]{2}\)[ ]?[2-9][0-9]{2}[ .-])[0-9]{4}
        |\(0[2-8]\)[ ]?[2-9][0-9]{2,3}[ -]?[0-9]{4}
        |0(?:(?:[2-8]-(?!20)[2-9][0-9]{3}|[789]0-[0-9]{4})-[0-9]{4}|9[0-9]{2}-[0-9]{3}-[0-9]{3}|7[0-9]{3}[ ][0-9]{6})
        )(?![0-9A-Za-z]|-[0-9])(?P<national>)
    | [48]00(?:[0-9]-[0-9]{3}-[0-9]{3}
        |-?[0-9]{3}-?[0-9]{4}|-[0-9]{4}-[0-9]{3}|[ ][0-9]{3}[ ][0-9]{4})(?![0-9A-Za-z]|-[0-9])(?P<service>)
    | [2-9(](?:(?<=\()[2-9][0-9]{2}\)[ ]?|(?<=[2-9])[0-9]{2}(?P<e>[.-]))[2-9][0-9]{2}
        (?(e)(?P=e)|[ .-])[0-9]{4}(?![0-9A-Za-z]|[.-][0-9])(?P<american>)
    | [+(0](?:(?<=[+])|(?<=\()(?=\+)|(?<=0)(?=0))(?=\+?(?:[ ()./-]{0,3}+[0-9]){8})
        (?:(?<=\()\+[1-9][0-9]{0,2}\)|(?:(?<=[+])|(?<=0)0[ -]?(?=[1-9][0-9]{0,2}[ -][1-9(]))[1-9][0-9]*+)
        (?:[ ()./-]{0,3}+(?<![ ]-)[0-9]++){0,7}+(?P<abroad>)
    | [0-9(](?<=[ 话話机機真线号码碼打电式是为:：\#(（].)(?<![0-9][ .(-].)(?=(?:[ )./-]{0,2}+[0-9]){6})
        (?:(?<=\()[0-9]{1,4}\)|(?<=[0-9])[0-9]*+)(?:[ )./-]{1,3}+(?<![ ]-)[0-9]++){0,6}+(?![0-9A-Za-z])(?P<loose>)
    )"""
)
# First digits by the length of the whole number: UnionPay, Visa, Mastercard, American Express, Diners, JCB, Discover.
_LONG_ISSUERS = ("62", "81", "9558", "603", "6011", "64", "65")
_ISSUERS: dict[int, tuple[str, ...]] = {14: ("30", "36", "38", "39"), 15: ("34", "37")}
_ISSUERS |= dict.fromkeys((17, 18, 19), _LONG_ISSUERS)
_ISSUERS[16] = (*_LONG_ISSUERS, "4", "35", *map(str, range(51, 56)), *map(str, range(223, 272)), "222", "2720")
_CALLING_CODE = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2[1-689]\d|3[578]\d|42[0-9]|5[09]\d|6[7-9]\d|80\d|8[578]\d|9[679]\d"
)
_NATIONAL = {"1": (10, 10), "7": (10, 10), "86": (9, 11), "852": (8, 8), "853": (8, 8), "886": (8, 9), "65": (8, 8)}
_NATIONAL |= {"44": (9, 10), "33": (9, 9), "34": (9, 9), "61": (9, 9), "81": (9, 10), "82": (8, 10), "91": (10, 10)}
_NATIONAL |= {"49": (7, 11), "39": (8, 11), "55": (10, 11), "60": (8, 10), "62": (8, 12), "66": (8, 9), "84": (9, 10)}
_DIGITS = string.digits
_WORD = pattern("[0-9A-Za-z]")
_BESIDE = (" ", "-", ",", ".", "/")
_MOBILE = re.compile(r"861[3-9][0-9]{9}$")
_SEPARATORS = " ()./-"
_PARTS = ("节", "章", "条", "版")
_MAPPED = "::ffff:"
_PLAIN = str.maketrans("", "", " .-")
_DAY = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])$")
_DATE = re.compile(r"(?:19|20)[0-9]{2}([ ./-])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([./-])[0-9]{1,2}\2(?:19|20)[0-9]{2}")


def _is_ipv4(text: str, start: int, end: int) -> bool:
    if text[end : end + 2].lstrip()[:1] in _PARTS or is_other(text, start):
        return False
    if is_release(text, start, end):
        return False
    return end - start > 7 or len(set(text[start:end])) == 2 or is_called(text, start, ADDRESS_WORDS)


def _is_card(text: str, start: int, digits: str) -> bool:
    if len(digits) not in _ISSUERS or not digits.isdigit() or not luhn(digits) or len(set(digits)) < 2:
        return False
    known = digits.startswith(_ISSUERS[len(digits)]) and not is_other(text, start)
    return known or is_called(text, start, CARD_WORDS)


def _abroad(text: str, start: int, end: int) -> int:
    """Where a number with a calling code ends: as many groups as its country has digits; -1 when it cannot be one."""
    written = text[start:end]
    digits = "".join(filter(_DIGITS.__contains__, written.replace("(0)", ""))).removeprefix("00")
    code = _CALLING_CODE.match(digits)
    if code is None or len(digits) < 8:
        return -1
    least, most = _NATIONAL.get(code[0], (7, 11))
    if code[0] == "86" and digits[2] == "1" and digits[3] > "2":
        least = most = 11
    surplus = len(digits) - code.end() - most
    while surplus > 0:
        kept = written.rstrip(_DIGITS)
        surplus -= len(written) - len(kept)
        written = kept.rstrip(_SEPARATORS)
    return start + len(written) if most + surplus >= least and not _WORD.match(text, start + len(written)) else -1


def _long(text: str, start: int, end: int) -> Kind | None:
    number = text[start:end]
    if is_part(text, start, end):
        return None
    if resident_id(number):
        return "resident_id"
    return "bank_card" if text[end : end + 1] != "-" and _is_card(text, start, number) else None


def _grouped_card(text: str, start: int, end: int) -> int:
    """Where a card number in groups ends; a last group that does not belong to it is left out; -1 when it is none."""
    goes_on = text[end : end + 1] in ("-", " ") and text[end + 1 : end + 2].isdigit()
    for stop in (end, start + 19) if goes_on and end > start + 20 else (end,):
        if not is_part(text, start, stop) and _is_card(text, start, text[start:stop].translate(_PLAIN)):
            return stop
    return -1


def _is_alone(text: str, start: int, end: int) -> bool:
    """Whether no other figures stand beside a number, as they do in a table."""
    before = text[max(0, start - 2) : start]
    return not (before[:1].isdigit() and before[1:] in _BESIDE) and not (
        text[end : end + 1] in _BESIDE and text[end + 1 : end + 2].isdigit()
    )


def _is_landline(text: str, start: int, end: int) -> bool:
    """Not a part of longer groups; where nothing separates the area code, a long one needs to be called a telephone."""
    number = text[start:end]
    if " " in number and text[start - 1 : start] == " " and text[start - 2 : start - 1].isdigit():
        return False
    return not number.isdigit() or number[1] in "12" or is_called(text, start, PHONE_WORDS)


def _is_apart(text: str, start: int, end: int) -> bool:
    """Whether a mobile number in unusual groups is one: no year or date, or called a telephone."""
    number = text[start:end].replace("-", " ")
    first = number.index(" ")
    unlikely = first > 4 or _DAY.search(number) or (first == 4 and number.startswith("19"))
    return not unlikely or is_called(text, start, PHONE_WORDS)


def _bare(text: str, start: int, end: int) -> bool:
    """Whether figures after 00 and without separators are a mobile number of China, or called a telephone."""
    if _MOBILE.match(text, start + 2, end):
        return True
    return is_called(text, start, PHONE_WORDS) and _abroad(text, start, end) == end


def _loose(text: str, start: int, end: int) -> int:
    """Where a number in any groups ends that is directly called a telephone; -1 when it is not, or is a date."""
    written = text[start:end]
    if not is_telephone(text, start) or _DATE.match(written):
        return -1
    while sum(map(_DIGITS.__contains__, written)) > 11 + written.startswith("0"):
        written = written.rstrip(_DIGITS).rstrip(_SEPARATORS)
    return start + len(written) if sum(map(_DIGITS.__contains__, written)) > 6 else -1


def _phone(text: str, start: int, end: int, shape: str) -> int:
    """Where a telephone number of a shape ends; -1 when it is none."""
    if shape == "apart" and not _is_alone(text, start, end):
        return -1
    if is_part(text, start, end) or is_other(text, start) or is_amount(text, start, end):
        return -1
    if shape == "abroad":
        return _abroad(text, start, end)
    if shape == "loose":
        return _loose(text, start, end)
    check = {"land": _is_landline, "apart": _is_apart, "bare": _bare}.get(shape)
    return end if (check is None or check(text, start, end)) and not is_identity(text, start) else -1


def find_numbers(text: str) -> Iterator[Candidate]:
    """Resident identity numbers, bank cards, telephones and IPv4 addresses.

    Args:
        text: folded.
    """
    for found in _NUMBER.finditer(text):
        shape = str(found.lastgroup)
        start, end = found.start(), found.end(shape)
        if shape == "long":
            kind = _long(text, start, end)
            if kind:
                yield start, end, kind
        elif shape == "ipv4":
            if _is_ipv4(text, start, end):
                yield start - len(_MAPPED) * text.endswith(_MAPPED, 0, start), end, "ip"
        elif shape == "card":
            end = _grouped_card(text, start, end)
            if end > 0:
                yield start, end, "bank_card"
        elif shape == "id":
            if resident_id(text[start:end].translate(_PLAIN)):
                yield start, end, "resident_id"
        else:
            end = _phone(text, start, end, shape)
            if end > 0:
                yield start, end, "phone"
