"""Erasure, retention, rotation and backups as these settings have them: for commands, and for the scheduler's jobs."""

import structlog

from pipeline.app.container import Container
from pipeline.app.from_settings import has_backup_store, product, shelf
from pipeline.crypto import rotation
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.crypto.rotation import RotationResult
from pipeline.operations.backup.store import BackupError
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from pipeline.privacy.retention import sweep as retention

log = structlog.get_logger(__name__)


def outside(parts: Container) -> ErasureDependencies:
    """Whom an erasure tells."""

    paypal = parts.paypal if parts.settings.has_paypal_credentials else None
    return ErasureDependencies(paypal, product(parts.settings), parts.settings.country)


def erase_due(parts: Container) -> int:
    """Carry on with the erasures that are due, and note them beside the backups."""

    done = workflow.run_due(parts.database, parts.master, parts.clock, outside(parts))
    record_erasures(parts)
    return done


def record_erasures(parts: Container) -> None:
    """Note beside the backups, if there are any, whom a restore has to erase once more."""
    if has_backup_store(parts.settings):
        shelf(parts.settings).save_erasures(parts.database)


def sweep(parts: Container, *, dry: bool = False) -> dict[str, int]:
    """End what has reached its period; rule -> rows."""

    told = outside(parts)

    def end(id: str) -> bool:
        try:
            workflow.carry_out(parts.database, parts.master, parts.clock, told, id, basis="retention")
        except workflow.ErasureBlockedError as blocked:
            log.warning("erasure_waits", reason=blocked.reason)
            return False
        return True

    counts = retention.sweep(parts.database, parts.clock.now(), parts.settings.country, dry, erase=end)
    if not dry:
        record_erasures(parts)
    return counts


def complete(parts: Container) -> int:
    """Replace the master key if an erasure waits for it. Only where backups are set up: else yours would be of no use."""

    with parts.database.transaction() as session:
        done = rotation.settle(session, parts.settings.master_key, parts.master, parts.clock.now())
        owed = rotation.is_owed(session)
    if not owed or not has_backup_store(parts.settings):
        return done
    try:
        return done + rotate(parts).completed
    except (MasterKeyError, BackupError, OSError) as error:
        log.warning("erasure_incomplete", reason=str(error))
        return done


def rotate(parts: Container) -> RotationResult:
    """Replace the master key, with a copy for the backups before the old one goes."""

    def save(_: MasterKey) -> None:
        if has_backup_store(parts.settings):
            shelf(parts.settings).save_keys(parts.database, parts.settings.master_key, parts.clock.now(), only=True)

    done = rotation.rotate(parts.database, parts.settings.master_key, parts.clock.now(), save=save)
    log.info("master_key_replaced", keys=done.keys, old=done.old_id, new=done.new_id, erasures_completed=done.completed)
    return done
