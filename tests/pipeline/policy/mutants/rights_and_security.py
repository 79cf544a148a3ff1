"""Mutants of rights, security, children and changes: rows as a mistaken operator would leave them."""

from datetime import timedelta

from sqlalchemy import delete, update

from pipeline.db.models import (
    Consent,
    Erasure,
    Mail,
    Policy,
    PrivacyRequest,
    ReadAudit,
)
from pipeline.outbox import mail_kinds
from pipeline.policy import versions
from pipeline.privacy import requests
from tests.pipeline.policy.healthy_system import HealthySystem, close_request, customer, mail
from tests.pipeline.policy.mutants.data_wrong_by_hand import stores_field
from tests.pipeline.policy.mutants.registry import Patch, of
from tests.pipeline.policy.mutants.row_changes import change_all, execute, open_one, record_read, remember_head


@of("6.delete", "8.children")
def child_report_closed_by_hand(system: HealthySystem, _: Patch) -> None:
    """The report of a child's data was closed by hand, and nobody was erased."""
    close_request(system, open_one(system, "child", system.bob))


@of("6.delete")
def deletion_closed_by_hand(system: HealthySystem, _: Patch) -> None:
    """A deletion was closed as done by hand, and nobody was erased."""
    close_request(system, open_one(system, "erase", system.bob))


def left_behind(name: str, words: str, statement: str) -> None:
    """Register a mutant of the erased customer: `statement` writes into a row of hers."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        [row] = system.pipeline.rows(Erasure)
        execute(system, statement, person=row.customer_id, at=str(system.now - timedelta(days=20)))

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
    row = open_one(system, "access", system.bob)
    system.clock.advance(timedelta(days=40))
    close_request(system, row)


@of("6.answer")
def deadline_was_moved(system: HealthySystem, _: Patch) -> None:
    """The deadline of a request was moved to three months."""
    row = open_one(system, "other", system.bob)
    system.pipeline.set(row, due_at=system.now + timedelta(days=90))


@of("6.correct")
def correction_is_late(system: HealthySystem, _: Patch) -> None:
    """A correction was not made for five weeks."""
    open_one(system, "correct", system.bob)
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
    change_all(system, delete(PrivacyRequest))


@of("7.logging")
def newest_reads_are_cut(system: HealthySystem, _: Patch) -> None:
    """The newest rows of the audit log were deleted after the last check."""
    remember_head(system)
    change_all(system, delete(ReadAudit))


@of("7.logging")
def row_is_cut_out(system: HealthySystem, _: Patch) -> None:
    """A row was cut out of the middle of the audit log."""
    for _number in range(3):
        record_read(system, "customer's question")
    rows = system.pipeline.rows(ReadAudit)
    change_all(system, delete(ReadAudit).where(ReadAudit.id == rows[1].id))


@of("7.logging")
def purpose_is_blank(system: HealthySystem, _: Patch) -> None:
    """A read has a purpose of blanks."""
    record_read(system, "   ")


@of("7.logging")
def actor_is_changed(system: HealthySystem, _: Patch) -> None:
    """The account that read is changed afterwards."""
    change_all(system, update(ReadAudit).values(actor="somebody else"))


def written_in_plain(name: str, words: str, statement: str) -> None:
    """Register a mutant that writes a customer's address where people can read it."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        execute(system, statement)

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
    change_all(system, update(Mail).values(facts=b'{"customer_name": "Ada"}'))


@of("7.tls")
def message_is_plain_text(system: HealthySystem, _: Patch) -> None:
    """A received message is stored in plain text."""
    execute(system, "UPDATE inbound_mail SET content = :content", content=b"hello")


@of("8.adults")
def wording_is_unknown(system: HealthySystem, _: Patch) -> None:
    """The wording that a customer confirmed is unknown."""
    system.pipeline.set(customer(system, system.bob), adult_text_version=None)


@of("8.adults")
def statement_was_not_given(system: HealthySystem, _: Patch) -> None:
    """The statement of age is recorded as not given."""
    change_all(system, update(Consent).where(Consent.kind == "adult").values(given=False))


@of("8.adults")
def date_of_birth_is_stored(system: HealthySystem, patch: Patch) -> None:
    """The date of birth of a customer is stored."""
    stores_field("date_of_birth")(system, patch)


@of("8.children")
def child_report_is_open_for_ten_days(system: HealthySystem, _: Patch) -> None:
    """The report of a child's data is open for ten days."""
    open_one(system, "child", system.bob)
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


@of("6.answer")
def refusal_was_not_mailed(system: HealthySystem, _: Patch) -> None:
    """A request was refused, and the customer was not told why."""
    row = open_one(system, "access", system.bob)
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


@of("6.access")
def copy_closed_by_hand(system: HealthySystem, _: Patch) -> None:
    """A request for a copy was closed as done by hand, and nobody got one."""
    close_request(system, open_one(system, "access", system.ada))
    system.clock.advance(timedelta(days=3))


@of("6.access")
def mail_with_the_copy_was_refused(system: HealthySystem, _: Patch) -> None:
    """The mail with the link to the copy was refused by the relay."""
    row = open_one(system, "access", system.ada)
    close_request(system, row)
    mail(
        system, "data_export_ready", "data_export_ready:1", system.ada, "ada@example.com", state="failed", sent_at=None
    )
    system.clock.advance(timedelta(days=3))


@of("6.access")
def copy_went_to_another_customer(system: HealthySystem, _: Patch) -> None:
    """The mail with the link to the copy went to another customer."""
    close_request(system, open_one(system, "access", system.ada))
    mail(system, "data_export_ready", "data_export_ready:2", system.bob, "bob@example.com")
    system.clock.advance(timedelta(days=3))


@of("6.opt_out", "2.no_advertising")
def news_are_called_transactional(system: HealthySystem, patch: Patch) -> None:
    """News is given the class of mail that needs no consent, and is sent after an opt-out."""
    patch.setitem(mail_kinds.MAILS, "product_news", mail_kinds.MAILS["receipt"])
    system.add(
        Consent(customer_id=system.ada, at=system.now, kind="marketing", given=False, source="page", text_version="1")
    )
    system.clock.advance(timedelta(hours=1))
    mail(system, "product_news", "product_news:5:ada", system.ada, "ada@example.com")
