"""Mutants that change rows as a mistaken operator, or a control that was off for a while, would."""

from datetime import timedelta
from typing import Any

from sqlalchemy import delete, text, update

from pipeline.db import lww_map
from pipeline.db.models import (
    AccessLogEntry,
    Consent,
    Erasure,
    Link,
    Mail,
    Policy,
    PrivacyRequest,
    ReadAudit,
)
from pipeline.policy import history, versions
from pipeline.privacy import audit_log, requests
from tests.pipeline.policy.healthy_system import HealthySystem, close_request, customer, file_message, mail
from tests.pipeline.policy.mutants.registry import Mutant, Patch, of


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
    _execute(system, "CREATE TABLE crm_lead (id INTEGER PRIMARY KEY, note TEXT)")


@of("1.account")
def column_for_notes(system: HealthySystem, _: Patch) -> None:
    """Somebody adds a column for notes to the customers."""
    _execute(system, "ALTER TABLE customer ADD COLUMN sales_note TEXT")


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
    _execute(system, "UPDATE inbound_mail SET content = :content WHERE id = 'L-9'", content=b"plain")


@of("1.visits")
def visit_has_the_key_of_another_day(system: HealthySystem, _: Patch) -> None:
    """A visit is encrypted with the key of another day, so it outlives its own."""
    _all(system, update(AccessLogEntry).values(key_id="visits:2020-01-01", visitor=None))


@of("1.visits")
def access_log_was_off(system: HealthySystem, _: Patch) -> None:
    """A customer followed a mailed link, but no visit was logged."""
    _all(system, delete(AccessLogEntry))
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
    _all(system, update(Mail).where(Mail.kind == "receipt").values(kind="survey"))


@of("2.deliver")
def mail_of_a_removed_kind(system: HealthySystem, _: Patch) -> None:
    """A mail of a kind that was removed is still there."""
    _all(system, update(Mail).where(Mail.kind == "product_news").values(kind="partner_offer"))


def receipt_is(state: str, **values: Any) -> Mutant:
    def mutant(system: HealthySystem, _: Patch) -> None:
        system.clock.advance(timedelta(days=2))
        _all(system, update(Mail).where(Mail.kind == "receipt").values(state=state, sent_at=None, **values))

    mutant.__name__, mutant.__doc__ = f"receipt_is_{state}", f"The receipt of a payment is {state}, and was never sent."
    return mutant


for state in ("failed", "doubt", "sending"):
    of("2.payments")(receipt_is(state))


@of("2.payments")
def receipt_waits_for_three_days(system: HealthySystem, _: Patch) -> None:
    """The receipt of a payment waits for the relay for three days."""
    system.clock.advance(timedelta(days=3))
    _all(
        system,
        update(Mail).where(Mail.kind == "receipt").values(state="queued", sent_at=None, due_at=system.now),
    )


@of("2.payments")
def receipt_was_deleted(system: HealthySystem, _: Patch) -> None:
    """The receipt of a payment was deleted before it was sent."""
    system.clock.advance(timedelta(days=2))
    _all(system, delete(Mail).where(Mail.kind == "receipt"))


@of("2.payments")
def receipt_of_another_payment(system: HealthySystem, _: Patch) -> None:
    """The receipt belongs to another payment."""
    system.clock.advance(timedelta(days=2))
    _all(system, update(Mail).where(Mail.kind == "receipt").values(idempotency_key="receipt:SALE-9"))


@of("2.support")
def answer_was_refused(system: HealthySystem, _: Patch) -> None:
    """The operator's answer was refused by the relay."""
    mail(system, "inbound_reply", "reply:1", system.bob, "bob@example.com", state="failed", sent_at=None)


@of("2.support")
def question_answered_after_forty_days(system: HealthySystem, _: Patch) -> None:
    """A question is answered after forty days."""
    row = _open(system, "other", system.bob)
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
    _all(system, delete(Consent).where(Consent.kind == "marketing"))


@of("2.no_advertising")
def consent_came_after_the_mail(system: HealthySystem, _: Patch) -> None:
    """The consent is newer than the mail that needed it."""
    _all(system, update(Consent).where(Consent.kind == "marketing").values(at=system.now))


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


@of("6.delete", "8.children")
def child_report_closed_by_hand(system: HealthySystem, _: Patch) -> None:
    """The report of a child's data was closed by hand, and nobody was erased."""
    close_request(system, _open(system, "child", system.bob))


@of("6.delete")
def deletion_closed_by_hand(system: HealthySystem, _: Patch) -> None:
    """A deletion was closed as done by hand, and nobody was erased."""
    close_request(system, _open(system, "erase", system.bob))


