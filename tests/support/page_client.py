"""HTTP client for the customer pages: sign up, sign in by the mailed link, and submit forms."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.customers import accounts
from pipeline.customers.accounts import SignUpData
from pipeline.db.models import Mail
from pipeline.simulator.server.loopback import serve
from pipeline.web.session import COOKIE
from tests.support.pipeline_under_test import PipelineUnderTest

ADA = SignUpData("Ada Example", "ada@example.com", "Example Works", "+1 555 0100")
FORM = re.compile(r'<form[^>]*action="([^"]+)".*?</form>', re.DOTALL)
TOKEN = re.compile(r'name="token" value="([^"]+)"')


@contextmanager
def open_pages(container: Container) -> Iterator[str]:
    """Serve the web application with all pages, as the web role does. Yield its base URL."""
    with site.serve_pages(container) as (routes, lost), serve(container.web().app(routes, lost)) as base:
        yield base


def sign_up(pipeline: PipelineUnderTest, person: SignUpData = ADA) -> str:
    """Create an account without PayPal, confirm its address, and return the customer's id."""
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        id = accounts.create_account(
            session, keyring, person, adult_text="2026-11", news=False, now=pipeline.now, source="sign-up"
        )
        accounts.confirm_entered_address(session, keyring, id, pipeline.now)
        return id


def facts(pipeline: PipelineUnderTest, kind: str) -> list[dict[str, Any]]:
    """Return the decrypted facts of the mails of this kind, oldest first."""
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        rows = [row for row in pipeline.rows(Mail) if row.kind == kind]
        return [
            keyring.system_key(row.key_id).decrypt_json("mail.facts", row.facts)
            for row in sorted(rows, key=lambda row: row.created_at)
        ]


class Browser:
    """Minimal browser: keeps one cookie, follows no redirect, and sends `Sec-Fetch-Site` like a browser."""

    def __init__(self, base: str, address: str = "192.0.2.7") -> None:
        headers = {
            "Sec-Fetch-Site": "same-origin",
            "X-Forwarded-For": address,
            "User-Agent": "Sample/1.0",
            "Accept": "text/html",
        }
        no_keepalive = httpx.Limits(max_keepalive_connections=0)  # Then no connection must be closed.
        self.client = httpx.Client(
            base_url=base, verify=False, trust_env=False, timeout=30, headers=headers, limits=no_keepalive
        )
        self.cookie = ""

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self._kept(self.client.get(path, headers=self._headers(headers)))

    def post(
        self, path: str, values: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        return self._kept(self.client.post(path, data=dict(values or {}), headers=self._headers(headers)))

    def press(self, form: str, /, **values: str) -> httpx.Response:
        """Submit the account page's form of this name. Return the page after it."""
        shown = next(each for each in FORM.finditer(self.get("/account").text) if each[1] == f"/account/{form}")
        found = TOKEN.search(shown[0])
        assert found
        answer = self.post(shown[1], {"token": found[1], **values})
        return self.get(answer.headers["location"]) if answer.status_code == 303 else answer

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        cookie = {"Cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}
        return {**cookie, **(more or {})}

    def _kept(self, answer: httpx.Response) -> httpx.Response:
        self.client.cookies.clear()  # httpx would not send a Secure cookie over http, but this class does.
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            assert name == COOKIE
            self.cookie = value.strip('"')
        return answer


def links(pipeline: PipelineUnderTest) -> set[str]:
    """Return the URLs of all sign-in links in the outbox."""
    return {each["page"] for each in facts(pipeline, "account_link")}


def path_of(page: str) -> str:
    """Return the path of a URL from a mail."""
    return httpx.URL(page).raw_path.decode()


def sign_in(pipeline: PipelineUnderTest, browser: Browser, email: str = ADA.email) -> None:
    """Request a sign-in link, wait for its mail, open the link and submit its form."""
    known = links(pipeline)
    assert browser.post("/account", {"email": email}).status_code == 200
    wait_for(lambda: links(pipeline) > known)
    [page] = links(pipeline) - known
    link = path_of(page)
    assert browser.get(link).status_code == 200
    assert browser.post(link).status_code == 303


def wait_for(happened: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until `happened` returns true. Raises AssertionError after the timeout."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"the condition was not true within {seconds:g} seconds"
        time.sleep(0.01)
