"""Check the servers that the pipeline talks to: the broker, the mail relay, and PayPal's API."""

import asyncio

from pipeline.app.container import Parts
from pipeline.app.doctor.result import Found
from pipeline.broker import BrokerDown
from pipeline.mailer.smtp_relay import Relay, RelayUnreachable
from pipeline.network.smtp_url import SmtpConfigError
from pipeline.paypal.errors import Rejected, Unavailable
from pipeline.settings import SettingsError

SMTP_SECONDS = 10.0  # how long to wait for the relay's greeting


def check_broker(parts: Parts) -> Found:
    """Check that the broker answers."""
    try:
        return Found("broker", "ok", parts.broker.check())
    except SettingsError as error:
        return Found("broker", "fail", str(error), "see SMT_BROKER_URL in docs/operate.md")
    except BrokerDown as error:
        return Found(
            "broker", "fail", str(error), "check SMT_BROKER_URL and that the server runs; no event is lost meanwhile"
        )


def check_relay(parts: Parts) -> Found:
    """Check that the relay answers."""
    if not parts.settings.smtp_url:
        return Found(
            "relay", "warn", "SMT_SMTP_URL is not set", "mail stays owed until it is: smtp://127.0.0.1:25, say"
        )
    try:
        return Found("relay", "ok", asyncio.run(_probe(parts)))
    except SmtpConfigError as error:
        return Found("relay", "fail", str(error))
    except RelayUnreachable as error:
        return Found(
            "relay", "fail", str(error), "check SMT_SMTP_URL and that the relay runs; mail stays owed meanwhile"
        )


async def _probe(parts: Parts) -> str:
    relay = Relay(parts.settings.smtp_url, connections=1, timeout_seconds=SMTP_SECONDS)
    try:
        return await relay.probe()
    finally:
        await relay.close()


def check_paypal(parts: Parts) -> Found:
    """Check that PayPal's API accepts the credentials."""
    if not parts.settings.reads_paypal:
        advice = "events that lack a fact park; set SMT_PAYPAL_CLIENT_ID and SMT_PAYPAL_CLIENT_SECRET"
        return Found("PayPal", "warn", "no API credentials: nothing is read", advice)
    try:
        parts.paypal.check_credentials()
    except SettingsError as error:
        return Found("PayPal", "fail", str(error))
    except (Rejected, Unavailable) as error:
        return Found("PayPal", "fail", str(error), "check the credentials and SMT_PAYPAL_BASE_URL")
    return Found("PayPal", "ok", f"{parts.settings.paypal_base_url} takes the credentials")
