"""The signing keys of the simulated PayPal, and the web role's trust in them."""

import asyncio
from datetime import datetime

from pipeline.clock import Clock
from pipeline.paypal.certificates import Certificates
from pipeline.settings import Settings
from pipeline.simulator.server.signing import Signer


def open_signer(settings: Settings, since: datetime, until: datetime) -> Signer:
    """Open the simulated PayPal's keys. They stay in the data folder, so that every command signs with the same keys."""
    return Signer(settings.data_dir / "simulator", since=since, until=until)


def vouch(settings: Settings, clock: Clock, signer: Signer) -> None:
    """Put the simulated PayPal's certificate among those that a web role with this data folder trusts."""
    folder = settings.certificates_dir
    kept = Certificates(folder=folder, anchors=None, clock=clock, fetch=lambda _: signer.leaf_pem)
    asyncio.run(kept.get(signer.cert_url))
