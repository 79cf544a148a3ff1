"""The record of processing activities (GDPR article 30(1)), and where the policy and the law pull apart."""

from collections.abc import Iterator
from typing import Any

from pipeline.network import egress
from pipeline.outbox.mail_kinds import MAILS, PURPOSES
from pipeline.policy.clauses import PolicyOwner, document
from pipeline.policy.stated_limits import PARAMETERS
from pipeline.privacy import data_categories
from pipeline.privacy.retention.legal_holds import HOLDS, retention_period_for
from pipeline.privacy.retention.rules import RULES
from pipeline.settings import Settings

# What is kept as a secret of ours, or about nobody, is no personal data.
NOT_PERSONAL = ("vendor", "operation", "security")
SUBJECTS = "customers and those who write to the vendor or visit its pages"
MEASURES = (
    "1.cloud_at_rest",
    "1.cloud_in_transit",
    "1.cloud_access",
    "7.tls",
    "7.updates",
    "7.permissions",
    "7.logging",
)


def build_record(settings: Settings, vendor: PolicyOwner) -> dict[str, Any]:
    """Controller, purposes, categories, recipients, periods and measures, as this version and these settings have them."""
    return {
        "controller": {"name": vendor.name, "address": settings.vendor_address, "contact": vendor.contact},
        "purposes": [
            {"purpose": each.sentence, "basis": each.basis, "mails": sorted(_mails_for(name))}
            for name, each in PURPOSES.items()
        ],
        "data_subjects": SUBJECTS,
        "categories": {name: data_categories.columns_holding(name) for name in _personal()},
        "recipients": _recipients(settings),
        "transfers": "to PayPal alone, as the customer's own payment service",
        "periods": [
            {
                "data": rule.name,
                "category": rule.category,
                "from": rule.anchor,
                "period": rule.period,
                "then": rule.action,
            }
            for rule in RULES
        ],
        "hold": _hold(settings),
        "measures": {clause.id: clause.control for clause in document().clauses if clause.id in MEASURES},
    }


def notes(settings: Settings) -> list[str]:
    """Where the policy's words and the law's are not the same, what is done, and which setting decides."""
    country, years = settings.country, PARAMETERS["years"]
    hold = retention_period_for(country)
    decides = f"SMT_COUNTRY={country}" if country else "SMT_COUNTRY is not set"
    return [
        (
            f"3.account: the policy says {years} years; the books are kept {hold.invoice_years} years by {hold.law} "
            f"({decides}; in Germany it would be {HOLDS['DE'].invoice_years}). Names, addresses and mails go after {years} "
            "years all the same: what is kept longer is reduced to sums, dates and ids, and only for the books."
        ),
        (
            f"3.account: proof of consent is kept {hold.consent_years} years after an erasure, as California wants it "
            "(Bus. & Prof. Code section 17602): that it was given, when, and in which words; no name, no address."
        ),
        (
            f"6.answer: the policy says {PARAMETERS['answer_days']} days, the law one calendar month (GDPR article 12(3)). "
            "The earlier of the two is the deadline: 28 days for a request of 31 January. No setting makes it later."
        ),
        (
            f"3.logs: access logs go after {PARAMETERS['access_log_days']} days, though security advice asks for six to "
            "twelve months. The policy decides. What is kept longer, the record of our own reads, names no visitor."
        ),
    ]


def format_record(found: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """The record for people: headings, and the lines under each."""
    who = found["controller"]
    yield "Controller", [part for part in (who["name"], who["address"], who["contact"]) if part]
    yield "Purposes", [_purpose(each) for each in found["purposes"]]
    yield "Whose data", [found["data_subjects"]]
    yield "Categories", [f"{name}: {', '.join(columns)}" for name, columns in found["categories"].items()]
    yield "Recipients", [f"{each['recipient']} ({each['where']})" for each in found["recipients"]]
    yield "Transfers", [found["transfers"]]
    yield (
        "Periods",
        [f"{each['data']}: {each['period']} from {each['from']}, then {each['then']}" for each in found["periods"]],
    )
    hold = found["hold"]
    yield "Kept for the law", [f"{hold['country'] or 'no country set'}: {hold['years']} years, {hold['law']}"]
    yield "Measures", [f"{clause}: {control}" for clause, control in found["measures"].items()]


def _purpose(each: dict[str, Any]) -> str:
    return f"{each['purpose']} {each['basis']}" + (f"; mails: {', '.join(each['mails'])}" if each["mails"] else "")


def _personal() -> list[data_categories.Category]:
    names = dict.fromkeys(name for named in data_categories.CATEGORIES.values() for name in named)
    return [name for name in names if name not in NOT_PERSONAL]


def _mails_for(purpose: str) -> list[str]:
    return [kind for kind, use in MAILS.items() if use.purpose == purpose]


def _recipients(settings: Settings) -> list[dict[str, str]]:
    found = {hop.name: hop.host for hop in egress.outbound_routes(settings) if hop.name in ("relay", "product")}
    own = [{"recipient": f"the vendor's own {name}", "where": host or "this machine"} for name, host in found.items()]
    return [{"recipient": "PayPal", "where": settings.paypal_base_url.partition("://")[2]}, *own]


def _hold(settings: Settings) -> dict[str, Any]:
    country = settings.country
    hold = retention_period_for(country)
    return {"country": country, "years": hold.invoice_years, "law": hold.law, "consent_years": hold.consent_years}
