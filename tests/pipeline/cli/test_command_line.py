"""The command line as a whole: help, start-up time, exit codes, and the pipeline in a new folder with one setting."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import typer
from typer.core import TyperGroup

from pipeline.cli.commands import COMMANDS
from pipeline.cli.lazy_group import LazyCommand, group, lazy_group
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.paypal.errors import PaypalUnavailableError
from tests.support.vendor import STARTABLE

from .conftest import SavedEvents, Smt

ROOT = Path(__file__).parents[3]
HEAVY = {
    "sqlalchemy", "kombu", "cryptography", "uvicorn", "starlette", "alembic", "paypalcheckoutsdk", "jinja2", "babel",
    "pydantic", "structlog",
}  # fmt: skip


def every_command() -> Iterator[tuple[str, ...]]:
    """Yield the words of each command and group, after importing it."""
    yield ()
    for name, command in COMMANDS.items():
        yield from subcommands(command.load(name), name)


def subcommands(command: object, *words: str) -> Iterator[tuple[str, ...]]:
    yield words
    for name, each in (command.commands if isinstance(command, TyperGroup) else {}).items():
        yield from subcommands(each, *words, name)


def smt_billing(*arguments: str | Path, **settings: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run the program as a separate process."""
    environment = {f"SMT_{name.upper()}": str(value) for name, value in settings.items()}
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        check=False, capture_output=True, text=True, timeout=60,
        cwd=settings.get("data_dir", ROOT), env={**inherited, **environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.parametrize("words", list(every_command()), ids=lambda words: " ".join(words) or "smt-billing")
def test_every_command_has_help(smt: Smt, words: tuple[str, ...], data_dir: Path) -> None:
    answer = smt(*words, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert f"smt-billing {' '.join(words)}".rstrip() in answer.out
    assert any(line.strip().endswith(".") for line in answer.out.splitlines())
    assert list(data_dir.iterdir()) == []


def test_documented_commands_exist() -> None:
    documented = """demo run web worker mailer scheduler doctor simulate health
        db upgrade, events list, events show, events replay, events import, parked list, parked retry,
        mail list, mail show, mail preview, mail send-test, subscriptions list, subscriptions show, paypal verify"""
    singles, pairs = documented.split("\n", 1)
    names = {tuple(name.split()) for name in pairs.split(",")} | {(name,) for name in singles.split()}
    assert names <= set(every_command())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_no_slow_module(option: str) -> None:
    program = (
        "import sys\nfrom pipeline.__main__ import main\n"
        f"try:\n    main(['{option}'])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules}, *(set(sys.modules) & {'pipeline.cli.context'}))"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    loaded = set(found.stdout.partition("LOADED")[2].split())
    assert "typer" in loaded
    assert not (HEAVY | {"pipeline.cli.context", "handlers"}) & loaded


def test_health_does_not_import_database(data_dir: Path) -> None:
    program = (
        "import sys\nfrom pipeline.__main__ import main\n"
        "try:\n    main(['health', 'worker'])\nexcept SystemExit as ended:\n    assert ended.code == 1\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    found = subprocess.run(
        [sys.executable, "-c", program],
        check=True, capture_output=True, text=True, cwd=data_dir, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "no heartbeat" in found.stdout
    assert not {"sqlalchemy", "kombu", "cryptography"} & set(found.stdout.partition("LOADED")[2].split())


def test_help_lists_every_command(smt: Smt) -> None:
    help_text = " ".join(smt("--help").out.replace("│", " ").split())
    for name, command in COMMANDS.items():
        assert f"{name} {command.help}" in help_text
        assert command.help in " ".join(smt(name, "--help").out.split())


def test_nested_lazy_group_is_imported_when_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "inner_of_test.py").write_text(
        "import typer\nfrom pipeline.cli.lazy_group import LazyCommand, group, lazy_group\n"
        "app = group(cls=lazy_group({'leaf': LazyCommand('leaf_of_test:leaf', 'A leaf.')}))\n"
    )
    (tmp_path / "leaf_of_test.py").write_text("def leaf() -> None:\n    print('leaf called')\n")
    monkeypatch.syspath_prepend(tmp_path)
    outer = group(cls=lazy_group({"inner": LazyCommand("inner_of_test:app", "A group.")}))
    outer.callback()(lambda: None)
    command = typer.main.get_group(outer)
    for words in (["--help"], ["inner", "--help"], ["inner", "leaf"]):
        assert "leaf_of_test" not in sys.modules
        with pytest.raises(SystemExit) as ended:
            command.main(words)
        assert ended.value.code == 0
    assert "leaf called" in capsys.readouterr().out


@pytest.mark.slow
def test_pipeline_runs_in_new_folder_without_servers(data_dir: Path, saved_events: SavedEvents) -> None:
    def call(*words: str | Path) -> str:
        done = smt_billing(*words, data_dir=data_dir, **STARTABLE)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert "from none to revision" in call("db", "upgrade")
    assert f"{len(saved_events.subscription.deliveries)} stored" in call("events", "import", saved_events.folder)
    assert f"{len(saved_events.subscription.deliveries)} handled" in call("run", "--until-idle")
    assert {row["state"] for row in orjson.loads(call("mail", "list", "--json"))} == {"queued"}
    assert [path.name for path in data_dir.iterdir() if path.stat().st_mode & 0o077] == []


def test_lists_of_empty_tables_are_empty(smt: Smt, data_dir: Path) -> None:
    smt("db", "upgrade")
    for name in ("events", "mail", "subscriptions", "parked"):
        assert smt(name, "list", "--json").json == []
        assert smt(name, "list").code == 0
    assert not (data_dir / "keys").exists(), "a reading command created a master key"


def test_upgrade_prints_both_revisions(smt: Smt) -> None:
    first, second = smt("db", "upgrade", "--json").json, smt("db", "upgrade", "--json").json
    assert first["from"] is None
    assert first["to"] == second["from"] == second["to"]
    assert "already" in smt("db", "upgrade").out


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (("events", "list"), {}, "run: smt-billing db upgrade"),
        (("run",), {}, "SMT_PAYPAL_WEBHOOK_ID"),
        (("web",), {}, "SMT_PAYPAL_WEBHOOK_ID"),
        (("worker",), {}, "needs a broker that several processes share"),
        (("scheduler",), {}, "needs a broker that several processes share"),
        (("mailer",), {}, "SMT_SMTP_URL"),
        (("mailer",), {"SMT_SMTP_URL": "smtp://127.0.0.1"}, "needs a broker that several processes share"),
        (("web",), {"SMT_PAYPAL_WEBHOOK_ID": "X"}, "needs a broker that several processes share"),
        (("db", "upgrade"), {"SMT_WEB_PORT": "many"}, "SMT_WEB_PORT"),
        (("db", "upgrade"), {"SMT_LOCALE": "xx"}, "must be the name of a locale, such as en_US"),
        (("customers", "requests", "--kind", "foo"), {}, "foo"),
        (("db", "upgrade"), {"SMT_DATABASE_URL": "mysql://x"}, "SMT_DATABASE_URL"),
        (("run", "--json"), {}, "--until-idle"),
        (("health", "cook"), {}, "cook"),
        (("frobnicate",), {}, "frobnicate"),
    ],
)
def test_usage_error_exits_2_with_advice(
    smt: Smt, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], settings: dict[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    answer = smt(*words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ("events", "list"),
        ("mail", "list"),
        ("customers", "list"),
        ("subscriptions", "list"),
        ("parked", "list"),
        ("policy", "check"),
        ("doctor",),
    ],
)
def test_reading_commands_create_nothing(
    smt: Smt, data_dir: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", "8PT597110X687430L")
    answer = smt(*words)
    assert answer.code in ((0,) if words == ("doctor",) else (1, 2)), "doctor only warns of a new installation"
    assert "run: smt-billing db upgrade" in answer.out + answer.err
    assert not list(data_dir.glob("*")), "the command created files"


def test_run_refuses_folder_readable_by_others(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    data_dir.chmod(0o755)
    answer = smt("run", "--until-idle")
    assert answer.code == 2
    assert f"chmod 700 {data_dir}" in answer.err


def test_missing_or_readable_master_key_is_reported(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    key = data_dir / "keys" / "master.key"
    key.chmod(0o644)
    assert "chmod 600" in smt("mail", "list").err
    key.unlink()
    answer = smt("mail", "list")
    assert (answer.code, "master key" in answer.err) == (2, True)
    assert not key.exists()
    assert smt("events", "list").code == 0  # the list contains no encrypted data


def test_unreachable_database_exits_1(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", "postgresql://user@127.0.0.1:1/none?connect_timeout=2")
    answer = smt("events", "list")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("smt-billing: the database")


def test_internal_error_keeps_traceback_in_command(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("pipeline.db.migrations.current", fail)
    with pytest.raises(ZeroDivisionError):
        smt("db", "upgrade")


def test_external_errors_are_one_line(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (DatabaseUnavailableError("the database gave up: x"), PaypalUnavailableError("PayPal is unavailable")):

        def fail(_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("pipeline.db.migrations.current", fail)
        answer = smt("db", "upgrade")
        assert (answer.code, answer.err) == (1, f"smt-billing: {error}\n")


def test_run_until_idle_does_nothing_without_work(smt: Smt) -> None:
    """The folder does not exist: the command creates it and the tables."""
    assert smt("run", "--until-idle", "--json").json == {
        "events": {"handled": 0, "ignored": 0, "parked": 0, "waiting": 0},
        "mails": {"sent": 0, "doubt": 0, "failed": 0, "withheld": 0, "waiting": 0},
    }


def test_summary_explains_queued_mail_without_relay(smt: Smt, imported: SavedEvents) -> None:
    assert "3 waiting (no SMT_SMTP_URL)" in smt("run", "--until-idle").out


def test_version_is_printed(smt: Smt) -> None:
    assert smt("--version").out.startswith("smt-billing ")


def test_no_process_dumps_its_memory(data_dir: Path) -> None:
    """A core dump would contain the master key. The limit is inherited by child processes too."""
    program = (
        "import atexit, resource, sys; core = resource.RLIMIT_CORE; hard = resource.getrlimit(core)[1]; "
        "resource.setrlimit(core, (hard, hard)); atexit.register(lambda: print(resource.getrlimit(core))); "
        "sys.argv = ['smt-billing', 'retention', 'rules', '--json']; from pipeline.__main__ import main; main()"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "SMT_DATA_DIR": str(data_dir)}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=data_dir, env=environment
    )
    assert done.stdout.splitlines()[-1] == "(0, 0)"
