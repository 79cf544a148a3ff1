"""Check local files: the data folder, the master key, and the certificates."""

import os
import stat
from datetime import datetime, timedelta
from pathlib import Path

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.crypto.master_key import MasterKeyError, open_master_key
from pipeline.db.engine import DatabaseUnavailableError, exists
from pipeline.paypal.certificate_rules import TrustAnchors, parse_certificate, require_valid_at
from pipeline.paypal.errors import SignatureError
from pipeline.settings import DEMO_FILE, SettingsError, env_file

EXPIRES_SOON = timedelta(days=14)  # a certificate that ends earlier is mentioned


def check_env_file(_: Container) -> CheckResult:
    """Name the `.env` file that the settings were read from. A refused file is reported instead of all checks."""
    file = env_file()
    if file is None:
        return CheckResult("settings file", "ok", f"no .env in {Path.cwd()}: settings come from the environment only")
    return CheckResult("settings file", "ok", f"{file.path}, {file.mode:04o}, {len(file.variables)} variables")


def check_data_folder(container: Container) -> CheckResult:
    """Check the data folder and its permissions."""
    folder = container.settings.data_dir
    try:
        found = folder.stat()
    except FileNotFoundError:
        advice = "smt-billing run or smt-billing db upgrade creates it; check SMT_DATA_DIR if it should exist"
        return CheckResult("data folder", "warn", f"{folder.absolute()} does not exist yet", advice)
    except OSError as error:
        return CheckResult("data folder", "fail", f"{folder}: {error.strerror}", "check SMT_DATA_DIR")
    if not os.access(folder, os.W_OK | os.X_OK):
        return CheckResult("data folder", "fail", f"{folder} is not writable", f"run: chown {os.geteuid()} {folder}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return CheckResult(
            "data folder", "fail", f"other users can access {folder} (mode {mode:04o})", f"run: chmod 700 {folder}"
        )
    if (folder / DEMO_FILE).exists():
        advice = "set SMT_DATA_DIR to another folder for real customers"
        return CheckResult(
            "data folder", "warn", f"{folder}, {mode:04o}, contains a demo's simulated customers", advice
        )
    return CheckResult("data folder", "ok", f"{folder}, {mode:04o}")


def check_master_key(container: Container) -> CheckResult:
    """Check that the master key exists, is readable, and can be replaced."""
    path = container.settings.master_key
    if not path.exists() and _has_encrypted_data(container):
        advice = "restore it from your copy or the newest backup; a new key cannot decrypt this database"
        return CheckResult("master key", "fail", f"{path} is missing, but the database contains encrypted data", advice)
    if not path.exists():
        return CheckResult(
            "master key",
            "warn",
            f"{path} does not exist",
            "the first start creates it; then keep a copy on another machine",
        )
    try:
        key = open_master_key(path, create=False)
    except MasterKeyError as error:
        return CheckResult("master key", "fail", str(error), "without it, personal data cannot be decrypted")
    if not os.access(path.parent, os.W_OK):
        advice = "keep it in a folder that this user can write to: a key rotation replaces it, which a mounted secret prevents"
        return CheckResult("master key", "warn", f"{path.parent} is not writable, so no erasure is complete", advice)
    return CheckResult("master key", "ok", f"{path}, {stat.S_IMODE(path.stat().st_mode):04o}, id {key.id}")


def _has_encrypted_data(container: Container) -> bool:
    """Return whether the database contains data keys."""
    try:
        return exists(container.settings.database) and container.database.holds_keys()
    except DatabaseUnavailableError:  # the check of the database reports it
        return False


def check_certificates(container: Container) -> CheckResult:
    """Check the stored certificates of PayPal. An invalid one is only a warning, because it is downloaded again."""
    folder, now = container.settings.certificates_dir, container.clock.now()
    stored = sorted(folder.glob("*.pem")) if folder.is_dir() else []
    ends: list[datetime] = []
    for path in stored:
        try:
            leaf = parse_certificate(path.read_bytes())
            require_valid_at(leaf, now)
        except (OSError, SignatureError) as error:
            return CheckResult(
                "certificates", "warn", f"{path}: {error}", "no action: it is downloaded again when PayPal uses it"
            )
        ends.append(leaf.not_after)
    if not ends:
        return CheckResult("certificates", "ok", "none stored yet; PayPal's first webhook names one to download")
    if min(ends) - now < EXPIRES_SOON:
        return CheckResult(
            "certificates",
            "ok",
            f"{len(ends)} stored, one valid until {min(ends):%Y-%m-%d}; PayPal will switch to a new one",
        )
    return CheckResult("certificates", "ok", f"{len(ends)} stored, valid until {min(ends):%Y-%m-%d}")


def check_trust_anchors(container: Container) -> CheckResult:
    """Check that the trust anchors are readable. Without them the chain is not checked, which is a warning if money is real."""
    path = container.settings.paypal_trust_anchors
    if path is None:
        found = "not set: the URL, name and validity of PayPal's certificate are checked, but not its chain of issuers"
        advice = "set SMT_PAYPAL_TRUST_ANCHORS to a PEM file; see docs/operations.md#trust-anchors"
        return CheckResult("trust anchors", "warn" if container.settings.is_live else "ok", found, advice)
    try:
        anchors = TrustAnchors.load(path)
    except SettingsError as error:
        return CheckResult(
            "trust anchors", "fail", str(error), "fix SMT_PAYPAL_TRUST_ANCHORS; until then no webhook is accepted"
        )
    return CheckResult("trust anchors", "ok", f"{path}, {len(anchors.intermediates)} intermediates")
