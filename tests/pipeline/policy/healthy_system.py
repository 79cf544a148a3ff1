"""A small vendor at work: two customers who signed up, a payment, mails, a letter, a request, an erasure, a page.

Everything the policy promises holds in it. A mutant switches one control off, and the check of its clause has to see it.
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
    Mail,
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
from pipeline.privacy import audit_log, requests
from pipeline.rendering.message import RenderedMail
from pipeline.settings import Settings
from tests.pipeline.inbound_mail.test_parser import mail as written
from tests.support.pipeline_under_test import River, delivery, made, make_parts

WEEK = timedelta(days=7)
CLOSED = {
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


@dataclass
class World:
    """The river with people in it, and what a check is handed. Each part may be replaced by a mutant."""

    river: River
    clock: MovableClock
    given: dict[str, Any] = field(default_factory=lambda: dict(SETTINGS))
    pages: list[FetchedPage] = field(default_factory=list)
    mails: dict[str, RenderedMail] = field(default_factory=dict)
    connections: dict[str, list[Connection]] = field(default_factory=dict)
    journal: Callable[[], timedelta | None] | None = lambda: timedelta(days=90)  # noqa: E731 - what journald keeps
    ada: str = ""
    bob: str = ""

    @property
    def settings(self) -> Settings:
        return made(data_dir=self.river.folder, database_url=self.river.url, **self.given)

    @property
    def parts(self) -> Container:
        return make_parts(self.river.url, self.river.folder, self.clock, **self.given)

    @property
    def now(self) -> datetime:
        return self.river.now

    def change(self, deed: Callable[[Session, Keyring], Any]) -> Any:
        """Do something in a transaction."""
        with self.river.database.transaction() as session:
            return deed(session, self.river.keyring(session))

    def add(self, *rows: Base) -> None:
        self.change(lambda session, _: session.add_all(rows))

    def sealed(self, label: str, column: str, value: Any) -> bytes:
        def seal(_: Session, keyring: Keyring) -> bytes:
            own = keyring.system_key(label)
            return own.encrypt(column, value) if isinstance(value, bytes) else own.encrypt_json(column, value)

        return bytes(self.change(seal))

    def look(self, deed: Callable[[LiveSystem], Any]) -> Any:
        """What a check finds now."""
        settings = self.settings
        vendor = PolicyOwner(settings.vendor_name, settings.product_name, settings.vendor_url, settings.support_email)
        sights = Probes(
            pages=lambda: self.pages,
            mails=lambda: self.mails,
            connections=lambda: self.connections,
            journal=self.journal,
        )
        with self.river.database.reading() as session:
            return deed(LiveSystem(session, self.river.keyring(session), settings, self.now, vendor, sights))


def peopled(river: River, clock: MovableClock) -> World:
    """The world in which all of the policy holds."""
    world = World(river, clock)
    world.ada = sign_up(world, "ada@example.com", marketing=True)
    world.bob = sign_up(world, "bob@example.com", marketing=False)
    clock.advance(WEEK)
    _subscribe(world)
    _write_letters(world)
    _erase_somebody(world)
    world.change(lambda session, _: read_by_us(session, world.now))
    world.add(RetentionRun(at=world.now, counts={}))
    label = f"smt:visits:{world.now:%Y-%m-%d}"
    who = world.sealed(label, "access_log.visitor", {"address": "192.0.2.1", "browser": "Example/1.0"})
    world.add(AccessLogEntry(at=world.now, key_id=label, action="GET /privacy", status=200, visitor=who))
    world.mails = {"receipt": RenderedMail("A receipt", "…", '<p><a href="https://www.paypal.com/">PayPal</a></p>')}
    world.pages = [page("/privacy", "<p>Effective Date: May 1, 2025</p>"), page("/account", "<p>…</p>", cookie=COOKIE)]
    (river.folder / "audit.json").write_text(f'{{"at": "{world.now.isoformat()}", "ok": true, "found": 0}}')
    for path in river.folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    clock.advance(timedelta(days=1, hours=1))
    return world


def page(path: str, body: str, *, cookie: str = "", **headers: str) -> FetchedPage:
    more = {name.replace("_", "-"): (value,) for name, value in headers.items()}
    return FetchedPage(path, 200, {**CLOSED, **more, **({"set-cookie": (cookie,)} if cookie else {})}, body)


def sign_up(world: World, email: str, *, marketing: bool) -> str:
    person = accounts.SignUpData(name=email.partition("@")[0].title(), email=email)

    def deed(session: Session, keyring: Keyring) -> str:
        id = accounts.create_account(
            session, keyring, person, adult_text="2026-01", news=marketing, now=world.now, source="sign-up"
        )
        if marketing:
            accounts.record_consent(
                session, id, "marketing", given=True, source="link by mail", text_version="2026-01", now=world.now
            )
        return id

    return str(world.change(deed))


def mail(world: World, kind: str, key: str, customer: str, to: str, **values: Any) -> None:
    """A mail to a customer that went out at this moment."""
    owed = outbox.NewMail(kind, key, None, {}, customer_id=customer)
    world.change(lambda session, keyring: outbox.enqueue(session, keyring, [owed], world.now))
    row = world.river.mails()[key]
    recipient = world.sealed(row.key_id, "mail.recipient", to.encode())
    sent: dict[str, Any] = {
        "state": "sent",
        "claimed_at": world.now,
        "sent_at": world.now,
        "attempts": 1,
        "due_at": None,
    }
    world.river.set(row, recipient=recipient, **{**sent, **values})


def letter(world: World, id: str, customer: str | None, kind: str, label: str = "") -> None:
    """A message is filed, and nothing else happens."""
    label = label or customer or f"letter:{id}"
    content = world.sealed(label, "inbound_mail.content", b"From: somebody@example.com\r\n\r\nhello")
    world.add(InboundMail(id=id, customer_id=customer, label=label, kind=kind, content=content, received_at=world.now))


def write(world: World, text: str, sender: str) -> None:
    """A message comes in as any does."""
    river, page = world.river, "https://billing.example.com/account"
    intake.store_mail(written(text, sender=sender), river.database, river.master, river.clock, page)


def read_by_us(session: Session, now: datetime) -> None:
    audit_log.record_read(
        session, now, actor="operator", action="mail show", purpose="a question of theirs", subject="x"
    )


def _subscribe(world: World) -> None:
    person = world.sealed(
        "I-1", "subscription.personal_data", lww_map.merge({}, world.now, {"email": "ada@example.com"})
    )
    world.add(
        Subscription(
            id="I-1", known={}, customer_id=world.ada, personal_data=person, status="ACTIVE", status_at=world.now,
            created_at=world.now,
        ),
        Payment(
            id="SALE-1", known={}, subscription_id="I-1", status="completed", amount=900, currency="EUR",
            refunded=0, occurred_at=world.now,
        ),
    )  # fmt: skip
    mail(world, "receipt", "receipt:SALE-1", world.ada, "ada@example.com")
    mail(world, "product_news", "product_news:1:ada", world.ada, "ada@example.com")
    world.river.store(delivery({"id": "WH-1", "event_type": "TEST.HAPPENED", "resource": {"note": "thanks"}}))


def _write_letters(world: World) -> None:
    write(world, "How do I add a second user?", "ada@example.com")
    write(world, "Please send me a copy of my data.", "bob@example.com")
    write(world, "Please correct my address.", "bob@example.com")
    for row in world.river.rows(PrivacyRequest):
        answer(world, row)


def answer(world: World, row: PrivacyRequest) -> None:
    """The operator says that a request is done."""
    world.change(lambda session, _: requests.close_request(session, row.id, "done", world.now))


def _erase_somebody(world: World) -> None:
    gone = sign_up(world, "gone@example.com", marketing=False)
    world.change(lambda _, keyring: keyring.destroy([gone]))
    kept = {"payment": {"rows": 1, "action": "kept, restricted", "basis": "law", "until": "2030-12-31T00:00:00Z"}}
    world.river.set(customer(world, gone), personal_data=None, email_hash=None, erased_at=world.now)
    world.add(
        Erasure(
            id="E-1", customer_id=gone, key_ids=[gone], at=world.now, receipt={"basis": "request", "rows": kept},
            master_key_id="m", completed_at=None,
        )
    )  # fmt: skip


def customer(world: World, id: str) -> Customer:
    return next(row for row in world.river.rows(Customer) if row.id == id)


def last_mail(world: World, key: str) -> Mail:
    return world.river.mails()[key]
