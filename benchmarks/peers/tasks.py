"""The Celery application: one task that handles an event, one that sends a mail.

Acknowledged late, so that a worker's death loses nothing; published with confirms, so that the broker's does not.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator, no-any-return"
# What is imported here is installed in an environment of its own, which mypy does not look into.

import json
from datetime import UTC, datetime

from celery import Celery
from sqlalchemy.orm import Session

from benchmarks.peers import mail, store
from benchmarks.peers.surroundings import BROKER_URL, SENDS_MAIL

app = Celery("billing", broker=BROKER_URL)
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
)


@app.task
def handle(body: str) -> None:
    """Handle one event."""
    owed = store.handle(json.loads(body))
    if SENDS_MAIL:
        send_mail.delay(owed)


@app.task
def send_mail(id: str) -> None:
    """Send one mail that is owed, and note that it went out."""
    with Session(store.engine) as session, session.begin():
        owed = session.get_one(store.Outbox, id, with_for_update=True)
        if owed.sent_at is None:
            customer = session.get_one(store.Subscription, owed.subscription_id)
            mail.send(customer.email or "", mail.facts(owed.facts, customer.name or "", customer.id))
            owed.sent_at = datetime.now(UTC)
