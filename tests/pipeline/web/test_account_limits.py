"""What may be asked for on the account page so many times an hour, and that nothing is said to be sent which is not."""

from datetime import timedelta

import pytest

from pipeline.app.container import Container
from pipeline.customers import sign_in
from pipeline.customers.rate_limit import PER_HOUR
from pipeline.db.models import Customer
from tests.support.page_client import ADA, Browser, facts, open_pages
from tests.support.page_client import sign_in as enter
from tests.support.pipeline_under_test import River


def post(browser: Browser, form: str) -> str:
    """Post a form of the account page, whether or not it is shown there; the page it leads to."""
    path = f"/account/{form}"
    answer = browser.post(path, {"token": sign_in.csrf_token(browser.cookie, path)})
    return browser.get(answer.headers["location"]).text


def test_a_deletion_asked_for_again_says_that_no_other_mail_was_sent(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    said = [post(browser, "delete") for _ in range(4)]
    assert "a mail about it is on its way" in said[0]
    assert "no other mail was sent" in said[1]
    assert "asked for this several times" in said[3]
    assert ['class="note undone"' in page for page in said] == [False, False, False, True]
    assert len(facts(brook, "account_deletion_scheduled")) == 1


def test_a_deletion_is_asked_for_a_few_times_an_hour_and_can_be_called_off_each_time(
    brook: River, browser: Browser, ada: str
) -> None:
    enter(brook, browser)
    for _ in range(PER_HOUR["erase"]):
        assert "is scheduled" in browser.press("delete").text
        assert "Your account stays" in browser.press("keep").text
        brook.clock.advance(timedelta(seconds=1))
    assert "asked for this several times" in browser.press("delete").text
    assert len(facts(brook, "account_deletion_scheduled")) == PER_HOUR["erase"]
    assert brook.rows(Customer)[0].erase_at is None
    brook.clock.advance(timedelta(hours=1))
    enter(brook, browser)
    assert "is scheduled" in browser.press("delete").text


def test_calling_a_deletion_off_is_counted_too(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    said = [post(browser, "keep") for _ in range(PER_HOUR["keep"] + 1)]
    assert ["too late to keep" in page for page in said] == [True] * PER_HOUR["keep"] + [False]
    assert "asked for this several times" in said[-1]


def test_a_mail_that_was_not_sent_to_a_new_address_is_not_said_to_be(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    said = {"name": ADA.name, "company": ADA.company, "phone": ADA.phone, "email": "ada@new.example.com"}
    told = [browser.press("correct", **said).text for _ in range(4)]
    assert ["on its way to the new address" in page for page in told] == [True] * 3 + [False]
    assert "no mail was sent to the new one" in told[3]
    assert len([each for each in facts(brook, "account_link") if each["confirms"]]) == 3


def test_where_too_many_wait_for_links_nobody_is_told_that_one_is_on_its_way(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in.SignInLinkSender, "send_later", lambda self, email: False)
    with open_pages(container) as base:
        answer = Browser(base).post("/account", {"email": ADA.email})
    assert (answer.status_code, "none was sent" in answer.text) == (503, True)


def test_a_doorman_with_too_many_before_him_says_so(brook: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in, "WAITING", 2)
    doorman = sign_in.SignInLinkSender(brook.database, brook.master, brook.clock, "https://billing.example.com")
    assert [doorman.send_later(f"{number}@example.com") for number in range(3)] == [True, True, False]


def test_who_is_gone_is_told_so_by_a_page(
    brook: River, browser: Browser, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erased between the look at the session and the work."""
    enter(brook, browser)
    token = sign_in.csrf_token(browser.cookie, "/account/export")
    monkeypatch.setattr(sign_in, "session_customer", lambda *_: "c-nobody")
    for answer in (browser.get("/account"), browser.post("/account/export", {"token": token})):
        assert (answer.status_code, "There is no such account any more" in answer.text) == (410, True)
