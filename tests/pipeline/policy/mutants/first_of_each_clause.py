"""One mutant of each clause: the plainest way to break it."""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from sqlalchemy import delete, update

from pipeline.db import lww_map
from pipeline.db.models import AccessLogEntry, Consent, Customer, Erasure, Payment, Policy, ReadAudit, Subscription
from pipeline.inbox import redaction
from pipeline.network import egress
from pipeline.outbox import mail_kinds
from pipeline.policy import public_pages, versions
from pipeline.policy.evidence.connections import Connection
from pipeline.privacy import audit_log, requests
from pipeline.rendering.message import RenderedMail
from tests.pipeline.policy.healthy_system import (
    HealthySystem,
    close_request,
    customer,
    file_message,
    mail,
    page,
    receive_message,
)
from tests.pipeline.policy.mutants.registry import Patch, of
from tests.support.pipeline_under_test import delivery

PIXEL = '<p>hello</p><img src="https://tracker.example.net/pixel.gif" width="1" height="1">'
CARD = "4111111111111111"  # a test card number that is never issued


@of("1.account")
def sign_up_stores_extra_field(system: HealthySystem, _: Patch) -> None:
    """Sign-up stores a field that it must not ask for."""
    known = lww_map.merge({}, system.now, {"name": "Ada", "email": "ada@example.com", "nationality": "x"})
    system.pipeline.set(
        customer(system, system.ada), personal_data=system.encrypt(system.ada, "customer.personal_data", known)
    )


@of("1.payment")
def card_numbers_are_stored(system: HealthySystem, patch: Patch) -> None:
    """Card numbers are not removed from event bodies before they are stored."""
    with patch.context() as context:
        context.setattr(redaction, "redact_document", lambda document: document)
        system.pipeline.store(
            delivery({"id": "WH-2", "event_type": "TEST.HAPPENED", "resource": {"deep": [{"n": CARD}]}})
        )


@of("1.communications")
def message_is_encrypted_with_another_key(system: HealthySystem, _: Patch) -> None:
    """A message is encrypted with another key than its sender's, so an erasure does not include it."""
    file_message(system, "L-9", system.ada, "support", key_id="letter:other")


@of("1.visits")
def access_log_stores_referer(system: HealthySystem, _: Patch) -> None:
    """The access log stores the referring page of a visitor."""
    [row] = system.pipeline.rows(AccessLogEntry)
    visitor = {"address": "192.0.2.1", "browser": "Example/1.0", "referer": "https://example.net/"}
    system.pipeline.set(row, visitor=system.encrypt(row.key_id, "access_log.visitor", visitor))


@of("1.pages")
def page_allows_third_party_scripts(system: HealthySystem, _: Patch) -> None:
    """A page allows other origins and loads a script from one."""
    html = '<script src="https://tracker.example.net/t.js"></script>'
    system.pages.append(page("/signup", html, content_security_policy="default-src *"))


@of("1.self_hosted")
def mail_links_to_tracker(system: HealthySystem, _: Patch) -> None:
    """A mail links to a tracking server."""
    system.mails["receipt"] = RenderedMail("A receipt", "…", '<a href="https://count.example.net/?id=1">Receipt</a>')


@of("5.only")
def broker_has_public_address(system: HealthySystem, patch: Patch) -> None:
    """The broker is on a public address."""
    system.overrides["broker_url"] = "amqps://queue.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("8.8.8.8")}))


@of("7.tls")
def personal_data_is_plain_text(system: HealthySystem, _: Patch) -> None:
    """Personal data is stored in plain text."""
    plain = b'{"email": ["2026-03-01T12:00:00Z", "ada@example.com"]}'
    [row] = system.pipeline.rows(Subscription)
    system.pipeline.set(row, personal_data=plain)


@of("7.tls")
def broker_connection_is_not_encrypted(system: HealthySystem, patch: Patch) -> None:
    """A connection to another machine has no TLS."""
    system.overrides["broker_url"] = "amqp://queue.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("10.0.0.7")}))


@of("7.logging")
def read_has_no_purpose(system: HealthySystem, _: Patch) -> None:
    """The audit log has an entry without a purpose."""
    system.transact(
        lambda session, keyring: audit_log.record_read(
            session, keyring, system.now, actor="x", action="mail show", purpose="", subject=None
        )
    )


@of("5.only")
def process_connects_to_unknown_host(system: HealthySystem, _: Patch) -> None:
    """A process is connected to a host that the settings do not name."""
    system.connections = {"worker": [Connection(ip_address("192.0.2.99"), 8443)]}


