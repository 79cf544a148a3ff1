"""For every clause of the policy a mutant: its control switched off, or what would follow if it were.

A mutant changes the healthy world; the check of its clause must then say `broken`. The first line of each says what is off.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
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
from tests.pipeline.policy.healthy_system import World, answer, customer, letter, mail, page, write
from tests.support.pipeline_under_test import delivery

Patch = pytest.MonkeyPatch
Mutant = Callable[[World, Patch], None]
MUTANTS: dict[str, Mutant] = {}
PIXEL = '<p>hello</p><img src="https://tracker.example.net/pixel.gif" width="1" height="1">'
CARD = "4111111111111111"  # a card number that is issued to nobody


def of(clause: str) -> Callable[[Mutant], Mutant]:
    """Registers the mutant of a clause."""

    def register_it(mutant: Mutant) -> Mutant:
        MUTANTS[clause] = mutant
        return mutant

    return register_it


@of("1.account")
def sign_up_takes_more(world: World, _: Patch) -> None:
    """Sign-up keeps a field that it must not ask for."""
    known = lww_map.merge({}, world.now, {"name": "Ada", "email": "ada@example.com", "nationality": "x"})
    world.river.set(customer(world, world.ada), personal_data=world.sealed(world.ada, "customer.personal_data", known))


@of("1.payment")
def cards_are_let_in(world: World, patch: Patch) -> None:
    """Nothing is dropped from bodies before they are stored."""
    with patch.context() as off:
        off.setattr(redaction, "redact_document", lambda document: document)
        world.river.store(delivery({"id": "WH-2", "event_type": "TEST.HAPPENED", "resource": {"deep": [{"n": CARD}]}}))


@of("1.communications")
def a_letter_is_filed_elsewhere(world: World, _: Patch) -> None:
    """A letter is sealed with a key that is not its writer's, so no erasure would reach it."""
    letter(world, "L-9", world.ada, "support", label="letter:somebody")


@of("1.visits")
def visits_tell_more(world: World, _: Patch) -> None:
    """The access log keeps where a visitor came from."""
    [row] = world.river.rows(AccessLogEntry)
    who = {"address": "192.0.2.1", "browser": "Example/1.0", "referer": "https://example.net/"}
    world.river.set(row, visitor=world.sealed(row.key_id, "access_log.visitor", who))


@of("1.pages")
def a_page_is_open_to_scripts(world: World, _: Patch) -> None:
    """The header that shuts out other origins is gone, and a script of theirs is in."""
    html = '<script src="https://tracker.example.net/t.js"></script>'
    world.pages.append(page("/signup", html, content_security_policy="default-src *"))


@of("1.self_hosted")
def a_mail_calls_home(world: World, _: Patch) -> None:
    """A mail leads to a server that counts."""
    world.mails["receipt"] = RenderedMail("A receipt", "…", '<a href="https://count.example.net/?id=1">Receipt</a>')


@of("1.cloud_place")
def the_database_is_elsewhere(world: World, patch: Patch) -> None:
    """The broker stands on somebody's public address."""
    world.given["broker_url"] = "amqps://queue.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("8.8.8.8")}))


@of("1.cloud_at_rest")
def nothing_is_sealed(world: World, _: Patch) -> None:
    """A person's data is written as it is."""
    plain = b'{"email": ["2026-03-01T12:00:00Z", "ada@example.com"]}'
    [row] = world.river.rows(Subscription)
    world.river.set(row, personal_data=plain)


@of("1.cloud_in_transit")
def the_broker_is_reached_in_the_clear(world: World, patch: Patch) -> None:
    """A way that leaves the machine has no TLS."""
    world.given["broker_url"] = "amqp://queue.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("10.0.0.7")}))


@of("1.cloud_access")
def a_read_has_no_purpose(world: World, _: Patch) -> None:
    """Reads are written down without saying why."""
    world.change(
        lambda session, _: audit_log.record_read(
            session, world.now, actor="x", action="mail show", purpose="", subject=None
        )
    )


@of("1.cloud_sharing")
def a_process_talks_to_a_stranger(world: World, _: Patch) -> None:
    """One of our processes holds a connection to somebody the settings do not name."""
    world.connections = {"worker": [Connection(ip_address("192.0.2.99"), 8443)]}


@of("2.deliver")
def a_mail_serves_no_purpose(world: World, patch: Patch) -> None:
    """Mail of a kind that the register does not know was owed."""
    patch.delitem(mail_kinds.MAILS, "receipt")


