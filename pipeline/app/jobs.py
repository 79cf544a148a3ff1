"""Scheduled jobs in addition to the core jobs: requests, erasures, retention, policy notices, doubts, inbound mail."""

import asyncio
from datetime import timedelta

import structlog

from pipeline.actions.perform import perform_due
from pipeline.app import maintenance
from pipeline.app.container import Container
from pipeline.app.from_settings import account_page_url, envelope_domain, policy_owner
from pipeline.app.policy_evidence import open_live_system
from pipeline.crypto.keyring import Keyring
from pipeline.customers import addresses
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.maildir import read_maildir
from pipeline.mailer.relay_log import RelayLog
from pipeline.mailer.relay_log import resolve_doubts as resolve_doubts_from_log
from pipeline.mailer.smtp_relay import RelayUnreachableError
from pipeline.operations.operator_mail import queue_problem_mail
from pipeline.operations.problem_file import Problem
from pipeline.paypal.errors import PaypalUnavailableError
from pipeline.policy import history, public_pages, versions
from pipeline.policy.runner import public_verdicts, run_checks
from pipeline.privacy import audit_log, requests
from pipeline.scheduler.core_jobs import core_jobs
from pipeline.scheduler.scheduler import Job, Scheduler
from pipeline.settings import DEMO_FILE

log = structlog.get_logger(__name__)


def build_scheduler(container: Container, *, watches_roles: bool = False) -> Scheduler:
    """Return the scheduler with the core jobs and the jobs that the settings require.

    `watches_roles`: report roles without a heartbeat and late work. One process that does all work in turns has no roles.
    """
    core = core_jobs(
        container.database,
        container.master_key,
        container.clock,
        reminders=container.reminder_policy,
        may_read=container.settings.has_paypal_credentials,
        operator=container.settings.operator_email,
    )
    watch = Job("check the health of the system", timedelta(seconds=30), lambda: check_health(container))
    more = [*([watch] if watches_roles else []), *build_jobs(container)]
    return Scheduler(container.clock, core, more, container.dependencies)


def build_jobs(container: Container) -> list[Job]:
    """Return the jobs that the settings require, without the core jobs."""
    jobs = [
        Job("alert the operator of open requests", timedelta(hours=1), lambda: alert_due_requests(container)),
        Job("apply due address changes", timedelta(minutes=1), lambda: apply_address_changes(container)),
        Job("run due erasures", timedelta(minutes=1), lambda: maintenance.erase_due(container)),
        Job(
            "apply the retention periods",
            timedelta(hours=1),
            lambda: sum(maintenance.run_retention(container).values()),
        ),
        Job("complete erasures", timedelta(days=1), lambda: maintenance.complete_erasures(container)),
        Job("check the privacy policy", timedelta(days=1), lambda: check_policy(container)),
        Job("store the policy's first text", timedelta(days=1), lambda: store_first_policy(container)),
        Job("queue notices of a changed policy", timedelta(minutes=1), lambda: queue_policy_notices(container)),
    ]
    if container.settings.has_paypal_credentials:
        jobs.append(Job("carry out ordered actions", timedelta(minutes=1), lambda: perform_actions(container)))
        jobs.append(Job("reconcile with PayPal", timedelta(days=1), lambda: reconcile(container)))
    if container.settings.relay_log and container.settings.smtp_url:
        jobs.append(Job("resolve mails in doubt", timedelta(seconds=5), lambda: resolve_doubts(container)))
    if container.settings.inbound_maildir:
        jobs.append(Job("file inbound mail", timedelta(minutes=1), lambda: file_inbound_mail(container)))
    return jobs


def check_health(container: Container) -> int:
    """Publish the problems for `health ROLE`, and queue the operator's mail. Return the number of mails."""
    problems = [*container.health_check.publish().problems, *policy_problems(container)]
    if not container.settings.operator_email:
        return 0
    return queue_problem_mail(container.database, container.master_key, container.clock, problems)


