"""Metrics of the web role in Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from pipeline.operations.health import Health

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics that `/metrics` returns."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._webhooks = Counter("smt_webhooks", "Webhooks by response status", ["status"], registry=registry)
        self._oldest_event = Gauge("smt_oldest_event_seconds", "Age of the oldest unhandled event", registry=registry)
        self._oldest_mail = Gauge("smt_oldest_mail_seconds", "Age of the oldest unsent mail", registry=registry)
        self._subscriptions = Gauge(
            "smt_subscriptions", "Subscriptions by status", ["status", "past_due"], registry=registry
        )

    def count_webhook(self, status: int) -> None:
        """Count one webhook with this response status."""
        self._webhooks.labels(status).inc()

    def set_subscriptions(self, counts: Mapping[tuple[str, bool], int]) -> None:
        """Set the numbers of subscriptions by status, and by whether they are past due."""
        self._subscriptions.clear()
        for (status, is_past_due), number in counts.items():
            self._subscriptions.labels(status, str(is_past_due).lower()).set(number)

    def render(self, health: Health) -> bytes:
        """Return all metrics as text, with the ages from `health`."""
        self._oldest_event.set(health.oldest_event_seconds)
        self._oldest_mail.set(health.oldest_mail_seconds)
        return generate_latest(self._registry)
