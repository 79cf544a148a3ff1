"""Let PayPal's sandbox send a test event, and wait until a running web role has verified its signature.

The web role refuses the event, because anyone can make PayPal's simulator send one. It publishes the time at which it
refused the last one in its heartbeat.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pipeline.clock import Clock
from pipeline.operations import heartbeat
from pipeline.paypal import webhook_settings
from pipeline.paypal.api import PaypalApi

NAME = "PayPal's test event"  # in the heartbeat of the web role
TYPE = "BILLING.PLAN.CREATED"
WAIT_SECONDS = 60.0
POLL_SECONDS = 1.0


def send_and_wait(
    paypal: PaypalApi, webhook_id: str, data_dir: Path, clock: Clock, sleep: Callable[[float], None],
    wait_seconds: float = WAIT_SECONDS,
) -> datetime | None:  # fmt: skip
    """Return when the event arrived, None if it did not within `wait_seconds`.

    Raises PaypalRejectedError or PaypalUnavailableError.
    """
    started = clock.now()
    webhook_settings.request_test_event(paypal, webhook_id, TYPE)
    for _ in range(round(wait_seconds / POLL_SECONDS)):
        arrived = last_arrival(data_dir)
        if arrived is not None and arrived >= started:
            return arrived
        sleep(POLL_SECONDS)
    return None


def last_arrival(data_dir: Path) -> datetime | None:
    """Return when a web role of this data folder last verified a test event."""
    records = [each.dependencies.get(NAME) for each in heartbeat.read_all(data_dir)]
    times = [record.answered_at for record in records if record and record.answered_at]
    return max(times, default=None)
