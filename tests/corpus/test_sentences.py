"""Sentence splitting in English, Chinese and mixtures; nothing lost, and linear time on hostile text."""

from __future__ import annotations

import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertsmith.corpus.document import Document
from bertsmith.corpus.sentences import MAX_SENTENCE, document_sentences, split

# One text a line; | is where it must be cut.
ENGLISH = """
Mr. Smith paid $3.14 to Dr. Jones.|He left.
Some fruit, e.g. apples, i.e. round things, rots.|Pears too.
The U.S. Army went home.|She lives in the U.S.|The law there differs.
J. R. R. Tolkien wrote it.|They played in Group C.|The team lost.
See Fig. 3 and No. 5 on pp. 7-9.|No.|He refused.
World War I.|The end came in Vol. II of it.
It opens at 5 p.m. and closes late.|It was 5 p.m.|The shop closed.
Acme Inc. and Foo Ltd. merged.|They sell nuts, etc.|The rest is history.
Wait... what?|Really?!|Yes...|No.
We met at 3 p.m.|Bring a pen to Acme Corp. Chairman Lee.|He left Acme Corp.|Shares rose.
They moved to the U.S.|Life was hard.|The U.S. Army was tired.|In 300 B.C. Rome was small.
It is true.1|But no one knew.|It is so.[1,2]|It weighs 5 lbs.|Lift it.|Ask "Dr."|"Who?"
He said "Stop."|Then (really!) he left.|"Why?" he asked.
They came (by bus.)|Then they went.
The rate rose 3.5 percent in Jan. 2020.|Version 2.0.1 fixed it.
It surprised me.|Maybe you too.|I don't.|Trinity can’t.|Sure.
The 'J. Smith' case.|'No. 3' won.
i liked the film.|it was good.
1. First item.|2. Second item.
Buy at Yahoo! today.|Hello, world!|Bye.
‘Quoted.’|“Another.”|Last
Born c. 1500 in St. Louis.|Prof. Li et al. showed it.
""".strip().split("\n")

CHINESE = """
他说：“你好！”|然后走了。|真的吗？！|是的……|好吧。
「走。」，他说。|「来。」|（完。）|好
今天天气好!|我们走吧.|价格是3.5元.|好的
版本3.5 is out.|很好。|OK then.|Next
我爱北京。|Beijing is big.|上海也大！|OK?|是
他看了《红楼梦》。|“真好。’”|再见
WOW!|太好了
“天哪……”他喃喃自语。|“我不去。”他摇摇头，“我累了。”|“嗯。”|他表示，不行。
谢谢啦～|再见～
""".strip().split("\n")


@pytest.mark.parametrize("marked", ENGLISH)
def test_english(marked: str) -> None:
    assert split(marked.replace("|", " ")) == marked.split("|")


@pytest.mark.parametrize("marked", CHINESE)
def test_chinese_and_mixed_need_no_space(marked: str) -> None:
    sentences = marked.split("|")
    joined = sentences[0]
    for before, after in pairwise(sentences):
        joined += (" " if before[-1].isascii() and after[0].isascii() else "") + after
    assert split(joined) == sentences


def test_a_blank_line_always_ends_and_a_wrapped_line_is_joined() -> None:
    assert split("The cat\nsat on\r\nthe mat\n \t\nNext part") == ["The cat sat on\r the mat", "Next part"]
    assert split("标题\n正文没有句号\n下一行") == ["标题", "正文没有句号", "下一行"]


def test_list_items_on_lines_of_their_own() -> None:
    text = "To do:\n- wash\n- iron\n1. First thing\n2) second thing"
    assert split(text) == ["To do:", "- wash", "- iron", "1. First thing", "2) second thing"]


@pytest.mark.parametrize("text", ["", " ", "\n\n \n", "\u3000"])
def test_no_text_no_sentence(text: str) -> None:
    assert split(text) == []


def test_one_sentence_without_a_stop() -> None:
    assert split("hello world") == ["hello world"]


def test_long_sentences_are_cut_at_whitespace_else_after_a_comma_else_anywhere() -> None:
    words = split("word " * 1000)
    assert max(map(len, words)) <= MAX_SENTENCE
    assert " ".join(words) == ("word " * 1000).strip()
    clauses = split("一二三四五，" * 1000)
    assert max(map(len, clauses)) <= MAX_SENTENCE
    assert all(clause.endswith("，") for clause in clauses)
    assert [len(piece) for piece in split("x" * 4500)] == [2000, 2000, 500]


