"""Webhooks Management of the simulated PayPal: webhooks, the list of events, test events, signatures."""

import json
from datetime import timedelta
from random import Random
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipeline.clock import MovableClock
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.faults import UnreliableWebhooks
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.timeline import Delivery, Json
from tests.support.api_vendor import Vendor, issues
from tests.support.subprocesses import until

WEBHOOKS = "/v1/notifications/webhooks"
EVENTS = "/v1/notifications/webhooks-events"
SALES = [{"name": "PAYMENT.SALE.COMPLETED"}, {"name": "PAYMENT.SALE.REFUNDED"}]


def webhook(number: int = 1) -> Json:
    return {"url": f"https://billing.example.com/webhooks/paypal/{number}", "event_types": SALES}


def listed(vendor: Vendor, **query: object) -> list[str]:
    """Return the ids of all listed events, following the parameters of the links `next`."""
    found: list[str] = []
    parameters = {key: str(value) for key, value in query.items()}
    while True:
        answer = vendor.get(EVENTS, **parameters).json()
        assert answer["count"] == len(answer["events"])
        found += [each["id"] for each in answer["events"]]
        following = [link["href"] for link in answer["links"] if link["rel"] == "next"]
        if not following:
            return found
        parameters = dict(parse_qsl(urlsplit(following[0]).query))


def test_webhook_is_created_changed_and_deleted(vendor: Vendor) -> None:
    created = vendor.post(WEBHOOKS, webhook())
    assert created.status_code == 201
    path = f"{WEBHOOKS}/{created.json()['id']}"
    changes = [
        {"op": "replace", "path": "/url", "value": "https://billing.example.com/new"},
        {"op": "replace", "path": "/event_types", "value": [{"name": "*"}]},
    ]
    changed = vendor.send("PATCH", path, changes)
    assert (changed.status_code, changed.json()["url"]) == (200, "https://billing.example.com/new")
    assert [each["name"] for each in vendor.get(path + "/event-types").json()["event_types"]] == ["*"]
    assert vendor.get(WEBHOOKS).json()["webhooks"] == [vendor.get(path).json()]
    assert vendor.send("DELETE", path).status_code == 204
    assert vendor.get(path).json()["name"] == "INVALID_RESOURCE_ID"
    assert vendor.get(WEBHOOKS).json()["webhooks"] == []


def test_app_has_at_most_ten_webhooks(vendor: Vendor) -> None:
    assert [vendor.post(WEBHOOKS, webhook(number)).status_code for number in range(10)] == [201] * 10
    answer = vendor.post(WEBHOOKS, webhook(10))
    assert (answer.status_code, answer.json()["name"]) == (400, "WEBHOOK_NUMBER_LIMIT_EXCEEDED")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "WEBHOOK_URL_ALREADY_EXISTS"),
        ({"url": "http://billing.example.com/webhooks"}, "VALIDATION_ERROR"),
        ({"url": "billing.example.com"}, "VALIDATION_ERROR"),
        ({"url": "https://billing.example.com/2", "event_types": []}, "VALIDATION_ERROR"),
        ({"url": "https://billing.example.com/2", "event_types": [{"name": "PAYMENT.NOTHING"}]}, "VALIDATION_ERROR"),
    ],
)
def test_invalid_webhook_is_refused(vendor: Vendor, change: Json, name: str) -> None:
    vendor.post(WEBHOOKS, webhook())
    answer = vendor.post(WEBHOOKS, {**webhook(), **change})
    assert (answer.status_code, answer.json()["name"]) == (400, name)


def test_patch_replaces_url_and_event_types_only(vendor: Vendor) -> None:
    path = f"{WEBHOOKS}/{vendor.post(WEBHOOKS, webhook()).json()['id']}"
    for change in ({"op": "add", "path": "/url", "value": "https://x.example.com"}, {"op": "replace", "path": "/id"}):
        assert vendor.send("PATCH", path, [change]).json()["name"] == "VALIDATION_ERROR"


def test_events_of_scenarios_and_calls_are_listed_newest_first(
    vendor: Vendor, played: list[Delivery], sale: str, paypal: FakePaypalApi
) -> None:
    vendor.post(f"/v1/payments/sale/{sale}/refund", {})
    # 30 days back from 23 February 2025: the renewal of 14 February and the refund, not those of January.
    assert listed(vendor) == [paypal.events[0].id, played[-1].id]
    assert listed(vendor, page_size=1) == listed(vendor)
    assert listed(vendor, event_type="PAYMENT.SALE.REFUNDED") == [paypal.events[0].id]
    assert listed(vendor, transaction_id=sale) == [paypal.events[0].id]
    assert listed(vendor, end_time="2025-02-20T00:00:00Z") == [played[-1].id]
    assert listed(vendor, start_time="2025-02-20T00:00:00Z") == [paypal.events[0].id]
    assert vendor.get(EVENTS, start_time="yesterday").json()["name"] == "VALIDATION_ERROR"


def test_event_in_the_list_is_the_webhook_with_its_transmissions(vendor: Vendor, played: list[Delivery]) -> None:
    found = vendor.get(f"{EVENTS}/{played[-1].id}").json()
    assert found["status"] == "SUCCESS"
    assert [each["status"] for each in found["transmissions"]] == ["SUCCESS"]
    assert {key: value for key, value in found.items() if key not in ("status", "transmissions")} == played[-1].event


def test_only_subscribed_types_are_listed(vendor: Vendor, played: list[Delivery], subscription: str) -> None:
    vendor.post(f"/v1/billing/subscriptions/{subscription}/suspend", {"reason": "Pause"})
    assert len(listed(vendor)) == 2
    vendor.post(WEBHOOKS, webhook())
    assert listed(vendor) == [played[-1].id]