def left_behind(name: str, words: str, statement: str) -> None:
    """Register a mutant of the erased customer: `statement` writes into a row of hers."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        [row] = system.pipeline.rows(Erasure)
        _execute(system, statement, person=row.customer_id, at=str(system.now - timedelta(days=20)))

    mutant.__name__, mutant.__doc__ = name, f"An erasure forgets {words}."
    of("6.delete")(mutant)


left_behind("forgets_the_account", "the account's data", "UPDATE customer SET personal_data = 'x' WHERE id = :person")
left_behind("forgets_the_hash", "the hash of the address", "UPDATE customer SET email_hash = 'x' WHERE id = :person")
left_behind(
    "forgets_a_mail",
    "the text of a mail",
    "UPDATE mail SET customer_id = :person, frozen = 'x', created_at = :at WHERE kind = 'receipt'",
)
left_behind(
    "forgets_the_relays_reply",
    "what the relay replied",
    "UPDATE mail SET customer_id = :person, relay_reply = '550 no such user ada', created_at = :at WHERE kind = 'receipt'",
)
left_behind(
    "forgets_a_message",
    "a message",
    "UPDATE inbound_mail SET customer_id = :person, received_at = :at",
)
left_behind(
    "forgets_a_request",
    "the details of a request",
    "UPDATE privacy_request SET customer_id = :person, details = 'x', received_at = :at",
)
left_behind(
    "forgets_the_second_subscription",
    "the second subscription",
    "UPDATE subscription SET customer_id = :person, created_at = :at WHERE id = 'I-1'",
)


@of("6.access", "6.answer", "6.export")
def copy_sent_after_forty_days(system: HealthySystem, _: Patch) -> None:
    """A copy was sent after forty days."""
    row = _open(system, "access", system.bob)
    system.clock.advance(timedelta(days=40))
    close_request(system, row)


@of("6.answer")
def deadline_was_moved(system: HealthySystem, _: Patch) -> None:
    """The deadline of a request was moved to three months."""
    row = _open(system, "other", system.bob)
    system.pipeline.set(row, due_at=system.now + timedelta(days=90))


@of("6.correct")
def correction_is_late(system: HealthySystem, _: Patch) -> None:
    """A correction was not made for five weeks."""
    _open(system, "correct", system.bob)
    system.clock.advance(timedelta(days=35))


@of("6.correct")
def retry_goes_to_the_old_address(system: HealthySystem, _: Patch) -> None:
    """A mail whose first attempt failed is sent to the old address after a correction."""
    system.clock.advance(timedelta(hours=1))
    mail(system, "renewal_reminder", "renewal:I-1", system.ada, "ada.old@example.com", attempts=2)


@of("6.opt_out", "2.no_advertising")
def news_after_an_opt_out_by_the_operator(system: HealthySystem, _: Patch) -> None:
    """News is sent after the operator recorded an opt-out."""
    system.add(
        Consent(
            customer_id=system.ada, at=system.now, kind="marketing", given=False, source="operator", text_version="1"
        )
    )
    system.clock.advance(timedelta(days=30))
    mail(system, "product_news", "product_news:3:ada", system.ada, "ada@example.com")


@of("6.opt_out")
def news_in_doubt_after_an_opt_out(system: HealthySystem, _: Patch) -> None:
    """News was handed to the relay after an opt-out, and nobody knows whether it was taken."""
    system.add(
        Consent(customer_id=system.ada, at=system.now, kind="marketing", given=False, source="page", text_version="1")
    )
    system.clock.advance(timedelta(minutes=5))
    mail(system, "product_news", "product_news:4:ada", system.ada, "ada@example.com", state="doubt", sent_at=None)


@of("6.how")
def request_of_a_message_was_deleted(system: HealthySystem, _: Patch) -> None:
    """The request of a message was deleted."""
    _all(system, delete(PrivacyRequest))


@of("7.logging")
def newest_reads_are_cut(system: HealthySystem, _: Patch) -> None:
    """The newest rows of the audit log were deleted after the last check."""
    _remember_head(system)
    _all(system, delete(ReadAudit))


@of("7.logging")
def row_is_cut_out(system: HealthySystem, _: Patch) -> None:
    """A row was cut out of the middle of the audit log."""
    for _number in range(3):
        _read(system, "customer's question")
    rows = system.pipeline.rows(ReadAudit)
    _all(system, delete(ReadAudit).where(ReadAudit.id == rows[1].id))


@of("7.logging")
def purpose_is_blank(system: HealthySystem, _: Patch) -> None:
    """A read has a purpose of blanks."""
    _read(system, "   ")


@of("7.logging")
def actor_is_changed(system: HealthySystem, _: Patch) -> None:
    """The account that read is changed afterwards."""
    _all(system, update(ReadAudit).values(actor="somebody else"))


def written_in_plain(name: str, words: str, statement: str) -> None:
    """Register a mutant that writes a customer's address where people can read it."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        _execute(system, statement)

    mutant.__name__, mutant.__doc__ = name, f"A customer's address is in plain text in {words}."
    of("7.tls")(mutant)


