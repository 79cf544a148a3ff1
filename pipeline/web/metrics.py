"""Metrics in Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/practices/naming/
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.operations.health import Health
from pipeline.operations.limits import LIMITS, limit_of

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics that `/metrics` returns."""

    def __init__(self) -> None:
        self._counted = registry = CollectorRegistry()
        self._webhooks = Counter("smt_webhooks", "Webhooks by response status", ["status"], registry=registry)
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
        """Return all metrics as text, with the figures of `health`."""
        registry = CollectorRegistry()
        registry.register(_HealthCollector(health))
        return generate_latest(self._counted) + generate_latest(registry)


class _HealthCollector(Collector):
    """The figures of one `Health`. A figure that is unknown while the database is away is absent, not zero."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterator[GaugeMetricFamily]:
        health = self._health
        yield GaugeMetricFamily("smt_healthy", "Whether nothing is over its limit", int(health.is_well))
        yield GaugeMetricFamily("smt_stalled", "Whether the pipeline does not progress", int(health.is_stalled))
        if health.oldest_event_seconds is not None and health.oldest_mail_seconds is not None:
            yield GaugeMetricFamily(
                "smt_oldest_event_seconds", "Age of the oldest unhandled event", health.oldest_event_seconds
            )
            yield GaugeMetricFamily(
                "smt_oldest_mail_seconds", "Age of the oldest mail that is not sent", health.oldest_mail_seconds
            )
        yield from self._work()
        yield self._up("smt_dependency_up", "dependency", "Whether the server answers")
        yield self._up("smt_role_up", "role", "Whether the role has a recent heartbeat")
        yield self._outages()

    def _work(self) -> Iterator[GaugeMetricFamily]:
        items = GaugeMetricFamily("smt_unfinished_items", "Unfinished items", labels=["kind"])
        ages = GaugeMetricFamily(
            "smt_unfinished_oldest_age_seconds", "Age of the oldest unfinished item since its creation", labels=["kind"]
        )
        limits = GaugeMetricFamily(
            "smt_unfinished_limit_seconds", "Age at which an unfinished item is a problem", labels=["kind"]
        )
        for kind in LIMITS:
            if (seconds := limit_of(kind, self._health.limit_seconds)) is not None:
                limits.add_metric([kind], seconds)
        for kind, found in (self._health.work.kinds if self._health.work else {}).items():
            items.add_metric([kind], found.count)
            ages.add_metric([kind], found.oldest_seconds)
        yield from (items, ages, limits)

    def _outages(self) -> GaugeMetricFamily:
        seconds = GaugeMetricFamily(
            "smt_outage_duration_seconds", "Time since the server, role or job failed first", labels=["kind", "name"]
        )
        for outage in self._health.outages:
            seconds.add_metric([outage.kind, outage.name], outage.seconds(self._health.at))
        return seconds

    def _up(self, metric: str, kind: str, text: str) -> GaugeMetricFamily:
        """Return 1 or 0 for each server or role. One of which nothing is known is absent."""
        away = {outage.name for outage in self._health.outages if outage.kind == kind}
        family = GaugeMetricFamily(metric, text, labels=[kind])
        for name in sorted(away | {name for observed, name in self._health.observed if observed == kind}):
            family.add_metric([name], int(name not in away))
        return family
