"""Properties of all customer pages: security headers, access log and error pages."""

import re

import pytest
from structlog.testing import capture_logs

from pipeline.app.container import Container
from pipeline.customers import links
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.db.models import AccessLogEntry
from pipeline.web.transactions import Transactions
from tests.support.page_client import ADA, Browser, open_pages, sign_up
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts

PAGES = ["/signup/done", "/signup/cancelled", "/account", "/privacy", "/privacy.txt", "/privacy/evidence"]


@pytest.mark.parametrize("path", [*PAGES, "/signup", "/account/open/x", "/unsubscribe/x", "/pages/style.css"])
def test_headers_forbid_third_party_content_and_referrers(browser: Browser, path: str) -> None:
    headers = browser.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["script-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["form-action"].split()[0] == "'self'"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["strict-transport-security"] == "max-age=31536000"
    assert "camera=()" in headers["permissions-policy"]
    assert "set-cookie" not in headers


@pytest.mark.parametrize("path", ["/account", "/signup", "/account/open/x", "/unsubscribe/x"])
def test_personal_pages_are_not_cached(browser: Browser, path: str) -> None:
    assert browser.get(path).headers["cache-control"] == "no-store"


def test_hsts_is_not_sent_without_tls(sqlite_pipeline: PipelineUnderTest) -> None:
    with open_pages(make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock)) as base:
        assert "strict-transport-security" not in Browser(base).get("/account").headers


def test_access_log_contains_routes_but_no_secrets(sqlite_pipeline: PipelineUnderTest, container: Container) -> None:
    customer_id = sign_up(sqlite_pipeline)
    with sqlite_pipeline.database.transaction() as session:
        secret = links.issue(session, sqlite_pipeline.keyring(session), customer_id, "account", sqlite_pipeline.now)
    with open_pages(container) as base:
        browser = Browser(base, "198.51.100.9")
        for path in (f"/account/open/{secret}", "/privacy/2020-01-01", "/account?note=mails"):
            browser.get(path)
        browser.post(f"/account/open/{secret}")
        browser.get("/healthz")
        browser.post("/webhooks/paypal")
        browser.get("/pages/style.css")
    rows = sqlite_pipeline.rows(AccessLogEntry)
    assert [(row.action, row.status) for row in rows] == [
        ("GET /account/open/{secret}", 200),
        ("GET /privacy/{day}", 404),
        ("GET /account", 200),
        ("POST /account/open/{secret}", 303),
    ]
    with sqlite_pipeline.database.transaction() as session:
        keyring = sqlite_pipeline.keyring(session)
        seen = [keyring.system_key(row.key_id).decrypt_json("access_log.visitor", row.visitor) for row in rows]
    assert seen == [{"address": "198.51.100.9", "browser": "Sample/1.0"}] * 4
    assert secret not in repr([vars(row) for row in rows]) + repr(seen)


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (DatabaseUnavailableError("the database is down"), 503, "Please try again in a minute"),
        (RuntimeError(f"about {ADA.email}"), 500, "Something went wrong on our side"),
    ],
)
def test_error_page_contains_no_personal_data(
    sqlite_pipeline: PipelineUnderTest,
    browser: Browser,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
    status: int,
    words: str,
) -> None:
    async def failing(self: Transactions, work: object) -> None:
        raise fault

    monkeypatch.setattr(Transactions, "run", failing)
    answer = browser.get("/account/open/x")
    assert answer.status_code == status
    assert words in answer.text
    assert ADA.email not in answer.text + "".join(capsys.readouterr())


@pytest.mark.parametrize("path", ["/account/open/a-secret", "/unsubscribe/a-secret"])
def test_internal_error_is_logged_with_route_place_and_the_number_that_the_page_shows(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def failing(self: Transactions, work: object) -> None:
        raise RuntimeError(f"about {ADA.email}")

    monkeypatch.setattr(Transactions, "run", failing)
    with capture_logs() as logs:
        answers = [browser.post(path), browser.post(path)]
    lines = [line for line in logs if line["event"] == "page_failed"]
    assert [answer.status_code for answer in answers] == [500, 500]
    for answer, line in zip(answers, lines, strict=True):
        assert re.fullmatch("[0-9a-f]{10}", line["request_id"])
        assert answer.text.count(line["request_id"]) == 2
        assert (line["method"], line["route"]) == ("POST", path.replace("a-secret", line["route"].rpartition("/")[2]))
        assert re.fullmatch(rf"internal error: RuntimeError at {__name__}:\d+", line["reason"])
    assert lines[0]["request_id"] != lines[1]["request_id"]
    assert not re.search(f"a-secret|{ADA.email}", repr(lines))


def test_policy_is_shown_as_page_and_as_text(browser: Browser) -> None:
    page, text = browser.get("/privacy"), browser.get("/privacy.txt")
    assert "Effective Date: May 1, 2025" in page.text
    assert text.headers["content-type"].startswith("text/plain")
    for section in ("1. Data We Collect", "6. Your Rights", "10. Contact"):
        assert section in text.text
    assert "<h" in page.text
    assert "<h" not in text.text


@pytest.mark.parametrize("day", ["2020-01-01", "x", "%00", "..%2f..%2fetc", "2020-01-01'"])
def test_day_without_policy_is_404(browser: Browser, day: str) -> None:
    answer = browser.get(f"/privacy/{day}")
    assert answer.status_code == 404
    assert "privacy policy" in answer.text or "Page not found" in answer.text


def test_page_has_structure_for_screen_readers(browser: Browser) -> None:
    page = browser.get("/account").text
    assert '<html lang="en">' in page
    assert '<main id="main">' in page
    assert 'href="#main"' in page
    assert page.count("<h1>") == 1
    assert '<label for="email">' in page


@pytest.mark.parametrize(
    ("path", "status"), [("/account/nowhere", 404), ("/unsubscribe/a/b", 404), ("/x", 404), ("/account/delete", 405)]
)
def test_unknown_path_gets_a_page_and_is_logged(
    sqlite_pipeline: PipelineUnderTest, container: Container, path: str, status: int
) -> None:
    with open_pages(container) as base:
        answer = Browser(base).get(path)
    assert (answer.status_code, "Page not found" in answer.text) == (status, True)
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert [(row.action, row.status) for row in sqlite_pipeline.rows(AccessLogEntry)] == [("GET nowhere", status)]
