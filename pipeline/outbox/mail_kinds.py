"""What personal data is used for, and which mail serves which purpose: the register that the policy's section 2 promises.

A mail whose kind is not here cannot be owed. Its class decides whether a person may decline it: transactional and legal
mail is owed to them; service mail until they opt out; marketing only after they have opted in.
"""

from dataclasses import dataclass
from typing import Literal

MailClass = Literal["transactional", "legal", "service", "marketing"]


@dataclass(frozen=True, slots=True)
class Purpose:
    """One use of personal data: a sentence for people, and its basis in law (GDPR article 6(1))."""

    sentence: str
    basis: str


@dataclass(frozen=True, slots=True)
class MailKind:
    """What a kind of mail is: its class, and the purpose it serves."""

    mail_class: MailClass
    purpose: str


PURPOSES: dict[str, Purpose] = {
    "service": Purpose("Deliver and maintain the service that was bought.", "contract (b)"),
    "payments": Purpose("Process payments and send receipts via PayPal.", "contract (b)"),
    "notices": Purpose("Send transactional mail: account set-up, renewal reminders.", "contract (b)"),
    "support": Purpose("Respond to support requests.", "contract (b)"),
    "law": Purpose("Comply with legal obligations: books, and the rights of people.", "legal obligation (c)"),
    "security": Purpose("Keep the service safe: access logs, and who of us read what.", "legitimate interest (f)"),
    "news": Purpose("Send news of the product to those who asked for it, and confirmed it by mail.", "consent (a)"),
}

MAILS: dict[str, MailKind] = {
    "account_setup": MailKind("transactional", "notices"),
    "receipt": MailKind("transactional", "payments"),
    "payment_failed": MailKind("transactional", "payments"),
    "subscription_suspended": MailKind("transactional", "notices"),
    "subscription_cancelled": MailKind("transactional", "notices"),
    "refund_receipt": MailKind("transactional", "payments"),
    "renewal_reminder": MailKind("transactional", "notices"),
    "account_link": MailKind("transactional", "service"),
    "news_confirmation": MailKind("transactional", "news"),  # asks whether they are wanted, and holds none
    "email_changed": MailKind("legal", "security"),
    "support_received": MailKind("transactional", "support"),
    "privacy_request_received": MailKind("legal", "law"),
    "data_export_ready": MailKind("legal", "law"),
    "account_deletion_scheduled": MailKind("legal", "law"),
    "account_deleted": MailKind("legal", "law"),
    "policy_changed": MailKind("legal", "law"),
    "product_news": MailKind("marketing", "news"),
    # to the operator, about the machine
    "event_parked": MailKind("transactional", "service"),
    "request_due": MailKind("transactional", "law"),
    "erasure_waits": MailKind("transactional", "law"),
}
OPTIONAL: tuple[MailClass, ...] = ("service", "marketing")  # what a person may decline; such mail says how


class UnknownMailKindError(ValueError):
    """A mail that serves no purpose of the register."""


def info(kind: str) -> MailKind:
    """What a kind of mail is. Raises NoPurpose."""
    if kind not in MAILS:
        raise UnknownMailKindError(
            f"the mail {kind} serves no purpose: name its class and purpose in pipeline/outbox/mail_kinds.py"
        )
    return MAILS[kind]


def is_optional(kind: str) -> bool:
    """Whether a person may decline this kind of mail. Raises NoPurpose."""
    return info(kind).mail_class in OPTIONAL


def suppression_reason(kind: str, *, marketing: bool, service: bool) -> str | None:
    """Why a customer with these choices is not to have this mail; None if they are."""
    match info(kind).mail_class:
        case "marketing" if not marketing:
            return "the customer has not opted in to news"
        case "service" if not service:
            return "the customer has opted out of mail they can do without"
    return None
