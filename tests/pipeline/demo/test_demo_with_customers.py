"""The demo as a whole: its pages lead to the order page, and a demo that is shown again knows its subscriptions at PayPal."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from handlers import HANDLERS
from pipeline.app import maintenance
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal
from pipeline.clock import Clock, SystemClock
from pipeline.db.models import Customer, Payment, Subscription
from pipeline.demo import environment, start_page
from pipeline.demo.environment import DemoEnvironment
from pipeline.demo.playback import Playback
from pipeline.policy import public_pages
from pipeline.privacy.erasure import workflow
from pipeline.settings import Settings
from tests.support.command_line import Smt, smt

__all__ = ["smt"]


@pytest.fixture
def shown_again(smt: Smt, data_dir: Path) -> Iterator[DemoEnvironment]:
    """A completed demo that is started a second time on the same folder."""
    assert smt("demo", "--once", "--json", "--months", "2", "--subscribers", "6").json["complete"]
    with _start(data_dir) as opened:
        yield opened


@contextmanager
def _start(data_dir: Path) -> Iterator[DemoEnvironment]:
    def parts(settings: Settings, clock: Clock) -> Container:
        return Container(settings, HANDLERS, clock)

    with environment.open_environment(data_dir, parts, str, port=0, usual_port=0) as opened:
        yield opened


def work_until(demo: DemoEnvironment, done: Callable[[], bool]) -> None:
    """Process due work as the running demo does, for at most 15 seconds."""

    async def work() -> None:
        playback = Playback(demo, StopSignal())
        try:
            for _ in range(150):
                await playback.work()
                if done():
                    return
                await asyncio.sleep(0.1)
        finally:
            await playback.close()

    asyncio.run(work())
    assert done()


def active(demo: DemoEnvironment) -> Subscription:
    with demo.parts.database.reading() as session:
        found = select(Subscription).where(Subscription.status == "ACTIVE").order_by(Subscription.id).limit(1)
        return session.execute(found).scalar_one()


def stored(demo: DemoEnvironment, id: str) -> Subscription:
    with demo.parts.database.reading() as session:
        return session.get_one(Subscription, id)


def test_start_page_offers_policy_check_only_after_one(shown_again: DemoEnvironment, data_dir: Path) -> None:
    def start() -> str:
        return httpx.get(f"{shown_again.url}/").text

    page = start()
    assert ("/privacy/evidence" in page, "It has not been checked" in page) == (False, True)
    public_pages.save_verdicts(data_dir, [{"clause": "1.name", "verdict": "holds", "date": "2026-03-01"}])
    page = start()
    assert ("/privacy/evidence" in page, "It has not been checked" in page) == (True, False)


def test_customer_of_demo_shown_again_can_be_erased(shown_again: DemoEnvironment) -> None:
    demo, parts = shown_again, shown_again.parts
    subscription = active(demo)
    assert subscription.customer_id
    outside = maintenance.erasure_dependencies(parts)
    row = workflow.erase_now(
        parts.database, parts.master_key, SystemClock(), outside, subscription.customer_id, "operator"
    )
    assert row.reason is None
    shown = demo.world.show("subscription", subscription.id)
    assert shown
    assert shown["status"] == "CANCELLED"
    work_until(demo, lambda: stored(demo, subscription.id).status == "CANCELLED")
    with parts.database.reading() as session:
        assert session.get_one(Customer, subscription.customer_id).erased_at


def test_demo_shown_again_knows_subscriptions_and_sales_at_paypal(shown_again: DemoEnvironment) -> None:
    with shown_again.parts.database.reading() as session:
        for row in session.execute(select(Subscription)).scalars():
            shown = shown_again.world.show("subscription", row.id)
            assert shown
            assert (shown["status"], shown["plan_id"]) == (row.status, row.plan_id)
        for id in session.execute(select(Payment.id)).scalars():
            assert shown_again.world.show("sale", id)


def test_subscription_of_demo_shown_again_is_cancelled_by_webhook(shown_again: DemoEnvironment) -> None:
    subscription = active(shown_again)
    shown_again.parts.paypal.cancel_subscription(subscription.id, "No longer needed")
    work_until(shown_again, lambda: stored(shown_again, subscription.id).status == "CANCELLED")


def test_start_page_links_pages_and_names_customer(shown_again: DemoEnvironment) -> None:
    page = httpx.get(f"{shown_again.url}/")
    assert page.status_code == 200
    for path in ("/signup", "/account", "/privacy", "/mails"):
        assert f'href="{path}"' in page.text
        assert httpx.get(shown_again.url + path).status_code == 200
    email = start_page.sample_address(shown_again.parts)
    assert email
    assert email in page.text
    mails = len(list(shown_again.caught.glob("account_link.*")))
    answer = httpx.post(f"{shown_again.url}/account", data={"email": email}, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200
    work_until(shown_again, lambda: len(list(shown_again.caught.glob("account_link.*"))) > mails)


def test_subscription_ids_differ_between_starts(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_DATA_DIR", str(data_dir))
    ids, address = set[str](), "http://127.0.0.1/"
    for number in range(2):
        with _start(data_dir) as demo:
            plan = next(iter(demo.parts.settings.plans.values()))
            id, _ = demo.parts.paypal.create_subscription(
                plan, f"custom{number}", f"request{number}", return_url=address, cancel_url=address
            )
            ids.add(id)
    assert len(ids) == 2


def test_pages_of_the_demo_answer_to_loopback_names_only(shown_again: DemoEnvironment) -> None:
    """Otherwise a website whose name resolves to this machine could read the demo's mails and sign-in links."""
    for path in ("/", "/mails", "/account"):
        assert httpx.get(shown_again.url + path).status_code == 200
        assert httpx.get(shown_again.url + path, headers={"Host": "evil.example"}).status_code == 421
