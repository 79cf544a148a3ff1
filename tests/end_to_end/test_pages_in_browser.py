"""The pages in a real browser: requests, cookies, layout, and a customer's sign-up, export and erasure.

The tests act like a person: fill in a form, approve at PayPal, read the mail, follow its link.
"""

import asyncio
import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from email import policy
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path

import httpx
import pytest

from handlers import HANDLERS
from pipeline.app import site
from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.customers import accounts, links
from pipeline.db.models import Base, Customer, Link, Mail, PrivacyRequest, Subscription
from pipeline.inbox import lookup_fetcher
from pipeline.inbox import store as inbox
from pipeline.privacy.erasure import workflow
from pipeline.simulator.plans import CLOUD, LICENCE
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.loopback import serve
from pipeline.web.session import COOKIE
from tests.conftest import do_without
from tests.support.chromium import Chromium, Page
from tests.support.page_client import ADA, sign_up, wait_for
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts, sign
from tests.support.servers import Missing, Relay
from tests.support.subprocesses import free_port, until


@dataclass(frozen=True, slots=True)
class Shop:
    """The pages, the simulated PayPal and the customer's mailbox."""

    pipeline: PipelineUnderTest
    container: Container
    paypal: FakePaypalApi
    mailbox: Relay
    base: str

    def work(self) -> None:
        """Post PayPal's pending events, handle them, and send the queued mails."""
        for event in self.paypal.events:
            httpx.post(
                f"{self.base}/webhooks/paypal", content=event.body, headers=sign(event.body, at=self.pipeline.now)
            )
        worker, pipeline = self.container.worker(), self.pipeline
        for _ in range(3):  # Answers to look-ups enter the inbox and must be handled too.
            lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, self.container.paypal)
            with pipeline.database.transaction() as session:
                ids = inbox.lease_due(session, pipeline.now + inbox.PUBLISH_GRACE, 100)
            worker.handle(ids)
        asyncio.run(self._send())

    async def _send(self) -> None:
        post = self.container.mailer()
        try:
            while await post.send_due():
                pass
        finally:
            await post.close()

    def link(self, of: str) -> str:
        """Return the newest link in the delivered mails whose path starts with `of`."""

        def found() -> list[str]:
            mails = map(text_of, self.mailbox.mails())
            return [link for mail in mails for link in re.findall(rf"{re.escape(self.base + of)}[\w-]+", mail)]

        until(lambda: bool(found()), 30, f"a mail contains a link to {of}")
        return found()[-1]


def text_of(mail: bytes) -> str:
    part = BytesParser(policy=policy.default).parsebytes(mail).get_body(("plain",))
    assert part
    return str(part.get_content())


@pytest.fixture
def sqlite_pipeline(data_dir: Path, clock: MovableClock) -> Iterator[PipelineUnderTest]:
    pipeline = PipelineUnderTest(f"sqlite:///{data_dir / 'smt-billing.db'}", data_dir, clock)
    yield pipeline
    pipeline.database.close()


@pytest.fixture
def shop(sqlite_pipeline: PipelineUnderTest, mailbox: Relay) -> Iterator[Shop]:
    base, paypal = f"http://127.0.0.1:{free_port()}", FakePaypalApi(clock=sqlite_pipeline.clock)
    with ExitStack() as stack:
        container = make_parts(
            sqlite_pipeline.url,
            sqlite_pipeline.folder,
            sqlite_pipeline.clock,
            HANDLERS,
            public_url=base,
            smtp_url=mailbox.smtp_url,
            paypal_base_url=stack.enter_context(paypal.serve()),
            paypal_client_id="simulator",
            paypal_client_secret="simulator-secret",
            plans={CLOUD.name: CLOUD.id, LICENCE.name: LICENCE.id},
        )
        for thread in (container.event_publisher, container.group_committer):
            thread.start()
            stack.callback(thread.stop)
        routes, lost = stack.enter_context(site.serve_pages(container))
        stack.enter_context(serve(container.web().app(routes, lost), int(base.rpartition(":")[2])))
        stack.callback(container.paypal.close)
        yield Shop(sqlite_pipeline, container, paypal, mailbox, base)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    try:
        with Chromium(tmp_path / "profile") as browser:
            yield browser
    except Missing as reason:
        do_without(str(reason))


def assert_page_is_clean(page: Page, base: str) -> None:
    """Check for foreign origins, console errors and horizontal overflow, on a phone and a desktop, light and dark."""
    for width in (390, 1000):
        for dark in (False, True):
            page.look(width=width, dark=dark)
            assert page.overflow() <= 0, page.url
    assert page.foreign(base) == set()
    assert page.complaints == [], page.url
    assert [word for word in page.referrers if word] == []
    assert page.run("document.scripts.length") == 0
    assert page.run("[...document.querySelectorAll('input:not([type=hidden]),select')].every(e => e.labels.length)")


def everything(pipeline: PipelineUnderTest) -> str:
    tables: tuple[type[Base], ...] = (Customer, Link, Mail, PrivacyRequest)
    return repr(
        [{k: v for k, v in vars(row).items() if k[0] != "_"} for table in tables for row in pipeline.rows(table)]
    )


