"""report.html: one self-contained page, without scripts and without anything fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Self

from bertsmith import __version__
from bertsmith.core.files import atomic_write

STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--paper:#fff;--card:#f6f8fa;--line:#d8dee4;--accent:#0068a8}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4af;--paper:#0f1419;--card:#181f27;--line:#313a44;
--accent:#6cb8f0}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.6 system-ui,-apple-system,"Segoe UI",
"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",sans-serif}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.25;margin:0 0 .25rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:2.5rem 0 .75rem;padding-top:1.25rem;border-top:1px solid var(--line)}
p{max-width:44rem;margin:.5rem 0}
.when,footer{color:var(--soft);font-size:.9rem}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:1rem 0 0;font-size:.95rem}
a{color:var(--accent);text-decoration:none}a:hover{text-decoration:underline}
.wide{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-size:.94rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.38rem 1.4rem .38rem 0;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}td.number,th.number{text-align:right}
td:first-child{overflow-wrap:anywhere;min-width:7rem}
figure{display:inline-block;vertical-align:top;margin:.5rem .75rem .75rem 0;padding:.75rem;background:var(--card);
border:1px solid var(--line);border-radius:8px;max-width:100%;overflow-x:auto}
figcaption{color:var(--soft);font-size:.9rem}
.facts{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.25rem 0 0;padding:0;list-style:none}
.facts li{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem 1rem;min-width:8.5rem}
.facts b{display:block;font-size:1.45rem;line-height:1.3;font-variant-numeric:tabular-nums}
.facts span{color:var(--soft);font-size:.88rem}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto;
font:.88rem/1.55 ui-monospace,"SF Mono",Menlo,Consolas,"Noto Sans Mono CJK SC",monospace}
mark{background:#ffd8a8;color:#1f2328;border-radius:3px;padding:0 .15em}
"""


class Page:
    """A report that is put together from top to bottom and written once.

    Args:
        title: the heading of the page.
        subtitle: one line below it.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title, self.subtitle = title, subtitle
        self._headings: list[str] = []
        self._parts: list[str] = []

    def section(self, title: str, text: str = "", *, html: bool = False) -> Self:
        """Start a section.

        Args:
            title: its heading, also listed at the top of the page.
            text: what it says; a blank line starts a new paragraph.
            html: `text` is HTML and is put in as it is; what comes from outside must be escaped by the caller.
        """
        self._headings.append(title)
        self._parts.append(f'<h2 id="s{len(self._headings)}">{escape(title)}</h2>')
        return self.text(text, html=html)

    def text(self, text: str, *, html: bool = False) -> Self:
        """Add paragraphs.

        Args:
            text: what they say; a blank line starts a new paragraph.
            html: `text` is HTML and is put in as it is.
        """
        if html:
            self._parts.append(text)
        else:
            self._parts += [f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip()]
        return self

    def facts(self, facts: Mapping[str, str]) -> Self:
        """Add figures that are to be seen first, each in a box of its own.

        Args:
            facts: figure by what it is.
        """
        boxes = "".join(f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>" for name, value in facts.items())
        self._parts.append(f'<ul class="facts">{boxes}</ul>')
        return self

    def table(self, title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Self:
        """Add a table; numbers stand right, with figures in columns.

        Args:
            title: what it shows; empty for none.
            headers: one for each column.
            rows: cells; a float is shown with four significant digits.
        """
        kinds = [
            ' class="number"' if rows and all(isinstance(row[index], int | float) for row in rows) else ""
            for index in range(len(headers))
        ]
        head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(headers, kinds, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{kind}>{_cell(value)}</td>" for value, kind in zip(row, kinds, strict=True)) + "</tr>"
            for row in rows
        )
        caption = f"<p><b>{escape(title)}</b></p>" if title else ""
        self._parts.append(
            f'{caption}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
        return self

    def figure(self, title: str, svg: str) -> Self:
        """Add a picture.

        Args:
            title: a caption below it; empty where the title inside the picture says enough.
            svg: SVG text as `core.picture` draws it, put in as it is.
        """
        caption = f"<figcaption>{escape(title)}</figcaption>" if title else ""
        self._parts.append(f"<figure>{svg}{caption}</figure>")
        return self

    def code(self, title: str, text: str) -> Self:
        """Add text whose spacing counts, such as a command or a file.

        Args:
            title: what it is; empty for none.
            text: the text.
        """
        caption = f"<p><b>{escape(title)}</b></p>" if title else ""
        self._parts.append(f"{caption}<pre>{escape(text)}</pre>")
        return self

    def html(self) -> str:
        """The page as HTML text."""
        links = "".join(f'<a href="#s{n}">{escape(name)}</a>' for n, name in enumerate(self._headings, 1))
        subtitle = f"<p>{escape(self.subtitle)}</p>" if self.subtitle else ""
        when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{STYLE}</style></head><body><main>"
            f'<h1>{escape(self.title)}</h1>{subtitle}<p class="when">{when}</p><nav>{links}</nav>\n'
            + "\n".join(self._parts)
            + f"\n<footer><p>Written by bertsmith {__version__}.</p></footer></main></body></html>\n"
        )

    def write(self, path: Path) -> Path:
        """Write the page.

        Args:
            path: the file, usually `report.html` in the run folder.

        Returns:
            `path`.

        Raises:
            BundleError: the disk is full, or writing is not allowed.
        """
        atomic_write(path, self.html().encode(errors="replace"))  # names of files may be no Unicode
        return path


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
