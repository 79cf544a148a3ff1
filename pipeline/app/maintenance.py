"""Erasure, retention, rotation and backups as these settings have them: for commands, and for the scheduler's jobs."""

import structlog

from pipeline.app.container import Container
from pipeline.app.from_settings import backup_store, has_backup_store, product_hook
from pipeline.crypto import rotation
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.crypto.rotation import RotationResult
from pipeline.operations.backup.store import BackupError
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from pipeline.privacy.retention import sweep as retention

log = structlog.get_logger(__name__)


def erasure_dependencies(container: Container) -> ErasureDependencies:
    """Whom an erasure tells."""

    paypal = container.paypal if container.settings.has_paypal_credentials else None
    return ErasureDependencies(paypal, product_hook(container.settings), container.settings.country)


def erase_due(container: Container) -> int:
    """Carry on with the erasures that are due, and note them beside the backups."""

    done = workflow.run_due_erasures(
        container.database, container.master_key, container.clock, erasure_dependencies(container)
    )
    record_erasures(container)
    return done


def record_erasures(container: Container) -> None:
    """Note beside the backups, if there are any, whom a restore has to erase once more."""
    if has_backup_store(container.settings):
        backup_store(container.settings).save_erasures(container.database)


def run_retention(container: Container, *, dry: bool = False) -> dict[str, int]:
    """End what has reached its period; rule -> rows."""

    told = erasure_dependencies(container)

    def end(id: str) -> bool:
        try:
            workflow.carry_out(container.database, container.master_key, container.clock, told, id, basis="retention")
        except workflow.ErasureBlockedError as blocked:
            log.warning("erasure_waits", reason=blocked.reason)
            return False
        return True

    counts = retention.apply_retention(
        container.database, container.clock.now(), container.settings.country, dry, erase=end
    )
    if not dry:
        record_erasures(container)
    return counts


def complete_erasures(container: Container) -> int:
    """Replace the master key if an erasure waits for it. Only where backups are set up: else yours would be of no use."""

    with container.database.transaction() as session:
        done = rotation.complete_erasures(
            session, container.settings.master_key, container.master_key, container.clock.now()
        )
        owed = rotation.is_pending(session)
    if not owed or not has_backup_store(container.settings):
        return done
    try:
        return done + rotate_master_key(container).completed
    except (MasterKeyError, BackupError, OSError) as error:
        log.warning("erasure_incomplete", reason=str(error))
        return done


def rotate_master_key(container: Container) -> RotationResult:
    """Replace the master key, with a copy for the backups before the old one goes."""

    def save(_: MasterKey) -> None:
        if has_backup_store(container.settings):
            backup_store(container.settings).save_keys(
                container.database, container.settings.master_key, container.clock.now(), only=True
            )

    done = rotation.rotate(container.database, container.settings.master_key, container.clock.now(), save=save)
    log.info("master_key_replaced", keys=done.keys, old=done.old_id, new=done.new_id, erasures_completed=done.completed)
    return done
