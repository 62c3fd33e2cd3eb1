"""What a number's surroundings say about it, and the one way of writing in which all patterns are looked for."""

from __future__ import annotations

import re
import string
from typing import Literal

Kind = Literal[
    "url_credentials",
    "api_key",
    "email",
    "mac",
    "ip",
    "resident_id",
    "credit_code",
    "bank_card",
    "passport",
    "phone",
    "plate",
]
Candidate = tuple[int, int, Kind]
"""Start, end and kind."""

_WIDE = {code: code - 0xFEE0 for code in (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B))}
_WIDE |= {ord(sign): ord(sign) - 0xFEE0 for sign in "＠．－＋（）＿／＃＝"}
_DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-")
_SPACES = dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000], " ")
_FOLD = _WIDE | _DASHES | _SPACES


def fold(text: str) -> str:
    """Full-width letters, digits and signs, dashes and spaces as ASCII has them, one for one: positions stay.

    Args:
        text: any text.
    """
    return text if text.isascii() else text.translate(_FOLD)


def pattern(text: str) -> re.Pattern[str]:
    """A pattern with spaces and comments, in which letters and digits are those of ASCII.

    Args:
        text: of it.
    """
    return re.compile(text, re.VERBOSE | re.ASCII)


NEAR = 16
"""Characters before a number in which a word may say what it is."""
# A number that is directly called one of these is nothing personal; between the two may stand a few of the fillers.
_OTHER = frozenset(
    str.split(
        "order orders tracking invoice serial ticket batch sku version build release ref reference transaction "
        "part model firmware section chapter isbn issn doi v s/n"
    )
)
_OTHER_CHINESE = tuple(str.split("订单 运单 流水 序列 快递 物流 发票 批次 型号 货号 条码 工单 合同 版本 第"))
_FILLERS = frozenset(["number", "no", "id", "code", "nr", "is", "was"])
_FILLERS_CHINESE = "号码编单是为"
_BETWEEN = " :：#=.\"'“(（<"

CARD_WORDS = ("卡", "银联", "账号", "帐号", "账户", "card", "visa", "account", "unionpay")
CREDIT_WORDS = ("信用代码", "税号", "纳税人", "credit code", "uscc")
PHONE_WORDS = ("电话", "手机", "联系", "拨打", "致电", "热线", "传真", "座机", "tel", "phone", "mobile", "call", "fax")
ADDRESS_WORDS = ("ip ", "ip:", "ip：", "ip=", "地址", "主机", "服务器", "address", "host", "server", "dns", "ping")
MAC_WORDS = ("mac", "物理地址", "网卡", "ethernet", "hwaddr")


def is_called(text: str, start: int, words: tuple[str, ...]) -> bool:
    """Whether one of these words stands shortly before.

    Args:
        text: folded.
        start: of the number.
        words: in lower case.
    """
    before = text[max(0, start - NEAR) : start].lower()
    return any(word in before for word in words)


def is_other(text: str, start: int) -> bool:
    """Whether the words directly before a number say that it is an order, a version or the like.

    Args:
        text: folded.
        start: of the number.
    """
    before = text[max(0, start - 2 * NEAR) : start].rstrip(_BETWEEN)
    if not before[-1:].isalpha():
        return False
    before = before.lower()
    for _ in range(3):
        rest = before.rstrip(string.ascii_lowercase + "/")
        word = before[len(rest) :]
        if word and word not in _FILLERS:
            return word in _OTHER
        before = rest.rstrip(_BETWEEN)
        chinese = before.rstrip(_FILLERS_CHINESE)
        if before.endswith(("单号", "编号", *_OTHER_CHINESE)) or chinese.endswith(_OTHER_CHINESE):
            return True
        if not word and len(chinese) == len(before):
            return False
        before = chinese.rstrip(_BETWEEN)
    return False


def is_part(text: str, start: int, end: int) -> bool:
    """Whether digits belong to a longer number: a decimal, or groups joined by dots or hyphens.

    Args:
        text: folded.
        start: of the digits.
        end: of them.
    """
    joined = start > 1 and text[start - 1] in ".-" and text[start - 2] in string.digits
    return joined or (end + 1 < len(text) and text[end] == "." and text[end + 1] in string.digits)
