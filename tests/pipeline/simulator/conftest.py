"""Fixtures of the simulated PayPal API: a clock, the API, a client of it, and a subscription with a year of payments."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from pipeline.clock import MovableClock
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.timeline import Delivery
from tests.support.api_vendor import SharedServer, Vendor

START = datetime(2025, 1, 14, 8, 30, tzinfo=UTC)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(START)


@pytest.fixture
def sent() -> list[str]:
    """Types of the webhooks that the API sent."""
    return []


@pytest.fixture
def paypal(clock: MovableClock, sent: list[str]) -> FakePaypalApi:
    return FakePaypalApi(clock=clock, on_event=lambda delivery: sent.append(delivery.type))


@pytest.fixture(scope="module")
def shared_server() -> Iterator[SharedServer]:
    shared_server = SharedServer()
    with serve(shared_server) as shared_server.base_url:
        yield shared_server


@pytest.fixture
def vendor(paypal: FakePaypalApi, shared_server: SharedServer) -> Iterator[Vendor]:
    shared_server.app = paypal.app
    vendor = Vendor(shared_server.base_url)
    vendor.sign_in()
    yield vendor
    vendor.session.close()


@pytest.fixture
def played(paypal: FakePaypalApi, clock: MovableClock, vendor: Vendor) -> list[Delivery]:
    """Forty days of a monthly subscription at 29.00 EUR with two sales: 14 January and 14 February 2025."""
    clock.move_to(START + timedelta(days=40))
    vendor.sign_in()
    deliveries = scenarios.first_year(PEOPLE[0], CLOUD, START, Random(1))
    played = [delivery for delivery in deliveries if delivery.at <= clock.now()]
    for delivery in played:
        paypal.world.apply(delivery)
    return played


@pytest.fixture
def subscription(paypal: FakePaypalApi, played: list[Delivery]) -> str:
    """Id of the subscription in `played`."""
    return paypal.world.ids("subscription")[0]


@pytest.fixture
def sale(paypal: FakePaypalApi, played: list[Delivery]) -> str:
    """Id of the first sale in `played`: 29.00 EUR."""
    return paypal.world.ids("sale")[0]
