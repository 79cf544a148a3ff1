"""Check the settings: required ones are set, files and commands that they name exist, and they do not conflict.

Without these checks, a wrong setting that is rarely used would be noticed too late.
"""

import os
import shlex
import shutil
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import Literal

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.app.start_requirements import missing_settings, start_problems
from pipeline.clock import Clock
from pipeline.inbound_mail.maildir import FAILED
from pipeline.mailer.relay_log import RelayLog
from pipeline.privacy.retention.legal_holds import HOLDS
from pipeline.settings import DEMO_FILE, PREFIX, Settings, env_file, variable

EXPECTED = ("smtp_url", "operator_email")  # production needs them, but `run` starts without them
NARROWEST_TRUST = {4: 8, 6: 32}  # prefix lengths by IP version; a shorter one is a mistake
TESTS = "SMT_TEST_"  # prefix of the variables that only this project's tests read


def check_settings(container: Container) -> CheckResult:
    """Check that the settings that every role needs are set and usable, and that no other is forgotten."""
    settings = container.settings
    if missing := missing_settings(settings, "run"):
        advice = "set what is missing in the environment or in .env; README.md lists a minimal configuration"
        # A demo ran with settings of its own; its folder alone needs none.
        state: Literal["warn", "fail"] = "warn" if (settings.data_dir / DEMO_FILE).exists() else "fail"
        return CheckResult("settings", state, f"smt-billing run does not start without {', '.join(missing)}", advice)
    if problems := list(start_problems(settings)):
        return CheckResult("settings", "fail", "; ".join(problems), "fix the settings listed; no role starts before")
    if settings.paypal_accept_simulator:
        advice = "unset SMT_PAYPAL_ACCEPT_SIMULATOR after the test"
        return CheckResult("settings", "warn", "events of PayPal's simulator are accepted", advice)
    if forgotten := [variable(name) for name in EXPECTED if not getattr(settings, name)]:
        advice = "docs/operations.md explains each setting"
        return CheckResult("settings", "warn", f"not set: {', '.join(forgotten)}", advice)
    return CheckResult("settings", "ok", "all required settings are set")


def check_other_settings(container: Container) -> CheckResult:
    """Check the files, folders, addresses and commands that settings name, and unknown SMT_ variables."""
    settings = container.settings
    if problems := list(_problems(settings, container.clock)):
        return CheckResult("other settings", "fail", "; ".join(problems), "fix the settings listed")
    file = env_file()
    if unknown := _unknown({*os.environ, *(file.variables if file else ())}):
        return CheckResult(
            "other settings", "warn", f"unknown settings: {', '.join(unknown)}", "correct the spelling, or unset them"
        )
    if not settings.country:
        return CheckResult(
            "other settings",
            "warn",
            "SMT_COUNTRY is not set: records of payments are deleted after two years, as in the policy",
            f"set it to your country if its law requires longer; known: {', '.join(HOLDS)}",
        )
    if settings.country not in HOLDS:
        advice = f"invoices are kept for 2 years, as in the policy; known countries: {', '.join(HOLDS)}"
        return CheckResult(
            "other settings", "warn", f"SMT_COUNTRY: the retention period for {settings.country} is unknown", advice
        )
    return CheckResult("other settings", "ok", "the files, folders and commands that they name exist")


def check_proxies(container: Container) -> CheckResult:
    """Check that the reverse proxy is trusted, and no one else: rate limits count by the address it reports."""
    settings = container.settings
    proxies = [ip_network(each) for each in settings.trusted_proxies]
    wide = [str(each) for each in proxies if each.prefixlen < NARROWEST_TRUST[each.version]]
    if wide:
        advice = "name the addresses of your reverse proxies; everybody else can forge the address that is counted"
        return CheckResult(
            "proxies", "fail", f"SMT_TRUSTED_PROXIES trusts very many addresses: {', '.join(wide)}", advice
        )
    if not _is_loopback(settings.web_host) and all(each.is_loopback for each in proxies):
        advice = "add your reverse proxy's address; otherwise all visitors behind it share one rate limit"
        return CheckResult(
            "proxies",
            "warn",
            f"the web role listens on {settings.web_host}, and SMT_TRUSTED_PROXIES names no proxy",
            advice,
        )
    return CheckResult("proxies", "ok", f"trusted: {', '.join(map(str, proxies)) or 'none'}")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _problems(settings: Settings, clock: Clock) -> Iterator[str]:
    """Yield a sentence for each invalid setting and each conflict between settings."""
    if (log := settings.relay_log) and not RelayLog(log, clock).can_be_read():
        yield f"{variable('relay_log')}: {log} and its rotated files are not readable"
    if (maildir := settings.inbound_maildir) and not (maildir / "new").is_dir():
        yield f"{variable('inbound_maildir')}: {maildir} is not a Maildir"
    if maildir and (failed := len(list((maildir / FAILED).glob("*")))):
        yield f"{maildir / FAILED} contains {failed} message(s) that could not be filed; move them to new, or delete them"
    if settings.product_command and not shutil.which(shlex.split(settings.product_command)[0]):
        yield f"{variable('product_command')}: the command does not exist"
    yield from _backup(settings)


def _unknown(names: Iterable[str]) -> list[str]:
    """Return the names of SMT_ variables that are not settings, sorted."""
    settings = {variable(name) for name in Settings.model_fields}
    known = settings | {f"{name}_FILE" for name in settings}
    return sorted(
        name for name in names if name.startswith(PREFIX) and not name.startswith(TESTS) and name not in known
    )


def _backup(settings: Settings) -> Iterator[str]:
    if (folder := settings.backup_dir) is None:
        return
    if not settings.backup_recipient:
        yield f"{variable('backup_dir')} is set without {variable('backup_recipient')}, so no backups are made"
    if folder.resolve().is_relative_to(settings.data_dir.resolve()):
        yield f"{variable('backup_dir')} is inside the data folder, so a loss of that folder destroys the backups too"
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        yield f"{variable('backup_dir')}: {folder} is not writable"
