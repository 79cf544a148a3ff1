"""Mutants that leave personal data in places outside the tables, or keep a place for too long."""

import gzip
import os
from datetime import timedelta
from pathlib import Path

from tests.pipeline.policy.healthy_system import HealthySystem
from tests.pipeline.policy.mutants.registry import Patch, of

OLD_LINE = "2020-01-01T10:00:00 mx postfix/smtp[1]: old\n"


def file_in_data_folder(name: str, words: str, path: str, content: bytes) -> None:
    """Register a mutant: a file of the data folder contains a customer's address."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        _write(system.settings.data_dir / path, content)

    mutant.__name__, mutant.__doc__ = name, f"A customer's address is in {words}."
    of("7.tls")(mutant)


file_in_data_folder("address_in_a_log", "a log file", "worker.log", b"cannot mail ada@example.com\n")
file_in_data_folder(
    "address_in_a_rotated_log", "a compressed log file", "worker.log.1.gz", gzip.compress(b"x ada@example.com\n")
)
file_in_data_folder(
    "address_in_an_export", "an export that was left behind", "export.json", b'{"email": "ada@example.com"}'
)
file_in_data_folder("address_in_a_note", "a note of the operator", "notes/todo.txt", b"call ada@example.com\n")
file_in_data_folder(
    "address_in_a_dump", "a dump of the database", "dump.sql", b"INSERT INTO x VALUES ('ada@example.com');\n"
)


@of("7.tls")
def address_beside_the_backups(system: HealthySystem, _: Patch) -> None:
    """A copy that is not encrypted lies beside the backups."""
    folder = system.pipeline.folder / "backups"
    _write(folder / "copy.json", b'{"email": "bob@example.com"}')
    system.overrides["backup_dir"] = folder


def old_log(name: str, words: str, path: str, content: bytes, setting: str = "") -> None:
    """Register a mutant: a log goes back further than 90 days."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        target = system.pipeline.folder / path if setting else system.settings.data_dir / path
        _write(target, content)
        if setting:
            system.overrides[setting] = target.with_name(target.name.partition(".log")[0] + ".log")

    mutant.__name__, mutant.__doc__ = name, f"{words} goes back further than 90 days."
    of("3.logs")(mutant)


old_log("old_log_of_a_role", "The log of a role", "worker.log", OLD_LINE.encode())
old_log("old_rotated_log", "A rotated log", "worker.log.1.gz", gzip.compress(OLD_LINE.encode()))
old_log("old_relay_log", "The relay's log", "old/mail.log", OLD_LINE.encode(), "relay_log")
old_log(
    "old_rotated_relay_log",
    "A rotated log of the relay",
    "old/mail.log.4.gz",
    gzip.compress(OLD_LINE.encode()),
    "relay_log",
)
old_log(
    "old_log_of_the_web_server", "The access log of the web server", "old/access.log",
    b'192.0.2.1 - - [01/Jan/2020:10:00:00 +0000] "GET / HTTP/1.1" 200 1\n', "proxy_log",
)  # fmt: skip


def readable(name: str, words: str, path: str, mode: int) -> None:
    """Register a mutant: other accounts can access a file."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        target = system.pipeline.folder / path
        if not target.exists():
            _write(target, b"x")
        target.chmod(mode)

    mutant.__name__, mutant.__doc__ = name, f"{words} is accessible to other accounts."
    of("7.permissions")(mutant)


readable("folder_is_open", "The data folder", ".", 0o755)
readable("key_is_readable", "The master key", "keys/master.key", 0o644)
readable("database_is_writable", "The database", "smt-billing.db", 0o666)
readable("export_is_readable", "An export in the data folder", "export.json", 0o644)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)


def _age(path: Path, system: HealthySystem, days: int) -> None:
    at = (system.now - timedelta(days=days)).timestamp()
    os.utime(path, (at, at))


def old_file(name: str, words: str, setting: str, path: str) -> None:
    """Register a mutant: a copy or a message is kept too long."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        folder = system.pipeline.folder / setting
        _write(folder / path, b"x")
        _write(folder / f"{system.now:%Y%m%dT%H%M%SZ}.keys.age", b"x")
        _write(folder / f"{system.now:%Y%m%dT%H%M%SZ}.sqlite-1.age", b"x")
        _age(folder / path, system, 300)
        system.overrides[setting] = folder

    mutant.__name__, mutant.__doc__ = name, f"{words} is kept too long."
    of("3.account")(mutant)


old_file(
    "old_copy_of_the_keys", "A copy of the keys, which would undo erasures,", "backup_dir", "20250101T100000Z.keys.age"
)
old_file("old_copy_of_the_database", "A copy of the database", "backup_dir", "20250101T100000Z.sqlite-1.age")
old_file("old_message_file", "The file of a message that was stored", "inbound_maildir", "cur/1.host:2,S")
old_file("old_failed_message", "The file of a message that could not be stored", "inbound_maildir", "failed/1.host")


def readable_backup(name: str, words: str, mode: int, *, folder: bool) -> None:
    """Register a mutant: other accounts can read a backup."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        target = system.pipeline.folder.parent / "copies"
        _write(target / "20260308T100000Z.keys.age", b"x")
        target.chmod(mode if folder else 0o700)
        (target / "20260308T100000Z.keys.age").chmod(0o600 if folder else mode)
        system.overrides["backup_dir"] = target

    mutant.__name__, mutant.__doc__ = name, f"{words} is accessible to other accounts."
    of("7.permissions")(mutant)


readable_backup("copy_of_the_keys_is_readable", "A copy of the keys", 0o644, folder=False)
readable_backup("folder_of_the_backups_is_open", "The folder of the backups", 0o755, folder=True)
