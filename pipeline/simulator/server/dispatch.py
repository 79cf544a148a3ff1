"""Delivery of events to the webhooks that were registered through the simulated API."""

from urllib.parse import urlsplit

from pipeline.clock import Clock
from pipeline.simulator.server.delivery import NO_ANSWER, WebhookSender
from pipeline.simulator.server.mock_events import is_mock_event
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.server.webhooks import MOCK_WEBHOOK_ID, Webhooks, subscribes
from pipeline.simulator.timeline import Delivery, Json


class RegisteredWebhooks:
    """Sends each event to every registered webhook that subscribes to its type. Use it as `on_event` of the API.

    Each transmission is signed for the id of its webhook, those of test events for WEBHOOK_ID. A test event goes to all
    webhooks. Webhooks with https:// are skipped, because the simulator sends without TLS.
    """

    def __init__(self, webhooks: Webhooks, signer: Signer, clock: Clock, *, tries: int = 3) -> None:
        self._webhooks, self._signer, self._clock, self._tries = webhooks, signer, clock, tries

    def __call__(self, delivery: Delivery) -> int:
        """Send one event. Return the status of the last webhook, NO_ANSWER if none receives it."""
        status, is_mock = NO_ANSWER, is_mock_event(delivery.event)
        for webhook in self._webhooks.registered():
            if urlsplit(webhook["url"]).scheme == "http" and (is_mock or subscribes(webhook, delivery.type)):
                status = self._send(delivery, webhook, MOCK_WEBHOOK_ID if is_mock else webhook["id"])
        return status

    def _send(self, delivery: Delivery, webhook: Json, signed_for: str) -> int:
        with WebhookSender(webhook["url"], self._signer, signed_for, tries=self._tries, clock=self._clock) as sender:
            return sender.send(delivery)