def perform_actions(container: Container) -> int:
    """Carry out the ordered actions that are due at PayPal. Return how many."""
    return perform_due(container.database, container.clock, container.paypal)


def reconcile(container: Container) -> int:
    """Compare PayPal's lists with the database. Return the number of open differences."""
    try:
        return container.reconciliation.run().open
    except PaypalUnavailableError as error:  # the next run begins where this one stopped
        log.warning("reconciliation_stopped", reason=str(error))
        return 0


def alert_due_requests(container: Container) -> int:
    """Queue alerts to the operator about requests that are open for 7, 14, 21 or 25 days."""

    with container.database.transaction() as session:
        now = container.clock.now()
        return requests.queue_due_alerts(session, Keyring(container.master_key, session, now), now)


def apply_address_changes(container: Container) -> int:
    """Let the requested addresses take effect whose waiting period is over. Return how many."""
    return addresses.apply_due_changes(container.database, container.master_key, container.clock)


def check_policy(container: Container) -> int:
    """Check all clauses of the privacy policy against the running system. Return the number of broken ones.

    A demo plays years in a minute, so it is checked by hand only.
    """
    if (container.settings.data_dir / DEMO_FILE).exists():
        return 0
    with open_live_system(container) as system:
        results = run_checks(system)
        head, now = audit_log.chain_head(system.session), system.now
    public_pages.save_verdicts(container.settings.data_dir, public_verdicts(results, now))
    history.append(container.settings.data_dir, results, now, head)
    broken = [each.clause.id for each in results if each.verdict == "broken"]
    log.info("policy_checked", clauses=len(results), broken=broken)
    return len(broken)


def policy_problems(container: Container) -> list[Problem]:
    """Return the clauses that the last check found broken."""
    checks = history.past_checks(container.settings.data_dir)
    return [
        Problem(
            f"policy {clause}",
            f"the privacy policy does not hold: {clause}: {figure}",
            1,
            stalled=False,
            command=f"smt-billing policy check --clause {clause}",
        )
        for clause, figure in (checks[-1].broken if checks else {}).items()
    ]


def store_first_policy(container: Container) -> int:
    """Store the policy's first text, so that a new version of the program does not change it without notice."""

    with container.database.transaction() as session:
        first = versions.store_first_text(
            session, policy_owner(container.settings), container.settings.policy_effective, container.clock.now()
        )
    return int(first is not None)


def queue_policy_notices(container: Container) -> int:
    """Queue missing notices of a material policy change, a few hundred at a time. Return the number queued."""

    with container.database.transaction() as session:
        now = container.clock.now()
        keyring = Keyring(container.master_key, session, now)
        return versions.queue_notices(
            session, keyring, now, lambda day: f"{container.settings.pages_url}/privacy/{day}"
        )


def file_inbound_mail(container: Container) -> int:
    """File new messages from the contact address's Maildir. Return the number filed."""

    folder = container.settings.inbound_maildir
    if folder is None:
        return 0
    page, show_text = account_page_url(container.settings), container.settings.inbound_notice == "text"
    found = read_maildir(folder, container.database, container.master_key, container.clock, page, show_text=show_text)
    return sum(isinstance(each, FiledMail) for each in found)


def resolve_doubts(container: Container) -> int:
    """Resolve mails in doubt with the relay's log. Return the number resolved."""
    if container.settings.relay_log is None:
        return 0
    relay_log = RelayLog(container.settings.relay_log, container.clock)
    domain = envelope_domain(container.settings)
    try:
        return resolve_doubts_from_log(
            container.database, container.clock, relay_log, lambda: asyncio.run(_probe(container)), domain
        )
    except RelayUnreachableError as error:
        log.warning("relay_check_failed", reason=str(error))
        return 0


async def _probe(container: Container) -> None:
    relay = container.relay()
    try:
        await relay.probe()
    finally:
        await relay.close()
