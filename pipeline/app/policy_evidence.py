"""Collects evidence for the policy checks from the running system: pages, example mails and open connections."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.app.container import Container
from pipeline.app.from_settings import policy_owner, product_hook
from pipeline.app.policy_pages import fetch_pages
from pipeline.crypto.keyring import Keyring
from pipeline.customers.product_hook import ProductUnavailableError
from pipeline.operations import heartbeat
from pipeline.policy.evidence import journald
from pipeline.policy.evidence.connections import Connection, open_connections
from pipeline.policy.evidence.live_system import LiveSystem, Probes
from pipeline.privacy import data_categories
from pipeline.rendering.message import RenderedMail

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
                pages=lambda: fetch_pages(container),
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
