"""A system in which every clause of the policy holds: two customers, a payment, mails, messages, requests, an erasure, pages.

A mutant disables one control of it, and the check of the mutant's clause must then fail.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db import lww_map
from pipeline.db.models import (
    AccessLogEntry,
    Base,
    Customer,
    Erasure,
    InboundMail,
    Payment,
    PrivacyRequest,
    RetentionRun,
    Subscription,
)
from pipeline.inbound_mail import intake
from pipeline.outbox import store as outbox
from pipeline.policy.clauses import PolicyOwner
from pipeline.policy.evidence.connections import Connection
from pipeline.policy.evidence.live_system import FetchedPage, LiveSystem, Probes
from pipeline.privacy import audit_log, data_categories, requests
from pipeline.rendering.message import RenderedMail
from pipeline.settings import Settings
from tests.pipeline.inbound_mail.test_parser import mail as message_from
from tests.support.pipeline_under_test import PipelineUnderTest, delivery, made, make_parts

WEEK = timedelta(days=7)
STRICT_HEADERS = {
    "content-type": ("text/html; charset=utf-8",),
    "content-security-policy": ("default-src 'self'; script-src 'none'; form-action 'self' https://www.paypal.com",),
    "strict-transport-security": ("max-age=31536000",),
}
COOKIE = "__Host-session=x; Secure; HttpOnly; SameSite=Lax; Path=/"
SETTINGS: dict[str, Any] = {
    "public_url": "https://billing.example.com",
    "smtp_url": "smtp://127.0.0.1:2525",
    "product_url": "https://product.example.com/hook",
    "vendor_url": "https://smtconstructions.example.com",
    "support_email": "help@example.com",
}
PRODUCT = {
    "servers": ["cloud.smtconstructions.example.com"],
    "encrypted_at_rest": True,
    "encrypted_in_transit": True,
    "reads": [{"purpose": "maintenance"}],
    "shared_with": [],
}


@dataclass
class HealthySystem:
    """A database with customers, and everything else that checks inspect. A mutant may replace each part."""

    pipeline: PipelineUnderTest
    clock: MovableClock
    overrides: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    pages: list[FetchedPage] = field(default_factory=list)
    mails: dict[str, RenderedMail] = field(default_factory=dict)
    connections: dict[str, list[Connection]] = field(default_factory=dict)
    journal: Callable[[], timedelta | None] | None = lambda: timedelta(days=90)  # noqa: E731 - maximum age of journald's entries
    product: dict[str, Any] | None = field(default_factory=lambda: dict(PRODUCT))
    ada: str = ""
    bob: str = ""

    @property
    def settings(self) -> Settings:
        return made(data_dir=self.pipeline.folder, database_url=self.pipeline.url, **self.overrides)

    @property
    def parts(self) -> Container:
        return make_parts(self.pipeline.url, self.pipeline.folder, self.clock, **self.overrides)

    @property
    def now(self) -> datetime:
        return self.pipeline.now

    def transact(self, action: Callable[[Session, Keyring], Any]) -> Any:
        """Call `action` in a transaction and return its result."""
        with self.pipeline.database.transaction() as session:
            return action(session, self.pipeline.keyring(session))

    def add(self, *rows: Base) -> None:
        self.transact(lambda session, _: session.add_all(rows))

    def encrypt(self, key_id: str, column: str, value: Any) -> bytes:
        def encrypt(_: Session, keyring: Keyring) -> bytes:
            key = keyring.system_key(key_id)
            return key.encrypt(column, value) if isinstance(value, bytes) else key.encrypt_json(column, value)

        return bytes(self.transact(encrypt))

    def inspect(self, action: Callable[[LiveSystem], Any]) -> Any:
        """Call `action` with the live system and return its result."""
        settings = self.settings
        vendor = PolicyOwner(settings.vendor_name, settings.product_name, settings.vendor_url, settings.support_email)
        probes = Probes(
            pages=lambda: self.pages,
            mails=lambda: self.mails,
            connections=lambda: self.connections,
            journal=self.journal,
            categories=data_categories.by_table(),
            product=lambda: self.product,
        )
        with self.pipeline.database.reading() as session:
            return action(LiveSystem(session, self.pipeline.keyring(session), settings, self.now, vendor, probes))


def make_healthy_system(pipeline: PipelineUnderTest, clock: MovableClock) -> HealthySystem:
    """Return a system in which every clause of the policy holds."""
    system = HealthySystem(pipeline, clock)
    system.ada = sign_up(system, "ada@example.com", marketing=True)
    system.bob = sign_up(system, "bob@example.com", marketing=False)
    clock.advance(WEEK)
    _subscribe(system)
    _receive_messages(system)
    _erase_customer(system)
    system.transact(lambda session, keyring: record_operator_read(session, keyring, system.now))
    system.add(RetentionRun(at=system.now, counts={}))
    key_id = f"visits:{system.now:%Y-%m-%d}"
    visitor = system.encrypt(key_id, "access_log.visitor", {"address": "192.0.2.1", "browser": "Example/1.0"})
    system.add(AccessLogEntry(at=system.now, key_id=key_id, action="GET /privacy", status=200, visitor=visitor))
    system.mails = {"receipt": RenderedMail("A receipt", "…", '<p><a href="https://www.paypal.com/">PayPal</a></p>')}
    system.pages = [page("/privacy", "<p>Effective Date: May 1, 2025</p>"), page("/account", "<p>…</p>", cookie=COOKIE)]
    (pipeline.folder / "audit.json").write_text(f'{{"at": "{system.now.isoformat()}", "ok": true, "found": 0}}')
    _write_logs(system)
    for path in pipeline.folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    clock.advance(timedelta(days=1, hours=1))
    return system


def _write_logs(system: HealthySystem) -> None:
    """Write the logs of a relay that hands mail to the recipients' servers, and of a web server."""
    folder = system.pipeline.folder.parent / "logs"
    folder.mkdir(exist_ok=True)
    relay, proxy = folder / "mail.log", folder / "access.log"
    relay.write_text(
        f"{system.now:%b %e %H:%M:%S} mx postfix/smtp[1]: AB: to=<ada@example.com>, relay=mx.example.com[192.0.2.7]:25, "
        "delay=1, status=sent (250 ok)\n"
    )
    proxy.write_text(f'192.0.2.1 - - [{system.now:%d/%b/%Y:%H:%M:%S} +0000] "GET / HTTP/1.1" 200 1\n')
    system.overrides |= {"relay_log": relay, "proxy_log": proxy}


