"""Register of mail kinds and of the purposes of processing personal data, as section 2 of the privacy policy requires.

A mail of an unregistered kind cannot be queued. The class of a kind decides whether a customer can opt out:
transactional and legal mail is always sent, service mail until the customer opts out, marketing mail after an opt-in.
"""

from dataclasses import dataclass
from typing import Literal

MailClass = Literal["transactional", "legal", "service", "marketing"]


@dataclass(frozen=True, slots=True)
class Purpose:
    """A purpose of processing: a sentence for customers, and the legal basis (GDPR article 6(1))."""

    sentence: str
    basis: str


@dataclass(frozen=True, slots=True)
class MailKind:
    """The class and the purpose of one kind of mail."""

    mail_class: MailClass
    purpose: str


PURPOSES: dict[str, Purpose] = {
    "service": Purpose("Deliver and maintain the service that was bought.", "contract (b)"),
    "payments": Purpose("Process payments and send receipts via PayPal.", "contract (b)"),
    "notices": Purpose("Send transactional mail: account set-up, renewal reminders.", "contract (b)"),
    "support": Purpose("Respond to support requests.", "contract (b)"),
    "law": Purpose(
        "Comply with legal obligations: accounting, and the rights of data subjects.", "legal obligation (c)"
    ),
    "security": Purpose(
        "Keep the service secure: access logs, and a log of operators who read data.", "legitimate interest (f)"
    ),
    "news": Purpose("Send product news to customers who requested it and confirmed by e-mail.", "consent (a)"),
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
    "news_confirmation": MailKind("transactional", "news"),  # asks for the confirmation; contains no marketing
    "email_change_requested": MailKind("legal", "security"),
    "email_changed": MailKind("legal", "security"),
    "support_received": MailKind("transactional", "support"),
    "inbound_reply": MailKind("transactional", "support"),
    "privacy_request_received": MailKind("legal", "law"),
    "request_refused": MailKind("legal", "law"),
    "data_export_ready": MailKind("legal", "law"),
    "account_deletion_scheduled": MailKind("legal", "law"),
    "account_deleted": MailKind("legal", "law"),
    "policy_changed": MailKind("legal", "law"),
    "product_news": MailKind("marketing", "news"),
    # to the operator
    "event_parked": MailKind("transactional", "service"),
    "custom_id_shared": MailKind("transactional", "security"),
    "dispute": MailKind("transactional", "payments"),
    "account_notice": MailKind("transactional", "payments"),
    "sign_up_refused": MailKind("transactional", "payments"),
    "webhook_forged": MailKind("transactional", "security"),
    "system_problem": MailKind("transactional", "service"),
    "request_due": MailKind("transactional", "law"),
    "erasure_waits": MailKind("transactional", "law"),
}
OPTIONAL: tuple[MailClass, ...] = (
    "service",
    "marketing",
)  # mail that a customer can opt out of; it contains an unsubscribe link


class UnknownMailKindError(ValueError):
    """The kind of mail is not registered."""


def info(kind: str) -> MailKind:
    """Return class and purpose of a kind of mail. Raises UnknownMailKindError."""
    if kind not in MAILS:
        raise UnknownMailKindError(
            f"unknown kind of mail {kind}: add it, with its class and purpose, to pipeline/outbox/mail_kinds.py"
        )
    return MAILS[kind]


def is_optional(kind: str) -> bool:
    """Return whether a customer can opt out of this kind of mail. Raises UnknownMailKindError."""
    return info(kind).mail_class in OPTIONAL


def suppression_reason(kind: str, *, marketing: bool, service: bool) -> str | None:
    """Return why a customer with these choices must not get this kind of mail; None if they may."""
    match info(kind).mail_class:
        case "marketing" if not marketing:
            return "the customer has not opted in to product news"
        case "service" if not service:
            return "the customer has opted out of service mail"
    return None
