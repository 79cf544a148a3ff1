"""Events reach the webhooks that were registered through the simulated API, signed for their ids."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.clock import MovableClock
from pipeline.paypal.signature import Transmission, verify
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.dispatch import RegisteredWebhooks
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.server.signing import Signer
from tests.support.api_vendor import Vendor
from tests.support.subprocesses import until

WEBHOOKS = "/v1/notifications/webhooks"


class Endpoint:
    """A webhook endpoint that records type and path of each event, and the webhook id for which it is signed."""

    def __init__(self, signer: Signer) -> None:
        self.signer, self.ids, self.received = signer, ["WEBHOOK_ID"], list[tuple[str, str, str]]()

    async def receive(self, request: Request) -> Response:
        body, key = await request.body(), x509.load_pem_x509_certificate(self.signer.leaf_pem).public_key()
        assert isinstance(key, RSAPublicKey)
        transmission = Transmission.read(request.headers.items())
        signed_for = verify(transmission, body, self.ids, key)
        kind = (await request.json())["event_type"]
        self.received.append((request.url.path, kind, str(signed_for)))
        return Response(status_code=200)


@pytest.fixture
def endpoint(clock: MovableClock) -> Endpoint:
    return Endpoint(Signer(since=clock.now(), until=clock.now() + timedelta(days=99)))


@pytest.fixture
def url(endpoint: Endpoint) -> Iterator[str]:
    with serve(Starlette(routes=[Route("/{name}", endpoint.receive, methods=["POST"])])) as base_url:
        yield base_url


def test_event_reaches_the_webhooks_that_subscribe(
    vendor: Vendor, paypal: FakePaypalApi, endpoint: Endpoint, url: str, subscription: str, clock: MovableClock
) -> None:
    paypal.set_on_event(RegisteredWebhooks(paypal.webhooks, endpoint.signer, clock))
    wanted = {"all": "*", "sales": "PAYMENT.SALE.COMPLETED", "states": "BILLING.SUBSCRIPTION.SUSPENDED"}
    for name, kind in wanted.items():
        created = vendor.post(WEBHOOKS, {"url": f"{url}/{name}", "event_types": [{"name": kind}]}).json()
        endpoint.ids.append(created["id"])
    vendor.post(WEBHOOKS, {"url": "https://billing.example.com/webhooks", "event_types": [{"name": "*"}]})
    vendor.post(f"/v1/billing/subscriptions/{subscription}/suspend", {"reason": "Pause"})
    until(lambda: len(endpoint.received) == 2, 10, "two webhooks receive the event")
    assert endpoint.received == [
        ("/all", "BILLING.SUBSCRIPTION.SUSPENDED", endpoint.ids[1]),
        ("/states", "BILLING.SUBSCRIPTION.SUSPENDED", endpoint.ids[3]),
    ]


def test_test_event_reaches_every_webhook(
    vendor: Vendor, paypal: FakePaypalApi, endpoint: Endpoint, url: str, clock: MovableClock
) -> None:
    paypal.set_on_event(RegisteredWebhooks(paypal.webhooks, endpoint.signer, clock))
    body = {"url": f"{url}/states", "event_types": [{"name": "BILLING.SUBSCRIPTION.SUSPENDED"}]}
    id = vendor.post(WEBHOOKS, body).json()["id"]
    body = {"webhook_id": id, "event_type": "PAYMENT.SALE.COMPLETED"}
    assert vendor.post("/v1/notifications/simulate-event", body).status_code == 202
    until(lambda: bool(endpoint.received), 10, "the webhook receives the test event")
    assert endpoint.received == [("/states", "PAYMENT.SALE.COMPLETED", "WEBHOOK_ID")]
