"""Convert the policy between its data, the stored text, plain text and HTML.

The stored text uses marks: `# ` title, `## ` section, `### ` heading, `- ` bullet. It does not contain the effective
date, because that date can move until the relay has accepted the last notice of a change. `plain` and `html` insert it
below the title.
"""

import re
from collections.abc import Iterator
from datetime import date
from html import escape
from itertools import groupby

from pipeline.policy.clauses import Document, Line, PolicyOwner, Section, fill

MARKS = ("### ", "## ", "# ", "- ")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_DATE = re.compile(r"^\s*(?:#+ )?Effective Date:.*$\n?", re.MULTILINE | re.IGNORECASE)


def write(document: Document, vendor: PolicyOwner) -> str:
    """Return the stored text of a document for this vendor."""
    parts = [f"# {document.title}", document.opening, *(_section(each) for each in document.sections)]
    return fill("\n\n".join([*parts, "\n".join(document.closing)]) + "\n", vendor)


def read(text: str) -> str:
    """Normalize a text from a file for storage: without effective date, spaces at line ends, and repeated empty lines."""
    lines = [line.strip().replace("• ", "- ", 1) for line in _DATE.sub("", text).strip().splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def sentences(text: str) -> list[str]:
    """Return the lines of a text without marks and without empty lines."""
    return [_bare(line) for line in text.splitlines() if line.strip()]


def plain(text: str, effective: date) -> str:
    """Return the text for a terminal or a mail, with its effective date."""
    title, _, rest = text.partition("\n")
    bullets = re.sub(r"^- ", "  • ", rest, flags=re.MULTILINE)
    return f"{_bare(title)}\n\n{dated(effective)}\n{re.sub(r'^#+ ', '', bullets, flags=re.MULTILINE)}"


def html(text: str, effective: date) -> str:
    """Return the text as HTML for the body of a page, with its effective date. It contains no scripts, styles or images."""
    title, _, rest = text.partition("\n")
    head = f'<h1>{escape(_bare(title))}</h1>\n<p class="date">{escape(dated(effective))}</p>\n'
    blocks = (block.splitlines() for block in rest.strip().split("\n\n"))
    return head + "\n".join(part for block in blocks for part in _block(block)) + "\n"


def dated(effective: date) -> str:
    """Return the line that states the effective date."""
    return f"Effective Date: {effective:%B} {effective.day}, {effective.year}"


def _section(section: Section) -> str:
    parts = [f"## {section.number}. {section.title}"]
    for bullets, lines in groupby(section.lines, key=lambda line: line.bullet):
        parts.append(("\n" if bullets else "\n\n").join(_line(line) for line in lines))
    return "\n\n".join(parts)


def _line(line: Line) -> str:
    return ("### " if line.heading else "- " if line.bullet else "") + line.text


def _block(lines: list[str]) -> Iterator[str]:
    for mark, group in groupby(lines, key=_mark):
        texts = [_linked(_bare(line)) for line in group]
        if mark == "- ":
            yield "<ul>\n" + "\n".join(f"<li>{each}</li>" for each in texts) + "\n</ul>"
        elif mark:
            level = len(mark) - 1 if mark.startswith("#") else 0
            yield "\n".join(f"<h{level}>{each}</h{level}>" for each in texts)
        else:
            yield "<p>" + "<br>\n".join(texts) + "</p>"


def _mark(line: str) -> str:
    return next((mark for mark in MARKS if line.startswith(mark)), "")


def _bare(line: str) -> str:
    return line.strip().removeprefix(_mark(line.strip())).strip()


def _linked(text: str) -> str:
    return _ADDRESS.sub(lambda found: f'<a href="mailto:{found[0]}">{found[0]}</a>', escape(text, quote=False))
