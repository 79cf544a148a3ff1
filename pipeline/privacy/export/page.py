"""Render the page of an export: one HTML file without scripts and external resources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from babel.dates import format_date, format_time
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from pipeline.db import lww_map
from pipeline.money import Money, format_money

# Personal fields -> names on the page, in this order.
NAMES = {
    "name": "Name",
    "given_name": "First name",
    "surname": "Last name",
    "email": "E-mail",
    "company": "Company",
    "phone": "Phone",
    "payer": "PayPal payer ID",
    "custom": "Our customer ID",
}


@dataclass(frozen=True, slots=True)
class ExportIssuer:
    """The vendor that issues the export, and the locale of its dates and amounts.

    `processing`: headings and lines about the processing (GDPR article 15(1)).
    """

    name: str
    contact: str
    locale: str
    processing: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write(document: Mapping[str, Any], files: Sequence[str], issuer: ExportIssuer) -> str:
    """Return the page that shows `document` (the content of data.json) and links to these files."""

    def day(text: str | None) -> str:
        return format_date(datetime.fromisoformat(text), "long", issuer.locale) if text else ""

    def moment(text: str | None) -> str:
        if not text:
            return ""
        at = datetime.fromisoformat(text)
        return f"{format_date(at, 'long', issuer.locale)}, {format_time(at, 'short', locale=issuer.locale)} UTC"

    def price(row: Mapping[str, Any]) -> str:
        return "" if row["amount"] is None else format_money(Money(row["amount"], row["currency"]), issuer.locale)

    return _template().render(
        document=document,
        files=files,
        issuer=issuer,
        language=issuer.locale.replace("_", "-"),
        fields=_fields(document),
        day=day,
        moment=moment,
        price=price,
    )


def _fields(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, source) of each known personal field."""
    sources = [("You", document["customer"]["personal_data"])]
    sources += [(f"PayPal, subscription {row['id']}", row["personal_data"]) for row in document["subscriptions"]]
    return [
        (NAMES.get(field, field.replace("_", " ").capitalize()), str(lww_map.value(known, field)), source)
        for source, known in sources
        for field in sorted(known or {}, key=_place)
    ]


def _place(field: str) -> tuple[int, str]:
    order = list(NAMES)
    return (order.index(field) if field in order else len(order)), field


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("index.html")
