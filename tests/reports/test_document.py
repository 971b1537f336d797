"""Markdown and HTML: nothing that is told can break the page."""

import html.parser

from pgcli.reports.document import Heading, Paragraph, Picture, Table, markdown, page

NASTY = "<script>alert(1)</script>|`*_[x](y)&\"'"
BLOCKS = [
    Heading(NASTY),
    Paragraph(NASTY),
    Table(["a", NASTY], [["1 [2, 3]", NASTY]]),
    Table(["a"], [["word"]], words=True),
    Picture("name", NASTY, b"<svg/>"),
]


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.sources, self.open = set(), "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_well_formed_and_shows_text_as_text():
    found = Page(page(NASTY, BLOCKS))
    assert not found.open
    assert "script" not in found.tags
    assert found.text.count("<script>alert(1)</script>") == 6
    assert "1 [2, 3]" in found.text


def test_the_page_needs_no_other_file():
    assert [source[:26] for source in Page(page("x", BLOCKS)).sources] == [
        "data:image/svg+xml;base64,"
    ]


def test_markdown_rows_keep_their_columns():
    lines = markdown("title", BLOCKS).splitlines()
    assert lines[0] == "# title"
    (row,) = [line for line in lines if line.startswith("| 1 ")]
    assert row.replace("\\|", "").count("|") == 3
    assert "<script>" not in row.replace("\\<", "")
    assert any(line.endswith("](name.png)") for line in lines)
