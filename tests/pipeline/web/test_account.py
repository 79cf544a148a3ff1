"""The account as its owner uses it, over real HTTP: the link by mail, the session, each right, and who is kept out."""

import io
import re
import zipfile
from datetime import timedelta

import pytest

from pipeline.app.container import Container
from pipeline.customers import accounts, links, rate_limit, sign_in
from pipeline.db.models import Consent, Customer, Link, Mail, PrivacyRequest
from pipeline.web.session import COOKIE
from tests.support.page_client import ADA, Browser, facts, open_pages, path_of, sign_up, wait_for
from tests.support.page_client import sign_in as enter
from tests.support.pipeline_under_test import River, make_parts

ACTIONS = ["correct", "mails", "export", "delete", "keep", "sign-out"]


def person(river: River, customer_id: str) -> dict[str, str]:
    with river.database.transaction() as session:
        return accounts.personal_data(session, river.keyring(session), customer_id)


def state(river: River) -> str:
    """Everything that a page could have changed, as one text."""
    tables = (Customer, Consent, Link, Mail, PrivacyRequest)
    return repr([{k: v for k, v in vars(row).items() if k[0] != "_"} for table in tables for row in river.rows(table)])


# The door


def test_a_link_by_mail_opens_the_account(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    page = browser.get("/account").text
    for word in (ADA.name, ADA.email, ADA.company, ADA.phone):
        assert word in page


def test_known_and_unknown_addresses_are_answered_alike(brook: River, browser: Browser, ada: str) -> None:
    known = browser.post("/account", {"email": ADA.email})
    unknown = browser.post("/account", {"email": "nobody@example.com"})
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text) == (200, known.text)
    volatile = {"date"}
    told = [{k: v for k, v in each.headers.items() if k not in volatile} for each in (known, unknown)]
    assert told[0] == told[1]
    wait_for(lambda: bool(facts(brook, "account_link")))
    assert [row.customer_id for row in brook.rows(Mail)] == [ada]