@of("2.deliver")
def mail_has_no_purpose(system: HealthySystem, patch: Patch) -> None:
    """A mail is stored whose kind is not in the register of purposes."""
    patch.delitem(mail_kinds.MAILS, "receipt")


@of("2.payments")
def payment_has_no_receipt(system: HealthySystem, _: Patch) -> None:
    """A payment was received, and no receipt was queued for it."""
    system.add(
        Payment(
            id="SALE-2", known={}, subscription_id="I-1", status="completed", amount=900, currency="EUR", refunded=0,
            occurred_at=system.now - timedelta(days=3),
        )
    )  # fmt: skip


@of("2.transactional")
def mail_has_no_class(system: HealthySystem, _: Patch) -> None:
    """A kind of mail has no class."""
    system.mails["surprise"] = RenderedMail("Surprise", "…", "<p>…</p>")


@of("2.support")
def support_request_is_not_answered(system: HealthySystem, _: Patch) -> None:
    """A support request is not answered."""
    receive_message(system, "How do I add a second user?", "bob@example.com")
    system.clock.advance(timedelta(days=31))


@of("2.law")
def erasure_has_no_legal_basis(system: HealthySystem, _: Patch) -> None:
    """An erasure receipt states no legal basis for the kept rows."""
    [row] = system.pipeline.rows(Erasure)
    system.pipeline.set(row, receipt={"rows": {}})


@of("2.no_advertising")
def news_are_sent_without_opt_in(system: HealthySystem, _: Patch) -> None:
    """Marketing mail is sent to a customer who has not opted in."""
    mail(system, "product_news", "product_news:1:bob", system.bob, "bob@example.com")


@of("3.account")
def retention_does_not_run(system: HealthySystem, _: Patch) -> None:
    """Retention does not run for three years after the last subscription ended."""
    [row] = system.pipeline.rows(Subscription)
    system.pipeline.set(row, status="CANCELLED")
    system.clock.advance(timedelta(days=3 * 366))


@of("3.deletion")
def deletion_is_not_carried_out(system: HealthySystem, _: Patch) -> None:
    """A requested deletion is not carried out."""
    system.transact(
        lambda s, k: requests.open_request(
            s, k, "erase", system.ada, "page", system.now, act_at=system.now + timedelta(days=3)
        )
    )
    system.clock.advance(timedelta(days=8))


@of("3.logs")
def access_log_is_not_deleted(system: HealthySystem, _: Patch) -> None:
    """Old entries of the access log are not deleted."""
    system.clock.advance(timedelta(days=94))


@of("4.session")
def page_sets_persistent_cookie(system: HealthySystem, _: Patch) -> None:
    """A page sets a persistent cookie."""
    system.pages.append(page("/signup", "<p>…</p>", cookie="visitor=1; Max-Age=31536000; Path=/"))


@of("4.none_else")
def mail_contains_tracking_pixel(system: HealthySystem, _: Patch) -> None:
    """A mail contains a picture from another host."""
    system.mails["receipt"] = RenderedMail("A receipt", "…", PIXEL)


@of("5.only")
def third_party_is_allowed(system: HealthySystem, patch: Patch) -> None:
    """The settings allow a host of a third party."""
    system.overrides["broker_url"] = "amqps://queue.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("8.8.8.8")}))


@of("5.paypal")
def api_is_not_paypal(system: HealthySystem, _: Patch) -> None:
    """The payment API does not belong to PayPal."""
    system.overrides["paypal_base_url"] = "https://api.payments.example.com"


@of("5.postfix")
def relay_has_public_address(system: HealthySystem, patch: Patch) -> None:
    """The relay is on a public address."""
    system.overrides["smtp_url"] = "smtps://smtp.provider.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("8.8.8.8")}))


@of("6.access")
def copy_is_late(system: HealthySystem, _: Patch) -> None:
    """A request for a copy is not answered."""
    _leave_open(system, "access")


@of("6.correct")
def correction_is_ignored(system: HealthySystem, _: Patch) -> None:
    """Mail is sent to the old address after a correction."""
    system.clock.advance(timedelta(hours=1))
    mail(system, "renewal_reminder", "renewal:I-1", system.ada, "ada.old@example.com")


@of("6.delete")
def erased_key_still_exists(system: HealthySystem, _: Patch) -> None:
    """An erasure does not destroy a key, so data can still be decrypted."""
    [row] = system.pipeline.rows(Erasure)
    system.pipeline.set(row, key_ids=[*row.key_ids, system.ada])


@of("6.export")
def export_is_late(system: HealthySystem, _: Patch) -> None:
    """A managed cloud customer does not receive the requested copy."""
    _leave_open(system, "access")


