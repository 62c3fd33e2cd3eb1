from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from bertsmith.core.picture import bar_chart
from bertsmith.core.report import Page


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_a_page_is_one_file_that_fetches_nothing_and_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    page = Page("Run <1>", "中文").facts({"loss": "4.2"})
    page.section("Curves", "First & <script>alert(1)</script>\n\nSecond").figure("", bar_chart({"a": 1.0}, title="A"))
    page.section("Scores").table("By type", ["type", "F1", "rows"], [["<b>", 0.51239, 12345], ["PER", 1.0, 2]])
    page.code("Command", "bertsmith pretrain a && b").section("Marked", "<mark>list.sort</mark>", html=True)
    text = page.write(tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    parser = Tags()
    parser.feed(text)
    assert "script" not in parser.seen
    assert parser.seen.count("h2") == parser.seen.count("a") == 3
    assert "mark" in parser.seen
    assert "<td>&lt;b&gt;</td>" in text
    assert '<td class="number">0.5124</td>' in text
    assert '<td class="number">12,345</td>' in text
    assert "a &amp;&amp; b" in text
    assert not re.findall(r"(?:src|href)=[\"'](?!#)", text)
    assert "url(" not in text
    assert "@import" not in text