def test_event_is_resent(vendor: Vendor, played: list[Delivery], sent: list[str]) -> None:
    answer = vendor.post(f"{EVENTS}/{played[-1].id}/resend", {})
    assert (answer.status_code, answer.json()["id"]) == (202, played[-1].id)
    until(lambda: sent == ["PAYMENT.SALE.COMPLETED"], 10, "PayPal sends the event again")
    assert vendor.post(f"{EVENTS}/{played[-1].id}/resend", {"webhook_ids": ["UNKNOWN"]}).status_code == 404


def test_lost_and_late_webhooks_stay_in_the_list(paypal: FakePaypalApi, vendor: Vendor, clock: MovableClock) -> None:
    arrived: list[str] = []
    send = UnreliableWebhooks(lambda delivery: arrived.append(delivery.id), Random(3), lost=0.3, late=0.3)
    deliveries = scenarios.first_year(PEOPLE[0], CLOUD, clock.now(), Random(1))
    for delivery in deliveries:
        paypal.world.apply(delivery)
        send(delivery)
    assert len(arrived) + len(send.lost) + len(send.late) == len(deliveries)
    assert send.lost
    assert send.late
    clock.move_to(send.lost[-1].at + timedelta(days=1))
    vendor.sign_in()
    assert send.lost[-1].id in listed(vendor)
    send.release()
    assert sorted(arrived + [each.id for each in send.lost]) == sorted(each.id for each in deliveries)


def test_new_object_is_unknown_for_the_delay(paypal: FakePaypalApi, vendor: Vendor, clock: MovableClock) -> None:
    first = scenarios.first_year(PEOPLE[0], CLOUD, clock.now(), Random(1))[0]
    paypal.faults.object_delay = timedelta(seconds=5)
    paypal.world.apply(first)
    path = f"/v1/billing/subscriptions/{first.event['resource']['id']}"
    clock.move_to(first.at + timedelta(seconds=4))
    assert vendor.get(path).status_code == 404
    clock.advance(timedelta(seconds=1))
    assert vendor.get(path).status_code == 200
    assert vendor.get(f"/v1/billing/plans/{CLOUD.id}").status_code == 200


def test_rate_limit_says_when_to_retry(paypal: FakePaypalApi, vendor: Vendor) -> None:
    paypal.misbehave("429", retry_after=30)
    answer = vendor.get(f"/v1/billing/plans/{CLOUD.id}")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")


def test_test_event_repeats_its_id_and_is_not_listed(vendor: Vendor, sent: list[str]) -> None:
    body = {"url": "https://billing.example.com/webhooks/paypal", "event_type": "PAYMENT.SALE.COMPLETED"}
    answers = [vendor.post("/v1/notifications/simulate-event", body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    until(lambda: sent == ["PAYMENT.SALE.COMPLETED"] * 2, 10, "PayPal sends two test events")
    assert listed(vendor) == []
    for change in ({"event_type": "NOTHING"}, {"webhook_id": "UNKNOWN"}):
        assert vendor.post("/v1/notifications/simulate-event", {**body, **change}).status_code in (400, 404)


def test_every_event_type_has_a_test_event(vendor: Vendor) -> None:
    names = [each["name"] for each in vendor.get("/v1/notifications/webhooks-event-types").json()["event_types"]]
    assert {"BILLING.SUBSCRIPTION.RE-ACTIVATED", "CUSTOMER.DISPUTE.CREATED", "PAYMENT.SALE.REVERSED"} <= set(names)
    body = {"url": "https://billing.example.com/webhooks/paypal"}
    for name in names:
        answer = vendor.post("/v1/notifications/simulate-event", {**body, "event_type": name})
        assert (answer.status_code, answer.json()["event_type"]) == (202, name)


def test_signature_is_verified(
    paypal: FakePaypalApi, vendor: Vendor, played: list[Delivery], clock: MovableClock
) -> None:
    now = clock.now()
    paypal.webhooks.signer = signer = Signer(since=now, until=now)
    headers = signer.sign(played[-1].body, "7AB11223CD445566E", now)
    body = {
        "auth_algo": headers["PAYPAL-AUTH-ALGO"],
        "cert_url": headers["PAYPAL-CERT-URL"],
        "transmission_id": headers["PAYPAL-TRANSMISSION-ID"],
        "transmission_sig": headers["PAYPAL-TRANSMISSION-SIG"],
        "transmission_time": headers["PAYPAL-TRANSMISSION-TIME"],
        "webhook_id": "7AB11223CD445566E",
    }

    def status(event: bytes, **change: str) -> str:
        text = json.dumps({**body, **change})[:-1].encode() + b', "webhook_event": ' + event + b"}"
        url = vendor.base_url + "/v1/notifications/verify-webhook-signature"
        answer = vendor.session.post(url, data=text, headers={"Content-Type": "application/json"}, timeout=10)
        found: str = answer.json()["verification_status"]
        return found

    assert status(played[-1].body) == "SUCCESS"
    assert status(json.dumps(played[-1].event).encode()) == "FAILURE", "the bytes are not those that were sent"
    assert status(played[-1].body, webhook_id="ANOTHER") == "FAILURE"
    assert status(played[0].body) == "FAILURE"
    missing = vendor.post("/v1/notifications/verify-webhook-signature", body)
    assert (missing.json()["name"], issues(missing)) == ("VALIDATION_ERROR", ["Required field is missing"])