@of("6.opt_out")
def opt_out_is_ignored(system: HealthySystem, _: Patch) -> None:
    """Marketing mail is sent after an opt-out."""
    system.add(
        Consent(
            customer_id=system.ada, at=system.now, kind="marketing", given=False, source="one-click", text_version="1"
        )
    )
    system.clock.advance(timedelta(hours=1))
    mail(system, "product_news", "product_news:2:ada", system.ada, "ada@example.com")


@of("6.how")
def message_opens_no_request(system: HealthySystem, _: Patch) -> None:
    """A message about a privacy right opens no request."""
    file_message(system, "L-7", system.ada, "privacy")


@of("6.answer")
def answer_is_late(system: HealthySystem, _: Patch) -> None:
    """A request is answered after 40 days."""
    row = system.transact(lambda s, k: requests.open_request(s, k, "other", system.bob, "mail", system.now))
    system.clock.advance(timedelta(days=40))
    close_request(system, row)


@of("7.tls")
def public_pages_use_http(system: HealthySystem, patch: Patch) -> None:
    """The settings allow public pages over HTTP."""
    unvalidated = system.settings.model_copy(update={"public_url": "http://billing.example.com"})
    patch.setattr(HealthySystem, "settings", unvalidated)


@of("7.updates")
def dependency_audit_is_old(system: HealthySystem, _: Patch) -> None:
    """The last dependency audit is two months old."""
    system.clock.advance(timedelta(days=60))


@of("7.permissions")
def database_is_readable_by_group(system: HealthySystem, _: Patch) -> None:
    """The database is readable by the group."""
    database = system.pipeline.folder / "smt-billing.db"
    database.touch()
    database.chmod(0o640)


@of("7.logging")
def audit_log_is_changed(system: HealthySystem, _: Patch) -> None:
    """An entry of the audit log is changed."""
    system.transact(lambda session, _: session.execute(update(ReadAudit).values(subject="another customer")))


@of("8.adults")
def age_is_not_confirmed(system: HealthySystem, _: Patch) -> None:
    """Sign-up accepts customers without a statement of age."""
    system.transact(lambda session, _: session.execute(delete(Consent).where(Consent.kind == "adult")))
    system.pipeline.set(customer(system, system.ada), adult_confirmed_at=None)


@of("8.children")
def child_report_leads_to_no_erasure(system: HealthySystem, _: Patch) -> None:
    """A report of a child's data is closed without an erasure."""
    close_request(
        system, system.transact(lambda s, k: requests.open_request(s, k, "child", system.bob, "mail", system.now))
    )


@of("9.text")
def text_has_unchecked_sentence(system: HealthySystem, _: Patch) -> None:
    """The text in force contains a sentence without a check."""
    _publish(system, "# Privacy Policy\n\nWe delete access logs every hour.\n", material=False)


@of("9.notice")
def notices_are_not_sent(system: HealthySystem, _: Patch) -> None:
    """A material change reaches its day without any notice sent."""
    _publish(system, "# Privacy Policy\n\nAnother text.\n", material=True)


@of("9.date")
def page_shows_wrong_date(system: HealthySystem, patch: Patch) -> None:
    """The page shows another date than the effective date of the text in force."""
    patch.setattr(public_pages, "_day", lambda *_: datetime(2020, 1, 1, tzinfo=UTC).date())
    vendor = system.inspect(lambda live: live.vendor)
    system.transact(
        lambda session, _: versions.store_first_text(session, vendor, system.settings.policy_effective, system.now)
    )


@of("10.contact")
def message_is_not_filed(system: HealthySystem, _: Patch) -> None:
    """A message stays in the Maildir for two hours without being filed."""
    system.overrides["inbound_maildir"] = system.pipeline.folder / "Maildir"
    unread = system.pipeline.folder / "Maildir" / "new" / "1.host"
    unread.parent.mkdir(parents=True)
    unread.touch()
    at = system.now.timestamp() - 7200
    os.utime(unread, (at, at))


def _leave_open(system: HealthySystem, kind: requests.Kind) -> None:
    system.transact(lambda s, k: requests.open_request(s, k, kind, system.ada, "page", system.now))
    system.clock.advance(timedelta(days=31))


def _publish(system: HealthySystem, text: str, *, material: bool) -> None:
    yesterday = system.now - timedelta(days=1)
    system.add(
        Policy(
            id=f"{yesterday:%Y-%m-%d}", text=text, material=material, proposed_at=system.now - timedelta(days=40),
            effective_at=yesterday, withdrawn_at=None,
        )
    )  # fmt: skip
    if material:
        system.transact(
            lambda session, _: session.execute(update(Customer).values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
        )