def issue_link(pipeline: PipelineUnderTest, purpose: links.Purpose, customer_id: str) -> str:
    with pipeline.database.transaction() as session:
        return links.issue(session, pipeline.keyring(session), customer_id, purpose, pipeline.now)


def test_every_page_is_self_contained_and_sets_one_cookie(shop: Shop, chromium: Chromium) -> None:
    ada = sign_up(shop.pipeline)
    secrets: dict[links.Purpose, str] = {purpose: issue_link(shop.pipeline, purpose, ada) for purpose in links.PATHS}
    paths = ["/signup", "/signup/done", "/signup/cancelled", "/account", "/privacy", "/privacy/evidence"]
    paths += [links.url("", purpose, secret) for purpose, secret in secrets.items()]
    before = everything(shop.pipeline)
    for path in paths:
        assert_page_is_clean(chromium.open(shop.base + path), shop.base)
    assert everything(shop.pipeline) == before  # Opening a page changes nothing.
    assert chromium.cookies() == []
    page = chromium.open(shop.base + links.url("", "account", secrets["account"]))
    page.press("main button")
    assert page.url == f"{shop.base}/account"
    assert ADA.name in str(page.run("document.querySelector('#name').value"))
    assert_page_is_clean(page, shop.base)
    [cookie] = chromium.cookies()
    assert cookie["name"] == COOKIE
    assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
    page.press('form[action="/account/sign-out"] button')
    assert chromium.cookies() == []


def test_every_link_leads_to_a_page(shop: Shop, chromium: Chromium) -> None:
    seen, waiting = set[str](), {"/signup", "/account", "/privacy"}
    while waiting:
        path = waiting.pop()
        seen.add(path)
        page = chromium.open(shop.base + path)
        assert page.status == 200, path
        inside = page.run("[...document.querySelectorAll('a[href^=\"/\"]')].map(a => a.getAttribute('href'))")
        waiting |= {link for link in inside if link not in seen}
    assert {"/privacy/evidence", "/privacy.txt"} <= seen


def test_customer_signs_up_and_gets_mails(shop: Shop, chromium: Chromium) -> None:
    page = chromium.open(f"{shop.base}/signup", width=390)
    for name in ("name", "email", "company", "phone"):
        page.fill(f"#{name}", getattr(ADA, name))
    page.tick("#adult")
    page.press("main button")
    assert page.url.startswith(shop.container.settings.paypal_base_url)
    page.fill("#email", ADA.email)
    page.press("button")  # Agree and Subscribe
    assert page.url.startswith(f"{shop.base}/signup/done")
    assert "Thank you" in page.text
    assert [word for word in page.complaints if shop.base in word] == []
    assert chromium.cookies() == []

    shop.work()
    [subscription] = shop.pipeline.rows(Subscription)
    [customer] = shop.pipeline.rows(Customer)
    assert (subscription.status, subscription.customer_id) == ("ACTIVE", customer.id)
    shop.mailbox.wait_for(1)
    assert all(f"To: {ADA.name} <{ADA.email}>".encode() in mail for mail in shop.mailbox.mails())

    page.go(f"{shop.base}/account")
    page.fill("#email", ADA.email)
    page.press("main button")
    assert "Check your e-mail" in page.text
    wait_for(lambda: any(mail.kind == "account_link" for mail in shop.pipeline.rows(Mail)))
    shop.work()
    page.go(shop.link("/account/open/"))
    page.press("main button")
    assert CLOUD.name in page.text
    assert subscription.id in page.text


def test_customer_exports_and_deletes_data(shop: Shop, chromium: Chromium) -> None:
    ada = sign_up(shop.pipeline)
    page = chromium.open(f"{shop.base}/account/open/{issue_link(shop.pipeline, 'account', ada)}")
    page.press("main button")
    page.press('form[action="/account/export"] button')
    assert "a link to your data" in page.text
    shop.work()
    copy = shop.link("/account/export/")
    assert chromium.open(copy).text.count("Download") == 1
    answer = httpx.post(copy, headers={"Sec-Fetch-Site": "same-origin"})
    assert ADA.name.encode() in zipfile.ZipFile(BytesIO(answer.content)).read("data.json")

    page.press('form[action="/account/delete"] button')
    assert "Your account will be deleted on" in page.text
    shop.work()
    keep = chromium.open(shop.link("/account/keep/"))
    keep.press("main button")
    assert "Your account stays" in keep.text

    page.go(f"{shop.base}/account")
    shop.pipeline.clock.advance(timedelta(minutes=1))
    page.press('form[action="/account/delete"] button')
    shop.pipeline.clock.advance(workflow.WAIT + timedelta(minutes=1))
    workflow.run_due_erasures(
        shop.pipeline.database,
        shop.pipeline.master,
        shop.pipeline.clock,
        workflow.ErasureDependencies(shop.container.paypal),
    )
    shop.work()
    until(
        lambda: any("We have deleted your" in text_of(mail) for mail in shop.mailbox.mails()),
        30,
        "the confirmation is delivered",
    )
    with shop.pipeline.database.transaction() as session:
        assert accounts.personal_data(session, shop.pipeline.keyring(session), ada) == {}
    page.go(f"{shop.base}/account")
    assert "we e-mail a sign-in link to the address of your account" in page.text
    assert ADA.name not in page.text
