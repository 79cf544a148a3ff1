"""No child process gets a secret: its environment is minimal, and its command line names no password."""

import ast
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from pipeline.child_environment import PASSED
from pipeline.customers.product_hook import ProductHook
from pipeline.db.engine import Database
from pipeline.operations.backup import database_dump
from pipeline.operations.backup.database_dump import BackupError
from pipeline.policy.evidence import journald
from scripts import dependency_audit

ROOT = Path(__file__).parents[2]
SECRET = "kanari-7Qx/:@ word"  # noqa: S105 - of no system
URL = "postgresql://ada:kanari-7Qx%2F%3A%40%20word@db.example.com:5433/smt"
HIDDEN = {
    "SMT_PAYPAL_CLIENT_SECRET": SECRET, "SMT_DATABASE_URL": URL, "SMT_PRODUCT_TOKEN": SECRET, "AWS_SECRET": SECRET,
    "SMT_MASTER_KEY_FILE": "/keys/master.key", "CREDENTIALS_DIRECTORY": "/run/credentials/smt", "SUDO_USER": "ada",
}  # fmt: skip
NEEDED = {"LANG": "de_DE.UTF-8", "LC_TIME": "C", "TZ": "Europe/Berlin", "HOME": "/home/ada"}


@dataclass(frozen=True)
class Child:
    """What a fake program was given."""

    words: list[str]
    environment: dict[str, str]


class FakePrograms:
    """Programs that record their arguments and environment, in a folder at the beginning of PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        for name in ("pg_dump", "pg_restore", "systemd-analyze", "product", "python"):
            path = folder / name
            path.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{path}.words\nenv -0 >{path}.env\ncat >/dev/null\n')
            path.chmod(0o700)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def seen(self, name: str) -> Child:
        words, pairs = ((self.folder / f"{name}.{ending}").read_bytes() for ending in ("words", "env"))
        variables = (pair.decode().partition("=") for pair in pairs.split(b"\0") if pair)
        return Child(words.decode().split("\0")[:-1], {name: value for name, _, value in variables})


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    for name, value in (HIDDEN | NEEDED).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return FakePrograms(tmp_path, monkeypatch)


def dump(folder: Path, url: str = URL) -> None:
    identity = pyrage.x25519.Identity.generate()
    with (folder / "copy.age").open("wb") as file:
        database_dump.dump(Database(url), file, [identity.to_public()])


def load(_: Path, url: str = URL) -> None:
    identity = pyrage.x25519.Identity.generate()
    encrypted = io.BytesIO(pyrage.encrypt(b"rows", [identity.to_public()]))
    database_dump.load(Database(url), encrypted, "copy.age", [identity])


def read_journal_settings(_: Path) -> None:
    with pytest.raises(ValueError, match="unpack"):  # the fake answers nothing
        journald.retention_period()


# The module of each place that starts a child process, the program, and a function that starts it.
PLACES: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("pipeline/operations/backup/database_dump.py", "pg_dump", dump),
    ("pipeline/operations/backup/database_dump.py", "pg_restore", load),
    ("pipeline/customers/product_hook.py", "product", lambda _: ProductHook(command="product").call("export", {})),
    ("pipeline/policy/evidence/journald.py", "systemd-analyze", read_journal_settings),
    ("scripts/dependency_audit.py", "python", lambda _: dependency_audit.ask()),
]


@pytest.mark.parametrize(("program", "start"), [place[1:] for place in PLACES], ids=[place[1] for place in PLACES])
def test_child_process_gets_only_what_it_needs(programs: FakePrograms, program: str, start: Any) -> None:
    start(programs.folder)
    found = programs.seen(program)
    assert [name for name in HIDDEN if name in found.environment] == []
    by_shell = {"PWD", "SHLVL", "_", "OLDPWD"}
    others = {name for name in found.environment if name not in PASSED | by_shell and not name.startswith("LC_")}
    assert all(name.startswith(("PG", *dependency_audit.WAY_OUT)) for name in others), others
    assert {name: found.environment[name] for name in NEEDED} == NEEDED
    assert not [word for word in found.words if "kanari" in word]


@pytest.mark.parametrize(("program", "start"), [("pg_dump", dump), ("pg_restore", load)])
@pytest.mark.parametrize(("url", "expected"), [
    (URL, {"PGUSER": "ada", "PGPASSWORD": SECRET, "PGHOST": "db.example.com", "PGPORT": "5433"}),
    ("postgresql:///smt?password=kanari&user=ada&host=/run/pg", {"PGUSER": "ada", "PGPASSWORD": "kanari", "PGHOST": "/run/pg"}),
    ("postgresql://ada@/smt?passfile=/kanari&sslmode=verify-full", {"PGPASSFILE": "/kanari", "PGSSLMODE": "verify-full"}),
    ("postgresql://ada:kanari@/smt?host=a:1&host=b:2", {"PGPASSWORD": "kanari", "PGHOST": "a,b", "PGPORT": "1,2"}),
    ("postgresql://ada:kanari@a/smt?options=-cx%3D1&options=-cy%3D2", {"PGOPTIONS": "-cx=1 -cy=2"}),
])  # fmt: skip
def test_database_password_is_on_no_command_line(
    programs: FakePrograms, program: str, start: Any, url: str, expected: dict[str, str]
) -> None:
    start(programs.folder, url)
    found = programs.seen(program)
    assert found.words[-1] == "--dbname=dbname=smt"
    assert not [word for word in found.words if "kanari" in word]
    assert {name: value for name, value in found.environment.items() if name in expected} == expected


@pytest.mark.parametrize("name", ["sslpassword", "oauth_client_secret"])
def test_secret_that_only_a_command_line_could_carry_is_refused(programs: FakePrograms, name: str) -> None:
    with pytest.raises(BackupError, match=name) as found:
        dump(programs.folder, f"postgresql://ada@a/smt?{name}=kanari")
    assert "kanari" not in str(found.value)


def test_every_start_of_a_child_process_is_tested_here() -> None:
    """Other ways to start one are refused, and each call names the minimal environment."""
    paths = [path for folder in ("pipeline", "handlers", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]
    calls = [(path, call) for path in paths for call in ast.walk(ast.parse(path.read_text("utf-8")))]
    starts = [(path, call) for path, call in calls if isinstance(call, ast.Call) and starts_child(call)]
    assert {str(path.relative_to(ROOT)) for path, _ in starts} == {module for module, _, _ in PLACES}
    for path, call in starts:
        given = {word.arg: ast.unparse(word.value) for word in call.keywords}
        assert "env" in given, f"{path}, line {call.lineno}"


def starts_child(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    ways = (
        "subprocess.",
        "os.system",
        "os.popen",
        "os.exec",
        "os.spawn",
        "os.posix_spawn",
        "os.fork",
        "pty.",
        "asyncio.create_subprocess",
    )
    return name.startswith(ways) or name in ("Popen", "check_output", "check_call")
