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
_WIDE |= {ord(sign): ord(sign) - 0xFEE0 for sign in "＠．－＋（）＿／＃＝＇％＆"}
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
        "part model firmware section chapter isbn issn doi v s/n sn imei iccid ec cas oid "
        "patent patents driver drivers orderid userid uid guid pid timestamp count size length total sum seed"
    )
)
_OTHER_CHINESE = tuple(
    str.split(
        "订单 运单 流水 序列 快递 物流 发票 批次 型号 货号 条码 工单 合同 版本 第 专利 学号 考号 工号 会员号 案号 "
        "驱动 固件 金额 总额 营收 收入 利润 市值 余额 人口 数量 销量 播放量"
    )
)
_FILLERS = frozenset(["number", "no", "id", "code", "nr", "is", "was"])
_FILLERS_CHINESE = "号码编单是为"
_BETWEEN = " :：#=.\"'“(（<_"
_SOFTWARE = frozenset(
    str.split("android ios windows macos office chrome chromium firefox safari edge kernel linux java jdk php opera")
)
_IDENTITY = re.compile(r"(?:(?<![a-z])(?:u|user|item|device|account|member)?[_ -]?id|编号)$", re.ASCII)
_CURRENCY = re.compile(r"(?:[$€£¥￥₩₹฿₽₫]|(?<![A-Za-z])(?:USD|EUR|GBP|CNY|RMB|JPY|HKD|TWD|KRW|INR|NT|US|HK)\$?)[ ]?$")
_UNIT = pattern(
    r"""[ ]?(?:[$€£¥￥₩₹%‰℃°]|元|[美欧日港韩加澳]元|英镑|港币|人民币|韩元|卢布|卢比|美金|法郎|万[元人]|亿
    |字节|比特|公里|千米|平方|立方|[毫微纳]秒|[千兆]瓦|公顷|公斤|千克|人次|次(?![日月年])
    |(?:ms|ns|[kmgtKMGT]i?B|[kM]W|km|kg|[Bb]ytes?|[Bb]its?|[Dd]ollars?|[Ee]uros?|yuan|yen|rupees|seconds|people
        |inhabitants|USD|EUR|GBP|CNY|RMB|JPY|HKD|TWD|KRW|INR)(?![0-9A-Za-z]))"""
)
_PACKAGE = pattern(
    r"[._-](?:tar|t?gz|zip|exe|whl|jar|deb|rpm|dmg|msi|apk|dll|so|x86|x64|amd64|arm64|win|linux)(?![0-9A-Za-z])"
)
_FILE = pattern(r"\.(?:jpe?g|png|gif|webp|bmp|mp[34]|pdf|txt|csv|json|xml|html?|zip|docx?|xlsx?)(?![0-9A-Za-z])")
# Of what may be the thing too, such as a mobile phone, it must say that a number follows.
_TELEPHONE = re.compile(
    r"(?:(?:(?<![a-z])(?:tel|t[eé]l[eé]?fon[eo]?|tél|telephone|fax|hotline|whatsapp)|电话|電話|热线|传真|傳真|座机|固话|拨打|致电)"
    r"(?:[ ]?(?:numbers?|no\.?|nr\.?|号码?|號碼?))?(?:[ ]?(?:is|是|为))?[.:：]{0,2}"
    r"|(?:(?<![a-z])(?:phone|mobile|cell|cellphone)|手机|手機|联系方式)"
    r"(?:[ ]?(?:numbers?|no\.?|号码?|號碼?)(?:[ ]?(?:is|是|为))?[:：]?|[:：]))[ ]{0,2}[(（]?$"
)

CARD_WORDS = ("卡", "银联", "账号", "帐号", "账户", "card", "visa", "account", "unionpay")
CREDIT_WORDS = ("信用代码", "税号", "纳税人", "credit code", "uscc")
PHONE_WORDS = (
    *("电话", "手机", "联系", "拨打", "致电", "热线", "传真", "座机"),
    *("tel", "phone", "mobile", "call", "fax", "whatsapp", "dial"),
)
ADDRESS_WORDS = (
    "ip ",
    "ip:",
    "ip：",
    "ip=",
    "ip-",
    "地址",
    "主机",
    "服务器",
    "address",
    "host",
    "server",
    "dns",
    "ping",
)
PASSPORT_WORDS = ("护照", "passport", "证件", "travel document")
MAC_WORDS = ("mac", "物理地址", "网卡", "ethernet", "hwaddr")


_SMALL = string.ascii_lowercase + "/"
_NUMBERS_CHINESE = ("单号", "编号", *_OTHER_CHINESE)


def is_called(text: str, start: int, words: tuple[str, ...]) -> bool:
    """Whether one of these words stands shortly before.

    Args:
        text: folded.
        start: of the number.
        words: in lower case.
    """
    before = text[max(0, start - NEAR) : start].lower()
    if before.isascii() and before == before.upper():  # without a letter
        return False
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
        rest = before.rstrip(_SMALL)
        word = before[len(rest) :]
        if word and word not in _FILLERS:
            return word in _OTHER
        before = rest.rstrip(_BETWEEN)
        chinese = before.rstrip(_FILLERS_CHINESE)
        if before.endswith(_NUMBERS_CHINESE) or chinese.endswith(_OTHER_CHINESE):
            return True
        if not word and len(chinese) == len(before):
            return False
        before = chinese.rstrip(_BETWEEN)
    return False


def is_telephone(text: str, start: int) -> bool:
    """Whether the words directly before a number say that it is one of a telephone.

    Args:
        text: folded.
        start: of the number.
    """
    return _TELEPHONE.search(text[max(0, start - 2 * NEAR) : start].lower()) is not None


def is_identity(text: str, start: int) -> bool:
    """Whether a number is called the identity of something directly before it, as in `uid=` or `user ID:`.

    Args:
        text: folded.
        start: of the number.
    """
    before = text[max(0, start - NEAR) : start].lower().rstrip(_BETWEEN)
    return _IDENTITY.search(before) is not None and "wechat" not in before and "微信" not in before


def is_amount(text: str, start: int, end: int) -> bool:
    """Whether a currency stands directly before a number, or directly after it a unit or what names a kind of file.

    Args:
        text: folded.
        start: of the number.
        end: of it.
    """
    if _UNIT.match(text, end) or _FILE.match(text, end):
        return True
    return _CURRENCY.search(text[max(0, start - 6) : start]) is not None


def is_release(text: str, start: int, end: int) -> bool:
    """Whether four figures number a release: after the name of a program, or in a file's name.

    Args:
        text: folded.
        start: of the figures.
        end: of them.
    """
    before = text[max(0, start - 2 * NEAR) : start]
    if before[-1:] in ("-", "_") and before[-2:-1].isalpha() and not is_called(text, start, ADDRESS_WORDS):
        return True
    words = before.rstrip(_BETWEEN + "/").lower()
    return words[len(words.rstrip(string.ascii_lowercase)) :] in _SOFTWARE or _PACKAGE.match(text, end) is not None


def is_part(text: str, start: int, end: int) -> bool:
    """Whether digits belong to a longer number: a decimal, or groups joined by dots or hyphens.

    Args:
        text: folded.
        start: of the digits.
        end: of them.
    """
    joined = start > 1 and text[start - 1] in ".-" and text[start - 2] in string.digits
    return joined or (end + 1 < len(text) and text[end] == "." and text[end + 1] in string.digits)
