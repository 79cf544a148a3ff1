"""A subscription begun, approved and cancelled over the API, with the pretend PayPal at the other end."""

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
def told() -> list[Delivery]:
    return []


@pytest.fixture
def pretence(clock: MovableClock, told: list[Delivery]) -> FakePaypalApi:
    return FakePaypalApi(clock=clock, on_event=told.append)


@pytest.fixture
def paypal(pretence: FakePaypalApi) -> Iterator[PaypalApi]:
    with pretence.serve() as base:
        client = PaypalApi(base, "simulator", "simulator-secret")
        yield client
        client.close()


def wait_for(told: list[Delivery], events: int) -> None:
    """PayPal tells after it has answered."""
    until(lambda: len(told) >= events, 10, f"{events} events are told")


def begin(paypal: PaypalApi, key: str = "sign-up-1") -> tuple[str, str]:
    return paypal.create_subscription(CLOUD.id, "ours-17", key, **PAGES)


def browse(method: str, url: str) -> tuple[int, str, str]:
    """Status, text, and where it sends the browser on to."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=10)
    connection.request(method, f"{where.path}?{where.query}")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text, answer.headers.get("Location", "")


def approved(paypal: PaypalApi) -> str:
    id, page = begin(paypal)
    browse("POST", page)
    return id


def test_a_subscription_waits_for_its_approval(paypal: PaypalApi, told: list[Delivery]) -> None:
    id, page = begin(paypal)
    found = paypal.get("subscription", id)
    assert (found["status"], found["plan_id"], found["custom_id"]) == ("APPROVAL_PENDING", CLOUD.id, "ours-17")
    status, text, _ = browse("GET", page)
    assert status == 200
    assert CLOUD.name in text
    assert told == []


def test_the_same_request_id_begins_it_once(paypal: PaypalApi) -> None:
    assert begin(paypal) == begin(paypal)
    assert begin(paypal) != begin(paypal, "sign-up-2")


def test_what_is_approved_is_active_and_told_with_our_name_for_the_customer(
    paypal: PaypalApi, told: list[Delivery]
) -> None:
    id, page = begin(paypal)
    status, _, onward = browse("POST", page)
    assert status == 303
    assert onward.startswith(f"{PAGES['return_url']}?subscription_id={id}")
    assert paypal.get("subscription", id)["status"] == "ACTIVE"
    wait_for(told, 3)
    assert [each.type for each in told] == [
        "BILLING.SUBSCRIPTION.CREATED", "BILLING.SUBSCRIPTION.ACTIVATED", "PAYMENT.SALE.COMPLETED",
    ]  # fmt: skip
    assert {parse_webhook(each.body).person["custom"] for each in told} == {"ours-17"}
    assert browse("POST", page)[0] == 404, "approved once"


def test_a_cancelled_subscription_stays_cancelled_and_is_told_of(
    paypal: PaypalApi, told: list[Delivery], clock: MovableClock
) -> None:
    id = approved(paypal)
    clock.advance(timedelta(days=1))
    paypal.cancel_subscription(id, "The customer asked for it.")
    found = paypal.get("subscription", id)
    assert (found["status"], found["status_change_note"]) == ("CANCELLED", "The customer asked for it.")
    assert "next_billing_time" not in found["billing_info"]
    wait_for(told, 4)
    facts = parse_webhook(told[-1].body).facts
    assert (told[-1].type, facts["subscription"], facts["status"]) == (
        "BILLING.SUBSCRIPTION.CANCELLED", id, "CANCELLED",
    )  # fmt: skip


def test_what_has_ended_or_never_began_is_no_failure_to_cancel(paypal: PaypalApi, told: list[Delivery]) -> None:
    id = approved(paypal)
    for _ in range(2):
        paypal.cancel_subscription(id, "Twice.")
        wait_for(told, 4)
    assert [each.type for each in told].count("BILLING.SUBSCRIPTION.CANCELLED") == 1
    pending, _ = begin(paypal, "sign-up-2")
    paypal.cancel_subscription(pending, "Never approved.")
    assert paypal.get("subscription", pending)["status"] == "APPROVAL_PENDING"


def test_what_is_live_and_refused_is_a_failure(paypal: PaypalApi, pretence: FakePaypalApi) -> None:
    id = approved(paypal)
    with pytest.raises(PaypalRejectedError, match="400"):  # PayPal demands a reason of 128 characters at most
        paypal._client.execute(_without_reason(id))
    pretence.misbehave("500", times=1, path="/v1/billing/subscriptions/")
    with pytest.raises(PaypalUnavailableError):
        paypal.cancel_subscription(id, "Try again later.")
    assert paypal.get("subscription", id)["status"] == "ACTIVE"


def test_a_long_reason_is_cut_to_what_paypal_takes(paypal: PaypalApi) -> None:
    id = approved(paypal)
    paypal.cancel_subscription(id, "why " * 100)
    assert len(paypal.get("subscription", id)["status_change_note"]) == 128


def test_an_unknown_plan_or_subscription_is_not_found(paypal: PaypalApi) -> None:
    with pytest.raises(PaypalNotFoundError):
        paypal.create_subscription("P-UNKNOWN", "ours-17", "key", **PAGES)
    with pytest.raises(PaypalNotFoundError):
        paypal.cancel_subscription("I-UNKNOWN", "It is not there.")
    with pytest.raises(PaypalNotFoundError):
        paypal.cancel_subscription("../../../oauth2/token", "It is no id.")


@pytest.mark.parametrize("custom", ["", "Zoë", "x" * 128])
def test_a_name_that_paypal_would_refuse_is_never_sent(paypal: PaypalApi, pretence: FakePaypalApi, custom: str) -> None:
    with pytest.raises(ValueError, match="custom_id"):
        paypal.create_subscription(CLOUD.id, custom, "key", **PAGES)
    assert pretence.asked == []


def test_a_page_that_is_not_paypals_is_not_where_a_customer_is_sent(
    paypal: PaypalApi, pretence: FakePaypalApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"id": "I-EVIL", "links": [{"rel": "approve", "href": "https://paypal.com.evil.example/approve"}]}
    monkeypatch.setattr(pretence.subscribing, "create", lambda *_: (201, made))
    with pytest.raises(PaypalUnavailableError, match="no valid approval URL"):
        begin(paypal)


def _without_reason(id: str) -> object:
    from pipeline.paypal.requests import SubscriptionsCancelRequest

    return SubscriptionsCancelRequest(id, "")
