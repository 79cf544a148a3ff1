"""The signing keys of the simulated PayPal, and the web role's trust in them."""

import asyncio
from datetime import datetime

from pipeline.clock import Clock
from pipeline.errors import UsageError
from pipeline.paypal.certificates import CertificateStore
from pipeline.settings import SIMULATOR, Settings
from pipeline.simulator.server.signing import Signer

LIVE = "https://api-m.paypal.com"


def open_signer(settings: Settings, since: datetime, until: datetime) -> Signer:
    """Open the simulated PayPal's keys. They stay in the data folder, so that every command signs with the same keys."""
    return Signer(settings.data_dir / "simulator", since=since, until=until)


def trust_certificate(settings: Settings, clock: Clock, signer: Signer) -> None:
    """Put the simulated PayPal's certificate among those that a web role with this data folder trusts."""
    folder = settings.certificates_dir
    kept = CertificateStore(folder=folder, anchors=None, clock=clock, fetch=lambda _: signer.leaf_pem)
    asyncio.run(kept.get(signer.cert_url))


def webhook_to_sign_for(settings: Settings, given: str | None) -> str:
    """The webhook id that simulated events are signed for. Raises UsageError next to PayPal's live API."""
    if settings.paypal_base_url.rstrip("/") == LIVE:
        raise UsageError("SMT_PAYPAL_BASE_URL is PayPal's live API: pretend customers must not get into live books")
    if given or settings.paypal_accept_simulator:
        return given or SIMULATOR
    settings.require("paypal_webhook_id")
    return settings.paypal_webhook_id[0]
