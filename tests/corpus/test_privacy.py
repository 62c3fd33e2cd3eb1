"""Personal data is found, what only looks like it is not, positions lead back, and time is linear."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.core.config import load, to_toml
from bertsmith.core.errors import ConfigError
from bertsmith.corpus.checksums import credit_code, luhn, resident_id
from bertsmith.corpus.privacy import KINDS, PrivacyConfig, find, redact

KEY = b"sixteen bytes or more"
TOKEN = "ghp_" + "a1B2c3D4" * 5

# In each text «» stands around what is found.
FOUND = {
    "email": [
        "Write to «a.b+c@mail.example.co.uk», please.",
        "邮箱«zhang_3@qq.com»请查收",
        "发到：«ｌｉ＠ｑｑ．ｃｏｍ»。",
        "<mailto:«x@y.org»>",
    ],
    "phone": [
        "电话«13812345678»，或«138-1234-5678»",
        "手机«１３８ １２３４ ５６７８»。",
        "（«+8613812345678»）",
        "«(010)88886666»转",
        "«0571-88888888转123»",
        "call «+44 (0)20 7946 0958», or «+1 202 555 0143» at 15:00",
        "«400-888-8888»",
        "«(212) 555-0123»",
        "«+86 138 1234 5678» 6222 0212",
        "联系人王芳«+852 2345 6789»请",
    ],
    "resident_id": ["身份证号«11010519491231002X»。", "id «11010519491231002x»", "«110105 19491231 002X»"],
    "bank_card": [
        "卡号«4111111111111111»，",
        "«4111 1111 1111 1111»",
        "paid with «4111-1111-1111-1111».",
        "«378282246310005»",
    ],
    "credit_code": ["统一社会信用代码«91350100M000100Y43»（", "code: «91350100m000100y43»"],
    "passport": [
        "持护照«E12345678»入境",
        "护照号码：«EA1234567»",
        "passport no. «C01X00T47»",
        "passport number is «512345678»",
    ],
    "plate": ["一辆«京A12345»停在", "«沪AD12345»和«粤B·F1234»"],
    "ip": [
        "从«192.168.1.10»:8080 来",
        "DNS «8.8.4.4»",
        "at «2001:db8::8a2e:370:7334».",
        "«fe80::1»%eth0",
        "[«fd12:3456::1»]:80",
    ],
    "mac": ["MAC:«00:1A:2B:3C:4D:5E»", "物理地址«00-1a-2b-3c-4d-5e»，", "«001a.2b3c.4d5e»"],
    "url_credentials": ["postgres://«admin:p@ss»@db.example.com/x", "见https://«token123»@example.org。"],
    "api_key": [
        f"use {'«' + TOKEN + '»'}, not",
        "密钥：«a8f7d6e5c4b3a2918f7e»",
        "Authorization: Bearer «abcdef0123456789xyz»",
        'API_KEY = "«0a1b2c3d4e5f6a7b8c9d»"',
        "«-----BEGIN PRIVATE KEY-----\nMIIB/9+=\n-----END PRIVATE KEY-----» then",
        "«AKIAIOSFODNN7EXAMPLE»",
        "«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N»",
    ],
}

NOTHING = [
    "order no. 13812345678 and 订单号：4111111111111111",
    "the id 110105194912310021, the card 4111111111111112",
    "born on an impossible day: 11010519491331002X",
    "91350100M000100Y44",
    "version 10.2.3.4, v1.2.3.4, 第3.2.1.4节, 300.1.2.3, 1.2.3.4.5, 01.02.03.04",
    "icon@2x.png @handle react@18.2.0 git@github.com:a/b user@localhost a @ b",
    "550e8400-e29b-41d4-a716-446655440000 da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "03-07-12-25-31-08 12:30:45 std::vector a[::2] 1:2:3:4:5:6:7:8",
    "aa:bb:cc:dd:ee:ff:00:11:22:33",
    "3.13812345678 and 0.4111111111111111 and 1609459200000 and 2024-03-15 10:20:30",
    "https://example.org/a?b=1 http://host:8080/x ssh://git@example.org/x",
    "sk-learn, api_key = None, the secret: Telecommunications",
    "新A股 京A123 贵A级 the passport of E1234",
    "number 057188888888",
]


@pytest.mark.parametrize(("kind", "marked"), [(kind, marked) for kind, texts in FOUND.items() for marked in texts])
def test_each_kind_is_found_to_the_character(kind: str, marked: str) -> None:
    text = marked.replace("«", "").replace("»", "")
    expected = [piece.partition("»")[0] for piece in marked.split("«")[1:]]
    assert [(one.kind, one.text) for one in find(text)] == [(kind, item) for item in expected]


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert find(text) == []


def test_every_kind_has_an_example() -> None:
    assert set(FOUND) == set(KINDS)


def test_check_digits() -> None:
    assert resident_id("11010519491231002X")
    assert not any(resident_id("11010519491231002" + sign) for sign in "0123456789")
    assert luhn("79927398713")
    assert not any(luhn("7992739871" + sign) for sign in "012456789")
    assert credit_code("91350100M000100Y43")
    assert not credit_code("91350100M000100YO3"), "there is no O in such a code"
    assert not credit_code("91350100M000100Y4")


def test_the_more_telling_of_two_candidates_stays() -> None:
    (url, ip) = find("mysql://root:13812345678@10.20.30.40/x")
    assert (url.kind, url.text, ip.kind) == ("url_credentials", "root:13812345678", "ip")
    (card, phone) = find("visa 4111 1111 1111 1111 138 1234 5678")
    assert (card.text, phone.text) == ("4111 1111 1111 1111", "138 1234 5678")
    (email,) = find("13812345678@139.com")
    assert email.kind == "email"


def test_only_the_chosen_kinds() -> None:
    text = "a@b.org 13812345678"
    assert [one.kind for one in find(text, PrivacyConfig(kinds=("phone",)))] == ["phone"]
    assert redact(text, PrivacyConfig(kinds=("email",))).text == "[EMAIL] 13812345678"


def test_replacing_names_the_kind() -> None:
    assert redact("联系a@b.org或13812345678。").text == "联系[EMAIL]或[PHONE]。"
    assert redact("nothing here").text == "nothing here"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("电话138-1234-5678。", "电话138-****-5678。"),
        ("li.wei@qq.com", "l*****@qq.com"),
        ("ab@qq.com", "**@qq.com"),
        ("4111 1111 1111 1111", "4111 **** **** 1111"),
        ("11010519491231002X", "110***********002X"),
        ("https://user:pass@h.org", "https://*********@h.org"),
        ("10.20.30.40", "**.**.**.**"),
        ("京A12345", "京A****5"),
    ],
)
def test_a_mask_keeps_length_and_ends(text: str, masked: str) -> None:
    assert redact(text, PrivacyConfig(how="mask")).text == masked


def test_a_hash_is_one_name_for_one_value_however_written() -> None:
    config = PrivacyConfig(how="hash")
    first, second, third, other = redact(
        "13812345678 １３８-１２３４-５６７８ +86 13812345678 13812345679", config, key=KEY
    ).text.split(" ")
    assert first == second == third != other
    assert first.startswith("[PHONE_")
    assert redact("13812345678", config, key=KEY).text == first
    assert redact("13812345678", config, key=KEY[::-1]).text != first, "without the key nobody can make it"


@pytest.mark.parametrize("key", [None, b"", b"short"])
def test_a_hash_needs_a_key_even_when_there_is_nothing_to_hash(key: bytes | None) -> None:
    with pytest.raises(ConfigError, match="secret key of at least 16 bytes"):
        redact("nothing", PrivacyConfig(how_by_kind={"phone": "hash"}), key=key)


def test_kinds_can_be_treated_differently_and_settings_can_be_saved() -> None:
    config = PrivacyConfig(how_by_kind={"phone": "mask"})
    assert redact("a@b.org 13812345678", config).text == "[EMAIL] 138****5678"
    assert "mask" in to_toml(config)
    assert load(PrivacyConfig, base=config.model_dump()) == config
    with pytest.raises(ConfigError):
        load(PrivacyConfig, sets=["how=burn"])


def test_a_span_of_the_new_text_leads_to_the_original() -> None:
    text = "李雷的电话13812345678，邮箱a@b.org，北京。"
    redacted = redact(text)
    assert redacted.text == "李雷的电话[PHONE]，邮箱[EMAIL]，北京。"

    def original(piece: str) -> str:
        start = redacted.text.index(piece)
        begin, end = redacted.original_span(start, start + len(piece))
        return text[begin:end]

    assert original("李雷") == "李雷"
    assert original("北京") == "北京"
    assert original("[PHONE]") == "13812345678"
    assert original("HON") == "13812345678", "no half of a number"
    assert original("话[PH") == "话13812345678"
    assert original(redacted.text) == text
    with pytest.raises(ValueError):
        redacted.original_span(0, len(redacted.text) + 1)
    with pytest.raises(ValueError):
        redacted.original_span(3, 2)


_PIECES = st.sampled_from(
    [
        "a@b.org",
        "13812345678",
        "4111111111111111",
        "京A12345",
        "１０．20.30.40",
        "中",
        "，",
        " ",
        "x",
        "1",
        "-",
        ".",
        "+86 ",
        "@",
        TOKEN,
    ]
)
_TEXT = st.lists(_PIECES, max_size=25).map("".join) | st.text(max_size=100)
_CONFIG = st.sampled_from(["replace", "mask", "hash"]).map(lambda how: PrivacyConfig.model_validate({"how": how}))


@given(_TEXT, _CONFIG)
def test_findings_are_in_order_and_positions_lead_back(text: str, config: PrivacyConfig) -> None:
    redacted = redact(text, config, key=KEY)
    previous = 0
    for finding, (start, end) in zip(redacted.findings, redacted.places, strict=True):
        assert previous <= finding.start < finding.end
        assert text[finding.start : finding.end] == finding.text
        assert redacted.original_span(start, end) == (finding.start, finding.end)
        if config.how == "mask":
            assert end - start == len(finding.text)
        previous = finding.end
    assert redacted.original_span(0, len(redacted.text)) == (0, len(text))
    inside = {at for start, end in redacted.places for at in range(start, end)}
    for at in set(range(len(redacted.text))) - inside:
        begin, end = redacted.original_span(at, at + 1)
        assert (end - begin, text[begin]) == (1, redacted.text[at])


@given(_TEXT)
def test_spans_map_in_order(text: str) -> None:
    redacted = redact(text)
    spans = [redacted.original_span(at, at) for at in range(len(redacted.text) + 1)]
    assert spans == sorted(spans)
    assert all(0 <= begin <= end <= len(text) for begin, end in spans)


HOSTILE = [
    *(
        "1",
        "1 ",
        "1-",
        "+",
        "+1-",
        "(0",
        "0086 ",
        "6222 ",
        "@",
        "a@",
        "a.",
        "://",
        "://a@",
        ":",
        "a:",
        "::",
        "-",
        "=",
        " ",
    ),
    *("eyJaaaaaaaaaa.", "-----BEGIN PRIVATE KEY-----", "key=", "护照 ", "京A", "京A12345", "a@b.co ", "QUJD"),
    *("order no. 13812345678 ", "https://a:b@"),
    *("11 ", "12/", "(02) ", "138 12345678 ", "电话 1", "00 1a ", "001a2b3c4d5e ", "key=a1-", "password: aB1!", "$1"),
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_grows_with_length_and_no_faster(unit: str) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        began = time.process_time()
        find(text)
        return time.process_time() - began

    short = min(seconds(20_000) for _ in range(3))
    assert seconds(200_000) < 10 * (short + 0.01) * 4, "ten times the text; a quadratic pattern takes a hundred times"
