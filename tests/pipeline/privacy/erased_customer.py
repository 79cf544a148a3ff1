"""A customer with everything that can be held of one, and the steps of erasing her."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from handlers import HANDLERS
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links
from pipeline.customers.product_hook import ProductHook, ProductUnavailableError
from pipeline.db.models import (
    Customer,
    EncryptionKey,
    Event,
    InboundMail,
    PrivacyRequest,
    Subscription,
)
from pipeline.privacy import requests
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import River, delivery
from tests.support.sample_events import sample

PAGE = "https://billing.example.com/keep/"
SOLD, REFUNDED = "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED"
BOUGHT = ("BILLING.SUBSCRIPTION.ACTIVATED", SOLD)


class PayPal:
    """What PayPal was asked to end; refuses as often as it is told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.cancelled: list[str] = []
        self.refusals = refusals

    def cancel_subscription(self, id: str, reason: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("away")
        self.cancelled.append(id)


class Told(ProductHook):
    """A product in memory: what it was told; refuses as often as `refusals` has words."""

    there = True

    def __init__(self, refusals: Sequence[str] = ()) -> None:
        super().__init__()
        object.__setattr__(self, "said", [])
        object.__setattr__(self, "left", list(refusals))

    def tell(self, action: str, customer: Any) -> bytes:
        if self.left:  # type: ignore[attr-defined]
            raise ProductUnavailableError(self.left.pop())  # type: ignore[attr-defined]
        self.said.append({"action": action, **customer})  # type: ignore[attr-defined]
        return b""


def tell(river: River, *events: dict[str, Any]) -> None:
    ids = [item.event_id for item in river.store(*[delivery(event) for event in events])]
    river.worker(HANDLERS).handle(ids)


def meet_alice(river: River) -> str:
    """Alice has bought, been refunded, been written to and written; her customer id."""
    tell(river, *[sample(kind) for kind in BOUGHT], sample(REFUNDED))
    [row] = river.rows(Customer)
    with river.database.transaction() as session:
        ring = river.keyring(session)
        accounts.correct_field(session, ring, row.id, "name", "Alice Newname", river.now)
        letter = ring.system_key(row.id).encrypt("inbound_mail.content", b"From: alice@example.com\r\n\r\nHello")
        session.add(
            InboundMail(
                id="L1", customer_id=row.id, label=row.id, kind="support", content=letter, received_at=river.now
            )
        )
        links.issue(session, ring, row.id, "account", river.now, details={"email": ALICE.email})
        requests.open_request(session, ring, "correct", row.id, "page", river.now, details={"name": "Alice Newname"})
    return row.id


def schedule(river: River, id: str, **more: Any) -> PrivacyRequest:
    with river.database.transaction() as session:
        return workflow.schedule_erasure(session, river.keyring(session), id, river.now, "page", page=PAGE, **more)


def run(river: River, outside: ErasureDependencies) -> int:
    return workflow.run_due_erasures(river.database, river.master, river.clock, outside)


def erase_whole(river: River, id: str, outside: ErasureDependencies | None = None) -> PrivacyRequest:
    """Wait, erase, send the confirmation, finish."""
    outside = outside or ErasureDependencies(PayPal())
    asked = schedule(river, id)
    river.clock.advance(workflow.WAIT)
    assert run(river, outside) == 1
    confirm(river, asked)
    assert run(river, outside) == 1
    with river.database.reading() as session:
        return session.get_one(PrivacyRequest, asked.id)


def confirm(river: River, asked: PrivacyRequest) -> None:
    """The relay takes the confirmation."""
    mail = river.mails()[f"account_deleted:{asked.id}"]
    river.set(mail, state="sent", sent_at=river.now, due_at=None, reply=f"250 2.1.5 <{ALICE.email}> ok")


def reasons(river: River) -> str:
    return " ".join(row.reason or "" for row in river.rows(PrivacyRequest))


def assert_nobody(river: River) -> None:
    assert [row.id for row in river.rows(Event) if row.personal_data or row.body] == []
    assert [row.id for row in river.rows(Subscription) if row.personal_data or row.email_hash] == []
    assert [row.id for row in river.rows(Customer) if row.personal_data or row.email_hash or not row.erased_at] == []
    alive = [row.key_id for row in river.rows(EncryptionKey) if row.wrapped_key and not row.key_id.startswith("smt:")]
    with river.database.transaction() as session:
        held = set(session.execute(select(Event.key_id).where(Event.body.is_not(None))).scalars())
        assert not held & set(alive)
        assert Keyring(river.master, session, river.now).is_erased(ALICE.subscription)
