"""Unsubscribe without sign-in: one click in a mail program (RFC 8058), and the button of the page."""

from collections.abc import Callable

import pytest

from pipeline.db.models import Consent, Customer
from pipeline.outbox import store as outbox
from pipeline.outbox import tokens
from pipeline.outbox.store import NewMail
from tests.support.page_client import Browser, sign_up
from tests.support.pipeline_under_test import PipelineUnderTest


def link(pipeline: PipelineUnderTest, kind: str = "product_news") -> str:
    """Return the unsubscribe link of a mail to a customer who has opted in."""
    id = sign_up(pipeline)
    pipeline.set(pipeline.rows(Customer)[0], wants_marketing=True)
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        [mail] = outbox.enqueue(session, keyring, [NewMail(kind, f"{kind}:1", None, {}, customer_id=id)], pipeline.now)
        return f"/unsubscribe/{tokens.unsubscribe_token(keyring, mail)}"


def opt_outs(pipeline: PipelineUnderTest) -> list[tuple[str, bool, str]]:
    return [(each.kind, each.given, each.source) for each in pipeline.rows(Consent) if each.source != "sign-up"]


def test_one_click_works_without_cookie_origin_or_redirect(
    sqlite_pipeline: PipelineUnderTest, browser: Browser
) -> None:
    path = link(sqlite_pipeline)
    del browser.client.headers["sec-fetch-site"]
    answer = browser.post(path, {"List-Unsubscribe": "One-Click"}, {"Origin": "https://mail.example.com"})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    assert not sqlite_pipeline.rows(Customer)[0].wants_marketing
    assert opt_outs(sqlite_pipeline) == [("marketing", False, "one-click")]


def test_opening_the_link_changes_nothing_but_the_button_does(
    sqlite_pipeline: PipelineUnderTest, browser: Browser
) -> None:
    path = link(sqlite_pipeline)
    for _ in range(3):
        assert browser.get(path).status_code == 200
        browser.client.head(path)
    assert sqlite_pipeline.rows(Customer)[0].wants_marketing
    assert "You are unsubscribed" in browser.post(path).text
    assert opt_outs(sqlite_pipeline) == [("marketing", False, "page")]
    assert browser.post(path).status_code == 200  # repeating it changes nothing
    assert not sqlite_pipeline.rows(Customer)[0].wants_marketing


def with_another_last_character(path: str) -> str:
    return path[:-1] + ("x" if path[-1] != "x" else "y")


@pytest.mark.parametrize("change", [with_another_last_character, lambda path: path + "a", lambda _: "/unsubscribe/x"])
def test_forged_link_changes_nothing(
    sqlite_pipeline: PipelineUnderTest, browser: Browser, change: Callable[[str], str]
) -> None:
    path = change(link(sqlite_pipeline))
    assert browser.get(path).status_code == 410
    assert browser.post(path, {"List-Unsubscribe": "One-Click"}).status_code == 410
    assert sqlite_pipeline.rows(Customer)[0].wants_marketing


def test_transactional_mail_cannot_be_declined(sqlite_pipeline: PipelineUnderTest, browser: Browser) -> None:
    path = link(sqlite_pipeline, "account_link")
    assert browser.post(path, {"List-Unsubscribe": "One-Click"}).status_code == 410
    assert opt_outs(sqlite_pipeline) == []
