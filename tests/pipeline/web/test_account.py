"""Account page over real HTTP: sign-in by mail, sessions, data-subject rights and access control."""

import io
import re
import zipfile
from datetime import timedelta
from typing import Any

import pytest

from pipeline.app.container import Container
from pipeline.customers import accounts, links, rate_limit, sign_in
from pipeline.db.models import Consent, Customer, Dispute, Link, Mail, Payment, PrivacyRequest, Subscription
from pipeline.web.session import COOKIE
from tests.support.page_client import ADA, Browser, facts, open_pages, path_of, sign_up, wait_for
from tests.support.page_client import sign_in as open_session
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts

ACTIONS = ["correct", "mails", "export", "delete", "keep", "sign-out"]


def person(pipeline: PipelineUnderTest, customer_id: str) -> dict[str, str]:
    with pipeline.database.transaction() as session:
        return accounts.personal_data(session, pipeline.keyring(session), customer_id)


def state(pipeline: PipelineUnderTest) -> str:
    """Return all rows that a page can change, as one text."""
    tables = (Customer, Consent, Link, Mail, PrivacyRequest)
    return repr(
        [{k: v for k, v in vars(row).items() if k[0] != "_"} for table in tables for row in pipeline.rows(table)]
    )


# Sign-in


def test_sign_in_link_opens_account(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    page = browser.get("/account").text
    for word in (ADA.name, ADA.email, ADA.company, ADA.phone):
        assert word in page


def test_known_and_unknown_addresses_get_the_same_response(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    known = browser.post("/account", {"email": ADA.email})
    unknown = browser.post("/account", {"email": "unknown@example.com"})
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text) == (200, known.text)
    volatile = {"date"}
    headers = [{k: v for k, v in each.headers.items() if k not in volatile} for each in (known, unknown)]
    assert headers[0] == headers[1]
    wait_for(lambda: bool(facts(sqlite_pipeline, "account_link")))
    assert [row.customer_id for row in sqlite_pipeline.rows(Mail)] == [ada]


def test_address_is_looked_up_after_the_response(
    container: Container, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response time must not reveal whether an address is known, so the look-up happens after the response."""
    requested: list[str] = []

    def send_later(_: sign_in.SignInLinkSender, email: str) -> bool:
        requested.append(email)
        return True

    monkeypatch.setattr(sign_in.SignInLinkSender, "start", lambda self: None)
    monkeypatch.setattr(sign_in.SignInLinkSender, "stop", lambda self: None)
    monkeypatch.setattr(
        accounts, "find_by_email", lambda *_: pytest.fail("the address was looked up before the response")
    )
    monkeypatch.setattr(sign_in.SignInLinkSender, "send_later", send_later)
    with open_pages(container) as base:
        assert Browser(base).post("/account", {"email": ADA.email}).status_code == 200
    assert requested == [ADA.email]


def test_address_gets_three_links_an_hour(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    for _ in range(5):
        assert browser.post("/account", {"email": ADA.email}).status_code == 200
    browser.post("/account", {"email": "BOB@example.com"})
    with sqlite_pipeline.database.transaction() as session:
        sign_in.send_links(
            session, sqlite_pipeline.keyring(session), "other@example.com", sqlite_pipeline.now, "https://e.com"
        )
    wait_for(lambda: len(facts(sqlite_pipeline, "account_link")) == 3)


def test_network_is_limited_to_twenty_requests_an_hour(browser: Browser, base: str) -> None:
    statuses = [browser.post("/account", {"email": f"{n}@example.com"}).status_code for n in range(22)]
    assert statuses == [200] * rate_limit.PER_HOUR["ask_for_link"] + [429] * 2
    assert Browser(base, "198.51.100.1").post("/account", {"email": ADA.email}).status_code == 200


@pytest.mark.parametrize("email", ["", "unknown", "a b@example.com", "ada@example.com\r\nBcc: eve@example.com"])
def test_invalid_address_is_refused(browser: Browser, email: str) -> None:
    answer = browser.post("/account", {"email": email})
    assert answer.status_code == 422
    assert "Please enter your e-mail address" in answer.text


def test_opening_link_changes_nothing_and_its_button_works_once(
    sqlite_pipeline: PipelineUnderTest, base: str, browser: Browser, ada: str
) -> None:
    browser.post("/account", {"email": ADA.email})
    wait_for(lambda: bool(facts(sqlite_pipeline, "account_link")))
    link, before = path_of(facts(sqlite_pipeline, "account_link")[0]["page"]), state(sqlite_pipeline)
    for _ in range(3):
        assert browser.get(link).status_code == 200
        assert browser.client.head(link).status_code == 200
    assert state(sqlite_pipeline) == before
    assert browser.cookie == ""
    assert browser.post(link).status_code == 303
    other = Browser(base)
    assert (other.get(link).status_code, other.post(link).status_code) == (410, 410)
    assert other.cookie == ""


def test_link_works_for_its_purpose_only(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    with sqlite_pipeline.database.transaction() as session:
        secret = links.issue(session, sqlite_pipeline.keyring(session), ada, "export", sqlite_pipeline.now)
    for path in ("/account/open/", "/account/confirm/", "/account/keep/"):
        assert browser.get(path + secret).status_code == 410
        assert browser.post(path + secret).status_code == 410
    browser.cookie = secret
    assert "E-mail me a sign-in link" in browser.get("/account").text
    assert browser.get("/account/export/" + secret).status_code == 200


# The session


def test_cookie_is_bound_to_host_and_hidden_from_scripts(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    browser.post("/account", {"email": ADA.email})
    wait_for(lambda: bool(facts(sqlite_pipeline, "account_link")))
    answer = browser.post(path_of(facts(sqlite_pipeline, "account_link")[0]["page"]))
    [cookie] = answer.headers.get_list("set-cookie")
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert cookie.startswith("__Host-session=")
    assert parts == {"httponly", "secure", "samesite=lax", "path=/", "max-age=1800"}
    assert browser.cookie not in repr([vars(row) for row in sqlite_pipeline.rows(Link)])


def test_session_ends_after_thirty_minutes(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    sqlite_pipeline.clock.advance(timedelta(minutes=29))
    assert ADA.email in browser.get("/account").text
    sqlite_pipeline.clock.advance(timedelta(minutes=1))
    assert ADA.email not in browser.get("/account").text


def test_sign_out_invalidates_a_copied_cookie(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    kept = browser.cookie
    browser.press("sign-out")
    assert browser.cookie == ""
    browser.cookie = kept
    assert ADA.email not in browser.get("/account").text


@pytest.mark.parametrize("action", ACTIONS)
def test_action_requires_session_and_the_token_of_its_form(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str, action: str
) -> None:
    assert browser.post(f"/account/{action}", {"token": "x"}).status_code == 403
    open_session(sqlite_pipeline, browser)
    before = state(sqlite_pipeline)
    other = sign_in.csrf_token(browser.cookie, "/account/another")
    for token in ("", "x", "é", other):
        assert browser.post(f"/account/{action}", {"token": token}).status_code == 403
    assert state(sqlite_pipeline) == before


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])
def test_form_of_another_site_is_refused(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str, headers: dict[str, str]
) -> None:
    open_session(sqlite_pipeline, browser)
    token = sign_in.csrf_token(browser.cookie, "/account/delete")
    assert browser.post("/account/delete", {"token": token}, headers).status_code == 403
    assert sqlite_pipeline.rows(PrivacyRequest) == []


@pytest.mark.parametrize(
    ("origin", "status"), [("https://billing.example.com", 422), ("https://evil.example.com", 403), ("null", 403)]
)
def test_origin_is_checked_without_fetch_metadata(browser: Browser, origin: str, status: int) -> None:
    del browser.client.headers["sec-fetch-site"]
    assert browser.post("/account", {"email": "x"}, {"Origin": origin}).status_code == status


# Rights


def test_correction_takes_effect_immediately(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    page = browser.press("correct", name="Ada King", email=ADA.email, company="", phone="+44 20 7946 0000")
    assert "Your details have been saved" in page.text
    assert person(sqlite_pipeline, ada)["name"] == "Ada King"
    assert person(sqlite_pipeline, ada).get("company", "") == ""
    assert "You made no changes" in browser.press("correct", name="Ada King", email=ADA.email, company="").text


def test_invalid_correction_is_refused_and_changes_nothing(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    open_session(sqlite_pipeline, browser)
    answer = browser.press("correct", name="Ada King", email="unknown", company="", phone="")
    assert answer.status_code == 422
    assert "e-mail address" in answer.text
    assert person(sqlite_pipeline, ada)["name"] == ADA.name


def test_new_address_takes_effect_after_confirmation(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    open_session(sqlite_pipeline, browser)
    fields = {"name": ADA.name, "company": ADA.company, "phone": ADA.phone, "email": "ada@new.example.com"}
    assert "a confirmation link to your new address" in browser.press("correct", **fields).text
    assert person(sqlite_pipeline, ada)["email"] == ADA.email
    (confirmation,) = [each for each in facts(sqlite_pipeline, "account_link") if each["confirms"]]
    assert confirmation["_to"] == "ada@new.example.com"
    link = path_of(confirmation["page"])
    assert browser.get(link).status_code == 200
    assert person(sqlite_pipeline, ada)["email"] == ADA.email
    assert "previous address" in browser.post(link).text
    assert person(sqlite_pipeline, ada)["email"] == ADA.email
    (asked,) = facts(sqlite_pipeline, "email_change_requested")
    assert asked["_to"] == ADA.email
    assert browser.post(path_of(asked["approve"])).status_code == 200
    assert person(sqlite_pipeline, ada)["email"] == "ada@new.example.com"
    assert [row.email_change_at for row in sqlite_pipeline.rows(Customer)] == [None]
    assert {each["_to"]: each["is_old"] for each in facts(sqlite_pipeline, "email_changed")} == {
        ADA.email: True,
        "ada@new.example.com": False,
    }
    assert "E-mail me a sign-in link" in browser.get("/account").text  # all sessions ended
    assert browser.post(link).status_code == 410


def test_links_to_old_address_expire_when_address_changes(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    open_session(sqlite_pipeline, browser)
    browser.press("export")
    fields = {"name": ADA.name, "company": ADA.company, "phone": ADA.phone}
    browser.press("correct", **fields, email="ada@wrong.example.com")
    browser.press("correct", **fields, email="ada@new.example.com")
    links = {each["_to"]: path_of(each["page"]) for each in facts(sqlite_pipeline, "account_link") if each["confirms"]}
    assert browser.post(links["ada@new.example.com"]).status_code == 200
    assert browser.post(path_of(facts(sqlite_pipeline, "email_change_requested")[0]["approve"])).status_code == 200
    assert browser.post(links["ada@wrong.example.com"]).status_code == 410
    assert browser.post(path_of(facts(sqlite_pipeline, "data_export_ready")[0]["page"])).status_code == 410
    assert person(sqlite_pipeline, ada)["email"] == "ada@new.example.com"


def test_mail_choices_are_recorded_with_source(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    browser.press("mails", marketing="yes")
    [row] = sqlite_pipeline.rows(Customer)
    assert (row.wants_marketing, row.wants_service_mail) == (True, False)
    recorded = {
        (each.kind, each.given, each.source) for each in sqlite_pipeline.rows(Consent) if each.source != "sign-up"
    }
    assert recorded == {("marketing", True, "account page"), ("service", False, "account page")}


def test_export_link_can_be_used_once(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    assert "link to your data" in browser.press("export").text
    [ready] = facts(sqlite_pipeline, "data_export_ready")
    link = path_of(ready["page"])
    assert browser.get(link).status_code == 200
    answer = browser.post(link)
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert {"index.html", "data.json"} <= set(names)
    assert browser.post(link).status_code == 410
    assert [(row.kind, row.state) for row in sqlite_pipeline.rows(PrivacyRequest)] == [("access", "done")]


def test_export_links_are_limited_per_hour(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    for _ in range(3):
        browser.press("export")
    assert "several links" in browser.press("export").text
    assert len(facts(sqlite_pipeline, "data_export_ready")) == 3


def test_export_link_stays_usable_when_product_is_down(sqlite_pipeline: PipelineUnderTest, ada: str) -> None:
    container = make_parts(
        sqlite_pipeline.url,
        sqlite_pipeline.folder,
        sqlite_pipeline.clock,
        public_url="https://billing.example.com",
        product_command="false",
    )
    with open_pages(container) as base:
        browser = Browser(base)
        with sqlite_pipeline.database.transaction() as session:
            secret = links.issue(session, sqlite_pipeline.keyring(session), ada, "export", sqlite_pipeline.now)
        answer = browser.post(f"/account/export/{secret}")
        assert (answer.status_code, "try this link again" in answer.text) == (503, True)
        assert browser.get(f"/account/export/{secret}").status_code == 200


def test_deletion_can_be_cancelled_by_link_and_on_page(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    open_session(sqlite_pipeline, browser)
    assert "account is scheduled for deletion" in browser.press("delete").text
    page = browser.get("/account").text
    assert re.search(r"will be deleted on March \d, 2026", page)
    assert 'action="/account/delete"' not in page
    assert "Your account stays" in browser.press("keep").text
    assert sqlite_pipeline.rows(Customer)[0].erase_at is None

    sqlite_pipeline.clock.advance(timedelta(minutes=1))
    browser.press("delete")
    link = path_of(facts(sqlite_pipeline, "account_deletion_scheduled")[-1]["cancel"])
    assert browser.get(link).status_code == 200
    assert sqlite_pipeline.rows(Customer)[0].erase_at is not None
    assert "Your account stays" in Browser(str(browser.client.base_url)).post(link).text
    assert sqlite_pipeline.rows(Customer)[0].erase_at is None
    assert browser.post(link).status_code == 410


def test_session_ends_when_customer_is_erased(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    sqlite_pipeline.set(sqlite_pipeline.rows(Customer)[0], erased_at=sqlite_pipeline.now)
    assert "E-mail me a sign-in link" in browser.get("/account").text


def test_each_account_with_the_address_gets_a_link(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    other = sign_up(sqlite_pipeline)
    assert other != ada
    browser.post("/account", {"email": ADA.email.upper()})
    wait_for(lambda: len(facts(sqlite_pipeline, "account_link")) == 2)
    assert {row.customer_id for row in sqlite_pipeline.rows(Mail)} == {ada, other}


def test_cookie_with_another_name_is_ignored(sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str) -> None:
    open_session(sqlite_pipeline, browser)
    assert ADA.email not in browser.client.get("/account", headers={"Cookie": f"session={browser.cookie}"}).text
    assert ADA.email in browser.client.get("/account", headers={"Cookie": f"{COOKIE}={browser.cookie}"}).text


def test_ipv6_addresses_are_limited_by_network(sqlite_pipeline: PipelineUnderTest) -> None:
    with sqlite_pipeline.database.transaction() as session:
        keyring = sqlite_pipeline.keyring(session)
        for number in range(rate_limit.PER_HOUR["ask_for_link"]):
            assert sign_in.may_ask(session, keyring, f"2001:db8::{number}", sqlite_pipeline.now)
        assert not sign_in.may_ask(session, keyring, "2001:db8::ffff", sqlite_pipeline.now)
        assert rate_limit.client_network("2001:db8::1") == "2001:db8::/64"


# Subscriptions


@pytest.mark.parametrize(("status", "words"), [
    ("ACTIVE", "Check your payment method in PayPal"),
    ("SUSPENDED", "and we reactivate your subscription"),
    ("CANCELLED", "so that we can settle the open balance with you"),
])  # fmt: skip
def test_page_says_what_is_past_due_and_what_to_do(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str, status: str, words: str
) -> None:
    since = sqlite_pipeline.now - timedelta(days=9)
    add_subscription(sqlite_pipeline, ada, status, past_due_at=since, outstanding=2900, outstanding_currency="EUR")
    open_session(sqlite_pipeline, browser)
    page = " ".join(browser.get("/account").text.split())
    assert f"past due since {since:%B} {since.day}, {since.year}" in page
    assert "<dt>Open balance</dt><dd>€29.00</dd>" in page
    assert words in page


def test_page_of_paying_customer_mentions_no_arrears(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, ada: str
) -> None:
    tomorrow = sqlite_pipeline.now + timedelta(days=1)
    add_subscription(sqlite_pipeline, ada, "ACTIVE", past_due_at=tomorrow, outstanding=0, outstanding_currency="EUR")
    open_session(sqlite_pipeline, browser)
    page = browser.get("/account").text.lower()
    assert "past due" not in page
    assert "open balance" not in page


@pytest.mark.parametrize(("pauses", "words"), [
    (False, "You keep your access until PayPal has decided"),
    (True, "Your access is paused until PayPal has decided"),
])  # fmt: skip
def test_page_says_what_a_dispute_changes(
    sqlite_pipeline: PipelineUnderTest, ada: str, pauses: bool, words: str
) -> None:
    since = sqlite_pipeline.now - timedelta(days=2)
    add_subscription(sqlite_pipeline, ada, "ACTIVE")
    with sqlite_pipeline.database.transaction() as session:
        session.add(Payment(id="SALE", known={}, subscription_id="I-ADA", refunded=0))
        session.add(Dispute(id="PP-D-1", known={}, payment_id="SALE", opened_at=since))
    container = make_parts(
        sqlite_pipeline.url,
        sqlite_pipeline.folder,
        sqlite_pipeline.clock,
        public_url="https://billing.example.com",
        dispute_pauses_access=pauses,
    )
    with open_pages(container) as base:
        browser = Browser(base)
        open_session(sqlite_pipeline, browser)
        page = " ".join(browser.get("/account").text.split())
    assert f"disputed at PayPal since {since:%B} {since.day}, {since.year}. {words}." in page


def add_subscription(pipeline: PipelineUnderTest, customer_id: str, status: str, **columns: Any) -> None:
    with pipeline.database.transaction() as session:
        session.add(
            Subscription(
                id="I-ADA",
                known={},
                status=status,
                customer_id=customer_id,
                created_at=pipeline.now,
                is_established=True,
                **columns,
            )
        )
