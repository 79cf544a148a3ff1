"""Collects evidence for the policy checks from the running system: pages, example mails and open connections."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from pipeline.app.container import Container
from pipeline.app.from_settings import policy_owner, product_hook
from pipeline.app.site import serve_pages
from pipeline.crypto.keyring import Keyring
from pipeline.customers.product_hook import ProductUnavailableError
from pipeline.operations import heartbeat
from pipeline.policy.evidence import journald
from pipeline.policy.evidence.connections import Connection, open_connections
from pipeline.policy.evidence.live_system import FetchedPage, LiveSystem, Probes
from pipeline.privacy import data_categories
from pipeline.rendering.message import RenderedMail
from pipeline.settings import SettingsError

EXAMPLE_PAGES = "https://billing.example.com"  # base URL of the links in the example mails


@contextmanager
def open_live_system(container: Container) -> Iterator[LiveSystem]:
    """Open the running system for the checks, in one read-only session.

    Raises DatabaseUnavailableError and MasterKeyError.
    """
    now = container.clock.now()
    with container.database.reading() as session:
        yield LiveSystem(
            session,
            Keyring(container.master_key, session, now),
            container.settings,
            now,
            policy_owner(container.settings),
            Probes(
                pages=lambda: fetch_public_pages(container),
                mails=lambda: render_example_mails(container),
                connections=lambda: role_connections(container),
                journal=journald.retention_period if journald.is_running() else None,
                categories=data_categories.by_table(),
                product=lambda: ask_product(container),
            ),
        )


def ask_product(container: Container) -> dict[str, Any] | None:
    """Return what the product says of its own data; None if there is no product, or it does not answer."""
    if not product_hook(container.settings).is_configured:
        return None
    try:
        answer = json.loads(product_hook(container.settings).call("privacy", {}))
    except (ProductUnavailableError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def fetch_public_pages(container: Container) -> list[FetchedPage]:
    """Return all pages that need no secret, requested inside this process. Empty if the web role is not configured."""
    try:
        web = container.web()
    except SettingsError:
        return []
    # The caller's thread may run an event loop already.
    with serve_pages(container) as (routes, _), ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, _fetch_all(web.app(routes))).result()


def render_example_mails(container: Container) -> dict[str, RenderedMail]:
    """Return all mail kinds, rendered with their examples and with links to the configured pages."""
    return {kind: container.templates.render(kind, _example(container, kind)) for kind in container.templates.kinds}


def _example(container: Container, kind: str) -> dict[str, Any]:
    facts = json.dumps(container.templates.example(kind)).replace(EXAMPLE_PAGES, container.settings.pages_url)
    found: dict[str, Any] = json.loads(facts)
    return found


def role_connections(container: Container) -> dict[str, list[Connection]]:
    """Return the open connections of each running role. Processes of other containers or users are not visible."""
    found = {}
    for role, pid in heartbeat.live_roles(container.settings.data_dir, container.clock.now()).items():
        try:
            if _is_this_program(pid):
                found[role] = open_connections(pid)
        except OSError:
            continue
    return found


def _is_this_program(pid: int) -> bool:
    """Return whether the process is this program. It may have ended, or the id may belong to another container."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return any(word.rpartition(b"/")[2] == b"smt-billing" or word == b"pipeline" for word in words)


async def _fetch_all(app: Starlette) -> list[FetchedPage]:
    routes = [route for route in app.routes if isinstance(route, Route) and "GET" in (route.methods or ())]
    return [await _fetch(app, route.path) for route in routes if "{" not in route.path]


async def _fetch(app: Starlette, path: str) -> FetchedPage:
    """Send one GET request to the application without a network (ASGI specification 3, HTTP connection scope)."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "https",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (b"user-agent", b"smt-billing policy check")],
        "client": ("127.0.0.1", 0), "server": ("localhost", 443),
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in start["headers"]:
        key = name.decode("latin-1").lower()
        headers[key] = (*headers.get(key, ()), value.decode("latin-1"))
    return FetchedPage(path, start["status"], headers, body.decode("utf-8", "replace"))
