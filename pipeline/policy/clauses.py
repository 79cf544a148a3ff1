"""The privacy policy as data, loaded from clauses.toml: sections, lines and clauses."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.policy.stated_limits import PARAMETERS

DATA = Path(__file__).with_name("clauses.toml")


@dataclass(frozen=True, slots=True)
class PolicyOwner:
    """The vendor that publishes the policy: name, product, site and contact address, from the settings."""

    name: str
    product: str
    url: str
    contact: str

    @property
    def site(self) -> str:
        return urlsplit(self.url).hostname or self.url


@dataclass(frozen=True, slots=True)
class Clause:
    """One statement of the policy, with the control that makes it true and the check that verifies it."""

    id: str
    text: str
    control: str  # module:name
    check: str  # module.function in checks/
    evidence: str  # what the check inspects
    every: str  # how often the check should run: hour, day
    unseen: str  # what it does not look at


@dataclass(frozen=True, slots=True)
class Line:
    """A heading, or the text of a paragraph or bullet. `plain` is the reason why text has no clause."""

    text: str
    heading: bool = False
    bullet: bool = False
    plain: str = ""
    clauses: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered section of the policy."""

    number: int
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """The whole policy, with unfilled `{name}` fields."""

    title: str
    opening: str
    sections: tuple[Section, ...]
    closing: tuple[str, ...]

    @property
    def clauses(self) -> Iterator[Clause]:
        return (clause for section in self.sections for line in section.lines for clause in line.clauses)


@cache
def document() -> Document:
    """Return the policy of this version of the program."""
    data = tomllib.loads(DATA.read_text("utf-8"))
    sections = tuple(_section(number, section) for number, section in enumerate(data["section"], 1))
    return Document(data["title"], data["opening"], sections, tuple(data["closing"]))


def fill(text: str, vendor: PolicyOwner) -> str:
    """Fill the vendor's names and the stated limits into a text of the document."""
    return text.format(
        vendor=vendor.name, product=vendor.product, site=vendor.site, contact=vendor.contact, **PARAMETERS
    )


def _section(number: int, data: dict[str, Any]) -> Section:
    return Section(number, data["title"], tuple(_line(line) for line in data["line"]))


def _line(data: dict[str, Any]) -> Line:
    if "heading" in data:
        return Line(data["heading"], heading=True)
    clauses = tuple(Clause(**clause) for clause in data.get("clause", ()))
    text = data.get("text") or " ".join([*(clause.text for clause in clauses), *filter(None, [data.get("coda")])])
    return Line(text, bullet=data.get("bullet", False), plain=data.get("plain", ""), clauses=clauses)
