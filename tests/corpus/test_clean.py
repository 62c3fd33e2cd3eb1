"""Cleaning: prose stays, each rule leaves out what it is named after, and counts and shows it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertsmith.core.errors import ConfigError, DataError
from bertsmith.corpus.boilerplate import frequent, keys_of, line_key
from bertsmith.corpus.characters import DIGIT, HAN, LATIN, MARK, SPACE, SYMBOL, count_kinds
from bertsmith.corpus.clean import KEY, CleanConfig, Cleaner, nothing_left, without_lines
from bertsmith.corpus.document import Document
from bertsmith.corpus.findings import SAMPLES, Findings
from bertsmith.corpus.language import language
from bertsmith.corpus.shingles import repetition
from bertsmith.corpus.wordlist import WordList

ENGLISH = (
    "The tide rose before noon and covered the lower steps of the harbour. Nobody had told the fishermen about the "
    "change, so three boats were still tied to the wall. They waited for the water to fall, and talked of the storm "
    "that had come from the west with no warning at all. It was late when the last of them went home to sleep."
)
CHINESE = (
    "潮水在中午之前涨了上来，淹没了港口下面的台阶。没有人把这个变化告诉渔民，所以三条船还系在墙边。"
    "他们等着水退下去，谈起那场从西边来的、没有任何预兆的风暴。最后一个人回家睡觉的时候，天已经很晚了。"
)


def cleaned(*texts: str, mode: str = "filter", **settings: Any) -> tuple[list[str], Findings]:
    cleaner = Cleaner(CleanConfig.model_validate({"mode": mode, **settings}))
    documents = [Document(text, f"d{number}", "file") for number, text in enumerate(texts)]
    return [document.text for document, _ in cleaner.clean(documents)], cleaner.findings


def reason(text: str, **settings: Any) -> str:
    """Why a document is left out; nothing if it stays."""
    kept, findings = cleaned(text, **settings)
    assert (len(kept) == 0) == bool(findings.left_out())
    return next(iter(findings.left_out()), "")


@pytest.mark.parametrize("text", [ENGLISH, CHINESE, ENGLISH + "\n\n" + CHINESE, "Short, but it says something."])
def test_prose_stays_as_it_is(text: str) -> None:
    assert cleaned(text)[0] == [text]
    assert cleaned(text, mode="mend")[0] == [text]
    assert cleaned(text, mode="off")[0] == [text]


WORDS = ENGLISH.lower().replace(".", "").replace(",", "").split()
BAD = {
    "too_short": "Read on",
    "too_many_symbols": ENGLISH.replace(" ", " # → "),
    "too_few_letters": "12:30 45,7 88 " * 30 + ENGLISH[:200],
    "too_few_marks": " ".join(WORDS * 2)[:400],
    "odd_word_length": "a b c the to . " * 20,
    "too_few_stop_words": "Sailing: " + ", ".join(word for word in WORDS * 3 if len(word) > 4) + ".",
    "too_much_repetition": "Buy the best boats of all here and now, for it is cheap. " * 12,
    "too_many_ellipses": "\n".join(f"{word} of the {n} ..." for n, word in enumerate(WORDS[:14])) + ENGLISH[:100],
    "too_many_bullets": "\n".join(f"- {' '.join(random.Random(n).choices(WORDS, k=7))}." for n in range(14)),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_english_prose_is_left_out_by_name(name: str) -> None:
    assert reason(BAD[name]) == name
    if name != "too_short":
        assert reason(BAD[name], quality=False) == ""
    kept, findings = cleaned(ENGLISH, BAD[name])
    assert kept == [ENGLISH]
    rule = findings.to_json()["rules"][name]
    assert (rule["documents"], rule["characters"]) == (1, len(BAD[name]))
    assert rule["samples"][0]["id"] == "d1"
    assert rule["samples"][0]["text"] == BAD[name][:300]
    assert (findings.documents, findings.kept_documents) == (2, 1)


HAN_ONLY = "".join(dict.fromkeys(character for character in CHINESE if "\u4e00" <= character <= "\u9fff"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("too_short", "看。"),
        ("too_few_marks", CHINESE.translate(dict.fromkeys(map(ord, "，。、")))),
        ("too_many_symbols", "★".join(CHINESE[place : place + 4] for place in range(0, 80, 4))),
        ("too_few_stop_words", "、".join(CHINESE[place : place + 2] for place in range(0, 90, 3)).translate(
            dict.fromkeys(map(ord, "的是了在有和不我他她这一人为以及与于就也都上中个会说要你")))),
        ("too_much_repetition", "点击这里购买最好的渔船，价格便宜。" * 8),
    ],
)  # fmt: skip
def test_what_is_no_chinese_prose_is_left_out_by_name(name: str, text: str) -> None:
    assert reason(text, judged_from=20) == name


def test_english_limits_do_not_judge_chinese_text() -> None:
    strict = {"min_letters": 1.0, "min_stop_words": 20}
    assert reason(CHINESE, english=strict) == ""
    assert reason(ENGLISH, english=strict) != ""
    assert reason(ENGLISH, chinese=strict) == ""
    assert reason(CHINESE, chinese=strict) != ""


def test_lines_of_web_pages_and_repeated_lines_go_and_the_rest_stays() -> None:
    lines = ["This site uses cookies to give you the best experience.", "Share this on social media", "责任编辑：张三"]
    text = "\n\n".join(
        [lines[0], ENGLISH, lines[1], "A line of five words.", "A line of five words.", "No.", "No.", lines[2]]
    )
    kept, findings = cleaned(text)
    assert kept == [f"{ENGLISH}\n\nA line of five words.\n\nNo.\n\nNo."]
    assert findings.counts() == {"page_line": 3, "repeated_line": 1}
    assert cleaned(text, page_lines=False, repeated_lines=False)[0] == [text]
    # A sentence about such things is prose.
    assert (
        cleaned(ENGLISH + " The judge found that the firm uses cookies on all of its pages without consent.")[
            1
        ].counts()
        == {}
    )


def test_lines_of_many_documents_are_boilerplate(tmp_path: Path) -> None:
    footer, chance = "Printed on paper from managed forests.", random.Random(3)
    texts = [f"{' '.join(chance.sample(WORDS, 30))} {n}.\n\n{footer}" for n in range(30)]
    config = CleanConfig(mode="filter", boilerplate=20, quality=False)
    cleaner = Cleaner(config)
    documents = [Document(text, f"d{n}", "f") for n, text in enumerate([*texts, footer])]
    found = list(cleaner.clean(documents))
    files = []
    for part in range(3):
        file = tmp_path / str(part)
        file.write_bytes(keys_of(keys for _, keys in found[part::3]).tobytes())
        files.append(file)
    keys = frequent(files, 20)
    assert keys.tolist() == [line_key(footer)]
    assert frequent(files, 32).tolist() == []
    kept = list(
        without_lines(enumerate(document for document, _ in found), set(keys.tolist()), config, cleaner.findings)
    )
    assert [document.text for _, document in kept] == [text.split("\n")[0] for text in texts]
    assert cleaner.findings.counts() == {"boilerplate_line": 31, "only_boilerplate": 1}
    assert [number for number, _ in kept] == list(range(30)), "numbers stay with their documents"


def test_frequent_lines_in_small_pieces_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(0, 2**64, 300, np.uint64)
    files = []
    for part in range(5):
        file = tmp_path / str(part)
        file.write_bytes(keys_of([set(draw.choice(values, 100).tolist())]).tobytes())
        files.append(file)
    whole = frequent(files, 3)
    monkeypatch.setattr("bertsmith.corpus.boilerplate.AT_ONCE", 16)
    assert 0 < len(whole) == len(frequent(files, 3))
    assert whole.tolist() == sorted(frequent(files, 3).tolist())


def test_languages() -> None:
    russian, japanese, korean = (
        "Прилив поднялся до полудня." * 3,
        "潮は昼前に満ちて、港の石段を隠した。" * 3,
        "밀물이 정오 전에 올라왔다." * 3,
    )
    german = "Die Flut stieg vor Mittag und bedeckte die unteren Stufen des Hafens, und niemand hatte es gewusst. " * 3
    texts = [ENGLISH, CHINESE, russian, japanese, korean, german]
    assert cleaned(*texts, languages=["zh"], quality=False)[0] == [CHINESE]
    pytest.importorskip("py3langid")
    kept, findings = cleaned(*texts, languages=["en", "zh"], quality=False)
    assert kept == [ENGLISH, CHINESE]
    notes = {one["note"] for one in findings.to_json()["rules"]["other_language"]["samples"]}
    assert notes == {"ru", "ja", "ko", "de"}
    assert language("1234 ?!", count_kinds("1234 ?!")) == "und"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.core.extras.present", lambda module: False)
    with pytest.raises(ConfigError, match=r"languages.*py3langid.*bertsmith\[clean\]"):
        Cleaner(CleanConfig(mode="filter", languages=("en",)))
    with pytest.raises(ConfigError, match=r"chinese_script=simplified needs the package opencc"):
        Cleaner(CleanConfig(chinese_script="simplified"))
    Cleaner(CleanConfig(mode="filter", languages=("zh",)))


def test_word_lists(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# a comment\nharbour\nthree boats\n\n渔民\n", encoding="utf-8")
    words = WordList(file)
    assert words.hits("The HARBOUR's three boats, harbours, threeboats.") == 2
    assert words.hits("渔民和老渔民") == 2
    assert words.hits("nothing of all this") == 0
    settings = {"word_list": str(file), "word_list_hits": 2}
    assert reason(ENGLISH, **settings) == "word_list"
    assert reason(CHINESE, **settings) == ""
    file.write_text("# nothing\n")
    with pytest.raises(DataError, match="has no entry"):
        WordList(file)
    with pytest.raises(DataError, match="cannot read this word list"):
        WordList(tmp_path / "absent.txt")


def test_personal_data_is_replaced_everywhere_even_in_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"<b>{ENGLISH}</b> Write to li.lei@example.org or call 138-1234-5678."
    kept, findings = cleaned(text, "li.lei@example.org", personal_data=True)
    assert kept[0].endswith("Write to [EMAIL] or call [PHONE].")
    assert findings.counts()["personal_data"] == 2
    assert "li.lei" not in str(findings.to_json())
    masked = cleaned(text, personal_data=True, privacy={"kinds": ["phone"], "how": "mask"})[0][0]
    assert "138-****-5678" in masked
    assert "li.lei@example.org" in masked
    with pytest.raises(ConfigError, match=KEY):
        cleaned(text, personal_data=True, privacy={"how": "hash"})
    monkeypatch.setenv(KEY, "a secret of more than sixteen bytes")
    first, second = (cleaned(text, personal_data=True, privacy={"how": "hash"})[0] for _ in range(2))
    assert first == second
    assert "[EMAIL_" in first[0]


def test_findings_do_not_depend_on_how_documents_are_shared_out() -> None:
    texts = [f"{BAD[name]} {n}." if name != "too_short" else f"n {n}" for n in range(30) for name in BAD]
    _, whole = cleaned(*texts)
    merged = Findings()
    for part in (2, 0, 1):
        cleaner = Cleaner(CleanConfig(mode="filter"))
        list(cleaner.clean(Document(text, f"d{n}", "file") for n, text in enumerate(texts) if n % 3 == part))
        merged.merge(Findings.from_json(cleaner.findings.to_json()))
    assert merged.to_json() == whole.to_json()
    assert all(len(rule["samples"]) <= SAMPLES for rule in whole.to_json()["rules"].values())
    assert max(len(rule["samples"]) for rule in whole.to_json()["rules"].values()) == SAMPLES


def test_nothing_left_says_which_rule_and_how_to_relax_it() -> None:
    _, findings = cleaned("Read on", "Go", BAD["too_many_symbols"])
    message = nothing_left(findings, {})
    assert "too_short: 2, too_many_symbols: 1" in message
    assert "--set corpus.clean.min_words=1" in message


def test_the_first_place_is_the_first_in_the_order_of_reading() -> None:
    merged = Findings()
    for block in range(3):
        part = Findings()
        for number in range(20):
            part.add("too_short", "documents", Document("x", f"{block}-{number}", "f"), "x", 1)
        merged.merge(Findings.from_json(part.to_json()))
    assert merged.first("too_short") == "0-0"
    assert "first" not in merged.to_json(keys=False)["rules"]["too_short"]


def test_kinds_of_characters() -> None:
    counts = count_kinds("Ab é 漢字々 12, 。# →\n")
    assert [counts[kind] for kind in (LATIN, HAN, DIGIT, MARK, SYMBOL, SPACE)] == [3, 3, 2, 2, 2, 6]
    assert sum(count_kinds("")) == 0


def test_repetition_is_the_share_of_shingles_that_came_before() -> None:
    assert repetition(["a b c d e f g", "a b c a b c a b c", "", "甲乙丙丁甲乙丙丁"], 3, 4).tolist() == pytest.approx(
        [0, 4 / 7, 0, 1 / 5]
    )


@pytest.mark.parametrize(
    "line",
    [
        "We use cookies on this site.",
        "Please accept all cookies.",
        "Cookie settings",
        "Please enable JavaScript to go on",
        "JavaScript seems to be disabled in your browser.",
        "© 2019 Rain and Stone. All rights reserved.",
        "Lorem ipsum dolor sit amet",
        "Skip to main content",
        "Subscribe to our mailing list",
        "Sign up for the newsletter",
        "Log in or register to post a word",
        "Sign in to leave a word",
        "Leave a comment",
        "READ MORE »",
        "Share on Facebook",
        "Click here for the map",
        "Home » Weather » Rain",
        "本站版权所有",
        "未经本报书面许可，不得转载",
        "沪公网安备31010102000000号",
        "京ICP备12345678号",
        "责任编辑：张三",
        "上一篇：雨",
        "分享到朋友圈",
        "扫描下方二维码",
        "关注我们的公众号",
        "返回首页",
    ],
)
def test_a_line_of_a_page_is_no_prose(line: str) -> None:
    assert cleaned(f"{ENGLISH}\n{line}\n{CHINESE}")[0] == [f"{ENGLISH}\n{CHINESE}"]
