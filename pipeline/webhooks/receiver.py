"""Receive a webhook from PayPal: verify its signature, then store it.

`group_commit` stores concurrent deliveries together. Their ids are published afterwards by a background thread; recovery
finds the events that no message announced.
"""

from collections.abc import Iterable, Sequence

import structlog

from pipeline.inbox.parsing import parse_webhook
from pipeline.inbox.store import NewEvent, StoreResult
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.signature import Transmission, require_algorithm, verify
from pipeline.settings import SIMULATOR
from pipeline.webhooks.group_commit import GroupCommitter

log = structlog.get_logger(__name__)


class TransmissionReplayedError(Exception):
    """A transmission id that signed another body before: somebody reuses a signature."""


class WebhookReceiver:
    """Judges deliveries and has them stored."""

    def __init__(
        self,
        certificates: CertificateStore,
        committer: GroupCommitter,
        webhook_ids: Sequence[str],
        *,
        accept_simulator: bool,
    ) -> None:
        self._certificates, self._committer = certificates, committer
        self._webhook_ids = (*webhook_ids, SIMULATOR) if accept_simulator else tuple(webhook_ids)

    async def receive(self, headers: Iterable[tuple[str, str]], body: bytes) -> StoreResult:
        """Verify and store one delivery; returns once it is durable.

        Raises Malformed, Refused and Unavailable of `paypal.errors`, Forged, and StoreDown.
        """
        transmission = Transmission.read(headers)
        require_algorithm(transmission)  # before anything is fetched for it
        url = transmission.cert_url
        key = self._certificates.known(url) or await self._certificates.get(url)
        webhook_id = verify(transmission, body, self._webhook_ids, key)
        verdict = "signed by PayPal's simulator" if webhook_id == SIMULATOR else f"signed for webhook {webhook_id}"
        stored = await self._committer.store(NewEvent(parse_webhook(body), "webhook", verdict, transmission.id))
        if stored.outcome == "forged":
            log.error("forged", transmission_id=transmission.id, event_id=stored.event_id)
            raise TransmissionReplayedError(f"transmission {transmission.id} signed another body before")
        return stored
