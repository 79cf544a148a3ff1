"""Sign-up by page and by API: fields, validation, rate limit, and one account for repeated requests."""

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
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts

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
def paypal(sqlite_pipeline: PipelineUnderTest) -> FakePaypalApi:
    return FakePaypalApi(clock=sqlite_pipeline.clock)


@pytest.fixture
def container(sqlite_pipeline: PipelineUnderTest, paypal: FakePaypalApi) -> Iterator[Container]:
    with paypal.serve() as url:
        yield make_parts(
            sqlite_pipeline.url,
            sqlite_pipeline.folder,
            sqlite_pipeline.clock,
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


def send(browser: Browser, **fields: str | None) -> httpx.Response:
    """Open the form, fill it in and send it. A field with the value None is left out."""
    found = TOKEN.search(browser.get("/signup").text)
    assert found
    form = {"token": found[1], **FILLED, **fields}
    return browser.post("/signup", {name: value for name, value in form.items() if value is not None})


def people(pipeline: PipelineUnderTest) -> list[dict[str, str]]:
    with pipeline.database.transaction() as session:
        ids = session.execute(select(Customer.id)).scalars().all()
        return [accounts.personal_data(session, pipeline.keyring(session), id) for id in ids]


def is_nothing_stored(pipeline: PipelineUnderTest) -> bool:
    tables: tuple[type[Base], ...] = (Customer, Consent, Link, RateLimitCounter)
    return all(pipeline.count(table) == 0 for table in tables)


def test_sign_up_creates_account_and_redirects_to_paypal(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, paypal: FakePaypalApi
) -> None:
    answer = send(browser)
    assert answer.status_code == 303
    assert "/webapps/billing/subscriptions?ba_token=I-" in answer.headers["location"]
    [person] = people(sqlite_pipeline)
    assert (person["name"], person["entered_email"], person["company"], person["phone"]) == (
        ADA.name, ADA.email, ADA.company, ADA.phone,
    )  # fmt: skip
    [id] = paypal.world.ids("subscription")
    assert (paypal.world.show("subscription", id) or {})["custom_id"] == person["custom"]


def test_form_has_only_the_fields_of_the_policy(browser: Browser) -> None:
    page = browser.get("/signup").text
    assert set(re.findall(r'<(?:input|select)[^>]* name="([^"]+)"', page)) == {
        "name", "email", "company", "phone", "plan", "adult", "news", "token",
    }  # fmt: skip


def test_age_statement_is_stored_with_time_and_version(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    send(browser)
    [customer] = sqlite_pipeline.rows(Customer)
    assert (customer.adult_confirmed_at, customer.adult_text_version) == (sqlite_pipeline.now, sign_up.TEXTS)
    recorded = {each.kind: (each.given, each.at, each.text_version) for each in sqlite_pipeline.rows(Consent)}
    assert recorded["adult"] == (True, sqlite_pipeline.now, sign_up.TEXTS)
    assert sign_up.ADULT in browser.get("/signup").text


def test_minor_is_refused_and_nothing_is_stored(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    answer = send(browser, adult=None)
    assert answer.status_code == 422
    assert "please ask an adult to sign up" in answer.text
    assert is_nothing_stored(sqlite_pipeline)
    assert ADA.email not in repr([vars(row) for row in sqlite_pipeline.rows(EncryptionKey)])


@pytest.mark.parametrize(("ticked", "mails"), [("yes", 1), (None, 0)])
def test_newsletter_request_sends_a_confirmation_mail(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ticked: str | None, mails: int
) -> None:
    send(browser, news=ticked)
    assert len(facts(sqlite_pipeline, "news_confirmation")) == mails
    assert not sqlite_pipeline.rows(Customer)[0].wants_marketing


def test_newsletter_requires_confirmation(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    send(browser, news="yes")
    [confirmation] = facts(sqlite_pipeline, "news_confirmation")
    link = path_of(confirmation["page"])
    assert link.rpartition("/")[2] not in repr([vars(row) for row in sqlite_pipeline.rows(Link)])
    for _ in range(2):
        assert browser.get(link).status_code == 200
    assert not sqlite_pipeline.rows(Customer)[0].wants_marketing  # opening the page is not consent
    assert browser.post(link).status_code == 200
    assert sqlite_pipeline.rows(Customer)[0].wants_marketing
    recorded = [
        (row.kind, row.given, row.source) for row in sqlite_pipeline.rows(Consent) if row.kind.startswith("marketing")
    ]
    assert sorted(recorded) == [("marketing", True, "link by mail"), ("marketing_asked", True, "sign-up")]
    assert (browser.get(link).status_code, browser.post(link).status_code) == (410, 410)


def test_newsletter_link_expires_after_a_week(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    send(browser, news="yes")
    link = path_of(facts(sqlite_pipeline, "news_confirmation")[0]["page"])
    sqlite_pipeline.clock.advance(timedelta(days=newsletter.DAYS) - timedelta(seconds=1))
    assert browser.get(link).status_code == 200
    sqlite_pipeline.clock.advance(timedelta(seconds=1))
    assert browser.post(link).status_code == 410
    assert not sqlite_pipeline.rows(Customer)[0].wants_marketing


def test_confirmation_mails_to_one_address_are_limited_per_hour(
    sqlite_pipeline: PipelineUnderTest, browser: Browser
) -> None:
    for number in range(PER_HOUR["confirm_news"] + 2):
        send(browser, news="yes", name=f"Ada {number}")
    assert len(people(sqlite_pipeline)) == PER_HOUR["confirm_news"] + 2
    assert len(facts(sqlite_pipeline, "news_confirmation")) == PER_HOUR["confirm_news"]


def test_newsletter_link_expires_when_address_changes(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    send(browser, news="yes")
    link = path_of(facts(sqlite_pipeline, "news_confirmation")[0]["page"])
    with sqlite_pipeline.database.transaction() as session:
        links.end_sessions(session, sqlite_pipeline.rows(Customer)[0].id, sqlite_pipeline.now)
    assert browser.post(link).status_code == 410


def test_checkboxes_are_not_preselected(browser: Browser) -> None:
    assert "checked" not in browser.get("/signup").text


def test_repeated_form_creates_one_account_and_subscription(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, paypal: FakePaypalApi
) -> None:
    answers = [send(browser, token="the same") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303] * 3
    assert len({answer.headers["location"] for answer in answers}) == 1
    assert len(people(sqlite_pipeline)) == 1
    assert len(paypal.world.ids("subscription")) == 1
    send(browser, token="the same", name="Ada King")  # a corrected form is a different form
    assert len(people(sqlite_pipeline)) == 2


def test_form_continues_after_paypal_failure(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, paypal: FakePaypalApi
) -> None:
    paypal.misbehave("500", times=1, path="/v1/billing/subscriptions")
    answer = send(browser, token="the same")
    assert answer.status_code == 503
    assert "send the form again in a minute" in answer.text
    assert 'value="the same"' in answer.text
    assert f'value="{ADA.email}"' in answer.text
    assert send(browser, token="the same").status_code == 303
    assert len(people(sqlite_pipeline)) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": ""}, "Please enter your name"),
        ({"email": "unknown"}, "Please enter an e-mail address"),
        ({"email": "ada@example.com\r\nBcc: eve@example.com"}, "Please enter an e-mail address"),
        ({"name": "A" * 101}, "Please enter at most 100 characters"),
        ({"phone": "call me"}, "Please enter a phone number"),
        ({"plan": "Another"}, "Please choose one of the plans"),
        ({"plan": CLOUD.id}, "Please choose one of the plans"),
    ],
)
def test_invalid_field_is_explained_and_nothing_is_stored(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, fields: dict[str, str], words: str
) -> None:
    answer = send(browser, **fields)
    assert answer.status_code == 422
    assert words in answer.text
    [name] = fields
    assert f'aria-describedby="{name}-problem"' in answer.text
    assert is_nothing_stored(sqlite_pipeline)


def test_entered_values_are_escaped(browser: Browser) -> None:
    answer = send(browser, email="unknown", name='"><script>alert(1)</script>')
    assert "<script" not in answer.text
    assert "&#34;&gt;&lt;script&gt;" in answer.text


def test_unknown_field_is_refused_by_name(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    answer = send(browser, birthday="1990-01-01")
    assert answer.status_code == 400
    assert "Unknown: birthday" in answer.text
    assert is_nothing_stored(sqlite_pipeline)


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
def test_invalid_form_body_is_refused(browser: Browser, content: bytes, headers: dict[str, str], status: int) -> None:
    answer = browser.client.post("/signup", content=content, headers=headers)
    assert answer.status_code == status
    assert "<h1>" in answer.text


def test_network_is_limited_to_twenty_sign_ups_an_hour(browser: Browser, sqlite_pipeline: PipelineUnderTest) -> None:
    statuses = [send(browser, token=str(number)).status_code for number in range(PER_HOUR["sign_up"] + 1)]
    assert statuses == [303] * PER_HOUR["sign_up"] + [429]
    assert sqlite_pipeline.count(Customer) == PER_HOUR["sign_up"]


def test_plan_that_paypal_refuses_is_not_called_an_outage(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    """Another attempt gives the same answer, so the page does not ask for one, and the operator is told once a day."""
    answer = send(browser, plan="Gone")
    assert answer.status_code == 422
    assert "This plan cannot be ordered at the moment" in answer.text
    assert "Retry-After" not in answer.headers
    refused = browser.client.post("/api/signup", json={**FILLED, "plan": "Gone"})
    assert (refused.status_code, list(refused.json()["errors"])) == (422, ["plan"])
    [told] = facts(sqlite_pipeline, "sign_up_refused")
    assert (told["plan"], told["plan_id"]) == ("Gone", "P-NOSUCHPLAN")
    assert told["reason"]
    sqlite_pipeline.clock.advance(timedelta(days=1))
    send(browser, plan="Gone")
    assert len(facts(sqlite_pipeline, "sign_up_refused")) == 2


@pytest.mark.parametrize("missing", [{"plans": {}}, {"paypal_client_id": ""}])
def test_sign_up_is_closed_without_paypal_or_plans(sqlite_pipeline: PipelineUnderTest, missing: dict[str, Any]) -> None:
    settings = {"plans": {"Cloud": CLOUD.id}, "paypal_client_id": "app", "paypal_client_secret": "s"} | missing
    container = make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, public_url=PAGES, **settings
    )
    with open_pages(container) as base:
        browser = Browser(base)
        for answer in (browser.get("/signup"), browser.post("/signup", FILLED)):
            assert answer.status_code == 503
            assert "Sign-up is not available yet" in answer.text
        assert browser.client.post("/api/signup", json=FILLED).status_code == 503


def test_return_pages_ignore_paypals_parameters(browser: Browser) -> None:
    assert "Thank you" in browser.get("/signup/done?subscription_id=I-1&ba_token=BA-1&token=x").text
    assert "nothing is charged" in browser.get("/signup/cancelled?token=x").text


# The API


def test_api_creates_account_and_subscription(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    answer = browser.client.post("/api/signup", json=FILLED | {"adult": True, "news": True})
    assert answer.status_code == 201
    assert "/webapps/billing/subscriptions" in answer.json()["approve"]
    assert len(facts(sqlite_pipeline, "news_confirmation")) == 1


def test_idempotency_key_creates_one_account(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    headers = {"Idempotency-Key": "order-1"}
    answers = [browser.client.post("/api/signup", json=FILLED, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(people(sqlite_pipeline)) == 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({**FILLED, "adult": False, "name": ""}, 422, "Some fields are invalid"),
        ({**FILLED, "birthday": "1990-01-01"}, 400, "Unknown: birthday"),
        ([], 400, "not a JSON object"),
    ],
)
def test_api_reports_errors_as_problem_details(browser: Browser, body: object, status: int, words: str) -> None:
    answer = browser.client.post("/api/signup", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.json()["detail"]
    if status == 422:
        assert set(answer.json()["errors"]) == {"name", "adult"}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"name": NaN}', b"[" * 9000])
def test_invalid_json_is_refused(browser: Browser, content: bytes) -> None:
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
def test_form_may_redirect_to_paypals_approval_page_only(api: str, page: str) -> None:
    assert approval_origins(api) == (page,)
