"""Erasure, retention, key rotation and their backups, configured by the settings. Commands and scheduled jobs call them."""

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
    """Return what an erasure needs: PayPal's API, the product hook, and the country whose law applies."""

    paypal = container.paypal if container.settings.has_paypal_credentials else None
    return ErasureDependencies(paypal, product_hook(container.settings), container.settings.country)


def erase_due(container: Container) -> int:
    """Run due erasures, and record them in the backup folder. Return the number of steps done."""

    done = workflow.run_due_erasures(
        container.database, container.master_key, container.clock, erasure_dependencies(container)
    )
    record_erasures(container)
    return done


def record_erasures(container: Container) -> None:
    """If backups are configured, list erased customers in the backup folder: a restore must repeat their erasure."""
    if has_backup_store(container.settings):
        backup_store(container.settings).save_erasures(
            container.database, container.settings.master_key, container.clock.now()
        )


def run_retention(container: Container, *, dry: bool = False) -> dict[str, int]:
    """Delete data past its retention period. Return the number of rows for each rule. `dry` changes nothing."""

    dependencies = erasure_dependencies(container)

    def erase(id: str) -> bool:
        try:
            workflow.carry_out(
                container.database, container.master_key, container.clock, dependencies, id, basis="retention"
            )
        except workflow.ErasureBlockedError as blocked:
            log.warning("erasure_blocked", reason=blocked.reason)
            return False
        return True

    counts = retention.apply_retention(
        container.database, container.clock.now(), container.settings.country, dry, erase=erase
    )
    if not dry:
        record_erasures(container)
    return counts


def complete_erasures(container: Container) -> int:
    """Complete erasures: replace the master key if an erasure needs it. Return the number of completed erasures.

    Without backups it replaces no key, because the operator's copy of the key would silently become useless.
    """

    with container.database.transaction() as session:
        done = rotation.complete_erasures(
            session, container.settings.master_key, container.master_key, container.clock.now()
        )
        is_pending = rotation.is_pending(session)
    if not is_pending or not has_backup_store(container.settings):
        return done
    try:
        return done + rotate_master_key(container).completed
    except (MasterKeyError, BackupError, OSError) as error:
        log.warning("key_rotation_failed", reason=str(error))
        return done


def rotate_master_key(container: Container) -> RotationResult:
    """Replace the master key. If backups are configured, back up the new key before the old one is destroyed."""

    def save(_: MasterKey) -> None:
        if has_backup_store(container.settings):
            backup_store(container.settings).save_keys(
                container.database, container.settings.master_key, container.clock.now(), only=True
            )

    done = rotation.rotate(container.database, container.settings.master_key, container.clock.now(), save=save)
    log.info("master_key_replaced", keys=done.keys, old=done.old_id, new=done.new_id, erasures_completed=done.completed)
    return done
