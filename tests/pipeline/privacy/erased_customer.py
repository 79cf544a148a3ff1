"""A customer with data in every table, the steps of an erasure, and a check that nothing personal is left."""

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
from tests.support.pipeline_under_test import PipelineUnderTest, delivery
from tests.support.sample_events import sample

PAGE = "https://billing.example.com/keep/"
SOLD, REFUNDED = "PAYMENT.SALE.COMPLETED", "PAYMENT.SALE.REFUNDED"
BOUGHT = ("BILLING.SUBSCRIPTION.ACTIVATED", SOLD)


class PayPal:
    """Simulated PayPal: records cancellations; refuses the first `refusals` calls."""

    def __init__(self, refusals: int = 0) -> None:
        self.cancelled: list[str] = []
        self.refusals = refusals

    def cancel_subscription(self, id: str, reason: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("unreachable")
        self.cancelled.append(id)


class RecordingProduct(ProductHook):
    """A product in memory: records calls; fails once for each message in `refusals`."""

    def __init__(self, refusals: Sequence[str] = ()) -> None:
        super().__init__()
        object.__setattr__(self, "calls", [])
        object.__setattr__(self, "refusals", list(refusals))

    @property
    def is_configured(self) -> bool:
        return True

    def call(self, action: str, customer: Any) -> bytes:
        if self.refusals:  # type: ignore[attr-defined]
            raise ProductUnavailableError(self.refusals.pop())  # type: ignore[attr-defined]
        self.calls.append({"action": action, **customer})  # type: ignore[attr-defined]
        return b""


def receive(pipeline: PipelineUnderTest, *events: dict[str, Any]) -> None:
    ids = [item.event_id for item in pipeline.store(*[delivery(event) for event in events])]
    pipeline.worker(HANDLERS).handle(ids)


def create_alice(pipeline: PipelineUnderTest) -> str:
    """Create Alice with a subscription, a refund, mails and an inbound message; return her customer id."""
    receive(pipeline, *[sample(kind) for kind in BOUGHT], sample(REFUNDED))
    [row] = pipeline.rows(Customer)
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        accounts.correct_field(session, keyring, row.id, "name", "Alice Newname", pipeline.now)
        message = keyring.system_key(row.id).encrypt("inbound_mail.content", b"From: alice@example.com\r\n\r\nHello")
        session.add(
            InboundMail(
                id="L1", customer_id=row.id, key_id=row.id, kind="support", content=message, received_at=pipeline.now
            )
        )
        links.issue(session, keyring, row.id, "account", pipeline.now, details={"email": ALICE.email})
        requests.open_request(
            session, keyring, "correct", row.id, "page", pipeline.now, details={"name": "Alice Newname"}
        )
    return row.id


def schedule(pipeline: PipelineUnderTest, id: str, **more: Any) -> PrivacyRequest:
    with pipeline.database.transaction() as session:
        return workflow.schedule_erasure(
            session, pipeline.keyring(session), id, pipeline.now, "page", page=PAGE, **more
        )


def run(pipeline: PipelineUnderTest, dependencies: ErasureDependencies) -> int:
    return workflow.run_due_erasures(pipeline.database, pipeline.master, pipeline.clock, dependencies)


def erase_completely(
    pipeline: PipelineUnderTest, id: str, dependencies: ErasureDependencies | None = None
) -> PrivacyRequest:
    """Run a whole erasure: wait, erase, send the confirmation, finish."""
    dependencies = dependencies or ErasureDependencies(PayPal())
    request = schedule(pipeline, id)
    pipeline.clock.advance(workflow.WAIT)
    assert run(pipeline, dependencies) == 1
    confirm(pipeline, request)
    assert run(pipeline, dependencies) == 1
    with pipeline.database.reading() as session:
        return session.get_one(PrivacyRequest, request.id)


def confirm(pipeline: PipelineUnderTest, request: PrivacyRequest) -> None:
    """Mark the confirmation as sent, with a reply of the relay."""
    mail = pipeline.mails()[f"account_deleted:{request.id}"]
    pipeline.set(mail, state="sent", sent_at=pipeline.now, due_at=None, relay_reply=f"250 2.1.5 <{ALICE.email}> ok")


def reasons(pipeline: PipelineUnderTest) -> str:
    return " ".join(row.reason or "" for row in pipeline.rows(PrivacyRequest))


def assert_erased(pipeline: PipelineUnderTest) -> None:
    """Assert that no personal data and no key of a customer is left."""
    assert [row.id for row in pipeline.rows(Event) if row.personal_data or row.body] == []
    assert [row.id for row in pipeline.rows(Subscription) if row.personal_data or row.email_hash] == []
    assert [row.id for row in pipeline.rows(Customer) if row.personal_data or row.email_hash or not row.erased_at] == []
    alive = [
        row.key_id for row in pipeline.rows(EncryptionKey) if row.wrapped_key and not row.key_id.startswith("smt:")
    ]
    with pipeline.database.transaction() as session:
        with_body = set(session.execute(select(Event.key_id).where(Event.body.is_not(None))).scalars())
        assert not with_body & set(alive)
        assert Keyring(pipeline.master, session, pipeline.now).is_erased(ALICE.subscription)
