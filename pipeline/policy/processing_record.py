"""The record of processing activities (GDPR article 30(1)), and the conflicts between the policy and the law."""

from collections.abc import Iterator
from typing import Any

from pipeline.network import egress
from pipeline.network.hosts import is_on_this_machine
from pipeline.outbox.mail_kinds import MAILS, PURPOSES
from pipeline.policy.clauses import PolicyOwner, document
from pipeline.policy.stated_limits import PARAMETERS
from pipeline.privacy import data_categories
from pipeline.privacy.retention.legal_holds import HOLDS, retention_period_for
from pipeline.privacy.retention.rules import RULES
from pipeline.settings import Settings

# Categories of data that is not about a person: the vendor's plans and texts, the program's own secrets and states.
NOT_PERSONAL = ("vendor", "operation", "security")
SUBJECTS = "customers, people who write to the vendor, and visitors to its pages"
# The categories of `data_categories` in words for the person that they are about.
CATEGORY_WORDS = {
    "contact": "your name, addresses, company and telephone number",
    "pseudonym": "numbers that stand for you, here and at PayPal",
    "contract": "your subscriptions and their history",
    "payment": "your payments and refunds, without card and bank numbers",
    "communication": "the mails between you and us",
    "usage": "your visits to our pages: address and browser",
    "consent": "what you agreed to, and when",
    "request": "your requests about your data",
    "accountability": "when our staff read your data, and for what purpose",
}
NOBODY_ELSE = "nobody else; it is not sold, and only PayPal gets it outside our own servers"
SOURCES = [
    "you, when you signed up or wrote to us",
    "PayPal, about your subscription and payments",
    "your browser, when you visited our pages",
]
RIGHTS = [
    "to have wrong data corrected (GDPR article 16)",
    "to have your data deleted (article 17)",
    "to have its processing restricted (article 18)",
    "to get it in a form that programs can read (article 20); data.json is that form",
    "to object to its processing (article 21)",
    "to complain to a data protection authority, for example the one where you live or work (article 77)",
]
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
    """Return controller, purposes, categories, recipients, periods and measures of this version with these settings."""
    return {
        "controller": {"name": vendor.name, "address": settings.vendor_address, "contact": vendor.contact},
        "purposes": [
            {"purpose": each.sentence, "basis": each.basis, "mails": sorted(_mails_for(name))}
            for name, each in PURPOSES.items()
        ],
        "data_subjects": SUBJECTS,
        "categories": {name: data_categories.columns_holding(name) for name in _personal()},
        "recipients": _recipients(settings),
        "transfers": _transfers(settings),
        "periods": [
            {
                "data": rule.name,
                "category": rule.category,
                "from": rule.anchor,
                "period": rule.period,
                "then": rule.action,
            }
            for rule in RULES
        ]
        + _other_periods(settings),
        "hold": _hold(settings),
        "measures": {clause.id: clause.control for clause in document().clauses if clause.id in MEASURES},
    }


def information(settings: Settings) -> dict[str, list[str]]:
    """Return what a copy of a person's data must say about the processing (GDPR article 15(1)): headings and lines."""
    hold, named = _hold(settings), [name for name in _personal() if name in CATEGORY_WORDS]
    periods = [rule for rule in RULES if rule.category in named]
    return {
        "Why we process your data": [f"{each.sentence} {each.basis}" for each in PURPOSES.values()],
        "Which categories of data": [CATEGORY_WORDS[name] for name in named],
        "Who receives it": [*(f"{each['recipient']} ({each['where']})" for each in _recipients(settings)), NOBODY_ELSE],
        "How long we keep it": [
            *(f"{rule.name}: {rule.period} from {rule.anchor}, then {rule.action}" for rule in periods),
            f"records that accounting law requires: {hold['years']} years ({hold['law']})",
        ],
        "Where it comes from": SOURCES,
        "Automated decisions": ["None. No profile is made of you."],
        "Your rights": RIGHTS,
    }


def notes(settings: Settings) -> list[str]:
    """Return the conflicts between the policy and the law: what the program does, and which setting decides."""
    country, years = settings.country, PARAMETERS["years"]
    hold = retention_period_for(country)
    decides = f"SMT_COUNTRY={country}" if country else "SMT_COUNTRY is not set"
    return [
        (
            f"3.account: the policy says {years} years; accounting records are kept {hold.invoice_years} years by {hold.law} "
            f"({decides}; in Germany it would be {HOLDS['DE'].invoice_years}). Names, addresses and mails are deleted after "
            f"{years} years in any case. Only amounts, dates and ids are kept longer, for accounting."
        ),
        (
            f"3.account: proof of consent is kept {hold.consent_years} years after an erasure, as California requires "
            "(Bus. & Prof. Code section 17602). It states the time and the wording of the consent, without name or address."
        ),
        (
            f"6.answer: the policy says {PARAMETERS['answer_days']} days, the law one calendar month (GDPR article 12(3)). "
            "The earlier of the two is the deadline: 28 days for a request of 31 January. No setting extends it."
        ),
        (
            f"3.logs: access logs are deleted after {PARAMETERS['access_log_days']} days; security guides recommend six to "
            "twelve months. The policy decides. Only the audit log of operators is kept longer; it names no visitor."
        ),
    ]


def format_record(found: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Return the record for display: headings, and the lines under each."""
    controller = found["controller"]
    yield "Controller", [part for part in (controller["name"], controller["address"], controller["contact"]) if part]
    yield "Purposes", [_purpose(each) for each in found["purposes"]]
    yield "Data subjects", [found["data_subjects"]]
    yield "Categories", [f"{name}: {', '.join(columns)}" for name, columns in found["categories"].items()]
    yield "Recipients", [f"{each['recipient']} ({each['where']})" for each in found["recipients"]]
    yield "Transfers", [found["transfers"]]
    yield (
        "Periods",
        [f"{each['data']}: {each['period']} from {each['from']}, then {each['then']}" for each in found["periods"]],
    )
    hold = found["hold"]
    yield "Legal retention", [f"{hold['country'] or 'no country set'}: {hold['years']} years, {hold['law']}"]
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


def _transfers(settings: Settings) -> str:
    """Return to whom data is given outside the vendor's servers, as the settings say."""
    elsewhere = [
        hop.host
        for hop in egress.outbound_routes(settings)
        if hop.name == "product" and not is_on_this_machine(hop.host)
    ]
    product = f", and to the product at {elsewhere[0]}" if elsewhere else ""
    return f"only to PayPal, the customer's own payment service{product}"


def _other_periods(settings: Settings) -> list[dict[str, str]]:
    """Return the periods of the copies that are outside the database."""
    copies = ("copies of the database", "operation", "their making", f"{settings.backup_days} days", "deleted")
    keys = ("copies of the keys", "security", "their making", f"{settings.backup_keys_days} days", "deleted")
    queue = ("the relay's queue", "communication", "the acceptance of a mail", "5 days (Postfix's default)", "bounced")
    logs = ("logs of the relay and the web server", "usage", "each line", "90 days", "deleted by log rotation")
    names = ("data", "category", "from", "period", "then")
    return [dict(zip(names, row, strict=True)) for row in (copies, keys, queue, logs)]


def _hold(settings: Settings) -> dict[str, Any]:
    country = settings.country
    hold = retention_period_for(country)
    return {"country": country, "years": hold.invoice_years, "law": hold.law, "consent_years": hold.consent_years}
