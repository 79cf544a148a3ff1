"""Verify the signature of a webhook from PayPal, then store it.

`group_commit` stores concurrent deliveries together. A background thread then publishes their ids; recovery finds the
events whose ids were not published.
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
    """A known transmission id came with a different body: an attacker reuses a signature."""


class WebhookReceiver:
    """Verifies and stores webhooks."""

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
        """Verify and store one delivery. Return when the row is committed and synced.

        Raises MalformedDeliveryError, SignatureError, PaypalUnavailableError, TransmissionReplayedError and
        DatabaseUnavailableError.
        """
        transmission = Transmission.read(headers)
        require_algorithm(transmission)  # before a certificate is fetched
        url = transmission.cert_url
        key = self._certificates.known(url) or await self._certificates.get(url)
        webhook_id = verify(transmission, body, self._webhook_ids, key)
        verdict = "signed by PayPal's simulator" if webhook_id == SIMULATOR else f"signed for webhook {webhook_id}"
        stored = await self._committer.store(NewEvent(parse_webhook(body), "webhook", verdict, transmission.id))
        if stored.outcome == "forged":
            log.error("transmission_replayed", transmission_id=transmission.id, event_id=stored.event_id)
            raise TransmissionReplayedError(f"transmission {transmission.id} has already signed a different body")
        return stored
