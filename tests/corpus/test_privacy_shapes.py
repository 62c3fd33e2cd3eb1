"""The many ways in which numbers and keys are written, and what is written like them without being any."""

from __future__ import annotations

import random
import string

import pytest

from bertsmith.corpus.privacy import find

# In each text «» stands around what is found.
FOUND = {
    "phone": [
        # China, with the code for calls from abroad and without a separator
        "tel «008613912340987»",
        "«008615012345678»，请回电",
        "Tel: «00442079460123»",
        # mobile, in unusual groups
        "«139.8765.4321»",
        "请打«139 87654321»",
        "«1398 765 4321»",
        "«139 876 54321»",
        "手机：«13987 654321»",
        "手机 «1398765 4321»",
        # landlines and service numbers
        "«0755/84302211»",
        "«86-571-87654321»",
        "«86-010-65432109»",
        "«4006-123-789»",
        # elsewhere, without a plus sign
        "«1-888-555-0143» toll free",
        "«1 (212) 555-0143»",
        "«1.212.555.0143»",
        "«852-28123456»",
        "«853-2812-3456»",
        "«886-2-2345-6789»",
        "«(02) 2345-6789»",
        "«(03)9876-5432»",
        "«02-2345-6789»",
        "«090-1234-5678»",
        "«0912-345-678»",
        "«07700 900123»",
        "«+49 (0)30 / 765432»",
        "«+49 30/765432»",
        # any grouping, once it is called a telephone
        "Phone: «030 12345678»",
        "tel. «01 23 45 67 89»",
        "fax no. «555 0143 22»",
        "电话：«2345 6789»",
        "传真«6543-2109»",
        "Telephone number is «604 555 0143»",
        # the unit is somebody's business, not the number's
        "«13912340987» M. Smith",
        "拨打«13912340987»人工服务",
        "用户«13912340987»",
        "微信ID：«13912340987»",
        "phone_«13912340987»",
    ],
    "resident_id": ["«110105 1949 1231 002X»", "«110105-1949-1231-002X»", "证号 «110 105 1949 1231 002x»。"],
    "bank_card": ["«4111.1111.1111.1111»", "«3782 8224 6310 005»"],
    "passport": [
        "PASSPORT NUMBER: «612345678»",
        "Passport Is «612345678»",
        "护照号«e61234567»",
        "护照：«G 61234567»",
        "通行证号码«C61234567»",
        "护照«DE1234567»",
        "diplomatic passport «SE7654321»",
    ],
    "mac": [
        "MAC：«００：１ａ：２ｂ：３ｃ：４ｄ：５ｅ»",
        "MAC «001a2b3c4d5e»",
        "mac地址：«001A2B3C4D5E»，",
        "HWaddr «00 1a 2b 3c 4d 5e»",
    ],
    "api_key": [
        "«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»",
        "«dckr_pat_a1B2c3D4e5F6g7H8i9J0k1L2m3N»",
        "«whsec_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6»",
        "«SK0123456789abcdef0123456789abcdef»",
        "https://hooks.slack.com/services/«T01ABCDEF/B01ABCDEF/a1B2c3D4e5F6g7H8i9J0k1L2»",
        "password: «Tr0ub4dor!»",
        "密码：«q7w8!e9r@»，",
        "DB_PASSWORD=«p4ss#W0rd^»",
        "apiKey: «q9Wz8Xe7Rc6Tv5Yb»",
        "SECRET_KEY='«q9Wz8Xe7Rc6Tv5Yb4Nu3»'",
        "clientSecret = «q9Wz8Xe7Rc6Tv5Yb4Nu3»",
        "accesstoken=«q9wz8xe7rc6tv5yb4nu3»",
        "https://example.org/a?x=1&access_token=«q9Wz8Xe7Rc6Tv5Yb4Nu3»&y=2",
        "https://example.org/#token=«q9Wz8Xe7Rc6Tv5Yb4Nu3»",
        "secret: «550e8400-e29b-41d4-a716-446655440000»",
        "aws_secret_access_key = «wJalrXUtnF3MI/K7MDENG/bPxRfiCY2Ex5mpl3Ky»",
    ],
    "email": ["«jo#hn7@example.org»", "*«anna@example.org»*", "«Ｏ＇Ｎｅｉｌ＠ｅｘａｍｐｌｅ．ｏｒｇ»"],
    "ip": ["from «::ffff:203.0.113.77»", "host-«203.0.113.77»", "ip=«203.0.113.77»"],
}

