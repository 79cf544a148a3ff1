"""The lists and looks on PostgreSQL: the same shapes as on SQLite."""

import pytest

from .conftest import Smt, Told


def test_the_river_and_its_lists_are_the_same_on_postgresql(
    smt: Smt, told: Told, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", postgres_url)
    before = smt("events", "list")
    assert (before.code, "db upgrade" in before.err) == (2, True)
    for words in (("db", "upgrade"), ("events", "import", told.folder), ("run", "--until-idle")):
        assert smt(*words).code == 0
    assert {row["state"] for row in smt("events", "list", "--json").json} == {"handled"}
    assert len(smt("events", "list", "--since", "2020-01-01", "--limit", "2", "--json").json) == 2
    [row] = smt("subscriptions", "list", "--json").json
    assert (row["status"], row["payments"][0]["refunded"]) == ("ACTIVE", 900)
    mails = smt("mail", "list", "--json").json
    assert {mail["to"] for mail in mails} == {told.life.person.email}
    assert smt("mail", "show", mails[0]["id"]).code == smt("subscriptions", "show", row["id"]).code == 0
    assert smt("events", "show", told.life.deliveries[1].id, "--json").json["changes"]
    found = {each["name"]: each for each in smt("doctor", "--json").json}
    assert (found["database"]["state"], found["clock"]["state"]) == ("ok", "ok")
