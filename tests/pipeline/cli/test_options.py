"""Options that many commands share: times, filters in any case, and confirmation of what cannot be undone."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
from typer.core import TyperGroup

from pipeline.cli import commands
from pipeline.cli.commands import COMMANDS
from pipeline.cli.confirmation import confirm
from pipeline.cli.time_options import parse_time_option
from pipeline.errors import OperatorError, UsageError
from tests.pipeline.cli.conftest import SavedEvents, Smt

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
# Each command of the program is in one of these two sets. To add a command, decide whether it can be undone.
ASKS = {
    "backup restore", "customers erase", "keys rotate", "mail settle", "paypal plans sync",
    "paypal setup", "paypal webhook repair", "payments refund",
    "subscriptions activate", "subscriptions cancel", "subscriptions capture", "subscriptions revise", "subscriptions suspend",
    "policy propose", "retention sweep",
}  # fmt: skip
DOES_NOT_ASK = {
    "backup create", "backup identity", "backup signer", "customers answer", "customers correct", "customers export",
    "customers list", "customers opt-out", "customers requests", "customers show", "disputes list",
    "disputes show", "customers verify", "db upgrade",
    "demo", "doctor", "events import", "events kinds", "events list", "events replay", "events show", "health", "inbound file",
    "inbound list", "inbound reply", "inbound show", "lookups list",
    "lookups retry", "mail list", "mail dismiss", "mail preview", "mail resend",
    "mail send-test", "mail show", "mailer", "parked ignore", "parked list", "parked retry", "payments list",
    "payments show", "paypal import", "paypal plans list",
    "paypal verify", "paypal webhook check",
    "policy check", "policy list", "policy notices", "policy record", "policy texts", "policy withdraw",
    "retention rules", "reconcile list", "reconcile ignore",
    "run", "scheduler", "simulate", "subscriptions list", "subscriptions show", "web", "worker",
}  # fmt: skip


def leaves() -> Iterator[tuple[str, Any]]:
    """Yield each command that does something, with its name."""
    for name, command in COMMANDS.items():
        yield from leaves_of(name, command.load(name))


def leaves_of(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for inner, each in command.commands.items():
        yield from leaves_of(f"{name} {inner}", each)


def test_each_command_that_cannot_be_undone_has_yes() -> None:
    with_yes = {name for name, command in leaves() if any("--yes" in each.opts for each in command.params)}
    assert with_yes == ASKS
    assert {name for name, _ in leaves()} == ASKS | DOES_NOT_ASK


def test_filters_take_any_case() -> None:
    choices = [
        (name, each.name, each.type_descriptor.parameter_info.case_sensitive)
        for name, command in leaves() for each in command.params
        if get_origin(each.type_descriptor.annotation) is Literal
    ]  # fmt: skip
    assert len(choices) >= 10
    assert [each for each in choices if each[2]] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("subscriptions", "list", "--status", "active"), 1),
        (("events", "list", "--state", "HANDLED", "--source", "Webhook"), 0),
        (("events", "list", "--state", "Handled"), 1),
        (("mail", "list", "--state", "QUEUED", "--kind", "Receipt"), 1),
        (("customers", "list", "--state", "ACTIVE"), 1),
    ],
)
def test_filter_in_other_case_finds_rows(
    smt: Smt, imported: SavedEvents, words: tuple[str, ...], expected: int
) -> None:
    answer = smt(*words, "--json")
    assert (answer.code, bool(answer.json)) == (0, bool(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", NOW - timedelta(days=30)),
        ("12h", NOW - timedelta(hours=12)),
        ("2W", NOW - timedelta(weeks=2)),
        ("today", datetime(2026, 3, 15, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 3, 14, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01t10:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01 10:00+02:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
    ],
)
def test_time_option_takes_ages_days_and_times(text: str, expected: datetime) -> None:
    assert parse_time_option(text, "--since", NOW) == expected
    assert parse_time_option(None, "--since", NOW) is None


@pytest.mark.parametrize("text", ["", "d", "-3d", "999999d", "3 days", "tomorrow", "2026-02-30", "2026-3-1", "٣d"])
def test_other_texts_are_refused_with_the_accepted_forms(text: str) -> None:
    with pytest.raises(UsageError, match=r"--since .*30d, 12h, today, yesterday, 2026-03-01"):
        parse_time_option(text, "--since", NOW)


@pytest.mark.parametrize("words", [("events",), ("mail",), ("customers",), ("inbound",)])
def test_lists_take_ages(smt: Smt, imported: SavedEvents, words: tuple[str, ...]) -> None:
    assert smt(*words, "list", "--since", "30d").code == 0
    refused = smt(*words, "list", "--since", "last week")
    assert (refused.code, "yesterday" in refused.err) == (2, True)


@pytest.mark.parametrize("words", [("events",), ("mail",), ("customers",), ("inbound",), ("subscriptions",)])
def test_every_list_of_a_period_ends_before_until(smt: Smt, imported: SavedEvents, words: tuple[str, ...]) -> None:
    def rows(*options: str) -> list[object]:
        answer = smt(*words, "list", "--json", *options)
        assert answer.code == 0
        found: list[object] = answer.json
        return found

    everything = rows()
    assert rows("--since", "2020-01-01", "--until", "2199-01-01") == everything
    assert rows("--until", "2020-01-01") == []
    assert words == ("inbound",) or everything
    refused = smt(*words, "list", "--since", "2026-03-01", "--until", "2026-02-01")
    assert (refused.code, "--until 2026-02-01 is not after --since 2026-03-01" in refused.err) == (2, True)


def test_every_list_with_since_has_until() -> None:
    """A new list must not have one without the other."""
    source = "".join(path.read_text("utf-8") for path in Path(commands.__file__).parent.glob("*.py"))
    lists = source.count("    since: Annotated") - 1  # `reconcile` compares from a time until now
    assert lists == source.count("    until: Until") > 6


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_terminal_yes_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(UsageError, match=r"This deletes it\. Add --yes"):
        confirm("This deletes it.", yes=False)
    confirm("This deletes it.", yes=True)


@pytest.mark.parametrize(
    ("typed", "type_again", "goes_on"),
    [("y", "", True), ("n", "", False), ("", "", False), ("c1", "c1", True), ("y", "c1", False), ("", "c1", False)],
)
def test_terminal_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, type_again: str, goes_on: bool
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(f"{typed}\n"))
    if goes_on:
        confirm("This deletes it.", yes=False, type_again=type_again)
    else:
        with pytest.raises(OperatorError, match="nothing was changed"):
            confirm("This deletes it.", yes=False, type_again=type_again)
    assert capsys.readouterr().out.strip() == ""  # JSON on stdout stays readable


@pytest.mark.parametrize(
    "words",
    [
        ("customers", "erase", "CUSTOMER", "--now"),
        ("keys", "rotate"),
        ("retention", "sweep"),
        ("backup", "restore", "--identity", "identity.txt"),
        ("mail", "settle", "MAIL", "--sent"),
        ("policy", "propose", "policy.txt", "--effective", "2030-01-01", "--material"),
    ],
    ids=" ".join,
)
def test_unconfirmed_command_changes_nothing(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SMT_BACKUP_DIR", "backups")
    monkeypatch.setenv("SMT_BACKUP_RECIPIENT", "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj")
    Path("policy.txt").write_text(smt("policy", "texts", "--new").out, "utf-8")
    [customer] = smt("customers", "list", "--json").json
    mail = smt("mail", "list", "--json").json[0]
    filled = [{"CUSTOMER": customer["id"], "MAIL": mail["id"]}.get(word, word) for word in words]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    answer = smt(*filled)
    assert (answer.code, "--yes" in answer.err) == (2, True)
    assert smt("customers", "list", "--json").json == [customer]