NOTHING = {
    "words that hold a word for secrets": [
        "monkey: q9Wz8Xe7Rc6Tv5Yb4Nu3",
        "whiskey: q9Wz8Xe7Rc6Tv5Yb4Nu3",
        "keyboard: q9Wz8Xe7Rc6Tv5Yb4Nu3",
        "Tokenizer = q9Wz8Xe7Rc6Tv5Yb4Nu3",
    ],
    "names, paths and calls that are no secret": [
        "foreign key: invoice_position_line_2_id",
        "key: src/chapter-07/figures/overview.svg",
        "key = build_cache_key_for_stage2(name)",
        "token = tokens_by_position1[place_of_token]",
        "password: at-least-12-characters-long",
        "password: at-least-12-characters-long!",
        "密码：请输入8到20位字符",
        "key: 2024-03-05T10-20-30-report",
        "secret = settings.oauth2.client_secret_name",
        "the token: org.example.auth.oauth2.Filter",
        "password=$DB_PASSWORD_1!",
    ],
    "amounts": [
        "营业收入15038269471元",
        "公司市值达到13912345678美元",
        "共13912345678字节",
        "$15149497662",
        "US$ 13912345678",
        "EUR 13900000000",
        "13912345678 bytes",
        "13912345678 KB read",
        "金额：16258566681",
        "约13912345678千米",
        "300-400-5000 ms",
    ],
    "names of other things": [
        "学号13117844518",
        "用户ID：13494757521",
        "uid=13494757521",
        "item_id: 13494757521",
        "id_13198351208",
        "SN:13582635041",
        "order_id_13582635041",
    ],
    "figures in a table": [
        "12 139 87654321 5",
        "1398 765 4321 77",
        "2023-139 87654321",
        "1987 120 3000",
        "151 20230115",
    ],
    "dates after the word": ["Phone: 2023-10-05 10", "电话：2023 10 05"],
    "a sign is no separator": ["+311 387 -308"],
    "patents": ["European patent EP1234567 B1", "欧洲专利EP1234567", "German DE7654321", "SE7654321"],
    "releases and enzymes": [
        "EC 3.4.21.5 is an enzyme",
        "酶EC 2.7.11.12",
        "libbar-1.2.33.71.tar.gz",
        "setup_10.2.33.71.exe",
        "driver 31.0.15.143",
        "Android 10.0.15.143",
        "Chrome/112.0.33.71",
    ],
    "trains": ["湘K09041次", "京T44391次列车"],
    "hexadecimal without a word for it": ["00 1a 2b 3c 4d 5e", "001a2b3c4d5e", "machine 001a2b3c4d5e"],
    "wrong check signs": ["110105 1949 1231 0021", "110 105 1949 1231 0021", "4111.1111.1111.1112"],
}


@pytest.mark.parametrize(("kind", "marked"), [(kind, marked) for kind, texts in FOUND.items() for marked in texts])
def test_each_way_of_writing_is_found_to_the_character(kind: str, marked: str) -> None:
    text = marked.replace("«", "").replace("»", "")
    expected = [piece.partition("»")[0] for piece in marked.split("«")[1:]]
    assert [(one.kind, one.text) for one in find(text)] == [(kind, item) for item in expected]


@pytest.mark.parametrize("text", [text for texts in NOTHING.values() for text in texts])
def test_what_is_only_written_like_it_is_left_alone(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize(
    "signs",
    ["0123456789abcdef", string.ascii_lowercase + string.digits, string.ascii_letters + string.digits + "+/"],
    ids=["hexadecimal", "small", "base64"],
)
def test_what_chance_makes_is_a_secret(signs: str) -> None:
    chance = random.Random(11)
    values = ["".join(chance.choices(signs, k=28)) + "7x" for _ in range(400)]
    missed = [value for value in values if not find(f"key={value}")]
    assert len(missed) < 8, missed
