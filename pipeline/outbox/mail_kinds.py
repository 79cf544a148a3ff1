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
class MailUse:
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

MAILS: dict[str, MailUse] = {
    "account_setup": MailUse("transactional", "notices"),
    "receipt": MailUse("transactional", "payments"),
    "payment_failed": MailUse("transactional", "payments"),
    "subscription_suspended": MailUse("transactional", "notices"),
    "subscription_cancelled": MailUse("transactional", "notices"),
    "refund_receipt": MailUse("transactional", "payments"),
    "renewal_reminder": MailUse("transactional", "notices"),
    "account_link": MailUse("transactional", "service"),
    "news_confirmation": MailUse("transactional", "news"),  # asks whether they are wanted, and holds none
    "email_changed": MailUse("legal", "security"),
    "support_received": MailUse("transactional", "support"),
    "privacy_request_received": MailUse("legal", "law"),
    "data_export_ready": MailUse("legal", "law"),
    "account_deletion_scheduled": MailUse("legal", "law"),
    "account_deleted": MailUse("legal", "law"),
    "policy_changed": MailUse("legal", "law"),
    "product_news": MailUse("marketing", "news"),
    # to the operator, about the machine
    "event_parked": MailUse("transactional", "service"),
    "request_due": MailUse("transactional", "law"),
    "erasure_waits": MailUse("transactional", "law"),
}
OPTIONAL: tuple[MailClass, ...] = ("service", "marketing")  # what a person may decline; such mail says how


class NoPurpose(ValueError):
    """A mail that serves no purpose of the register."""


def use_of(kind: str) -> MailUse:
    """What a kind of mail is. Raises NoPurpose."""
    if kind not in MAILS:
        raise NoPurpose(
            f"the mail {kind} serves no purpose: name its class and purpose in pipeline/outbox/mail_kinds.py"
        )
    return MAILS[kind]


def is_optional(kind: str) -> bool:
    """Whether a person may decline this kind of mail. Raises NoPurpose."""
    return use_of(kind).mail_class in OPTIONAL


def declined(kind: str, *, marketing: bool, service: bool) -> str | None:
    """Why a customer with these choices is not to have this mail; None if they are."""
    match use_of(kind).mail_class:
        case "marketing" if not marketing:
            return "the customer has not opted in to news"
        case "service" if not service:
            return "the customer has opted out of mail they can do without"
    return None
