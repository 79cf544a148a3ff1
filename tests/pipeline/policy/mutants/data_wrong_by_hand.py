"""Mutants of the collected data, its uses and its retention: rows as a mistaken operator would leave them."""

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, update

from pipeline.db import lww_map
from pipeline.db.models import (
    AccessLogEntry,
    Consent,
    Erasure,
    Link,
    Mail,
)
from tests.pipeline.policy.healthy_system import HealthySystem, close_request, customer, file_message, mail
from tests.pipeline.policy.mutants.registry import Mutant, Patch, of
from tests.pipeline.policy.mutants.row_changes import change_all, execute, open_one


def stores_field(name: str) -> Mutant:
    def mutant(system: HealthySystem, _: Patch) -> None:
        known = lww_map.merge({}, system.now, {"name": "Ada", "email": "ada@example.com", name: "x"})
        system.pipeline.set(
            customer(system, system.ada), personal_data=system.encrypt(system.ada, "customer.personal_data", known)
        )

    mutant.__name__, mutant.__doc__ = f"account_has_{name}", f"An account has the field {name}."
    return mutant


for field in ("job_title", "birthday", "vat_id"):
    of("1.account")(stores_field(field))


@of("1.account")
def table_for_sales_leads(system: HealthySystem, _: Patch) -> None:
    """Somebody adds a table for sales leads."""
    execute(system, "CREATE TABLE crm_lead (id INTEGER PRIMARY KEY, note TEXT)")


@of("1.account")
def column_for_notes(system: HealthySystem, _: Patch) -> None:
    """Somebody adds a column for notes to the customers."""
    execute(system, "ALTER TABLE customer ADD COLUMN sales_note TEXT")


def stores_body(name: str, body: str) -> Mutant:
    def mutant(system: HealthySystem, _: Patch) -> None:
        row = system.pipeline.event("WH-1")
        system.pipeline.set(row, body=system.encrypt(row.key_id, "event.body", body.encode()))

    mutant.__name__, mutant.__doc__ = f"body_has_{name}", f"A stored body contains {name.replace('_', ' ')}."
    return mutant


# Test numbers that no bank has issued.
for name, body in (
    ("a_card_number", '{"resource": {"source": "4111111111111111"}}'),
    ("a_grouped_card_number", '{"resource": {"note": "paid with 5555 5555 5555 4444"}}'),
    ("an_amex_number", '{"resource": {"n": "378282246310005"}}'),
    ("an_iban", '{"resource": {"note": "DE89 3704 0044 0532 0130 00"}}'),
    ("a_dutch_iban", '{"resource": {"to": "NL91ABNA0417164300"}}'),
    ("a_security_code", '{"resource": {"cvv": "123"}}'),
    ("an_account_number", '{"resource": {"account_number": "000123"}}'),
):
    of("1.payment")(stores_body(name, body))


@of("1.communications")
def message_has_the_key_of_another_customer(system: HealthySystem, _: Patch) -> None:
    """A message of one customer is encrypted with the key of another."""
    file_message(system, "L-9", system.ada, "support", key_id=system.bob)


@of("1.communications")
def message_of_nobody_has_a_customers_key(system: HealthySystem, _: Patch) -> None:
    """A message that is filed under no customer is encrypted with a customer's key."""
    file_message(system, "L-9", None, "support", key_id=system.bob)


@of("1.communications")
def message_cannot_be_read(system: HealthySystem, _: Patch) -> None:
    """The content of a message is not encrypted with the key that it names."""
    file_message(system, "L-9", system.ada, "support")
    execute(system, "UPDATE inbound_mail SET content = :content WHERE id = 'L-9'", content=b"plain")


@of("1.visits")
def visit_has_the_key_of_another_day(system: HealthySystem, _: Patch) -> None:
    """A visit is encrypted with the key of another day, so it outlives its own."""
    change_all(system, update(AccessLogEntry).values(key_id="visits:2020-01-01", visitor=None))


@of("1.visits")
def access_log_was_off(system: HealthySystem, _: Patch) -> None:
    """A customer followed a mailed link, but no visit was logged."""
    change_all(system, delete(AccessLogEntry))
    system.add(
        Link(
            sha256="a" * 64, customer_id=system.ada, purpose="sign_in", created_at=system.now,
            expires_at=system.now, used_at=system.now,
        )
    )  # fmt: skip


@of("1.visits")
def access_log_stores_the_query(system: HealthySystem, _: Patch) -> None:
    """The access log stores what a visitor searched for."""
    [row] = system.pipeline.rows(AccessLogEntry)
    visitor = {"address": "192.0.2.1", "browser": "Example/1.0", "query": "?q=x"}
    system.pipeline.set(row, visitor=system.encrypt(row.key_id, "access_log.visitor", visitor))


@of("2.deliver")
def mail_of_an_unknown_kind(system: HealthySystem, _: Patch) -> None:
    """A mail is stored whose kind nobody has registered."""
    change_all(system, update(Mail).where(Mail.kind == "receipt").values(kind="survey"))


@of("2.deliver")
def mail_of_a_removed_kind(system: HealthySystem, _: Patch) -> None:
    """A mail of a kind that was removed is still there."""
    change_all(system, update(Mail).where(Mail.kind == "product_news").values(kind="partner_offer"))


def receipt_is(state: str, **values: Any) -> Mutant:
    def mutant(system: HealthySystem, _: Patch) -> None:
        system.clock.advance(timedelta(days=2))
        change_all(system, update(Mail).where(Mail.kind == "receipt").values(state=state, sent_at=None, **values))

    mutant.__name__, mutant.__doc__ = f"receipt_is_{state}", f"The receipt of a payment is {state}, and was never sent."
    return mutant


