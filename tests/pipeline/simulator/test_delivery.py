"""The webhook sender, against an endpoint that checks signatures and fails on request."""

import socket
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.paypal.signature import Transmission, verify
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.delivery import NO_ANSWER, TRIES, WebhookSender
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.server.signing import Signer

START = datetime(2025, 1, 14, 8, 30, tzinfo=UTC)
WEBHOOK = "7AB11223CD445566E"
DELIVERIES = scenarios.first_year(PEOPLE[1], CLOUD, START, Random(1))


class Endpoint:
    """A webhook endpoint that accepts valid signatures. `first` contains the statuses of its first answers."""

    def __init__(self, key: RSAPublicKey) -> None:
        self.key = key
        self.first: list[int] = []
        self.bodies: list[bytes] = []
        self.transmissions: list[str] = []
        self.ports: set[int] = set()

    async def receive(self, request: Request) -> Response:
        body = await request.body()
        transmission = Transmission.read(request.headers.items())
        verify(transmission, body, [WEBHOOK], self.key)
        self.transmissions.append(transmission.id)
        self.ports.add(request.client.port if request.client else 0)
        if self.first:
            return Response(status_code=self.first.pop(0))
        self.bodies.append(body)
        return Response(status_code=200)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer(since=START, until=datetime(2027, 1, 1, tzinfo=UTC))


@pytest.fixture
def endpoint(signer: Signer) -> Endpoint:
    key = x509.load_pem_x509_certificate(signer.leaf_pem).public_key()
    assert isinstance(key, RSAPublicKey)
    return Endpoint(key)


@pytest.fixture
def sender(endpoint: Endpoint, signer: Signer) -> Iterator[WebhookSender]:
    app = Starlette(routes=[Route("/webhooks/paypal", endpoint.receive, methods=["POST"])])
    with serve(app) as base_url, WebhookSender(base_url + "/webhooks/paypal", signer, WEBHOOK) as sender:
        yield sender


def test_scenario_arrives_in_order_over_one_connection(endpoint: Endpoint, sender: WebhookSender) -> None:
    assert sender.deliver(DELIVERIES) == Counter({200: len(DELIVERIES)})
    assert endpoint.bodies == [each.body for each in DELIVERIES]
    assert len(endpoint.ports) == 1


def test_parallel_deliveries_use_one_connection_each(endpoint: Endpoint, sender: WebhookSender) -> None:
    done: list[str] = []
    assert sender.deliver(DELIVERIES * 8, at_once=3, done=lambda delivery, status: done.append(delivery.id)) == {
        200: len(DELIVERIES) * 8
    }
    assert Counter(endpoint.bodies) == Counter(each.body for each in DELIVERIES * 8)
    assert Counter(done) == Counter(each.id for each in DELIVERIES * 8)
    assert len(endpoint.ports) <= 3


def test_failed_delivery_is_retried_as_new_transmission(endpoint: Endpoint, sender: WebhookSender) -> None:
    endpoint.first = [503, 500, 403]
    assert sender.send(DELIVERIES[0]) == 200
    assert endpoint.bodies == [DELIVERIES[0].body]
    assert len(set(endpoint.transmissions)) == 4


def test_sender_stops_after_maximum_attempts(endpoint: Endpoint, sender: WebhookSender) -> None:
    endpoint.first = [503] * 100
    assert sender.deliver(DELIVERIES[:1]) == {503: 1}
    assert len(endpoint.transmissions) == TRIES


def test_refused_connection_counts_as_no_answer(signer: Signer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    waited: list[int] = []
    with WebhookSender(f"http://127.0.0.1:{port}/", signer, WEBHOOK, tries=3, pause=waited.append) as sender:
        assert sender.deliver(DELIVERIES[:2]) == {NO_ANSWER: 2}
    assert waited == [1, 2, 1, 2]


def test_restarted_endpoint_gets_all_events(endpoint: Endpoint, signer: Signer) -> None:
    """The old connection is closed; the next attempt opens a new one."""
    app = Starlette(routes=[Route("/", endpoint.receive, methods=["POST"])])
    with serve(app) as base_url:
        sender = WebhookSender(base_url, signer, WEBHOOK, tries=1)
        assert sender.send(DELIVERIES[0]) == 200
    assert sender.send(DELIVERIES[1]) == NO_ANSWER
    port = int(base_url.rpartition(":")[2])
    with serve(app, port):
        assert sender.send(DELIVERIES[1]) == 200
    sender.close()


def test_https_url_is_refused(signer: Signer) -> None:
    with pytest.raises(ValueError, match="http://"):
        WebhookSender("https://billing.example.com/webhooks/paypal", signer, WEBHOOK)
