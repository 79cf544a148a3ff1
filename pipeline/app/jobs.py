"""What the scheduler does beside the river's own jobs: mails in doubt, people's requests and letters, what is to go."""

import asyncio
from datetime import timedelta

import structlog

from pipeline.app import maintenance
from pipeline.app.container import Container
from pipeline.app.from_settings import account_page_url, publisher
from pipeline.crypto.keyring import Keyring
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.maildir import read_maildir
from pipeline.mailer.relay_log import RelayLog
from pipeline.mailer.relay_log import settle_doubts as settle
from pipeline.mailer.smtp_relay import Relay, RelayUnreachableError
from pipeline.policy import versions
from pipeline.privacy import requests
from pipeline.scheduler.core_jobs import core_jobs
from pipeline.scheduler.scheduler import Job, Scheduler

log = structlog.get_logger(__name__)


def scheduler(parts: Container) -> Scheduler:
    """The scheduler with its own jobs and those that these settings call for."""
    core = core_jobs(
        parts.database,
        parts.master,
        parts.clock,
        reminders=parts.reminders,
        may_read=parts.settings.has_paypal_credentials,
        operator=parts.settings.operator_email,
    )
    return Scheduler(parts.clock, core, of(parts))


def of(parts: Container) -> list[Job]:
    """The jobs that these settings call for."""
    jobs = [
        Job("remind the operator of open requests", timedelta(hours=1), lambda: alert_due_requests(parts)),
        Job("erase who asked for it", timedelta(minutes=1), lambda: maintenance.erase_due(parts)),
        Job("keep the retention periods", timedelta(hours=1), lambda: sum(maintenance.sweep(parts).values())),
        Job("complete erasures", timedelta(days=1), lambda: maintenance.complete(parts)),
        Job("keep the policy's first text", timedelta(days=1), lambda: store_first_policy(parts)),
        Job("tell customers of a changed policy", timedelta(minutes=1), lambda: queue_policy_notices(parts)),
    ]
    if parts.settings.relay_log and parts.settings.smtp_url:
        jobs.append(Job("settle mails in doubt", timedelta(seconds=5), lambda: settle_doubts(parts)))
    if parts.settings.inbound_maildir:
        jobs.append(Job("file mail that people wrote", timedelta(minutes=1), lambda: file_inbound_mail(parts)))
    return jobs


def alert_due_requests(parts: Container) -> int:
    """Tell the operator of requests that have waited 7, 14, 21 or 25 days."""

    with parts.database.transaction() as session:
        now = parts.clock.now()
        return requests.alarms(session, Keyring(parts.master, session, now), now)


def store_first_policy(parts: Container) -> int:
    """Keep the policy's first text, so that a newer version of the program does not change it behind people's backs."""

    with parts.database.transaction() as session:
        first = versions.establish(
            session, publisher(parts.settings), parts.settings.policy_effective, parts.clock.now()
        )
    return int(first is not None)


def queue_policy_notices(parts: Container) -> int:
    """Owe the notices of a material change that are not owed yet, some hundred at a time."""

    with parts.database.transaction() as session:
        now = parts.clock.now()
        keyring = Keyring(parts.master, session, now)
        return versions.notify(session, keyring, now, lambda day: f"{parts.settings.pages_url}/privacy/{day}")


def file_inbound_mail(parts: Container) -> int:
    """File what has arrived in the contact address's Maildir."""

    folder = parts.settings.inbound_maildir
    if folder is None:
        return 0
    page = account_page_url(parts.settings)
    return sum(
        isinstance(each, FiledMail) for each in read_maildir(folder, parts.database, parts.master, parts.clock, page)
    )


def settle_doubts(parts: Container) -> int:
    """Look for evidence of mails in doubt in the relay's log."""
    if parts.settings.relay_log is None:
        return 0
    relay_log = RelayLog(parts.settings.relay_log, parts.clock)
    domain = parts.settings.envelope_domain
    try:
        return settle(parts.database, parts.clock, relay_log, lambda: asyncio.run(_probe(parts)), domain)
    except RelayUnreachableError as error:
        log.warning("relay_unreachable", reason=str(error))
        return 0


async def _probe(parts: Container) -> None:
    relay = Relay(parts.settings.smtp_url, connections=1)
    try:
        await relay.probe()
    finally:
        await relay.close()
