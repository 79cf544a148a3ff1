"""Create, approve and cancel subscriptions through the API of the simulated PayPal."""

import http.client
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from pipeline.clock import MovableClock
from pipeline.inbox.parsing import parse_webhook
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import Delivery
from tests.support.subprocesses import until

PAGES = {"return_url": "https://billing.example.com/welcome", "cancel_url": "https://billing.example.com/sign-up"}


@pytest.fixture
def events() -> list[Delivery]:
    return []


@pytest.fixture
def fake_paypal(clock: MovableClock, events: list[Delivery]) -> FakePaypalApi:
    return FakePaypalApi(clock=clock, on_event=events.append)


@pytest.fixture
def paypal(fake_paypal: FakePaypalApi) -> Iterator[PaypalApi]:
    with fake_paypal.serve() as base:
        client = PaypalApi(base, "simulator", "simulator-secret")
        yield client
        client.close()


def wait_for(events: list[Delivery], number: int) -> None:
    """Wait for events, because PayPal sends them after its response."""
    until(lambda: len(events) >= number, 10, f"{number} events are sent")


def create(paypal: PaypalApi, key: str = "sign-up-1") -> tuple[str, str]:
    return paypal.create_subscription(CLOUD.id, "ours-17", key, **PAGES)


def browse(method: str, url: str) -> tuple[int, str, str]:
    """Return status, text and redirect location."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request(method, f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers.get("Location", "")


def create_approved(paypal: PaypalApi) -> str:
    id, page = create(paypal)
    browse("POST", page)
    return id


def test_new_subscription_waits_for_approval(paypal: PaypalApi, events: list[Delivery]) -> None:
    id, page = create(paypal)
    found = paypal.get("subscription", id)
    assert (found["status"], found["plan_id"], found["custom_id"]) == ("APPROVAL_PENDING", CLOUD.id, "ours-17")
    status, text, _ = browse("GET", page)
    assert status == 200
    assert CLOUD.name in text
    assert events == []


def test_same_request_id_creates_one_subscription(paypal: PaypalApi) -> None:
    assert create(paypal) == create(paypal)
    assert create(paypal) != create(paypal, "sign-up-2")


def test_approved_subscription_is_active_and_events_carry_custom_id(paypal: PaypalApi, events: list[Delivery]) -> None:
    id, page = create(paypal)
    status, _, location = browse("POST", page)
    assert status == 303
    assert location.startswith(f"{PAGES['return_url']}?subscription_id={id}")
    assert paypal.get("subscription", id)["status"] == "ACTIVE"
    wait_for(events, 3)
    assert [each.type for each in events] == [
        "BILLING.SUBSCRIPTION.CREATED", "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED",
    ]  # fmt: skip
    assert {parse_webhook(each.body).person["custom"] for each in events} == {"ours-17"}
    assert browse("POST", page)[0] == 404, "the approval page works once"


def test_cancelled_subscription_sends_an_event(paypal: PaypalApi, events: list[Delivery], clock: MovableClock) -> None:
    id = create_approved(paypal)
    clock.advance(timedelta(days=1))
    paypal.cancel_subscription(id, "The customer requested it.")
    found = paypal.get("subscription", id)
    assert (found["status"], found["status_change_note"]) == ("CANCELLED", "The customer requested it.")
    assert "next_billing_time" not in found["billing_info"]
    wait_for(events, 4)
    facts = parse_webhook(events[-1].body).facts
    assert (events[-1].type, facts["subscription"], facts["status"]) == (
        "BILLING.SUBSCRIPTION.CANCELLED", id, "CANCELLED",
    )  # fmt: skip


def test_cancelling_ended_or_pending_subscription_succeeds(paypal: PaypalApi, events: list[Delivery]) -> None:
    id = create_approved(paypal)
    for _ in range(2):
        paypal.cancel_subscription(id, "Twice.")
        wait_for(events, 4)
    assert [each.type for each in events].count("BILLING.SUBSCRIPTION.CANCELLED") == 1
    pending, _ = create(paypal, "sign-up-2")
    paypal.cancel_subscription(pending, "Never approved.")
    assert paypal.get("subscription", pending)["status"] == "APPROVAL_PENDING"


def test_failed_cancellation_of_active_subscription_raises(paypal: PaypalApi, fake_paypal: FakePaypalApi) -> None:
    id = create_approved(paypal)
    with pytest.raises(PaypalRejectedError, match="400"):  # PayPal requires a reason of 1 to 128 characters
        paypal._client.execute(cancel_without_reason(id))
    fake_paypal.misbehave("500", times=1, path="/v1/billing/subscriptions/")
    with pytest.raises(PaypalUnavailableError):
        paypal.cancel_subscription(id, "Try again later.")
    assert paypal.get("subscription", id)["status"] == "ACTIVE"


def test_long_reason_is_truncated(paypal: PaypalApi) -> None:
    id = create_approved(paypal)
    paypal.cancel_subscription(id, "why " * 100)
    assert len(paypal.get("subscription", id)["status_change_note"]) == 128


def test_unknown_plan_or_subscription_is_not_found(paypal: PaypalApi) -> None:
    with pytest.raises(PaypalNotFoundError):
        paypal.create_subscription("P-UNKNOWN", "ours-17", "key", **PAGES)
    with pytest.raises(PaypalNotFoundError):
        paypal.cancel_subscription("I-UNKNOWN", "Unknown.")
    with pytest.raises(PaypalNotFoundError):
        paypal.cancel_subscription("../../../oauth2/token", "Not an id.")


@pytest.mark.parametrize("custom", ["", "Zoë", "x" * 128])
def test_invalid_custom_id_is_never_sent(paypal: PaypalApi, fake_paypal: FakePaypalApi, custom: str) -> None:
    with pytest.raises(ValueError, match="custom_id"):
        paypal.create_subscription(CLOUD.id, custom, "key", **PAGES)
    assert fake_paypal.asked == []


def test_foreign_approval_url_is_refused(
    paypal: PaypalApi, fake_paypal: FakePaypalApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = {"id": "I-EVIL", "links": [{"rel": "approve", "href": "https://paypal.com.evil.example/approve"}]}
    monkeypatch.setattr(fake_paypal.subscribing, "_shown", lambda *_: created)
    with pytest.raises(PaypalUnavailableError, match="no valid approval URL"):
        create(paypal)


def cancel_without_reason(id: str) -> object:
    from pipeline.paypal.requests import SubscriptionsCancelRequest

    return SubscriptionsCancelRequest(id, "")