@of("2.payments")
def a_receipt_is_not_owed(world: World, _: Patch) -> None:
    """A payment came, and no receipt was owed for it."""
    world.add(
        Payment(
            id="SALE-2", known={}, subscription_id="I-1", status="completed", amount=900, currency="EUR", refunded=0,
            occurred_at=world.now - timedelta(days=2),
        )
    )  # fmt: skip


@of("2.transactional")
def a_mail_has_no_class(world: World, _: Patch) -> None:
    """A mail can be written that has no class."""
    world.mails["surprise"] = RenderedMail("Surprise", "…", "<p>…</p>")


@of("2.support")
def a_question_is_not_answered(world: World, _: Patch) -> None:
    """A message to support is left lying."""
    write(world, "How do I add a second user?", "bob@example.com")
    world.clock.advance(timedelta(days=31))


@of("2.law")
def an_erasure_says_nothing(world: World, _: Patch) -> None:
    """An erasure keeps rows without saying on which basis."""
    [row] = world.river.rows(Erasure)
    world.river.set(row, receipt={"rows": {}})


@of("2.no_advertising")
def news_go_to_all(world: World, _: Patch) -> None:
    """Marketing mail is sent to somebody who has not opted in."""
    mail(world, "product_news", "product_news:1:bob", world.bob, "bob@example.com")


@of("3.account")
def nobody_sweeps(world: World, _: Patch) -> None:
    """The retention sweep is off, and three years go by after the last subscription ended."""
    [row] = world.river.rows(Subscription)
    world.river.set(row, status="CANCELLED")
    world.clock.advance(timedelta(days=3 * 366))


@of("3.deletion")
def a_deletion_waits_for_ever(world: World, _: Patch) -> None:
    """A deletion that was asked for is not carried out."""
    world.change(
        lambda s, k: requests.open_request(
            s, k, "erase", world.ada, "page", world.now, act_at=world.now + timedelta(days=3)
        )
    )
    world.clock.advance(timedelta(days=8))


@of("3.logs")
def the_access_log_is_kept(world: World, _: Patch) -> None:
    """Visits are not swept."""
    world.clock.advance(timedelta(days=94))


@of("4.session")
def a_page_counts_visitors(world: World, _: Patch) -> None:
    """A page sets a cookie that lasts."""
    world.pages.append(page("/signup", "<p>…</p>", cookie="visitor=1; Max-Age=31536000; Path=/"))


@of("4.none_else")
def a_mail_holds_a_pixel(world: World, _: Patch) -> None:
    """A mail holds a picture from elsewhere."""
    world.mails["receipt"] = RenderedMail("A receipt", "…", PIXEL)


@of("5.only")
def a_third_party_may_be_contacted(world: World, patch: Patch) -> None:
    """The settings allow us to contact a host of a third party."""
    world.given["broker_url"] = "amqps://queue.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("8.8.8.8")}))


@of("5.paypal")
def the_api_is_not_paypals(world: World, _: Patch) -> None:
    """Payments go through somebody else."""
    world.given["paypal_base_url"] = "https://api.payments.example.com"


@of("5.postfix")
def mail_goes_through_a_provider(world: World, patch: Patch) -> None:
    """The relay is somebody's on the internet."""
    world.given["smtp_url"] = "smtps://smtp.provider.example.com"
    patch.setattr(egress, "resolve", lambda _: frozenset({ip_address("8.8.8.8")}))


@of("6.access")
def a_copy_is_late(world: World, _: Patch) -> None:
    """A request for a copy is left lying."""
    _leave_lying(world, "access")


@of("6.correct")
def a_correction_is_ignored(world: World, _: Patch) -> None:
    """Mail goes on to the address that was corrected."""
    world.clock.advance(timedelta(hours=1))
    mail(world, "renewal_reminder", "renewal:I-1", world.ada, "ada.old@example.com")


@of("6.delete")
def a_key_survives(world: World, _: Patch) -> None:
    """An erasure destroys no key: what was sealed can still be opened."""
    [row] = world.river.rows(Erasure)
    world.river.set(row, key_ids=[*row.key_ids, world.ada])


@of("6.export")
def an_export_is_late(world: World, _: Patch) -> None:
    """The copy of a customer of the managed cloud is not handed out."""
    _leave_lying(world, "access")


