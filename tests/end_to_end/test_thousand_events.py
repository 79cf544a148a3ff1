"""A busy day: 1,000 signed events over HTTP, repeated and in disorder, through RabbitMQ, PostgreSQL and Postfix.

Each role is a process of its own, as docker-compose.yml has them. The truth is the pretend PayPal's own record of it.
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
from tests.support.pipeline_under_test import WEBHOOK_ID, River, signer
from tests.support.running_roles import letters, postman, text_of, wait_until_idle
from tests.support.servers import Relay
from tests.support.subprocesses import Leashed, answers, free_port

EVENTS = 1_000  # deliveries, of which every tenth or so is a repetition
# It takes about 20 seconds; but what the killed worker was just asking PayPal is asked again after its lease.
DEADLINE = 90.0 + LEASE.total_seconds()


@contextmanager
def company(folder: Path, **settings: str | int | Path) -> Iterator[dict[str, Leashed]]:
    """One web, two workers, two mailers and a scheduler, each a process with a folder for its output."""
    names = ("web", "worker", "worker 2", "mailer", "mailer 2", "scheduler")
    started: dict[str, Leashed] = {}
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
    """New subscriptions of a day; some are refunded, some cancelled. As many deliveries as asked for, in disorder."""
    rng = Random(2026)
    lives = []
    for number, person in enumerate(crowd(280, rng)):
        life = SimulatedSubscription(
            person, PLANS[number % 4], now - timedelta(hours=12) + timedelta(seconds=number), rng
        )
        life.start("held" if number % 10 == 3 else "instant")
        sale = next(iter(life.sales.values()))
        if number % 10 == 5:
            life.refund(sale, life.now + timedelta(minutes=20), sale.rest // 3)
        if number % 20 == 5:
            life.refund(sale, life.now + timedelta(minutes=40))
        if number % 10 == 7:
            life.cancel(life.now + timedelta(minutes=30))
        lives.append(life)
    told = [each for life in lives for each in life.deliveries]
    rng.shuffle(told)
    again = rng.sample(told, EVENTS - len(told))
    return lives, by_time(disorder(told + again, rng, duplicates=0, delayed=1, shuffle=timedelta(hours=2)))


@pytest.mark.timeout(400)
def test_a_thousand_events_end_as_the_right_rows_and_mails(
    postgres_url: str, empty_broker_url: str, mailbox: Relay, data_dir: Path, tmp_path: Path
) -> None:
    now, port = SystemClock().now(), free_port()
    by = signer(now.year)
    (tmp_path / "leaf.pem").write_bytes(by.leaf_pem)
    database = Database(postgres_url)
    migrations.upgrade(database)
    lives, deliveries = busy_day(now)
    assert len(deliveries) == EVENTS
    settings: dict[str, str | int | Path] = {
        "data_dir": data_dir, "database_url": postgres_url, "broker_url": empty_broker_url,
        "smtp_url": mailbox.smtp_url, "web_port": port, "paypal_webhook_id": WEBHOOK_ID,
        "test_certificate": f"{by.cert_url} {tmp_path / 'leaf.pem'}",
        "paypal_client_id": "simulator", "paypal_client_secret": "simulator-secret",
    }  # fmt: skip
    pretence = FakePaypalApi()  # it is asked for the plans
    with pretence.serve() as paypal, company(tmp_path, paypal_base_url=paypal, **settings) as processes:
        processes["web"].wait_until(lambda: answers(port))
        with WebhookSender(f"http://127.0.0.1:{port}/webhooks/paypal", by, WEBHOOK_ID) as courier:
            half = len(deliveries) // 2
            assert courier.deliver(deliveries[:half], at_once=8) == {200: half}
            processes["worker"].end(kill=True)
            processes["worker"] = run_role.start("worker", tmp_path / "worker", paypal_base_url=paypal, **settings)
            assert courier.deliver(deliveries[half:], at_once=8) == {200: EVENTS - half}
        wait_until_idle(database, SystemClock(), DEADLINE)
        assert [process.end() for process in processes.values()] == [0] * 6
    river = River(postgres_url, data_dir, MovableClock(now))
    assert_the_rows_are_right(river, lives, deliveries)
    assert_the_mails_are_right(river, lives, mailbox)
    with Broker(empty_broker_url).consumer("events") as inlet:
        assert inlet.receive(10, 0.2) is None, "nothing is left on the queue"
    river.database.close()
    database.close()


def assert_the_rows_are_right(river: River, lives: list[SimulatedSubscription], deliveries: list[Delivery]) -> None:
    world = PaypalState()
    for each in deliveries:
        world.apply(each)
    events = {row.id: (row.source, row.type, row.state) for row in river.rows(Event)}
    plans = {name: events.pop(name) for name in list(events) if name.startswith("READ.")}
    assert Counter(plans.values()) == {("read", "READ.PLAN", "handled"): len(PLANS)}
    assert events == {each.id: ("webhook", each.type, "handled") for each in deliveries}
    assert len(events) + river.count(Redelivery) == EVENTS
    assert {row.id: row.status for row in river.rows(Subscription)} == {life.id: life.status for life in lives}
    assert river.count(Customer) == len({life.person.custom_id for life in lives})
    shown = {name: world.show("sale", name) for name in world.ids("sale")}
    states = {name: str(sale["state"]) for name, sale in shown.items() if sale}
    sales = {sale.resource["id"]: sale for life in lives for sale in life.sales.values()}
    assert {row.id: (row.status, row.amount, row.currency, row.refunded) for row in river.rows(Payment)} == {
        name: (states[name], sale.amount.amount, sale.amount.currency, sale.refunded) for name, sale in sales.items()
    }
    assert {row.id: row.payment_id for row in river.rows(Refund)} == {
        name: str((world.show("refund", name) or {})["sale_id"]) for name in world.ids("refund")
    }


def assert_the_mails_are_right(river: River, lives: list[SimulatedSubscription], mailbox: Relay) -> None:
    """Who had left before the news of their beginning was handled is not welcomed any more; all others are."""
    mails = river.rows(Mail)
    left = {life.id for life in lives if life.status == "CANCELLED"}
    counted = Counter(row.kind for row in mails)
    refunds = sum(1 for life in lives for each in life.deliveries if each.type == "PAYMENT.SALE.REFUNDED")
    assert counted == {
        "account_setup": len(lives), "receipt": len(lives), "refund_receipt": refunds, "subscription_cancelled": len(left),
    }  # fmt: skip
    unsent = [row for row in mails if row.state != "sent"]
    assert {(row.kind, row.state) for row in unsent} <= {("account_setup", "withheld")}
    assert {row.subscription_id for row in unsent} <= left

    sent = {str(row.message_id): row for row in mails if row.state == "sent"}
    delivered = letters(postman(mailbox), len(sent))
    assert Counter(str(letter["Message-ID"]) for letter in delivered) == Counter(list(sent))
    people = {life.id: life.person.email for life in lives}
    for letter in delivered:
        row = sent[str(letter["Message-ID"])]
        assert parseaddr(str(letter["To"]))[1] == people[str(row.subscription_id)]
        assert str(row.subscription_id) in text_of(letter)


@pytest.fixture(autouse=True)
def _postfix_is_asked_for_first(postfix: Relay) -> None:
    """It starts while nothing else does."""
