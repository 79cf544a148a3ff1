"""Check the servers that the program connects to: the broker, the mail relay, and PayPal's API."""

import asyncio

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.broker import BrokerUnavailableError
from pipeline.mailer.smtp_relay import Relay, RelayUnreachableError
from pipeline.network.smtp_url import SmtpConfigError
from pipeline.paypal.errors import PaypalRejectedError, PaypalUnavailableError
from pipeline.settings import SettingsError

SMTP_SECONDS = 10.0  # how long to wait for the relay's greeting


def check_broker(container: Container) -> CheckResult:
    """Check that the broker answers."""
    try:
        return CheckResult("broker", "ok", container.broker.check())
    except SettingsError as error:
        return CheckResult("broker", "fail", str(error), "see SMT_BROKER_URL in docs/operations.md")
    except BrokerUnavailableError as error:
        return CheckResult(
            "broker",
            "fail",
            str(error),
            "check SMT_BROKER_URL and that the server runs; until then no event is lost, but events are delayed",
        )


def check_relay(container: Container) -> CheckResult:
    """Check that the relay answers."""
    if not container.settings.smtp_url:
        return CheckResult(
            "relay",
            "warn",
            "SMT_SMTP_URL is not set",
            "mail stays queued until you set it, such as smtp://127.0.0.1:25",
        )
    try:
        return CheckResult("relay", "ok", asyncio.run(_probe(container)))
    except SmtpConfigError as error:
        return CheckResult("relay", "fail", str(error))
    except RelayUnreachableError as error:
        return CheckResult(
            "relay", "fail", str(error), "check SMT_SMTP_URL and that the relay runs; until then mail stays queued"
        )


async def _probe(container: Container) -> str:
    relay = Relay(container.settings.smtp_url, connections=1, timeout_seconds=SMTP_SECONDS)
    try:
        return await relay.probe()
    finally:
        await relay.close()


def check_paypal(container: Container) -> CheckResult:
    """Check that PayPal's API accepts the credentials."""
    if not container.settings.has_paypal_credentials:
        advice = (
            "set SMT_PAYPAL_CLIENT_ID and SMT_PAYPAL_CLIENT_SECRET; until then an event that needs a look-up is parked"
        )
        return CheckResult("PayPal", "warn", "no API credentials, so no look-ups in PayPal's API", advice)
    try:
        container.paypal.check_credentials()
    except SettingsError as error:
        return CheckResult("PayPal", "fail", str(error))
    except (PaypalRejectedError, PaypalUnavailableError) as error:
        return CheckResult("PayPal", "fail", str(error), "check the credentials and SMT_PAYPAL_BASE_URL")
    return CheckResult("PayPal", "ok", f"{container.settings.paypal_base_url} accepts the credentials")