def page(path: str, body: str, *, cookie: str = "", **headers: str) -> FetchedPage:
    more = {name.replace("_", "-"): (value,) for name, value in headers.items()}
    return FetchedPage(path, 200, {**STRICT_HEADERS, **more, **({"set-cookie": (cookie,)} if cookie else {})}, body)


def sign_up(system: HealthySystem, email: str, *, marketing: bool) -> str:
    person = accounts.SignUpData(name=email.partition("@")[0].title(), email=email)

    def action(session: Session, keyring: Keyring) -> str:
        id = accounts.create_account(
            session, keyring, person, adult_text="2026-01", news=marketing, now=system.now, source="sign-up"
        )
        accounts.confirm_entered_address(session, keyring, id, system.now)
        if marketing:
            accounts.record_consent(
                session, id, "marketing", given=True, source="link by mail", text_version="2026-01", now=system.now
            )
        return id

    return str(system.transact(action))


def mail(system: HealthySystem, kind: str, key: str, customer: str, to: str, **values: Any) -> None:
    """Store a mail to a customer that was sent now."""
    new = outbox.NewMail(kind, key, None, {}, customer_id=customer)
    system.transact(lambda session, keyring: outbox.enqueue(session, keyring, [new], system.now))
    row = system.pipeline.mails()[key]
    recipient = system.encrypt(row.key_id, "mail.recipient", to.encode())
    sent: dict[str, Any] = {
        "state": "sent",
        "claimed_at": system.now,
        "sent_at": system.now,
        "attempts": 1,
        "due_at": None,
    }
    system.pipeline.set(row, recipient=recipient, **{**sent, **values})


def file_message(system: HealthySystem, id: str, customer: str | None, kind: str, key_id: str = "") -> None:
    """File a message without opening a request."""
    key_id = key_id or customer or f"letter:{id}"
    content = system.encrypt(key_id, "inbound_mail.content", b"From: sender@example.com\r\n\r\nhello")
    system.add(
        InboundMail(id=id, customer_id=customer, key_id=key_id, kind=kind, content=content, received_at=system.now)
    )


def receive_message(system: HealthySystem, text: str, sender: str) -> None:
    """Receive a message as the program does."""
    pipeline, page = system.pipeline, "https://billing.example.com/account"
    intake.store_mail(message_from(text, sender=sender), pipeline.database, pipeline.master, pipeline.clock, page)


def record_operator_read(session: Session, keyring: Keyring, now: datetime) -> None:
    audit_log.record_read(
        session, keyring, now, actor="operator", action="mail show", purpose="customer's question", subject="x"
    )


def _subscribe(system: HealthySystem) -> None:
    person = system.encrypt(
        "I-1", "subscription.personal_data", lww_map.merge({}, system.now, {"email": "ada@example.com"})
    )
    system.add(
        Subscription(
            id="I-1", known={}, customer_id=system.ada, personal_data=person, status="ACTIVE", status_at=system.now,
            created_at=system.now,
        ),
        Payment(
            id="SALE-1", known={}, subscription_id="I-1", status="completed", amount=900, currency="EUR",
            refunded=0, occurred_at=system.now,
        ),
    )  # fmt: skip
    mail(system, "receipt", "receipt:SALE-1", system.ada, "ada@example.com")
    mail(system, "product_news", "product_news:1:ada", system.ada, "ada@example.com")
    system.pipeline.store(delivery({"id": "WH-1", "event_type": "TEST.HAPPENED", "resource": {"note": "thanks"}}))


def _receive_messages(system: HealthySystem) -> None:
    receive_message(system, "How do I add a second user?", "ada@example.com")
    receive_message(system, "Please send me a copy of my data.", "bob@example.com")
    receive_message(system, "Please correct my address.", "bob@example.com")
    for row in system.pipeline.rows(PrivacyRequest):
        close_request(system, row)


def close_request(system: HealthySystem, row: PrivacyRequest) -> None:
    """Close a request as the operator does."""
    system.transact(lambda session, _: requests.close_request(session, row.id, "done", system.now))


def _erase_customer(system: HealthySystem) -> None:
    erased = sign_up(system, "gone@example.com", marketing=False)
    system.transact(lambda _, keyring: keyring.destroy([erased]))
    kept = {"payment": {"rows": 1, "action": "kept, restricted", "basis": "law", "until": "2030-12-31T00:00:00Z"}}
    system.pipeline.set(customer(system, erased), personal_data=None, email_hash=None, erased_at=system.now)
    system.add(
        Erasure(
            id="E-1", customer_id=erased, key_ids=[erased], at=system.now, receipt={"basis": "request", "rows": kept},
            master_key_id="m", completed_at=None,
        )
    )  # fmt: skip


def customer(system: HealthySystem, id: str) -> Customer:
    return next(row for row in system.pipeline.rows(Customer) if row.id == id)
