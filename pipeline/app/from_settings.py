"""Pure functions that create objects from the settings, without opening files or connections."""

from datetime import timedelta

from pipeline.customers.product_hook import ProductHook, is_safe_url
from pipeline.email_address import InvalidEnvelopeError, ascii_address, valid_address
from pipeline.mailer.mailer import Sender
from pipeline.mailer.relay_log import envelope_sender_of
from pipeline.operations.backup.store import BackupStore
from pipeline.policy import processing_record
from pipeline.policy.clauses import PolicyOwner
from pipeline.privacy.export.page import ExportIssuer
from pipeline.rendering.branding import Branding
from pipeline.settings import VENDOR, Settings, SettingsError, variable

MAIL_ID_LENGTH = 26  # characters of the id of a mail


def branding(settings: Settings) -> Branding:
    """Return the vendor's name, colour and links for mails and pages. Raises SettingsError if the vendor is not set."""
    settings.require(*VENDOR)
    return Branding(
        name=settings.vendor_name,
        url=settings.vendor_url,
        address=settings.vendor_address,
        colour=settings.vendor_colour,
        product=settings.product_name,
        support_email=settings.support_email or settings.mail_from,
    )


def sender(settings: Settings) -> Sender:
    """Return the sender of all mails. Raises SettingsError if an address is not valid."""
    settings.require("vendor_name", "mail_from")
    if not valid_address(settings.mail_from):
        raise SettingsError(f"SMT_MAIL_FROM is not an e-mail address: {settings.mail_from}")
    return Sender(
        name=settings.vendor_name,
        address=settings.mail_from,
        reply_to=settings.support_email or settings.mail_from,
        envelope_domain=envelope_domain(settings),
        locale=settings.locale,
        operator=settings.operator_email,
        pages=settings.public_url,
    )


def envelope_domain(settings: Settings) -> str:
    """Return the domain of envelope senders and Message-IDs: A-labels in lower case, as the relay logs it.

    Raises SettingsError if it is not a domain, or too long for an envelope sender.
    """
    domain = settings.envelope_domain
    try:
        return ascii_address(envelope_sender_of("x" * MAIL_ID_LENGTH, domain)).rpartition("@")[2]
    except InvalidEnvelopeError:
        name = variable("bounce_domain" if settings.bounce_domain else "mail_from")
        raise SettingsError(
            f"{name}: mails cannot be sent from the domain {domain}. It must be a domain of at most 225 characters, "
            "because each mail has the envelope sender b+<mail id>@<domain>"
        ) from None


def privacy_contact(settings: Settings) -> str:
    """Return the address for questions about personal data. Raises SettingsError if no contact is set."""
    settings.require("mail_from")
    return settings.privacy_email or settings.support_email or settings.mail_from


def account_page_url(settings: Settings) -> str:
    """Return the URL of the page where customers view and change their data."""
    return f"{settings.pages_url}/account"


def export_issuer(settings: Settings) -> ExportIssuer:
    """Return the issuer of data exports."""
    settings.require("vendor_name")
    return ExportIssuer(
        settings.vendor_name, privacy_contact(settings), settings.locale, processing_record.information(settings)
    )


def policy_owner(settings: Settings) -> PolicyOwner:
    """Return the owner of the privacy policy."""
    settings.require("vendor_name", "product_name", "vendor_url")
    return PolicyOwner(settings.vendor_name, settings.product_name, settings.vendor_url, privacy_contact(settings))


def product_hook(settings: Settings) -> ProductHook:
    """Return the product's own hook for exports and erasures.

    Raises SettingsError if both a command and a URL are set, or a URL that would send personal data unencrypted.
    """
    if settings.product_command and settings.product_url:
        raise SettingsError("set SMT_PRODUCT_COMMAND or SMT_PRODUCT_URL, not both")
    if settings.product_url and not is_safe_url(settings.product_url):
        raise SettingsError("SMT_PRODUCT_URL must be https://, or http:// on this machine: it receives personal data")
    return ProductHook(settings.product_command, settings.product_url, settings.product_token.get_secret_value())


def erasure_wait(settings: Settings) -> timedelta:
    """Return how long a requested erasure can still be cancelled."""
    return timedelta(hours=settings.erase_wait_hours)


def backup_store(settings: Settings, *, create: bool = True) -> BackupStore:
    """Return the store of the backups. Raises SettingsError if its folder, or with `create` its recipient, is not set."""
    settings.require("backup_dir", *(("backup_recipient",) if create else ()))
    assert settings.backup_dir is not None  # noqa: S101 - `require` raises otherwise
    kept = (timedelta(days=settings.backup_keys_days), timedelta(days=settings.backup_days))
    return BackupStore(settings.backup_dir, settings.backup_recipient, *kept)


def has_backup_store(settings: Settings) -> bool:
    """Return whether backups are configured."""
    return bool(settings.backup_dir and settings.backup_recipient)
