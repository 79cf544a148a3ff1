"""Erasure, retention, rotation and backups as these settings have them: for commands, and for the scheduler's jobs."""

from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from pipeline.app.container import Parts
    from pipeline.crypto.master_key import MasterKey
    from pipeline.crypto.rotation import Rotated
    from pipeline.operations.backup.store import Shelf
    from pipeline.privacy.erasure.workflow import Outside
    from pipeline.settings import Settings

log = structlog.get_logger(__name__)


def outside(parts: "Parts") -> "Outside":
    """Whom an erasure tells."""
    from pipeline.app.container import product
    from pipeline.privacy.erasure.workflow import Outside

    paypal = parts.paypal if parts.settings.reads_paypal else None
    return Outside(paypal, product(parts.settings), parts.settings.country)


def wait(settings: "Settings") -> timedelta:
    """The waiting period of a deletion."""
    return timedelta(hours=settings.erase_wait_hours)


def shelf(settings: "Settings") -> "Shelf":
    """Where backups lie. Raises SettingsError where none are set up."""
    from pipeline.operations.backup.store import Shelf

    settings.need("backup_dir", "backup_recipient")
    assert settings.backup_dir is not None  # noqa: S101 - `need` has seen to it
    kept = (timedelta(days=settings.backup_keys_days), timedelta(days=settings.backup_days))
    return Shelf(settings.backup_dir, settings.backup_recipient, *kept)


def has_shelf(settings: "Settings") -> bool:
    """Whether backups are set up."""
    return bool(settings.backup_dir and settings.backup_recipient)


def erase_due(parts: "Parts") -> int:
    """Carry on with the erasures that are due, and note them beside the backups."""
    from pipeline.privacy.erasure import workflow as erase

    done = erase.run_due(parts.database, parts.master, parts.clock, outside(parts))
    note_erasures(parts)
    return done


def note_erasures(parts: "Parts") -> None:
    """Note beside the backups, if there are any, whom a restore has to erase once more."""
    if has_shelf(parts.settings):
        shelf(parts.settings).save_erasures(parts.database)


def sweep(parts: "Parts", *, dry: bool = False) -> dict[str, int]:
    """End what has reached its period; rule -> rows."""
    from pipeline.privacy.erasure import workflow as erase
    from pipeline.privacy.retention import sweep as retention

    told = outside(parts)

    def end(id: str) -> bool:
        try:
            erase.carry_out(parts.database, parts.master, parts.clock, told, id, basis="retention")
        except erase.Blocked as blocked:
            log.warning("erasure_waits", reason=blocked.reason)
            return False
        return True

    counts = retention.sweep(parts.database, parts.clock.now(), parts.settings.country, dry, erase=end)
    if not dry:
        note_erasures(parts)
    return counts


def complete(parts: "Parts") -> int:
    """Replace the master key if an erasure waits for it. Only where backups are set up: else yours would be of no use."""
    from pipeline.crypto import rotation
    from pipeline.crypto.master_key import KeyProblem
    from pipeline.operations.backup.store import BackupProblem

    with parts.database.transaction() as session:
        done = rotation.settle(session, parts.settings.master_key, parts.master, parts.clock.now())
        owed = rotation.is_owed(session)
    if not owed or not has_shelf(parts.settings):
        return done
    try:
        return done + rotate(parts).completed
    except (KeyProblem, BackupProblem, OSError) as error:
        log.warning("erasure_incomplete", reason=str(error))
        return done


def rotate(parts: "Parts") -> "Rotated":
    """Replace the master key, with a copy for the backups before the old one goes."""
    from pipeline.crypto import rotation

    def save(_: "MasterKey") -> None:
        if has_shelf(parts.settings):
            shelf(parts.settings).save_keys(parts.database, parts.settings.master_key, parts.clock.now(), only=True)

    done = rotation.rotate(parts.database, parts.settings.master_key, parts.clock.now(), save=save)
    log.info("master_key_replaced", keys=done.keys, old=done.old_id, new=done.new_id, erasures_completed=done.completed)
    return done
