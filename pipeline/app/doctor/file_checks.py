"""Check local files: the data folder, the master key, and the certificates."""

import os
import stat
from datetime import datetime, timedelta

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.crypto.master_key import MasterKeyError, open_master_key
from pipeline.db.engine import DatabaseUnavailableError, exists
from pipeline.paypal.certificate_rules import TrustAnchors, parse_certificate, require_valid_at
from pipeline.paypal.errors import SignatureError
from pipeline.settings import DEMO_FILE, SettingsError

EXPIRES_SOON = timedelta(days=14)


def check_data_folder(container: Container) -> CheckResult:
    """Check the data folder and its permissions."""
    folder = container.settings.data_dir
    try:
        found = folder.stat()
    except OSError as error:
        return CheckResult(
            "data folder", "fail", f"{folder}: {error.strerror}", "run: smt-billing db upgrade, which makes it"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        return CheckResult("data folder", "fail", f"{folder} cannot be written", f"give it to user {os.geteuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return CheckResult(
            "data folder", "fail", f"{folder} is open to others ({mode:04o})", f"run: chmod 700 {folder}"
        )
    if (folder / DEMO_FILE).exists():
        advice = "for real customers choose another SMT_DATA_DIR"
        return CheckResult("data folder", "warn", f"{folder}, {mode:04o}, holds a demo's pretend customers", advice)
    return CheckResult("data folder", "ok", f"{folder}, {mode:04o}")


def check_master_key(container: Container) -> CheckResult:
    """Check that the master key exists, can be read, and can be replaced."""
    path = container.settings.master_key
    if not path.exists() and _is_needed(container):
        advice = "restore it from your copy or the newest backup; a new one opens nothing of this database"
        return CheckResult("master key", "fail", f"{path} is missing, and this database was written with one", advice)
    if not path.exists():
        return CheckResult(
            "master key", "warn", f"{path} does not exist", "it is made at the first start; then keep a copy elsewhere"
        )
    try:
        key = open_master_key(path, create=False)
    except MasterKeyError as error:
        return CheckResult("master key", "fail", str(error), "without it nothing personal can be read")
    if not os.access(path.parent, os.W_OK):
        advice = "keep it in a folder of this user's, so that an erasure can replace it; a mounted secret can never be replaced"
        return CheckResult(
            "master key", "warn", f"{path.parent} cannot be written to: no erasure becomes complete", advice
        )
    return CheckResult("master key", "ok", f"{path}, {stat.S_IMODE(path.stat().st_mode):04o}, id {key.id}")


def _is_needed(container: Container) -> bool:
    """Whether anything was sealed with a master key already."""
    try:
        return exists(container.settings.database) and container.database.holds_keys()
    except DatabaseUnavailableError:  # which the look at the database tells
        return False


def check_certificates(container: Container) -> CheckResult:
    """Those that were kept. One that is bad is fetched again by itself; to know of it is enough."""
    folder, now = container.settings.certificates_dir, container.clock.now()
    kept = sorted(folder.glob("*.pem")) if folder.is_dir() else []
    ends: list[datetime] = []
    for path in kept:
        try:
            leaf = parse_certificate(path.read_bytes())
            require_valid_at(leaf, now)
        except (OSError, SignatureError) as error:
            return CheckResult(
                "certificates", "warn", f"{path}: {error}", "it is ignored and fetched again when PayPal uses it"
            )
        ends.append(leaf.not_after)
    if not ends:
        return CheckResult("certificates", "ok", "none kept yet; fetched with PayPal's first webhook")
    if min(ends) - now < EXPIRES_SOON:
        return CheckResult(
            "certificates", "ok", f"{len(ends)} kept, one until {min(ends):%Y-%m-%d}; PayPal sends a new one in time"
        )
    return CheckResult("certificates", "ok", f"{len(ends)} kept, valid until {min(ends):%Y-%m-%d}")


def check_trust_anchors(container: Container) -> CheckResult:
    """Check that the trust anchors can be read, if any are set."""
    path = container.settings.paypal_trust_anchors
    if path is None:
        return CheckResult("trust anchors", "ok", "not set: PayPal's host and name vouch for its certificate")
    try:
        anchors = TrustAnchors.load(path)
    except SettingsError as error:
        return CheckResult(
            "trust anchors", "fail", str(error), "no webhook is accepted before SMT_PAYPAL_TRUST_ANCHORS is mended"
        )
    return CheckResult("trust anchors", "ok", f"{path}, {len(anchors.intermediates)} intermediates")