_TEXT = st.text(
    st.sampled_from(list("aAbI1 .!?…。！？，\n\t\"'”“（）()中文é-*: \u3000\r\x85")), max_size=200
) | st.text(max_size=200)


@given(_TEXT)
def test_nothing_but_whitespace_is_lost(text: str) -> None:
    sentences = split(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


@pytest.mark.parametrize(
    "unit",
    [
        *(
            ".",
            ". ",
            "A. ",
            "1. ",
            ".'",
            '"',
            "。",
            "…",
            " ",
            "\n",
            " \n",
            "中 ",
            "(",
            ". (",
            "a",
            "e.g. ",
            "x\t",
            "!?",
        ),
        *(
            "“",
            "！”他",
            "《！",
            '。"',
            '中！"中',
            "中…中",
            "A.中",
            "（。",
            "“中！”中",
            "x！》",
            "B!中",
            "\na) x",
            "a.B ",
            "，\n",
            "etc. Ab c",
            "In a.m. Ab c ",
            "word.1 ",
            "了～",
            "了。[1,2]",
            "“中。”他中中，",
            "“中。”他中中，“",
        ),
    ],
)
def test_time_is_linear_on_hostile_text(unit: str) -> None:
    text = unit * (500_000 // len(unit))
    begin = time.perf_counter()
    sentences = split(text)
    assert time.perf_counter() - begin < 10, "0.5 MB takes well under 1 s when linear, minutes when quadratic"
    assert "".join("".join(sentences).split()) == "".join(text.split())


def _gold() -> ModuleType:
    spec = spec_from_file_location("_gold", Path(__file__).resolve().parents[2] / "benchmarks" / "_gold.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["_gold"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("language", "f1", "held_out"), [("en", 0.985, 0.97), ("zh", 0.985, 0.975)])
def test_boundaries_of_the_gold_sentences(language: str, f1: float, held_out: float) -> None:
    gold = _gold()
    cases = gold.read_gold(language)
    assert len(cases) >= 300
    assert len({case.text for case in cases}) == len(cases), "each text is a case of its own"
    assert gold.score(split, cases).f1 >= f1
    assert gold.score(split, [case for case in cases if case.held_out]).f1 >= held_out


def test_boundaries_are_counted_between_characters_that_are_not_white_space() -> None:
    gold = _gold()
    assert gold.boundaries(["He left.", " She\nstayed."]) == {7}
    cases = [gold.Case("a b. c. d", frozenset({3}), False, "", "")]
    assert gold.score(lambda text: ["a b.", "c.", "d"], cases) == gold.Score(1, 0, 1, 0, 1)
    assert gold.score(lambda text: [text], cases).f1 == 0
    assert gold.score(lambda text: [text], [gold.Case("a b", frozenset(), False, "", "")]).f1 == 1


def test_a_document_of_one_sentence_a_line_keeps_its_lines() -> None:
    document = Document("Dr. Who came.  He left;\nthen nothing\n\nEnd.", "1", "a.txt", {"layout": "sentences"})
    assert document_sentences(document) == ["Dr. Who came.  He left;", "then nothing", "End."]
    assert document_sentences(Document("One. Two.", "1", "a.txt")) == ["One.", "Two."]


# Words that make the checks of a full stop say one thing or the other, and what may stand around them.
_WORDS = st.sampled_from(
    [
        "house",
        "a",
        "no",
        "vs",
        "etc",
        "p.m",
        "U.S",
        "St",
        "iv",
        "don't",
        "well-a",
        "Mr",
        "café",
        "北京",
        "(see",
        "3",
        "“so",
    ]
)
_AFTER = st.sampled_from([". ", ".  ", ".", ".\n", '." ', "... ", "? ", " ", ", "])


@given(st.lists(st.tuples(_WORDS, _AFTER, st.sampled_from(["", "The ", "he ", "Anna ", "5 ", "II "])), max_size=30))
def test_the_short_way_for_plain_full_stops_says_what_the_long_one_does(words: list[tuple[str, str, str]]) -> None:
    text = "".join("".join(word) for word in words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertsmith.corpus.sentences._ends_plainly", lambda *_: False)
        expected = split(text)
    assert split(text) == expected
