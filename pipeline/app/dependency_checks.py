"""Checks the servers that a role uses, in a thread of the role.

Use alone does not show that a server is back: a mail may be postponed for hours. So each role asks a server that failed
every CHECK_SECONDS, and one that it has not used for IDLE_SECONDS too.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import structlog

from pipeline.app import jobs
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.dependencies import CountRecord, DependencyRecord
from pipeline.error_texts import describe
from pipeline.operations import heartbeat

log = structlog.get_logger(__name__)

CHECK_SECONDS = 20.0  # less than `limits.DEPENDENCY_SECONDS`, so two checks fail before a problem is reported
IDLE_SECONDS = 300.0  # PayPal asks clients not to poll, so an idle system asks for one token in five minutes
PROBE_SECONDS = 10.0  # how long to wait for the relay's greeting
UNFILED_AFTER = timedelta(minutes=5)  # the scheduler files new messages every minute

USED = {
    "web": ("database", "broker"),
    "worker": ("database", "broker", "paypal"),
    "mailer": ("database", "broker", "relay"),
    "scheduler": ("database", "broker", "relay", "paypal"),
}


def keep_checking(container: Container, role: str, stop: StopSignal) -> None:
    """Check the role's dependencies until `stop` is set. First take over what the role recorded before a restart."""
    data_dir = container.settings.data_dir
    heartbeat.remove_replaced(data_dir, role, container.clock.now())
    before = heartbeat.read(data_dir, role)
    if before is not None:
        container.dependencies.restore(before.dependencies, before.counts)
    check_once(container, role)
    while not stop.wait(CHECK_SECONDS):
        check_once(container, role)


def check_once(container: Container, role: str) -> None:
    """Check the role's dependencies. A worker also does the scheduler's check of the system while that is away."""
    check_dependencies(container, role)
    if role == "worker" and not _is_running(container, "scheduler"):
        try:
            jobs.check_health(container)
        except DatabaseUnavailableError as error:
            log.warning("health_check_failed", reason=str(error))


def _is_running(container: Container, role: str) -> bool:
    now = container.clock.now()
    return any(each.role == role and each.is_fresh(now) for each in heartbeat.read_all(container.settings.data_dir))


def check_dependencies(container: Container, role: str) -> None:
    """Check the dependencies that failed or were idle. The scheduler also counts what the database does not show."""
    probes = _probes(container)
    records = container.dependencies.records
    for name in (name for name in USED[role] if name in probes and _is_due(container, records.get(name))):
        _probe(container, name, probes[name])
    if role == "scheduler":
        _count_outside(container)


def _probes(container: Container) -> dict[str, Callable[[], object]]:
    """Return for each configured server a call that asks it something. The clients record the result themselves."""
    probes: dict[str, Callable[[], object]] = {
        "database": container.database.holds_keys,
        "broker": container.broker.check,
    }
    if container.settings.smtp_url:
        probes["relay"] = lambda: asyncio.run(_probe_relay(container))
    if container.settings.has_paypal_credentials:
        # Created inside the probe: a wrong setting must not prevent the other checks.
        probes["paypal"] = lambda: container.paypal.check_credentials()  # noqa: PLW0108
    return probes


def _probe(container: Container, name: str, probe: Callable[[], object]) -> None:
    try:
        probe()
    except Exception as error:  # noqa: BLE001 - any failure, also a wrong setting, means that it does not answer
        container.dependencies.observe(name, answered=False)
        log.warning("dependency_check_failed", dependency=name, reason=describe(error))


def _is_due(container: Container, record: DependencyRecord | CountRecord | None) -> bool:
    if record is None:
        return True
    idle = (container.clock.now() - record.observed_at).total_seconds()
    failing = isinstance(record, DependencyRecord) and record.failing_since is not None
    return not 0 <= idle < (CHECK_SECONDS / 2 if failing else IDLE_SECONDS)


async def _probe_relay(container: Container) -> str:
    relay = container.relay(timeout_seconds=PROBE_SECONDS)
    try:
        return await relay.probe()
    finally:
        await relay.close()


def _count_outside(container: Container) -> None:
    """Count unreadable messages in the broker, and messages that stay in the Maildir because they cannot be filed."""
    if _is_due(container, container.dependencies.counts.get("dead_letters")):
        _probe(container, "broker", lambda: _count_dead_letters(container))
    if container.settings.inbound_maildir:
        _count_unfiled(container, container.settings.inbound_maildir)


def _count_dead_letters(container: Container) -> None:
    container.dependencies.count("dead_letters", container.broker.count_dead_letters())


def _count_unfiled(container: Container, maildir: Path) -> None:
    """Also count a Maildir that cannot be read as one problem: then no message is filed."""
    now = container.clock.now()
    try:
        waiting = [path.stat().st_mtime for path in (maildir / "new").iterdir()]
    except OSError:
        container.dependencies.count("inbound_unfiled", 1)
        return
    unfiled = sum(now.timestamp() - at > UNFILED_AFTER.total_seconds() for at in waiting)
    container.dependencies.count("inbound_unfiled", unfiled)