def test_nothing_is_looked_up_before_the_answer(
    container: Container, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no clock tells whether an address is known: the answer is the same code for both, and found later."""
    asked: list[str] = []

    def ask(_: sign_in.SignInLinkSender, email: str) -> bool:
        asked.append(email)
        return True

    monkeypatch.setattr(sign_in.SignInLinkSender, "start", lambda self: None)
    monkeypatch.setattr(sign_in.SignInLinkSender, "stop", lambda self: None)
    monkeypatch.setattr(accounts, "find_by_email", lambda *_: pytest.fail("looked up while somebody waits"))
    monkeypatch.setattr(sign_in.SignInLinkSender, "send_later", ask)
    with open_pages(container) as base:
        assert Browser(base).post("/account", {"email": ADA.email}).status_code == 200
    assert asked == [ADA.email]


def test_an_address_gets_three_links_an_hour(brook: River, browser: Browser, ada: str) -> None:
    for _ in range(5):
        assert browser.post("/account", {"email": ADA.email}).status_code == 200
    browser.post("/account", {"email": "BOB@example.com"})
    with brook.database.transaction() as session:
        sign_in.send_links(session, brook.keyring(session), "other@example.com", brook.now, "https://e.com")
    wait_for(lambda: len(facts(brook, "account_link")) == 3)


def test_a_line_is_told_to_wait_after_twenty_questions(browser: Browser, base: str) -> None:
    statuses = [browser.post("/account", {"email": f"{n}@example.com"}).status_code for n in range(22)]
    assert statuses == [200] * rate_limit.PER_HOUR["ask_for_link"] + [429] * 2
    assert Browser(base, "198.51.100.1").post("/account", {"email": ADA.email}).status_code == 200


@pytest.mark.parametrize("email", ["", "nobody", "a b@example.com", "ada@example.com\r\nBcc: eve@example.com"])
def test_what_is_no_address_is_told_so(browser: Browser, email: str) -> None:
    answer = browser.post("/account", {"email": email})
    assert answer.status_code == 422
    assert "Please give your e-mail address" in answer.text


def test_to_look_at_a_link_changes_nothing_and_the_button_serves_once(
    brook: River, base: str, browser: Browser, ada: str
) -> None:
    browser.post("/account", {"email": ADA.email})
    wait_for(lambda: bool(facts(brook, "account_link")))
    link, before = path_of(facts(brook, "account_link")[0]["page"]), state(brook)
    for _ in range(3):
        assert browser.get(link).status_code == 200
        assert browser.client.head(link).status_code == 200
    assert state(brook) == before
    assert browser.cookie == ""
    assert browser.post(link).status_code == 303
    other = Browser(base)
    assert (other.get(link).status_code, other.post(link).status_code) == (410, 410)
    assert other.cookie == ""


def test_a_link_of_one_purpose_serves_no_other(brook: River, browser: Browser, ada: str) -> None:
    with brook.database.transaction() as session:
        secret = links.issue(session, brook.keyring(session), ada, "export", brook.now)
    for path in ("/account/open/", "/account/confirm/", "/account/keep/"):
        assert browser.get(path + secret).status_code == 410
        assert browser.post(path + secret).status_code == 410
    browser.cookie = secret
    assert "Send me a link" in browser.get("/account").text
    assert browser.get("/account/export/" + secret).status_code == 200


# The session


def test_the_cookie_is_bound_to_the_host_and_out_of_reach(brook: River, browser: Browser, ada: str) -> None:
    browser.post("/account", {"email": ADA.email})
    wait_for(lambda: bool(facts(brook, "account_link")))
    answer = browser.post(path_of(facts(brook, "account_link")[0]["page"]))
    [given] = answer.headers.get_list("set-cookie")
    parts = {part.strip().lower() for part in given.split(";")[1:]}
    assert given.startswith("__Host-session=")
    assert parts == {"httponly", "secure", "samesite=lax", "path=/", "max-age=1800"}
    assert browser.cookie not in repr([vars(row) for row in brook.rows(Link)])


def test_a_session_ends_after_half_an_hour(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    brook.clock.advance(timedelta(minutes=29))
    assert ADA.email in browser.get("/account").text
    brook.clock.advance(timedelta(minutes=1))
    assert ADA.email not in browser.get("/account").text


def test_signing_out_ends_the_session_also_for_who_kept_its_cookie(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    kept = browser.cookie
    browser.press("sign-out")
    assert browser.cookie == ""
    browser.cookie = kept
    assert ADA.email not in browser.get("/account").text


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_done_for_who_is_not_signed_in_or_brings_another_forms_token(
    brook: River, browser: Browser, ada: str, action: str
) -> None:
    assert browser.post(f"/account/{action}", {"token": "x"}).status_code == 403
    enter(brook, browser)
    before = state(brook)
    other = sign_in.csrf_token(browser.cookie, "/account/another")
    for token in ("", "x", "é", other):
        assert browser.post(f"/account/{action}", {"token": token}).status_code == 403
    assert state(brook) == before


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])
def test_another_sites_form_is_refused(brook: River, browser: Browser, ada: str, headers: dict[str, str]) -> None:
    enter(brook, browser)
    token = sign_in.csrf_token(browser.cookie, "/account/delete")
    assert browser.post("/account/delete", {"token": token}, headers).status_code == 403
    assert brook.rows(PrivacyRequest) == []


@pytest.mark.parametrize(
    ("origin", "status"), [("https://billing.example.com", 422), ("https://evil.example.com", 403), ("null", 422)]
)
def test_a_browser_without_fetch_metadata_is_judged_by_its_origin(browser: Browser, origin: str, status: int) -> None:
    del browser.client.headers["sec-fetch-site"]
    assert browser.post("/account", {"email": "x"}, {"Origin": origin}).status_code == status


# Rights


def test_a_correction_holds_at_once(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    page = browser.press("correct", name="Ada King", email=ADA.email, company="", phone="+44 20 7946 0000")
    assert "Your data are corrected" in page.text
    assert person(brook, ada)["name"] == "Ada King"
    assert person(brook, ada).get("company", "") == ""
    assert "nothing to change" in browser.press("correct", name="Ada King", email=ADA.email, company="").text


def test_a_correction_that_cannot_be_kept_is_told_and_changes_nothing(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    answer = browser.press("correct", name="Ada King", email="nobody", company="", phone="")
    assert answer.status_code == 422
    assert "e-mail address" in answer.text
    assert person(brook, ada)["name"] == ADA.name


def test_a_new_address_counts_when_its_mailbox_confirms_it(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    said = {"name": ADA.name, "company": ADA.company, "phone": ADA.phone, "email": "ada@new.example.com"}
    assert "on its way to the new address" in browser.press("correct", **said).text
    assert person(brook, ada)["email"] == ADA.email
    (asked,) = [each for each in facts(brook, "account_link") if each["confirms"]]
    assert asked["_to"] == "ada@new.example.com"
    link = path_of(asked["page"])
    assert browser.get(link).status_code == 200
    assert person(brook, ada)["email"] == ADA.email
    assert browser.post(link).status_code == 200
    assert person(brook, ada)["email"] == "ada@new.example.com"
    assert {each["_to"]: each["is_old"] for each in facts(brook, "email_changed")} == {
        ADA.email: True,
        "ada@new.example.com": False,
    }
    assert "Send me a link" in browser.get("/account").text  # all sessions ended
    assert browser.post(link).status_code == 410


def test_what_the_old_mailbox_holds_opens_nothing_once_the_address_is_another(
    brook: River, browser: Browser, ada: str
) -> None:
    enter(brook, browser)
    browser.press("export")
    said = {"name": ADA.name, "company": ADA.company, "phone": ADA.phone}
    browser.press("correct", **said, email="ada@wrong.example.com")
    browser.press("correct", **said, email="ada@new.example.com")
    links = {each["_to"]: path_of(each["page"]) for each in facts(brook, "account_link") if each["confirms"]}
    assert browser.post(links["ada@new.example.com"]).status_code == 200
    assert browser.post(links["ada@wrong.example.com"]).status_code == 410
    assert browser.post(path_of(facts(brook, "data_export_ready")[0]["page"])).status_code == 410
    assert person(brook, ada)["email"] == "ada@new.example.com"


def test_choices_of_mail_are_noted_with_time_and_source(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    browser.press("mails", marketing="yes")
    [row] = brook.rows(Customer)
    assert (row.wants_marketing, row.wants_service_mail) == (True, False)
    noted = {(each.kind, each.given, each.source) for each in brook.rows(Consent) if each.source != "sign-up"}
    assert noted == {("marketing", True, "account page"), ("service", False, "account page")}


def test_a_copy_of_everything_is_fetched_by_a_link_once(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    assert "link to your data" in browser.press("export").text
    [ready] = facts(brook, "data_export_ready")
    link = path_of(ready["page"])
    assert browser.get(link).status_code == 200
    answer = browser.post(link)
    assert answer.headers["content-type"] == "application/zip"
    assert "attachment" in answer.headers["content-disposition"]
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert {"index.html", "data.json"} <= set(names)
    assert browser.post(link).status_code == 410
    assert [(row.kind, row.state) for row in brook.rows(PrivacyRequest)] == [("access", "done")]


def test_copies_are_offered_a_few_times_an_hour(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    for _ in range(3):
        browser.press("export")
    assert "several links" in browser.press("export").text
    assert len(facts(brook, "data_export_ready")) == 3


def test_a_product_that_is_away_does_not_use_the_link_up(brook: River, ada: str) -> None:
    parts = make_parts(
        brook.url, brook.folder, brook.clock, public_url="https://billing.example.com", product_command="false"
    )
    with open_pages(parts) as base:
        browser = Browser(base)
        with brook.database.transaction() as session:
            secret = links.issue(session, brook.keyring(session), ada, "export", brook.now)
        answer = browser.post(f"/account/export/{secret}")
        assert (answer.status_code, "try this link again" in answer.text) == (503, True)
        assert browser.get(f"/account/export/{secret}").status_code == 200


def test_a_deletion_waits_and_can_be_called_off_by_link_and_on_the_page(
    brook: River, browser: Browser, ada: str
) -> None:
    enter(brook, browser)
    assert "deletion of your account is scheduled" in browser.press("delete").text
    page = browser.get("/account").text
    assert re.search(r"will be deleted on March \d, 2026", page)
    assert 'action="/account/delete"' not in page
    assert "Your account stays" in browser.press("keep").text
    assert brook.rows(Customer)[0].erase_at is None

    brook.clock.advance(timedelta(minutes=1))
    browser.press("delete")
    link = path_of(facts(brook, "account_deletion_scheduled")[-1]["cancel"])
    assert browser.get(link).status_code == 200
    assert brook.rows(Customer)[0].erase_at is not None
    assert "Your account stays" in Browser(str(browser.client.base_url)).post(link).text
    assert brook.rows(Customer)[0].erase_at is None
    assert browser.post(link).status_code == 410


def test_an_erased_customers_session_is_over(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    brook.set(brook.rows(Customer)[0], erased_at=brook.now)
    assert "Send me a link" in browser.get("/account").text


def test_two_accounts_with_one_address_each_get_a_link(brook: River, browser: Browser, ada: str) -> None:
    other = sign_up(brook)
    assert other != ada
    browser.post("/account", {"email": ADA.email.upper()})
    wait_for(lambda: len(facts(brook, "account_link")) == 2)
    assert {row.customer_id for row in brook.rows(Mail)} == {ada, other}


def test_the_cookie_of_another_name_is_none_of_ours(brook: River, browser: Browser, ada: str) -> None:
    enter(brook, browser)
    assert ADA.email not in browser.client.get("/account", headers={"Cookie": f"session={browser.cookie}"}).text
    assert ADA.email in browser.client.get("/account", headers={"Cookie": f"{COOKIE}={browser.cookie}"}).text


def test_who_asks_is_counted_by_neighbourhood(brook: River) -> None:
    with brook.database.transaction() as session:
        keyring = brook.keyring(session)
        for number in range(rate_limit.PER_HOUR["ask_for_link"]):
            assert sign_in.may_ask(session, keyring, f"2001:db8::{number}", brook.now)
        assert not sign_in.may_ask(session, keyring, "2001:db8::ffff", brook.now)
        assert rate_limit.client_network("2001:db8::1") == "2001:db8::"
