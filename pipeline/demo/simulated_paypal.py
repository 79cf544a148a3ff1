"""Signing keys of the simulated PayPal, and their registration as trusted certificates."""

import asyncio
from datetime import datetime

from pipeline.clock import Clock
from pipeline.errors import UsageError
from pipeline.paypal.certificates import CertificateStore
from pipeline.settings import SIMULATOR, Settings
from pipeline.simulator.server.signing import Signer


def open_signer(settings: Settings, since: datetime, until: datetime) -> Signer:
    """Return the simulated PayPal's signer. Its keys are stored in the data folder, so every command uses the same keys."""
    return Signer(settings.data_dir / "simulator", since=since, until=until)


def trust_certificate(settings: Settings, clock: Clock, signer: Signer) -> None:
    """Store the simulated PayPal's certificate, so that a web role with this data folder trusts it."""
    folder = settings.certificates_dir
    store = CertificateStore(folder=folder, anchors=None, clock=clock, fetch=lambda _: signer.leaf_pem)
    asyncio.run(store.get(signer.cert_url))


def webhook_to_sign_for(settings: Settings, requested: str | None) -> str:
    """Return the webhook id to sign simulated events for. Raises UsageError if PayPal's live API is configured."""
    if settings.is_live:
        raise UsageError("SMT_PAYPAL_BASE_URL is PayPal's live API; simulated events must not enter live data")
    if requested or settings.paypal_accept_simulator:
        return requested or SIMULATOR
    settings.require("paypal_webhook_id")
    return settings.paypal_webhook_id[0]