@of("6.opt_out")
def an_opt_out_is_ignored(world: World, _: Patch) -> None:
    """News go out after an opt-out."""
    world.add(
        Consent(
            customer_id=world.ada, at=world.now, kind="marketing", given=False, source="one-click", text_version="1"
        )
    )
    world.clock.advance(timedelta(hours=1))
    mail(world, "product_news", "product_news:2:ada", world.ada, "ada@example.com")


@of("6.how")
def a_request_by_mail_is_lost(world: World, _: Patch) -> None:
    """A message that asks for a right becomes no request."""
    letter(world, "L-7", world.ada, "privacy")


@of("6.answer")
def an_answer_is_late(world: World, _: Patch) -> None:
    """A request is answered after forty days."""
    row = world.change(lambda s, k: requests.open_request(s, k, "other", world.bob, "mail", world.now))
    world.clock.advance(timedelta(days=40))
    answer(world, row)


@of("7.tls")
def pages_are_public_in_the_clear(world: World, patch: Patch) -> None:
    """A setting that is not judged any more lets our pages be public over http."""
    unjudged = world.settings.model_copy(update={"public_url": "http://billing.example.com"})
    patch.setattr(World, "settings", unjudged)


@of("7.updates")
def nobody_audits(world: World, _: Patch) -> None:
    """The last audit of dependencies is two months old."""
    world.clock.advance(timedelta(days=60))


@of("7.permissions")
def others_can_read(world: World, _: Patch) -> None:
    """The database is readable by the group."""
    (world.river.folder / "smt-billing.db").chmod(0o640)


@of("7.logging")
def a_read_is_taken_off_the_record(world: World, _: Patch) -> None:
    """Somebody changes what the record says of a read."""
    world.change(lambda session, _: session.execute(update(ReadAudit).values(subject="somebody else")))


@of("8.adults")
def nobody_asks_for_the_age(world: World, _: Patch) -> None:
    """Sign-up lets people in who have not said that they are old enough."""
    world.change(lambda session, _: session.execute(delete(Consent).where(Consent.kind == "adult")))
    world.river.set(customer(world, world.ada), adult_confirmed_at=None)


@of("8.children")
def a_report_leads_nowhere(world: World, _: Patch) -> None:
    """A child's data was reported, and the case closed without an erasure."""
    answer(world, world.change(lambda s, k: requests.open_request(s, k, "child", world.bob, "mail", world.now)))


@of("9.text")
def the_text_promises_more(world: World, _: Patch) -> None:
    """The text in force says what no check stands behind."""
    _publish(world, "# Privacy Policy\n\nWe delete access logs every hour.\n", material=False)


@of("9.notice")
def nobody_is_told(world: World, _: Patch) -> None:
    """A material change reaches its day, and its notices have not gone out."""
    _publish(world, "# Privacy Policy\n\nAnother text.\n", material=True)


@of("9.date")
def the_page_shows_another_date(world: World, patch: Patch) -> None:
    """The page shows a date that is not that of the text in force."""
    patch.setattr(public_pages, "_day", lambda *_: datetime(2020, 1, 1, tzinfo=UTC).date())
    vendor = world.look(lambda live: live.vendor)
    world.change(
        lambda session, _: versions.store_first_text(session, vendor, world.settings.policy_effective, world.now)
    )


@of("10.contact")
def nobody_reads_the_mail(world: World, _: Patch) -> None:
    """A message lies in the Maildir of the address for two hours, and is not filed."""
    world.given["inbound_maildir"] = world.river.folder / "Maildir"
    unread = world.river.folder / "Maildir" / "new" / "1.host"
    unread.parent.mkdir(parents=True)
    unread.touch()
    at = world.now.timestamp() - 7200
    os.utime(unread, (at, at))


def _leave_lying(world: World, kind: requests.Kind) -> None:
    world.change(lambda s, k: requests.open_request(s, k, kind, world.ada, "page", world.now))
    world.clock.advance(timedelta(days=31))


def _publish(world: World, words: str, *, material: bool) -> None:
    yesterday = world.now - timedelta(days=1)
    world.add(
        Policy(
            id=f"{yesterday:%Y-%m-%d}", text=words, material=material, proposed_at=world.now - timedelta(days=40),
            effective_at=yesterday, withdrawn_at=None,
        )
    )  # fmt: skip
    if material:
        world.change(
            lambda session, _: session.execute(update(Customer).values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
        )
