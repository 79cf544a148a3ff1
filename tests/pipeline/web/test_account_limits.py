"""Hourly rate limits of the account page. The page never claims that a mail was sent if it was not."""

from datetime import timedelta

import pytest

from pipeline.app.container import Container
from pipeline.customers import sign_in
from pipeline.customers.rate_limit import PER_HOUR
from pipeline.db.models import Customer
from tests.support.page_client import ADA, Browser, facts, open_pages
from tests.support.page_client import sign_in as open_session
from tests.support.pipeline_under_test import PipelineUnderTest


def post(browser: Browser, form: str) -> str:
    """Post a form of the account page, even if it is not shown there. Return the resulting page."""
    path = f"/account/{form}"
    answer = browser.post(path, {"token": sign_in.csrf_token(browser.cookie, path)})
    return browser.get(answer.headers["location"]).text


def test_repeated_deletion_sends_no_second_mail(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    pages = [post(browser, "delete") for _ in range(4)]
    assert "We are sending you an e-mail about it" in pages[0]
    assert "so we sent no second e-mail" in pages[1]
    assert "you did this several times this hour" in pages[3]
    assert ['class="note undone"' in page for page in pages] == [False, False, False, True]
    assert len(facts(sqlite_pipeline, "account_deletion_scheduled")) == 1


def test_deletion_is_limited_per_hour_and_can_be_cancelled(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    open_session(sqlite_pipeline, browser)
    for _ in range(PER_HOUR["erase"]):
        assert "is scheduled for deletion" in browser.press("delete").text
        assert "Your account stays" in browser.press("keep").text
        sqlite_pipeline.clock.advance(timedelta(seconds=1))
    assert "you did this several times this hour" in browser.press("delete").text
    assert len(facts(sqlite_pipeline, "account_deletion_scheduled")) == PER_HOUR["erase"]
    assert sqlite_pipeline.rows(Customer)[0].erase_at is None
    sqlite_pipeline.clock.advance(timedelta(hours=1))
    open_session(sqlite_pipeline, browser)
    assert "is scheduled for deletion" in browser.press("delete").text


def test_cancelling_deletion_is_limited_per_hour(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    open_session(sqlite_pipeline, browser)
    pages = [post(browser, "keep") for _ in range(PER_HOUR["keep"] + 1)]
    assert ["too late to keep" in page for page in pages] == [True] * PER_HOUR["keep"] + [False]
    assert "you did this several times this hour" in pages[-1]


def test_page_reports_that_no_confirmation_was_sent(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    open_session(sqlite_pipeline, browser)
    fields = {"name": ADA.name, "company": ADA.company, "phone": ADA.phone, "email": "ada@new.example.com"}
    pages = [browser.press("correct", **fields).text for _ in range(4)]
    assert ["We are sending a confirmation link" in page for page in pages] == [True] * 3 + [False]
    assert "Your address was not changed" in pages[3]
    assert len([each for each in facts(sqlite_pipeline, "account_link") if each["confirms"]]) == 3


def test_page_reports_503_when_link_queue_is_full(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in.SignInLinkSender, "send_later", lambda self, email: False)
    with open_pages(container) as base:
        answer = Browser(base).post("/account", {"email": ADA.email})
    assert (answer.status_code, "No link was sent" in answer.text) == (503, True)


def test_link_sender_refuses_when_its_queue_is_full(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "WAITING", 2)
    sender = sign_in.SignInLinkSender(
        sqlite_pipeline.database, sqlite_pipeline.master, sqlite_pipeline.clock, "https://billing.example.com"
    )
    assert [sender.send_later(f"{number}@example.com") for number in range(3)] == [True, True, False]


def test_erased_customer_gets_410(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer is erased after the session check and before the action."""
    open_session(sqlite_pipeline, browser)
    token = sign_in.csrf_token(browser.cookie, "/account/export")
    monkeypatch.setattr(sign_in, "session_customer", lambda *_: "c-unknown")
    for answer in (browser.get("/account"), browser.post("/account/export", {"token": token})):
        assert (answer.status_code, "This account no longer exists" in answer.text) == (410, True)
