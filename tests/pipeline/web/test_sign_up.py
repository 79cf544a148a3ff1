"""Signing up, as a page and as an API: what is asked for, what is refused, and one account however often it is sent."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from pipeline.app.container import Container
from pipeline.customers import accounts, links, newsletter, sign_up
from pipeline.customers.rate_limit import PER_HOUR
from pipeline.db.models import Base, Consent, Customer, EncryptionKey, Link, RateLimitCounter
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.web.views.sign_up import approval_origins
from tests.support.page_client import ADA, TOKEN, Browser, facts, open_pages, path_of
from tests.support.pipeline_under_test import River, make_parts

PAGES = "https://billing.example.com"
FILLED = {
    "name": ADA.name,
    "email": ADA.email,
    "company": ADA.company,
    "phone": ADA.phone,
    "plan": "Cloud",
    "adult": "yes",
}


@pytest.fixture
def paypal(brook: River) -> FakePaypalApi:
    return FakePaypalApi(clock=brook.clock)


@pytest.fixture
def container(brook: River, paypal: FakePaypalApi) -> Iterator[Container]:
    with paypal.serve() as url:
        yield make_parts(
            brook.url,
            brook.folder,
            brook.clock,
            public_url=PAGES,
            paypal_base_url=url,
            paypal_client_id="simulator",
            paypal_client_secret="simulator-secret",
            plans={"Cloud": CLOUD.id, "Gone": "P-NOSUCHPLAN"},
        )


@pytest.fixture
def browser(container: Container) -> Iterator[Browser]:
    with open_pages(container) as base:
        yield Browser(base)
    container.paypal.close()


def send(browser: Browser, **said: str | None) -> httpx.Response:
    """Open the form, fill it in, send it; None leaves a field out."""
    found = TOKEN.search(browser.get("/signup").text)
    assert found
    form = {"token": found[1], **FILLED, **said}
    return browser.post("/signup", {name: value for name, value in form.items() if value is not None})


def people(river: River) -> list[dict[str, str]]:
    with river.database.transaction() as session:
        ids = session.execute(select(Customer.id)).scalars().all()
        return [accounts.personal_data(session, river.keyring(session), id) for id in ids]


def nothing_kept(river: River) -> bool:
    tables: tuple[type[Base], ...] = (Customer, Consent, Link, RateLimitCounter)
    return all(river.count(table) == 0 for table in tables)


def test_a_sign_up_makes_an_account_and_leads_to_paypal(brook: River, browser: Browser, paypal: FakePaypalApi) -> None:
    answer = send(browser)
    assert answer.status_code == 303
    assert "/webapps/billing/subscriptions?ba_token=I-" in answer.headers["location"]
    [person] = people(brook)
    assert (person["name"], person["email"], person["company"], person["phone"]) == (
        ADA.name, ADA.email, ADA.company, ADA.phone,
    )  # fmt: skip
    [id] = paypal.world.ids("subscription")
    assert (paypal.world.show("subscription", id) or {})["custom_id"] == person["custom"]


def test_no_more_is_asked_for_than_the_policy_says(browser: Browser) -> None:
    page = browser.get("/signup").text
    assert set(re.findall(r'<(?:input|select)[^>]* name="([^"]+)"', page)) == {
        "name", "email", "company", "phone", "plan", "adult", "news", "token",
    }  # fmt: skip


def test_that_they_are_18_is_kept_as_a_word_with_its_time_and_version(brook: River, browser: Browser) -> None:
    send(browser)
    [customer] = brook.rows(Customer)
    assert (customer.adult_confirmed_at, customer.adult_text_version) == (brook.now, sign_up.TEXTS)
    noted = {each.kind: (each.given, each.at, each.text_version) for each in brook.rows(Consent)}
    assert noted["adult"] == (True, brook.now, sign_up.TEXTS)
    assert sign_up.ADULT in browser.get("/signup").text


def test_who_is_not_18_is_turned_away_kindly_and_nothing_is_kept(brook: River, browser: Browser) -> None:
    answer = send(browser, adult=None)
    assert answer.status_code == 422
    assert "please let an adult do it" in answer.text
    assert nothing_kept(brook)
    assert ADA.email not in repr([vars(row) for row in brook.rows(EncryptionKey)])


@pytest.mark.parametrize(("ticked", "mails"), [("yes", 1), (None, 0)])
def test_who_ticked_the_news_is_asked_once_more_by_mail(
    brook: River, browser: Browser, ticked: str | None, mails: int
) -> None:
    send(browser, news=ticked)
    assert len(facts(brook, "news_confirmation")) == mails
    assert not brook.rows(Customer)[0].wants_marketing


def test_news_is_for_who_ticked_it_and_confirmed_it(brook: River, browser: Browser) -> None:
    send(browser, news="yes")
    [asked] = facts(brook, "news_confirmation")
    link = path_of(asked["page"])
    assert link.rpartition("/")[2] not in repr([vars(row) for row in brook.rows(Link)])
    for _ in range(2):
        assert browser.get(link).status_code == 200
    assert not brook.rows(Customer)[0].wants_marketing  # to look is no consent
    assert browser.post(link).status_code == 200
    assert brook.rows(Customer)[0].wants_marketing
    noted = [(row.kind, row.given, row.source) for row in brook.rows(Consent) if row.kind.startswith("marketing")]
    assert sorted(noted) == [("marketing", True, "link by mail"), ("marketing_asked", True, "sign-up")]
    assert (browser.get(link).status_code, browser.post(link).status_code) == (410, 410)


def test_a_link_that_confirms_news_serves_for_a_week(brook: River, browser: Browser) -> None:
    send(browser, news="yes")
    link = path_of(facts(brook, "news_confirmation")[0]["page"])
    brook.clock.advance(timedelta(days=newsletter.DAYS) - timedelta(seconds=1))
    assert browser.get(link).status_code == 200
    brook.clock.advance(timedelta(seconds=1))
    assert browser.post(link).status_code == 410
    assert not brook.rows(Customer)[0].wants_marketing


def test_an_address_that_others_sign_up_with_is_asked_a_few_times_an_hour(brook: River, browser: Browser) -> None:
    for number in range(PER_HOUR["confirm_news"] + 2):
        send(browser, news="yes", name=f"Ada {number}")
    assert len(people(brook)) == PER_HOUR["confirm_news"] + 2
    assert len(facts(brook, "news_confirmation")) == PER_HOUR["confirm_news"]


def test_a_link_to_the_old_address_confirms_no_news_once_the_address_is_another(brook: River, browser: Browser) -> None:
    send(browser, news="yes")
    link = path_of(facts(brook, "news_confirmation")[0]["page"])
    with brook.database.transaction() as session:
        links.end_sessions(session, brook.rows(Customer)[0].id, brook.now)
    assert browser.post(link).status_code == 410


def test_neither_box_is_ticked_before_somebody_ticks_it(browser: Browser) -> None:
    assert "checked" not in browser.get("/signup").text


def test_the_same_form_sent_twice_is_one_account_and_one_subscription(
    brook: River, browser: Browser, paypal: FakePaypalApi
) -> None:
    answers = [send(browser, token="the same") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303] * 3
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(people(brook)) == 1
    assert len(paypal.world.ids("subscription")) == 1
    send(browser, token="the same", name="Ada King")  # somebody went back and mended it: it is another form
    assert len(people(brook)) == 2


def test_a_form_that_paypal_left_half_done_goes_on_where_it_was(
    brook: River, browser: Browser, paypal: FakePaypalApi
) -> None:
    paypal.misbehave("500", times=1, path="/v1/billing/subscriptions")
    answer = send(browser, token="the same")
    assert answer.status_code == 503
    assert "send the form again in a minute" in answer.text
    assert 'value="the same"' in answer.text
    assert f'value="{ADA.email}"' in answer.text
    assert send(browser, token="the same").status_code == 303
    assert len(people(brook)) == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"name": ""}, "Please enter your name"),
        ({"email": "nobody"}, "Please enter an e-mail address"),
        ({"email": "ada@example.com\r\nBcc: eve@example.com"}, "Please enter an e-mail address"),
        ({"name": "A" * 101}, "Please enter at most 100 characters"),
        ({"phone": "call me"}, "Please enter a phone number"),
        ({"plan": "Another"}, "Please choose one of the plans"),
        ({"plan": CLOUD.id}, "Please choose one of the plans"),
    ],
)
def test_what_cannot_be_taken_is_told_at_its_field_and_nothing_is_kept(
    brook: River, browser: Browser, said: dict[str, str], words: str
) -> None:
    answer = send(browser, **said)
    assert answer.status_code == 422
    assert words in answer.text
    [name] = said
    assert f'aria-describedby="{name}-problem"' in answer.text
    assert nothing_kept(brook)


def test_what_somebody_filled_in_is_shown_to_them_and_does_nothing_there(browser: Browser) -> None:
    answer = send(browser, email="nobody", name='"><script>alert(1)</script>')
    assert "<script" not in answer.text
    assert "&#34;&gt;&lt;script&gt;" in answer.text


def test_a_field_nobody_asked_for_is_refused_by_name(brook: River, browser: Browser) -> None:
    answer = send(browser, birthday="1990-01-01")
    assert answer.status_code == 400
    assert "Unknown: birthday" in answer.text
    assert nothing_kept(brook)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"name=a&name=b", {"Content-Type": "application/x-www-form-urlencoded"}, 400),
        (b"name=%FF", {"Content-Type": "application/x-www-form-urlencoded"}, 400),
        (b"name=" + b"x" * 20_000, {"Content-Type": "application/x-www-form-urlencoded"}, 413),
        (b"{}", {"Content-Type": "application/json"}, 415),
        (b"name=a", {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_body_that_is_no_form_of_ours_is_refused(
    browser: Browser, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = browser.client.post("/signup", content=content, headers=headers)
    assert answer.status_code == status
    assert "<h1>" in answer.text


def test_one_line_signs_up_twenty_times_an_hour(browser: Browser, brook: River) -> None:
    statuses = [send(browser, token=str(number)).status_code for number in range(PER_HOUR["sign_up"] + 1)]
    assert statuses == [303] * PER_HOUR["sign_up"] + [429]
    assert brook.count(Customer) == PER_HOUR["sign_up"]


@pytest.mark.parametrize("missing", [{"plans": {}}, {"paypal_client_id": ""}])
def test_without_paypal_or_plans_sign_up_is_not_open(brook: River, missing: dict[str, Any]) -> None:
    settings = {"plans": {"Cloud": CLOUD.id}, "paypal_client_id": "app", "paypal_client_secret": "s"} | missing
    parts = make_parts(brook.url, brook.folder, brook.clock, public_url=PAGES, **settings)
    with open_pages(parts) as base:
        browser = Browser(base)
        for answer in (browser.get("/signup"), browser.post("/signup", FILLED)):
            assert answer.status_code == 503
            assert "Sign-up is not open" in answer.text
        assert browser.client.post("/api/signup", json=FILLED).status_code == 503


def test_pages_that_paypal_leads_back_to_need_nothing_of_what_it_appends(browser: Browser) -> None:
    assert "Thank you" in browser.get("/signup/done?subscription_id=I-1&ba_token=BA-1&token=x").text
    assert "nothing is charged" in browser.get("/signup/cancelled?token=x").text


# The API


def test_the_api_does_the_same(brook: River, browser: Browser) -> None:
    answer = browser.client.post("/api/signup", json=FILLED | {"adult": True, "news": True})
    assert answer.status_code == 201
    assert "/webapps/billing/subscriptions" in answer.json()["approve"]
    assert len(facts(brook, "news_confirmation")) == 1


def test_an_idempotency_key_makes_one_account_of_requests_sent_again(brook: River, browser: Browser) -> None:
    headers = {"Idempotency-Key": "order-1"}
    answers = [browser.client.post("/api/signup", json=FILLED, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(people(brook)) == 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({**FILLED, "adult": False, "name": ""}, 422, "Some of it"),
        ({**FILLED, "birthday": "1990-01-01"}, 400, "Unknown: birthday"),
        ([], 400, "not a JSON object"),
        ({**FILLED, "plan": "Gone"}, 503, "PayPal does not answer"),
    ],
)
def test_the_api_tells_what_is_wrong_as_problem_details(
    browser: Browser, body: object, status: int, words: str
) -> None:
    answer = browser.client.post("/api/signup", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    if status == 422:
        assert set(answer.json()["errors"]) == {"name", "adult"}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"name": NaN}', b"[" * 9000])
def test_a_body_that_is_not_json_is_told_so(browser: Browser, content: bytes) -> None:
    answer = browser.client.post("/api/signup", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "The body is not JSON.")


@pytest.mark.parametrize(
    ("api", "page"),
    [
        ("https://api-m.paypal.com", "https://www.paypal.com"),
        ("https://api-m.sandbox.paypal.com", "https://www.sandbox.paypal.com"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    ],
)
def test_the_form_may_lead_to_where_paypal_approves_and_nowhere_else(api: str, page: str) -> None:
    assert approval_origins(api) == (page,)
