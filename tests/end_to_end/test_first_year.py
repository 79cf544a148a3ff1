"""A customer's first year, from the first posted webhook to the last delivered mail."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.app.container import Container
from pipeline.clock import MovableClock, parse_time
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import Event, Mail, Payment, Subscription
from pipeline.scheduler.renewal_reminders import LOOKUP_WAIT
from pipeline.simulator import scenarios
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, LICENCE, Plan
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.delivery import WebhookSender
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import WEBHOOK_ID, PipelineUnderTest, make_parts, signer
from tests.support.running_roles import (
    Post,
    Roles,
    catcher,
    count_by,
    letters,
    postman,
    running,
    text_of,
    wait_until_idle,
    work_left,
)
from tests.support.servers import Relay
from tests.support.subprocesses import free_port

ADA = PEOPLE[0]
START = datetime(2026, 1, 14, 8, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the poll intervals, because the test plays a year within seconds."""
    monkeypatch.setattr("pipeline.mailer.mailer.POLL_SECONDS", 0.05)
    monkeypatch.setattr("pipeline.app.roles.LOOKUP_POLL_SECONDS", 0.05)


@pytest.fixture
def world() -> PaypalState:
    return PaypalState()


@pytest.fixture
def paypal(world: PaypalState) -> Iterator[str]:
    with FakePaypalApi(world).serve() as base:
        yield base


def container_for(url: str, folder: Path, clock: MovableClock, paypal: str, post: Post, **more: Any) -> Container:
    return make_parts(
        url, folder, clock, HANDLERS,
        paypal_base_url=paypal, paypal_client_id="simulator", paypal_client_secret="simulator-secret",
        smtp_url=post.url, **more,  # no operator: the heartbeats cannot keep pace with this clock
    )  # fmt: skip


def test_one_process_handles_a_year_without_servers(
    data_dir: Path, clock: MovableClock, world: PaypalState, paypal: str
) -> None:
    url = f"sqlite:///{data_dir / 'smt-billing.db'}"
    with catcher(free_port()) as post:
        container = container_for(url, data_dir, clock, paypal, post, web_port=free_port())
        play_year(container, {"everything": container}, clock, world, CLOUD, reminder=3)
        pipeline = PipelineUnderTest(url, data_dir, clock)
        with closing(pipeline.database):
            assert_year_is_correct(pipeline, world, post, CLOUD, renewals=12)


def test_separate_roles_handle_a_year_with_servers(
    postgres_url: str,
    empty_broker_url: str,
    mailbox: Relay,
    data_dir: Path,
    clock: MovableClock,
    world: PaypalState,
    paypal: str,
) -> None:
    post = postman(mailbox)
    database = Database(postgres_url)
    migrations.upgrade(database)
    database.close()
    port = free_port()
    roles = {
        role: container_for(postgres_url, data_dir, clock, paypal, post, broker_url=empty_broker_url, web_port=port)
        for role in ("web", "worker", "mailer", "scheduler")
    }
    play_year(roles["web"], roles, clock, world, LICENCE, reminder=30)
    pipeline = PipelineUnderTest(postgres_url, data_dir, clock)
    with closing(pipeline.database):
        assert_year_is_correct(pipeline, world, post, LICENCE, renewals=1)


def play_year(
    container: Container, roles: Roles, clock: MovableClock, world: PaypalState, plan: Plan, *, reminder: int
) -> None:
    """Post each event at its time, and stop at the day on which a reminder is due."""
    deliveries = scenarios.first_year(ADA, plan, START, Random(1))
    clock.move_to(START)
    with (
        running(roles),
        WebhookSender(
            f"http://127.0.0.1:{container.settings.web_port}/webhooks/paypal", signer(), WEBHOOK_ID, tries=1
        ) as sender,
    ):
        for number, each in enumerate(deliveries):
            if number > 2:
                remind(container, clock, each.at, reminder)
            clock.move_to(each.at)
            world.apply(each)
            assert sender.send(each) == 200
            assert sender.send(each) == 200  # A second transmission of the same event.
            wait_until_idle(container.database, clock)


def remind(container: Container, clock: MovableClock, charge: datetime, days: int) -> None:
    """Move to the hour in which a reminder is due. The scheduler asks PayPal, and checks again after ten minutes at most."""
    clock.move_to(charge.replace(hour=10, minute=0, second=0) - timedelta(days=days))
    for _ in range(2):
        wait_until_idle(container.database, clock, pass_time=lambda: clock.advance(timedelta(seconds=2)))
        clock.advance(LOOKUP_WAIT)
    wait_until_idle(container.database, clock, pass_time=lambda: clock.advance(timedelta(seconds=2)))


def assert_year_is_correct(
    pipeline: PipelineUnderTest, world: PaypalState, post: Post, plan: Plan, renewals: int
) -> None:
    """Check that the rows agree with PayPal's API and that each mail is in the mailbox once."""
    assert work_left(pipeline.database, pipeline.now) == {}
    assert {row.state for row in pipeline.rows(Event)} == {"handled"}
    [row], [name] = pipeline.rows(Subscription), world.ids("subscription")
    known = world.show("subscription", name)
    assert known
    assert (row.id, row.status, row.plan_id) == (name, known["status"], plan.id)
    assert row.paid_through == parse_time(known["billing_info"]["next_billing_time"])
    payments = {each.id: each for each in pipeline.rows(Payment)}
    assert set(payments) == set(world.ids("sale"))
    assert len(payments) == renewals + 1
    price = (plan.price.amount, plan.price.currency, "completed")
    assert {(each.amount, each.currency, each.status) for each in payments.values()} == {price}

    mails = pipeline.rows(Mail)
    assert {each.state for each in mails} == {"sent"}
    expected = {"account_setup": 1, "receipt": renewals + 1, "renewal_reminder": renewals}
    assert count_by([each.kind for each in mails]) == expected
    delivered = letters(post, len(mails))
    assert sorted(str(mail["Message-ID"]) for mail in delivered) == sorted(str(each.message_id) for each in mails)
    assert {str(mail["To"]) for mail in delivered} == {f"Ada Whitfield <{ADA.email}>"}
    text = "\n".join(text_of(mail) for mail in delivered)
    assert {sale: text.count(sale) for sale in payments} == dict.fromkeys(payments, 1)
