"""The table of figures that monitoring shows, each with the age at which it is a problem.

`/healthz`, `/metrics`, `doctor`, `health ROLE` and the operator's mail use this table only. docs/operations.md explains
each row. An age counts since the item was created, never since it became due: a postponed item is unfinished too.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

WorkKind = Literal[
    "events_unhandled",
    "events_parked",
    "mails_due",
    "mails_postponed",
    "mails_without_address",
    "mails_sending",
    "mails_in_doubt",
    "mails_failed",
    "lookups_open",
    "lookups_refused",
    "differences_open",
    "actions_unfinished",
    "disputes_open",
    "dead_letters",
    "inbound_unanswered",
    "inbound_unfiled",
    "requests_open",
    "exports_open",
    "erasures_waiting",
    "erasures_due",
    "erasures_incomplete",
]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a figure counts, the age in seconds at which it is a problem (None: never), and the command that shows it.

    `stalled`: the pipeline does not progress, so `/healthz` answers 503. Otherwise an operator must decide something.
    """

    what: str
    seconds: float | None
    command: str
    stalled: bool = False


HOUR, DAY = timedelta(hours=1).total_seconds(), timedelta(days=1).total_seconds()
# Replaced by SMT_HEALTH_LIMIT_SECONDS. A retry counts from the mail's creation, so a relay that is away shows here.
PROCESSING_SECONDS = 300.0
# A dependency may be restarted within this time. A role without a heartbeat is away after ALIVE_SECONDS already.
DEPENDENCY_SECONDS = 60.0
JOB_SECONDS = 900.0  # a scheduled job that fails for this long does not recover by itself
# PayPal may issue tokens and fail everything else, so a probe proves little. Three attempts have failed by then.
LOOKUP_SECONDS = 900.0
SENDING_SECONDS = 900.0  # longer than the ten minutes in which the relay may answer after a mail's text

LIMITS: Final[dict[WorkKind, Limit]] = {
    "events_unhandled": Limit(
        "events not handled", PROCESSING_SECONDS, "smt-billing events list --state received", stalled=True
    ),
    "events_parked": Limit("parked events", DAY, "smt-billing parked list"),
    "mails_due": Limit(
        "mails due and not sent", PROCESSING_SECONDS, "smt-billing mail list --state queued", stalled=True
    ),
    "mails_postponed": Limit(
        "mails postponed to a retry", PROCESSING_SECONDS, "smt-billing mail list --state queued", stalled=True
    ),
    "mails_without_address": Limit("mails without an address", DAY, "smt-billing mail list --state queued"),
    "mails_sending": Limit("mails being sent", SENDING_SECONDS, "smt-billing mail list --state sending", stalled=True),
    "mails_in_doubt": Limit("mails in doubt", HOUR, "smt-billing mail list --state doubt"),
    "mails_failed": Limit("failed mails", HOUR, "smt-billing mail list --state failed"),
    "lookups_open": Limit("look-ups without an answer from PayPal", LOOKUP_SECONDS, "smt-billing lookups list"),
    "lookups_refused": Limit("look-ups that were given up", HOUR, "smt-billing lookups list --state given-up"),
    "differences_open": Limit("differences between PayPal and the database", 2 * HOUR, "smt-billing reconcile list"),
    "actions_unfinished": Limit("actions at PayPal that are not done", HOUR, "smt-billing payments list"),
    "disputes_open": Limit("disputes that have not ended", 5 * DAY, "smt-billing disputes list --open"),
    "dead_letters": Limit("unreadable messages in the dead-letter queue", HOUR, "smt-billing doctor"),
    "inbound_unanswered": Limit("inbound messages without an answer", 2 * DAY, "smt-billing customers requests --open"),
    "inbound_unfiled": Limit("messages in the Maildir that cannot be filed", HOUR, "smt-billing inbound"),
    "requests_open": Limit("open requests of customers", 7 * DAY, "smt-billing customers requests --open"),
    "exports_open": Limit("open requests for a copy of data", 7 * DAY, "smt-billing customers requests --open"),
    "erasures_waiting": Limit("erasures that can still be cancelled", None, "smt-billing customers requests --open"),
    "erasures_due": Limit("erasures due and not carried out", DAY, "smt-billing customers requests --open"),
    "erasures_incomplete": Limit("erasures before the key rotation", 7 * DAY, "smt-billing keys rotate"),
}


def limit_of(kind: WorkKind, processing_seconds: float) -> float | None:
    """Return the limit of a figure in seconds. `processing_seconds` is the setting SMT_HEALTH_LIMIT_SECONDS."""
    seconds = LIMITS[kind].seconds
    return processing_seconds if seconds == PROCESSING_SECONDS else seconds
