"""Check the settings: whether they are set, whether what they name exists, and whether they fit together.

A setting that is used only now and then would otherwise be found wrong too late.
"""

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.app.from_settings import product_hook, sender
from pipeline.clock import Clock
from pipeline.email_address import valid_address
from pipeline.mailer.relay_log import RelayLog
from pipeline.network.egress import require_paypal_api
from pipeline.operations.backup.store import BackupError, read_recipient
from pipeline.privacy.retention.legal_holds import HOLDS
from pipeline.settings import Settings, SettingsError, variable

ADDRESSES = ("operator_email", "support_email", "privacy_email")
TESTS = "SMT_TEST_"  # begins the variables that only the project's own tests read


def check_settings(container: Container) -> CheckResult:
    """Check that the settings needed in operation are set. Raises SettingsError for a sender address that is not valid."""
    settings = container.settings
    sender(settings)
    wanted = {
        "SMT_PAYPAL_WEBHOOK_ID": bool(settings.paypal_webhook_id or settings.paypal_accept_simulator),
        "SMT_SMTP_URL": bool(settings.smtp_url),
        "SMT_OPERATOR_EMAIL": bool(settings.operator_email),
    }
    missing = [name for name, is_set in wanted.items() if not is_set]
    if settings.paypal_accept_simulator:
        return CheckResult(
            "settings",
            "warn",
            "events of PayPal's simulator are accepted",
            "unset SMT_PAYPAL_ACCEPT_SIMULATOR when done",
        )
    if missing:
        return CheckResult(
            "settings", "warn", f"not set: {', '.join(missing)}", "see docs/operate.md for what each is for"
        )
    return CheckResult("settings", "ok", "read")


def check_other_settings(container: Container) -> CheckResult:
    """Files, folders and addresses that settings name and that are used now and then only."""
    settings = container.settings
    if wrong := list(_wrong(settings, container.clock)):
        return CheckResult("other settings", "fail", "; ".join(wrong), "mend what is named")
    if strange := _unknown(os.environ):
        return CheckResult("other settings", "warn", f"no settings of this program: {', '.join(strange)}", "misspelt?")
    if settings.country and settings.country not in HOLDS:
        advice = f"invoices are kept 2 years, as the policy says; known are {', '.join(HOLDS)}"
        return CheckResult("other settings", "warn", f"SMT_COUNTRY: no period is known for {settings.country}", advice)
    return CheckResult("other settings", "ok", "what they name is there")


def _wrong(settings: Settings, clock: Clock) -> Iterator[str]:
    """A sentence for each setting that names nothing, or does not go with another."""
    for name in ADDRESSES:
        if (address := getattr(settings, name)) and not valid_address(address):
            yield f"{variable(name)} is no address that mail can be sent to: {address}"
    if settings.bounce_domain and not valid_address(f"b@{settings.bounce_domain}"):
        yield f"{variable('bounce_domain')} is no domain: {settings.bounce_domain}"
    if (log := settings.relay_log) and not RelayLog(log, clock).can_be_read():
        yield f"{variable('relay_log')}: neither {log} nor a file it was rotated to can be read"
    if (maildir := settings.inbound_maildir) and not (maildir / "new").is_dir():
        yield f"{variable('inbound_maildir')}: {maildir} is no Maildir"
    if bool(settings.paypal_client_id) != bool(settings.paypal_client_secret.get_secret_value()):
        yield f"{variable('paypal_client_id')} and {variable('paypal_client_secret')} go together, and one is not set"
    yield from _product(settings)
    yield from _backup(settings)
    try:
        require_paypal_api(settings.paypal_base_url)
    except SettingsError as error:
        yield str(error)


def _unknown(environment: Mapping[str, str]) -> list[str]:
    """Names that look like settings of ours and are none: misspelt, perhaps."""
    known = {variable(name) for name in Settings.model_fields}
    named = (name for name in environment if name.startswith("SMT_") and not name.startswith(TESTS))
    return sorted(name for name in named if name.removesuffix("_FILE") not in known)


def _product(settings: Settings) -> Iterator[str]:
    try:
        product_hook(settings)
    except SettingsError as error:
        yield str(error)
    if settings.product_command and not shutil.which(shlex.split(settings.product_command)[0]):
        yield f"{variable('product_command')}: there is no such command"


def _backup(settings: Settings) -> Iterator[str]:
    try:
        if settings.backup_recipient:
            read_recipient(settings.backup_recipient)
    except BackupError as error:
        yield str(error)
    if (folder := settings.backup_dir) is None:
        return
    if not settings.backup_recipient:
        yield f"{variable('backup_dir')} is set without {variable('backup_recipient')}: there are no backups"
    if folder.resolve().is_relative_to(settings.data_dir.resolve()):
        yield f"{variable('backup_dir')} lies in the data folder: what takes the one takes the other"
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        yield f"{variable('backup_dir')}: {folder} cannot be written"
