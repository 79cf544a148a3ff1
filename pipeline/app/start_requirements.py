"""Check before a start that the settings name the real vendor: everything that customers read is set.

With PayPal's live API, everything simulated or pretended is refused too: example domains, a local public URL, and a
demo's data folder.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from pipeline.app.from_settings import sender
from pipeline.network.egress import require_paypal_api
from pipeline.network.hosts import is_on_this_machine, is_reserved_name
from pipeline.network.smtp_url import SmtpConfigError, parse_smtp_url
from pipeline.settings import DEMO_FILE, EXAMPLE_VENDOR, VENDOR, Settings, SettingsError, variable

IDENTITY = (*VENDOR, "public_url", "country")  # what every role needs
ADDRESSES = ("mail_from", "operator_email", "support_email", "privacy_email")
DOMAINS = ("bounce_domain",)
SITES = ("vendor_url", "public_url")


def require_startable(settings: Settings, *others: str) -> None:
    """Raise SettingsError unless a role may start. `others` are additional settings that it needs.

    All missing settings are named at once, otherwise all problems.
    """
    settings.require(*IDENTITY, *others)
    if problems := list(start_problems(settings)):
        raise SettingsError("; ".join(problems))


def missing_identity(settings: Settings) -> list[str]:
    """Return the variables of IDENTITY that are not set."""
    return [variable(name) for name in IDENTITY if not getattr(settings, name)]


def start_problems(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that keeps the roles from starting, except missing ones."""
    for check in (
        lambda: sender(settings),
        lambda: require_paypal_api(settings.paypal_base_url),
        lambda: settings.smtp_url and parse_smtp_url(settings.smtp_url),
    ):
        try:
            check()
        except (SettingsError, SmtpConfigError) as error:
            yield str(error)
    if settings.is_live:
        yield from _pretence(settings)


def _pretence(settings: Settings) -> Iterator[str]:
    """Yield what must not be used together with PayPal's live API."""
    suffix = f"but SMT_PAYPAL_BASE_URL is PayPal's live API ({settings.paypal_base_url})"
    for name, host in _hosts(settings):
        if is_reserved_name(host):
            yield f"{variable(name)} names {host}, which is reserved for examples, {suffix}. Set your own"
        elif name == "public_url" and is_on_this_machine(host):
            yield f"{variable(name)} names {host}, which customers cannot reach, {suffix}. Set the public address"
    for name, example in EXAMPLE_VENDOR.items():
        if getattr(settings, name) == example:
            yield f"{variable(name)} is the example of the documents, {example}, {suffix}. Set your own"
    if (settings.data_dir / DEMO_FILE).exists():
        yield f"{settings.data_dir} contains a demo's simulated customers, {suffix}. Set SMT_DATA_DIR to a new folder"


def _hosts(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that customers see or mail goes to, and its host."""
    for name in (*ADDRESSES, *DOMAINS):
        if value := getattr(settings, name):
            yield name, value.rpartition("@")[2]
    for name in SITES:
        if host := urlsplit(getattr(settings, name)).hostname:
            yield name, host
