"""Check before a start that the settings name the real vendor: everything that customers read is set.

With PayPal's live API, everything simulated or pretended is refused too: example domains, a local public URL, and a
demo's data folder.
"""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from pipeline.app.from_settings import product_hook, sender
from pipeline.broker import Broker
from pipeline.email_address import valid_address
from pipeline.errors import UsageError
from pipeline.network.egress import require_paypal_api
from pipeline.network.hosts import is_on_this_machine, is_reserved_name
from pipeline.network.smtp_url import parse_smtp_url
from pipeline.operations.backup.store import read_recipient
from pipeline.settings import DEMO_FILE, EXAMPLE_VENDOR, VENDOR, Settings, SettingsError, variable

IDENTITY = (*VENDOR, "public_url", "country")  # what every role needs
VERIFYING = ("run", "web")  # the commands that verify signatures
RELAYING = ("mailer",)  # the commands that do nothing without a relay; `run` keeps mail queued
ADDRESSES = ("mail_from", "operator_email", "support_email", "privacy_email")
DOMAINS = ("bounce_domain",)
SITES = ("vendor_url", "public_url")


def require_startable(settings: Settings, role: str) -> None:
    """Raise SettingsError unless a role may start. `role` is its command, such as `run`.

    All missing settings are named at once, otherwise all problems.
    """
    settings.require(*needed_by(settings, role))
    if problems := list(start_problems(settings)):
        raise SettingsError("; ".join(problems))


def needed_by(settings: Settings, role: str) -> tuple[str, ...]:
    """Return the settings without which a role does not start. `role` is its command, such as `run`.

    The web role needs a webhook id to verify signatures, unless it accepts PayPal's simulator.
    """
    webhook = ("paypal_webhook_id",) if role in VERIFYING and not settings.paypal_accept_simulator else ()
    return (*IDENTITY, *webhook, *(("smtp_url",) if role in RELAYING else ()))


def missing_settings(settings: Settings, role: str) -> list[str]:
    """Return the variables of `needed_by` that are not set."""
    return [variable(name) for name in needed_by(settings, role) if not getattr(settings, name)]


def start_problems(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that keeps the roles from starting, except missing ones."""
    checks: tuple[Callable[[], object], ...] = (
        lambda: sender(settings),
        lambda: require_paypal_api(settings.paypal_base_url),
        lambda: settings.smtp_url and parse_smtp_url(settings.smtp_url),
        lambda: Broker(settings.broker_url),
        lambda: product_hook(settings),
        lambda: settings.backup_recipient and read_recipient(settings.backup_recipient),
    )
    for check in checks:
        try:
            check()
        except UsageError as error:
            yield str(error)
    for name in ADDRESSES[1:]:  # `sender` has checked the first
        if (address := getattr(settings, name)) and not valid_address(address):
            yield f"{variable(name)} is not an e-mail address: {address}"
    if bool(settings.paypal_client_id) != settings.has_paypal_secret:
        yield f"{variable('paypal_client_id')} and {variable('paypal_client_secret')} must be set together; one is missing"
    if settings.is_live and (found := list(_pretence(settings))):
        yield (
            f"SMT_PAYPAL_BASE_URL is PayPal's live API ({settings.paypal_base_url}), which real customers use, but "
            f"{', '.join(found)}. Set your own values"
        )


def _pretence(settings: Settings) -> Iterator[str]:
    """Yield what must not be used together with PayPal's live API."""
    for name, host in _hosts(settings):
        if is_reserved_name(host):
            yield f"{variable(name)} names {host} (reserved for examples)"
        elif name == "public_url" and is_on_this_machine(host):
            yield f"{variable(name)} names {host} (customers cannot reach it)"
    for name, example in EXAMPLE_VENDOR.items():
        if getattr(settings, name) == example:
            yield f"{variable(name)} is {example} (the example of the documents)"
    if (settings.data_dir / DEMO_FILE).exists():
        yield f"{variable('data_dir')} names {settings.data_dir} (it contains a demo's simulated customers)"


def _hosts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that customers see or mail goes to, and its host."""
    for name in (*ADDRESSES, *DOMAINS):
        if value := getattr(settings, name):
            yield name, value.rpartition("@")[2]
    for name in SITES:
        if host := urlsplit(getattr(settings, name)).hostname:
            yield name, host
