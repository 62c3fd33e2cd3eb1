"""Check characters of numbers that people and firms are known by; each takes plain ASCII without separators."""

from __future__ import annotations

from datetime import date
from operator import mul

_DOUBLED = bytes((2 * digit if digit < 5 else 2 * digit - 9) + 48 for digit in range(10))
_DOUBLE = bytes.maketrans(b"0123456789", _DOUBLED)
_ID_WEIGHTS = tuple(2**power % 11 for power in range(17, 0, -1))
_ID_ZEROS = ord("0") * sum(_ID_WEIGHTS)
_ID_SIGNS = "10X98765432"
_CREDIT_SIGNS = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_CREDIT_VALUES = {sign: value for value, sign in enumerate(_CREDIT_SIGNS)}
_CREDIT_WEIGHTS = tuple(3**power % 31 for power in range(17))
PROVINCES = frozenset(
    str.split(
        "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83 91"
    )
)
"""The first two digits of GB/T 2260 region codes; 83 and 91 begin residence permits."""


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B).

    Args:
        digits: ASCII digits.
    """
    signs = digits.encode()
    return (sum(signs[::-2]) + sum(signs[-2::-2].translate(_DOUBLE)) - 48 * len(signs)) % 10 == 0


def resident_id(number: str) -> bool:
    """Whether a Chinese resident identity number holds: its region, its day of birth, its sign (ISO 7064 MOD 11-2).

    Args:
        number: 17 digits, and a digit or X.
    """
    if len(number) != 18 or not number[:17].isdigit() or number[:2] not in PROVINCES:
        return False
    if _ID_SIGNS[(sum(map(mul, _ID_WEIGHTS, number.encode())) - _ID_ZEROS) % 11] != number[17].upper():
        return False
    try:
        return 1850 <= date(int(number[6:10]), int(number[10:12]), int(number[12:14])).year < 2100
    except ValueError:
        return False


def credit_code(code: str) -> bool:
    """Whether the last sign of a unified social credit code is right (GB 32100-2015, modulus 31).

    Args:
        code: 18 capital letters and digits; I, O, S, V and Z do not occur in such a code.
    """
    try:
        values = [_CREDIT_VALUES[sign] for sign in code]
    except KeyError:
        return False
    return len(values) == 18 and (sum(map(mul, _CREDIT_WEIGHTS, values)) + values[17]) % 31 == 0
