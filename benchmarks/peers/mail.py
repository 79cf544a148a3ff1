"""Mail by Django: EmailMultiAlternatives through the SMTP backend, which connects for each mail. Texts by Jinja2."""

# mypy: disable-error-code="import-not-found, untyped-decorator, no-any-return"
# What is imported here is installed in an environment of its own, which mypy does not look into.

from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from jinja2 import Environment, FileSystemLoader

from benchmarks.peers.surroundings import SMTP_PORT

settings.configure(
    EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend",
    EMAIL_HOST="127.0.0.1",
    EMAIL_PORT=SMTP_PORT,
    DEFAULT_FROM_EMAIL="SMT Constructions <billing@example.com>",
    USE_TZ=True,
)
django.setup()

FOLDER = Path(__file__).parent / "templates"
VENDOR = {
    "name": "SMT Constructions",
    "address": "1 Long Road, Leeds",
    "url": "https://smtconstructions.example.com",
    "email": "billing@example.com",
}

options = {"trim_blocks": True, "lstrip_blocks": True, "auto_reload": False}
plain = Environment(loader=FileSystemLoader(FOLDER), autoescape=False, **options)  # type: ignore[arg-type]
markup = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, **options)  # type: ignore[arg-type]


def render(facts: dict[str, Any]) -> tuple[str, str, str]:
    """Subject, text and HTML of a receipt. The templates are compiled once and kept."""
    known = {**facts, "vendor": VENDOR}
    subject = f"Receipt: {facts['amount']} for {facts['plan']}"
    return subject, plain.get_template("receipt.txt").render(known), markup.get_template("receipt.html").render(known)


def message(recipient: str, known: dict[str, Any]) -> EmailMultiAlternatives:
    """The receipt as Django's mail."""
    subject, text, html = render(known)
    built = EmailMultiAlternatives(subject, text, to=[recipient], reply_to=[VENDOR["email"]])
    built.attach_alternative(html, "text/html")
    return built


def send(recipient: str, known: dict[str, Any]) -> None:
    """Connect, send, hang up."""
    message(recipient, known).send()


def facts(owed: dict[str, Any], name: str, subscription: str) -> dict[str, Any]:
    """What the template shows."""
    about = {
        "amount": owed.get("amount", "29.00 EUR"),
        "paid_at": owed["paid_at"],
        "plan": "SMT-CRM managed cloud, monthly",
        "paid_through": "April 1, 2026",
        "payment": owed.get("payment", "80021663DE681814L"),
    }
    rows = [
        ("Amount", about["amount"]),
        ("Paid on", about["paid_at"]),
        ("Plan", about["plan"]),
        ("Paid through", about["paid_through"]),
        ("Reference", about["payment"]),
        ("Subscription", subscription),
    ]
    return {**about, "subscription": subscription, "customer_name": name, "rows": rows}
