"""The pretend vendor of the demo. It replaces settings that are missing, in a demo's data folder only.

While the demo runs, its simulated PayPal replaces missing credentials, so that commands such as `payments refund` work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from pipeline import files
from pipeline.settings import DEMO_FILE, DEMO_PAYPAL_FILE, EXAMPLE_VENDOR, Settings

DEMO_VENDOR = {
    "vendor_name": "SMT Constructions",
    "vendor_url": "https://smtconstructions.example.com",
    "vendor_address": EXAMPLE_VENDOR["vendor_address"],
    "product_name": "SMT-CRM",
    "mail_from": "billing@example.com",
    "public_url": "http://127.0.0.1:8025",
    "country": "DE",
}


CREDENTIALS = {
    "paypal_client_id": "simulator",
    "paypal_client_secret": "simulator-secret",
}  # only of the simulated PayPal


def with_demo_vendor(settings: Settings) -> Settings:
    """Return the settings, with the demo's vendor where the operator has set none."""
    missing = {name: value for name, value in DEMO_VENDOR.items() if not getattr(settings, name)}
    return settings.model_copy(update=missing)


def with_demo_paypal(settings: Settings) -> Settings:
    """Return the settings, with the simulated PayPal of a running demo where the operator has set no credentials."""
    path = settings.data_dir / DEMO_PAYPAL_FILE
    if settings.has_paypal_credentials or not path.exists():
        return settings
    found: dict[str, Any] = orjson.loads(path.read_bytes())
    as_secret = type(settings.paypal_client_secret)
    return settings.model_copy(
        update={
            "paypal_base_url": found["url"],
            "public_url": settings.public_url or found["public_url"],
            "paypal_webhook_id": (found["webhook_id"],),
            "paypal_client_id": CREDENTIALS["paypal_client_id"],
            "paypal_client_secret": as_secret(CREDENTIALS["paypal_client_secret"]),
        }
    )


@contextmanager
def announced_paypal(data_dir: Path, url: str, webhook_id: str, public_url: str) -> Iterator[None]:
    """Let commands in this data folder find the simulated PayPal until the end of the block."""
    path = data_dir / DEMO_PAYPAL_FILE
    files.write_atomically(path, orjson.dumps({"url": url, "webhook_id": webhook_id, "public_url": public_url}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def in_demo_folder(settings: Settings) -> bool:
    """Return whether the data folder contains a demo, and so no real customers."""
    return not settings.is_live and (settings.data_dir / DEMO_FILE).exists()
