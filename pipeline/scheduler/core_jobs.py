"""The scheduled jobs that run in every installation, with their intervals."""

from datetime import timedelta

from pipeline.billing.reminders import ReminderPolicy
from pipeline.clock import Clock
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database
from pipeline.scheduler.address_lookups import request_addresses
from pipeline.scheduler.operator_alerts import alert_parked_events
from pipeline.scheduler.renewal_reminders import RenewalReminders
from pipeline.scheduler.scheduler import Job
from pipeline.scheduler.stale_claims import release_stale_claims


def core_jobs(
    database: Database, master_key: MasterKey, clock: Clock, *, reminders: ReminderPolicy, may_read: bool, operator: str
) -> list[Job]:
    """Return the jobs.

    `may_read`: API credentials are set, so look-ups are possible. `operator`: the address for alerts, "" for none.
    """
    renewals = RenewalReminders(database, master_key, clock, reminders, may_read=may_read)
    minute = timedelta(minutes=1)
    addresses = Job("ask PayPal for missing addresses", minute, lambda: request_addresses(database, clock))
    return [
        Job("release claims of stopped mailers", timedelta(seconds=2), lambda: release_stale_claims(database, clock)),
        Job("queue renewal reminders", minute, renewals.queue_due),
        Job(
            "alert the operator to parked events",
            minute,
            lambda: alert_parked_events(database, master_key, clock) if operator else 0,
        ),
        *([addresses] if may_read else []),
    ]
