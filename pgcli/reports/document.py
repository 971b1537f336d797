"""A report as text: Markdown beside its pictures, and one HTML file that holds them."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

CSS = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem }
div { overflow-x: auto; margin: 1rem 0 } span { white-space: nowrap }
img { display: block; max-width: min(100%, 64rem); margin: 2rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd;
         vertical-align: top }
th { border-bottom: 2px solid #222 }
th:first-child, td:first-child, .text th, .text td { text-align: left }
"""


@dataclass(frozen=True)
class Heading:
    """A section begins."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text under their headers; figures stand to the right, words to the left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture with what it shows in words; Markdown refers to `<name>.png`."""

    name: str
    text: str
    svg: bytes


Block = Heading | Paragraph | Table | Picture


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """The blocks in GitHub's Markdown."""
    return "\n\n".join([f"# {_plain(title)}", *map(_markdown, blocks)]) + "\n"


def page(title: str, blocks: Sequence[Block]) -> str:
    """The blocks as an HTML page that needs no other file."""
    body = "\n".join(map(_html, blocks))
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{name}</title>\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<h1>{name}</h1>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Picture(name, text, _):
            return f"![{_plain(text)}]({name}.png)"
        case Table(headers, rows, words):
            rule = [":--", *([":--" if words else "--:"] * (len(headers) - 1))]
            lines = [map(_plain, headers), rule, *(map(_plain, row) for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Picture(_, text, svg):
            data = base64.b64encode(svg).decode()
            alt = html.escape(text)
            return f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
        case Table(headers, rows, words):
            head = "".join(f"<th>{html.escape(cell)}</th>" for cell in headers)
            lines = ("".join(f"<td>{_cell(cell)}</td>" for cell in row) for row in rows)
            body = "\n".join(f"<tr>{line}</tr>" for line in lines)
            kind = ' class="text"' if words else ""
            return f"<div><table{kind}>\n<tr>{head}</tr>\n{body}\n</table></div>"


def _cell(text: str) -> str:
    """A line may break before an interval, not within."""
    return re.sub(r"(\[.*?\])", r"<span>\1</span>", html.escape(text))


def _plain(text: str) -> str:
    """Text that means nothing to Markdown."""
    for sign in "\\`*_[]|<":
        text = text.replace(sign, "\\" + sign)
    return text.replace("\n", " ")
