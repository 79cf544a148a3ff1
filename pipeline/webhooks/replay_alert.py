"""Queue a mail to the operator when a signature of PayPal's comes with a second body: one of the two bodies is forged."""

import re
from dataclasses import dataclass

import structlog

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.outbox import store as outbox

USUAL_ID = re.compile(r"[A-Za-z0-9-]{1,64}")  # others are not shown: the sender of a forged body chooses its id

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayAlert:
    """Queues the mails, at most one in an hour of the clock: the hour is the idempotency key."""

    database: Database
    master_key: MasterKey
    clock: Clock

    def send(self, transmission_id: str, event_id: str) -> None:
        """Queue the mail. Without a database only the log reports the replay; the delivery is refused in any case."""
        now = self.clock.now()
        facts = {"transmission": transmission_id, "event": event_id if USUAL_ID.fullmatch(event_id) else ""}
        mail = outbox.NewMail("webhook_forged", f"webhook_forged:{now:%Y-%m-%dT%H}", None, facts)
        try:
            with self.database.transaction() as session:
                outbox.enqueue(session, Keyring(self.master_key, session, now), [mail], now)
        except (DatabaseUnavailableError, MasterKeyError) as error:
            log.warning("replay_alert_failed", reason=str(error))
