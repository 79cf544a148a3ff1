"""A busy day: 1,000 signed events over HTTP, repeated and out of order, through RabbitMQ, PostgreSQL and Postfix.

Each role is a separate process, as in docker-compose.yml. The expected result is the record of the simulated PayPal.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import parseaddr
from pathlib import Path
from random import Random

import pytest

from pipeline.broker import Broker
from pipeline.clock import MovableClock, SystemClock
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import Customer, Event, Mail, Payment, Redelivery, Refund, Subscription
from pipeline.inbox.lookup_fetcher import LEASE
from pipeline.simulator.people import crowd
from pipeline.simulator.plans import CLOUD, CLOUD_JAPAN, CLOUD_SEATS, LICENCE
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.delivery import WebhookSender
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Delivery, by_time, disorder
from pipeline.simulator.world import PaypalState
from tests.support import run_role
from tests.support.pipeline_under_test import WEBHOOK_ID, PipelineUnderTest, signer
from tests.support.running_roles import letters, postman, text_of, wait_until_idle
from tests.support.servers import Relay
from tests.support.subprocesses import ManagedProcess, answers, free_port

EVENTS = 1_000  # Deliveries. About one in ten is a repetition.
# Seconds. The test takes about 20, but a look-up of the killed worker is repeated only after its lease.
DEADLINE = 90.0 + LEASE.total_seconds()


@contextmanager
def running_processes(folder: Path, **settings: str | int | Path) -> Iterator[dict[str, ManagedProcess]]:
    """Run one web, two workers, two mailers and a scheduler. Each is a process with a folder for its output."""
    names = ("web", "worker", "worker 2", "mailer", "mailer 2", "scheduler")
    started: dict[str, ManagedProcess] = {}
    try:
        for name in names:
            (folder / name).mkdir()
            started[name] = run_role.start(name.split()[0], folder / name, **settings)
        yield started
    finally:
        for process in started.values():
            process.end(kill=True)


PLANS = (CLOUD, LICENCE, CLOUD_JAPAN, CLOUD_SEATS)


def busy_day(now: datetime) -> tuple[list[SimulatedSubscription], list[Delivery]]:
    """Return a day's subscriptions and EVENTS deliveries out of order. Some are refunded, some are cancelled."""
    rng = Random(2026)
    subscriptions = []
    for number, person in enumerate(crowd(280, rng)):
        subscription = SimulatedSubscription(
            person, PLANS[number % 4], now - timedelta(hours=12) + timedelta(seconds=number), rng
        )
        subscription.start("held" if number % 10 == 3 else "instant")
        sale = next(iter(subscription.sales.values()))
        if number % 10 == 5:
            subscription.refund(sale, subscription.now + timedelta(minutes=20), sale.rest // 3)
        if number % 20 == 5:
            subscription.refund(sale, subscription.now + timedelta(minutes=40))
        if number % 10 == 7:
            subscription.cancel(subscription.now + timedelta(minutes=30))
        subscriptions.append(subscription)
    deliveries = [each for subscription in subscriptions for each in subscription.deliveries]
    rng.shuffle(deliveries)
    again = rng.sample(deliveries, EVENTS - len(deliveries))
    return subscriptions, by_time(
        disorder(deliveries + again, rng, duplicates=0, delayed=1, shuffle=timedelta(hours=2))
    )


@pytest.mark.timeout(400)
def test_thousand_events_produce_correct_rows_and_mails(
    postgres_url: str, empty_broker_url: str, mailbox: Relay, data_dir: Path, tmp_path: Path
) -> None:
    now, port = SystemClock().now(), free_port()
    by = signer(now.year)
    (tmp_path / "leaf.pem").write_bytes(by.leaf_pem)
    database = Database(postgres_url)
    migrations.upgrade(database)
    subscriptions, deliveries = busy_day(now)
    assert len(deliveries) == EVENTS
    settings: dict[str, str | int | Path] = {
        "data_dir": data_dir, "database_url": postgres_url, "broker_url": empty_broker_url,
        "smtp_url": mailbox.smtp_url, "web_port": port, "paypal_webhook_id": WEBHOOK_ID,
        "test_certificate": f"{by.cert_url} {tmp_path / 'leaf.pem'}",
        "paypal_client_id": "simulator", "paypal_client_secret": "simulator-secret",
    }  # fmt: skip
    api = FakePaypalApi()  # The worker asks it for the plans.
    with api.serve() as paypal, running_processes(tmp_path, paypal_base_url=paypal, **settings) as processes:
        processes["web"].wait_until(lambda: answers(port))
        with WebhookSender(f"http://127.0.0.1:{port}/webhooks/paypal", by, WEBHOOK_ID) as sender:
            half = len(deliveries) // 2
            assert sender.deliver(deliveries[:half], at_once=8) == {200: half}
            processes["worker"].end(kill=True)
            processes["worker"] = run_role.start("worker", tmp_path / "worker", paypal_base_url=paypal, **settings)
            assert sender.deliver(deliveries[half:], at_once=8) == {200: EVENTS - half}
        wait_until_idle(database, SystemClock(), DEADLINE)
        assert [process.end() for process in processes.values()] == [0] * 6
    pipeline = PipelineUnderTest(postgres_url, data_dir, MovableClock(now))
    assert_rows_are_correct(pipeline, subscriptions, deliveries)
    assert_mails_are_correct(pipeline, subscriptions, mailbox)
    with Broker(empty_broker_url).consumer("events") as inlet:
        assert inlet.receive(10, 0.2) is None, "the queue is not empty"
    pipeline.database.close()
    database.close()


def assert_rows_are_correct(
    pipeline: PipelineUnderTest, subscriptions: list[SimulatedSubscription], deliveries: list[Delivery]
) -> None:
    world = PaypalState()
    for each in deliveries:
        world.apply(each)
    events = {row.id: (row.source, row.type, row.state) for row in pipeline.rows(Event)}
    plans = {name: events.pop(name) for name in list(events) if name.startswith("READ.")}
    assert Counter(plans.values()) == {("read", "READ.PLAN", "handled"): len(PLANS)}
    assert events == {each.id: ("webhook", each.type, "handled") for each in deliveries}
    assert len(events) + pipeline.count(Redelivery) == EVENTS
    assert {row.id: row.status for row in pipeline.rows(Subscription)} == {
        subscription.id: subscription.status for subscription in subscriptions
    }
    assert pipeline.count(Customer) == len({subscription.person.custom_id for subscription in subscriptions})
    shown = {name: world.show("sale", name) for name in world.ids("sale")}
    states = {name: str(sale["state"]) for name, sale in shown.items() if sale}
    sales = {sale.resource["id"]: sale for subscription in subscriptions for sale in subscription.sales.values()}
    assert {row.id: (row.status, row.amount, row.currency, row.refunded) for row in pipeline.rows(Payment)} == {
        name: (states[name], sale.amount.amount, sale.amount.currency, sale.refunded) for name, sale in sales.items()
    }
    assert {row.id: row.payment_id for row in pipeline.rows(Refund)} == {
        name: str((world.show("refund", name) or {})["sale_id"]) for name in world.ids("refund")
    }


def assert_mails_are_correct(
    pipeline: PipelineUnderTest, subscriptions: list[SimulatedSubscription], mailbox: Relay
) -> None:
    """Check kinds, states and recipients. A setup mail is withheld if the cancellation was handled first."""
    mails = pipeline.rows(Mail)
    cancelled = {subscription.id for subscription in subscriptions if subscription.status == "CANCELLED"}
    counted = Counter(row.kind for row in mails)
    refunds = sum(
        1 for subscription in subscriptions for each in subscription.deliveries if each.type == "PAYMENT.SALE.REFUNDED"
    )
    assert counted == {
        "account_setup": len(subscriptions), "receipt": len(subscriptions),
        "refund_receipt": refunds, "subscription_cancelled": len(cancelled),
    }  # fmt: skip
    unsent = [row for row in mails if row.state != "sent"]
    assert {(row.kind, row.state) for row in unsent} <= {("account_setup", "withheld")}
    assert {row.subscription_id for row in unsent} <= cancelled

    sent = {str(row.message_id): row for row in mails if row.state == "sent"}
    delivered = letters(postman(mailbox), len(sent))
    assert Counter(str(mail["Message-ID"]) for mail in delivered) == Counter(list(sent))
    people = {subscription.id: subscription.person.email for subscription in subscriptions}
    for mail in delivered:
        row = sent[str(mail["Message-ID"])]
        assert parseaddr(str(mail["To"]))[1] == people[str(row.subscription_id)]
        assert str(row.subscription_id) in text_of(mail)


@pytest.fixture(autouse=True)
def _start_postfix_first(postfix: Relay) -> None:
    """Start Postfix while no other server starts."""
