"""Verify the signature of a webhook from PayPal, then store it.

`group_commit` stores concurrent deliveries together. A background thread then publishes their ids; recovery finds the
events whose ids were not published.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import structlog

from pipeline.clock import Clock
from pipeline.inbox.parsing import parse_webhook
from pipeline.inbox.store import NewEvent, StoreResult
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.errors import SimulatedEventError
from pipeline.paypal.signature import Transmission, require_algorithm, require_recent, verify
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
        clock: Clock,
        max_age: timedelta,
        accept_simulator: bool,
        on_replay: Callable[[str, str], None],
        on_test_event: Callable[[], object] = lambda: None,
    ) -> None:
        """`max_age`: of a transmission. `on_replay` gets the transmission id and event id of a replayed signature.

        It is called in a thread. `on_test_event` is called for an event of PayPal's simulator that is refused: it proves
        that PayPal's deliveries arrive and that their signatures can be verified.
        """
        self._certificates, self._committer = certificates, committer
        self._clock, self._max_age, self._on_replay = clock, max_age, on_replay
        self._on_test_event = on_test_event
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
        try:
            webhook_id = verify(transmission, body, self._webhook_ids, key)
        except SimulatedEventError:
            self._on_test_event()
            raise
        if webhook_id != SIMULATOR:  # PayPal's simulator is only for tests, and invents times
            require_recent(transmission, self._clock.now(), self._max_age)
        verdict = "signed by PayPal's simulator" if webhook_id == SIMULATOR else f"signed for webhook {webhook_id}"
        stored = await self._committer.store(NewEvent(parse_webhook(body), "webhook", verdict, transmission.id))
        if stored.outcome == "forged":
            log.error("transmission_replayed", transmission_id=transmission.id, event_id=stored.event_id)
            await asyncio.to_thread(self._on_replay, transmission.id, stored.event_id)
            raise TransmissionReplayedError(f"transmission {transmission.id} has already signed a different body")
        return stored