written_in_plain("address_in_reply", "a relay's reply", "UPDATE mail SET relay_reply = '550 <ada@example.com> unknown'")
written_in_plain(
    "address_in_reason", "the reason of an event", "UPDATE event SET reason = 'cannot mail ada@example.com'"
)
written_in_plain(
    "address_in_facts", "the facts of an event", """UPDATE event SET facts = '{"email": "ada@example.com"}'"""
)
written_in_plain(
    "address_in_history",
    "the history of a subscription's status",
    "INSERT INTO status_history (subscription_id, at, new_status, reason, event_id) "
    "VALUES ('I-1', '2026-01-01 00:00:00', 'ACTIVE', 'asked by ada@example.com', 'WH-1')",
)


@of("7.tls")
def mail_facts_are_plain_json(system: HealthySystem, _: Patch) -> None:
    """The facts of a mail are plain JSON."""
    _all(system, update(Mail).values(facts=b'{"customer_name": "Ada"}'))


@of("7.tls")
def message_is_plain_text(system: HealthySystem, _: Patch) -> None:
    """A received message is stored in plain text."""
    _execute(system, "UPDATE inbound_mail SET content = :content", content=b"hello")


@of("8.adults")
def wording_is_unknown(system: HealthySystem, _: Patch) -> None:
    """The wording that a customer confirmed is unknown."""
    system.pipeline.set(customer(system, system.bob), adult_text_version=None)


@of("8.adults")
def statement_was_not_given(system: HealthySystem, _: Patch) -> None:
    """The statement of age is recorded as not given."""
    _all(system, update(Consent).where(Consent.kind == "adult").values(given=False))


@of("8.adults")
def date_of_birth_is_stored(system: HealthySystem, patch: Patch) -> None:
    """The date of birth of a customer is stored."""
    stores_field("date_of_birth")(system, patch)


@of("8.children")
def child_report_is_open_for_ten_days(system: HealthySystem, _: Patch) -> None:
    """The report of a child's data is open for ten days."""
    _open(system, "child", system.bob)
    system.clock.advance(timedelta(days=10))


@of("9.text")
def sentence_is_missing(system: HealthySystem, _: Patch) -> None:
    """A sentence was removed from the text in force."""
    vendor = system.inspect(lambda live: live.vendor)
    system.transact(
        lambda session, _: versions.store_first_text(session, vendor, system.settings.policy_effective, system.now)
    )
    [row] = system.pipeline.rows(Policy)
    system.pipeline.set(row, text=row.text.replace("We do not sell your data", "We do not give away your data"))


def _execute(system: HealthySystem, statement: str, **values: object) -> None:
    names = {name: value for name, value in values.items() if f":{name}" in statement}
    system.transact(lambda session, _: session.execute(text(statement), names))


def _all(system: HealthySystem, statement: Any) -> None:
    system.transact(lambda session, _: session.execute(statement.execution_options(synchronize_session=False)))


def _open(system: HealthySystem, kind: requests.Kind, customer_id: str) -> PrivacyRequest:
    made: PrivacyRequest = system.transact(
        lambda session, keyring: requests.open_request(session, keyring, kind, customer_id, "page", system.now)
    )
    return made


def _read(system: HealthySystem, purpose: str) -> None:
    system.transact(
        lambda session, keyring: audit_log.record_read(
            session, keyring, system.now, actor="x", action="mail show", purpose=purpose, subject=None
        )
    )


def _remember_head(system: HealthySystem) -> None:
    head = system.inspect(lambda live: audit_log.chain_head(live.session))
    history.append(system.settings.data_dir, [], system.now, head)


def too_old(name: str, words: str, statement: str) -> None:
    """Register a mutant: rows of a class are kept longer than their period."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        _execute(
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


@of("6.answer")
def refusal_was_not_mailed(system: HealthySystem, _: Patch) -> None:
    """A request was refused, and the customer was not told why."""
    row = _open(system, "access", system.bob)
    system.transact(lambda session, _: requests.close_request(session, row.id, "refused", system.now, "no"))
    system.clock.advance(timedelta(days=3))


@of("6.answer")
def mail_of_a_refusal_failed(system: HealthySystem, patch: Patch) -> None:
    """The mail of a refusal was refused by the relay."""
    refusal_was_not_mailed(system, patch)
    row = next(row for row in system.pipeline.rows(PrivacyRequest) if row.state == "refused")
    mail(
        system,
        "request_refused",
        f"request_refused:{row.id}",
        system.bob,
        "x@example.com",
        state="failed",
        sent_at=None,
    )