for state in ("failed", "doubt", "sending"):
    of("2.payments")(receipt_is(state))


@of("2.payments")
def receipt_waits_for_three_days(system: HealthySystem, _: Patch) -> None:
    """The receipt of a payment waits for the relay for three days."""
    system.clock.advance(timedelta(days=3))
    change_all(
        system,
        update(Mail).where(Mail.kind == "receipt").values(state="queued", sent_at=None, due_at=system.now),
    )


@of("2.payments")
def receipt_was_deleted(system: HealthySystem, _: Patch) -> None:
    """The receipt of a payment was deleted before it was sent."""
    system.clock.advance(timedelta(days=2))
    change_all(system, delete(Mail).where(Mail.kind == "receipt"))


@of("2.payments")
def receipt_of_another_payment(system: HealthySystem, _: Patch) -> None:
    """The receipt belongs to another payment."""
    system.clock.advance(timedelta(days=2))
    change_all(system, update(Mail).where(Mail.kind == "receipt").values(idempotency_key="receipt:SALE-9"))


@of("2.support")
def answer_was_refused(system: HealthySystem, _: Patch) -> None:
    """The operator's answer was refused by the relay."""
    mail(system, "inbound_reply", "reply:1", system.bob, "bob@example.com", state="failed", sent_at=None)


@of("2.support")
def question_answered_after_forty_days(system: HealthySystem, _: Patch) -> None:
    """A question is answered after forty days."""
    row = open_one(system, "other", system.bob)
    system.clock.advance(timedelta(days=40))
    close_request(system, row)


@of("2.law")
def receipt_keeps_rows_without_reason(system: HealthySystem, _: Patch) -> None:
    """An erasure receipt keeps rows and names no reason."""
    [row] = system.pipeline.rows(Erasure)
    kept = {"payment": {"rows": 1, "action": "kept, restricted", "basis": "", "until": None}}
    system.pipeline.set(row, receipt={"basis": "request", "rows": kept})


@of("2.law")
def receipt_is_empty(system: HealthySystem, _: Patch) -> None:
    """An erasure receipt is empty."""
    [row] = system.pipeline.rows(Erasure)
    system.pipeline.set(row, receipt={})


@of("2.no_advertising")
def opted_in_by_hand(system: HealthySystem, _: Patch) -> None:
    """An operator opted a customer in."""
    system.pipeline.set(customer(system, system.bob), wants_marketing=True)


@of("2.no_advertising")
def consents_are_lost(system: HealthySystem, _: Patch) -> None:
    """The proofs of consent were deleted, and news is still sent."""
    change_all(system, delete(Consent).where(Consent.kind == "marketing"))


@of("2.no_advertising")
def consent_came_after_the_mail(system: HealthySystem, _: Patch) -> None:
    """The consent is newer than the mail that needed it."""
    change_all(system, update(Consent).where(Consent.kind == "marketing").values(at=system.now))


@of("3.account")
def account_of_nobody_is_three_years_old(system: HealthySystem, _: Patch) -> None:
    """An account that never had a subscription is three years old."""
    old = system.now - timedelta(days=3 * 366)
    system.pipeline.set(customer(system, system.bob), created_at=old, signed_up_at=old)


@of("3.account")
def retention_stopped_ten_days_ago(system: HealthySystem, _: Patch) -> None:
    """The retention run stopped ten days ago."""
    system.clock.advance(timedelta(days=10))


@of("3.deletion")
def due_erasure_was_forgotten(system: HealthySystem, _: Patch) -> None:
    """A customer is due for an erasure for a week."""
    system.pipeline.set(customer(system, system.bob), erase_at=system.now - timedelta(days=7))


def too_old(name: str, words: str, statement: str) -> None:
    """Register a mutant: rows of a class are kept longer than their period."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        execute(
            system,
            statement,
            old=str(system.now - timedelta(days=13 * 366)),
            recent=str(system.now - timedelta(days=20)),
        )

    mutant.__name__, mutant.__doc__ = name, f"{words} are kept too long."
    of("3.account")(mutant)


too_old("old_messages", "Messages of unknown senders", "UPDATE inbound_mail SET customer_id = NULL, received_at = :old")
too_old("old_requests", "Answered requests", "UPDATE privacy_request SET done_at = :old")
too_old("old_mails", "Mails to nobody", "UPDATE mail SET customer_id = NULL, created_at = :old")
too_old("old_reads", "Reads of personal data", "UPDATE read_audit SET at = :old")
too_old("old_events", "Readable events of nobody", "UPDATE event SET received_at = :old, state = 'ignored'")
too_old("old_payments", "Payments of nobody", "UPDATE payment SET subscription_id = NULL, occurred_at = :old")
too_old(
    "old_sign_ups",
    "Abandoned sign-ups",
    "UPDATE customer SET email_hash = NULL, signed_up_at = :recent, erased_at = NULL",
)
too_old("old_receipts", "Receipts of erasures", "UPDATE erasure SET at = :old, completed_at = :old")


@of("3.account")
def old_link(system: HealthySystem, _: Patch) -> None:
    """A link that expired three weeks ago is kept."""
    old = system.now - timedelta(days=21)
    system.add(Link(sha256="b" * 64, customer_id=system.ada, purpose="sign_in", created_at=old, expires_at=old))
