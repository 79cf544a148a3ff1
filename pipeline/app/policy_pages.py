"""The pages as the policy checks see them: as a visitor and as a signed-in customer, with the answers to the sign-in.

They are requested from a copy of the web application with an empty database of its own. So a check leaves no visits and no
sessions in the data that it judges. The texts of the policy are copied, because a check compares their dates.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.orm import make_transient
from starlette.applications import Starlette
from starlette.routing import Route

from pipeline.app.container import Container
from pipeline.app.site import serve_pages
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links
from pipeline.customers.accounts import SignUpData
from pipeline.db import migrations
from pipeline.db.models import Policy
from pipeline.policy.evidence.live_system import FetchedPage
from pipeline.settings import SettingsError

VISITOR = SignUpData(name="Policy Check", email="policy-check@example.com")
MINUTES = 5  # the link and the session of the invented customer


def fetch_pages(container: Container) -> list[FetchedPage]:
    """Return all pages. Empty if the web role is not configured."""
    try:
        container.web()
    except SettingsError:
        return []
    with _copy_of(container) as copy, serve_pages(copy) as (routes, _), ThreadPoolExecutor(1) as thread:
        link = _sign_in_link(copy)
        # The caller's thread may run an event loop already.
        return thread.submit(asyncio.run, _fetch_all(copy.web().app(routes), link)).result()


@contextmanager
def _copy_of(container: Container) -> Iterator[Container]:
    """Yield a container with the same settings and an empty SQLite database in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="smt-policy-") as folder:
        own = {"data_dir": Path(folder), "database_url": "", "broker_url": "memory://", "master_key_file": None}
        copy = Container(container.settings.model_copy(update=own), container.handlers, container.clock)
        migrations.upgrade(copy.database)
        try:
            _copy_texts(container, copy)
            yield copy
        finally:
            copy.database.close()


def _copy_texts(container: Container, copy: Container) -> None:
    with container.database.reading() as session:
        texts = list(session.execute(select(Policy)).scalars())
        for text in texts:
            make_transient(text)
    with copy.database.transaction() as session:
        session.add_all(texts)


def _sign_in_link(copy: Container) -> str:
    """Create an invented customer, and return the path of a sign-in link."""
    with copy.database.transaction() as session:
        now = copy.clock.now()
        keyring = Keyring(copy.master_key, session, now)
        id = accounts.create_account(
            session, keyring, VISITOR, adult_text="check", news=False, now=now, source="sign-up"
        )
        secret = links.issue(session, keyring, id, "account", now, minutes=MINUTES)
    return urlsplit(links.url(copy.settings.pages_url, "account", secret)).path


async def _fetch_all(app: Starlette, link: str) -> list[FetchedPage]:
    routes = [route for route in app.routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    paths = [route.path for route in routes if "{" not in route.path]
    pages = [await _fetch(app, path) for path in paths]
    pages += [await _fetch(app, link), signed_in := await _fetch(app, link, method="POST")]
    cookie = "; ".join(_cookies(signed_in))
    return pages + [await _fetch(app, path, cookie=cookie) for path in paths if cookie]


def _cookies(page: FetchedPage) -> Iterator[str]:
    for header in page.headers.get("set-cookie", ()):
        for name, morsel in SimpleCookie(header).items():
            yield f"{name}={morsel.value}"


async def _fetch(app: Starlette, path: str, *, method: str = "GET", cookie: str = "") -> FetchedPage:
    """Send one request to the application without a network (ASGI specification 3, HTTP connection scope)."""
    sent: list[dict[str, Any]] = []
    headers = [(b"host", b"localhost"), (b"user-agent", b"smt-billing policy check")]
    form = (
        [(b"content-type", b"application/x-www-form-urlencoded"), (b"sec-fetch-site", b"same-origin")]
        if method == "POST"
        else []
    )
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "https",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [*headers, *form, *([(b"cookie", cookie.encode())] if cookie else [])],
        "client": ("127.0.0.1", 0), "server": ("localhost", 443),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    return FetchedPage(path, start["status"], _grouped(start["headers"]), body.decode("utf-8", "replace"))


def _grouped(headers: list[tuple[bytes, bytes]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in headers:
        key = name.decode("latin-1").lower()
        found[key] = (*found.get(key, ()), value.decode("latin-1"))
    return found
