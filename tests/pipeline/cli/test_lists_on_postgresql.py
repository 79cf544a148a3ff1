"""Lists and details on PostgreSQL: the same output as on SQLite."""

import pytest

from .conftest import SavedEvents, Smt


def test_lists_are_same_on_postgresql(
    smt: Smt, saved_events: SavedEvents, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", postgres_url)
    before = smt("events", "list")
    assert (before.code, "db upgrade" in before.err) == (2, True)
    for words in (("db", "upgrade"), ("events", "import", saved_events.folder), ("run", "--until-idle")):
        assert smt(*words).code == 0
    assert {row["state"] for row in smt("events", "list", "--json").json} == {"handled"}
    assert len(smt("events", "list", "--since", "2020-01-01", "--limit", "2", "--json").json) == 2
    [row] = smt("subscriptions", "list", "--json").json
    assert (row["status"], row["payments"][0]["refunded"]) == ("ACTIVE", 900)
    mails = smt("mail", "list", "--json").json
    assert {mail["to"] for mail in mails} == {saved_events.subscription.person.email}
    assert smt("mail", "show", mails[0]["id"]).code == smt("subscriptions", "show", row["id"]).code == 0
    assert smt("events", "show", saved_events.subscription.deliveries[1].id, "--json").json["changes"]
    found = {each["name"]: each for each in smt("doctor", "--json").json}
    assert (found["database"]["state"], found["clock"]["state"]) == ("ok", "ok")
