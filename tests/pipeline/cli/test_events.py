"""`events` and `parked`: bringing events in, looking at them, having them handled again."""

from pathlib import Path

import orjson
import pytest

from pipeline.db.engine import Database
from pipeline.db.models import EncryptionKey, StatusHistoryEntry
from pipeline.inbox import file_import

from .conftest import Smt, Told

ROW = ["id", "type", "state", "source", "received_at", "reason"]


def test_the_list_is_one_array_of_rows_with_the_promised_keys(smt: Smt, books: Told) -> None:
    rows = smt("events", "list", "--json").json
    assert [list(row) for row in rows] == [ROW] * len(books.life.deliveries)
    assert {row["id"] for row in rows} == {delivery.id for delivery in books.life.deliveries}
    assert {(row["state"], row["source"], row["reason"]) for row in rows} == {("handled", "import", None)}
    assert all(row["received_at"].endswith("Z") for row in rows)


def test_the_list_can_be_narrowed(smt: Smt, books: Told) -> None:
    def ids(*options: str) -> list[str]:
        return [row["id"] for row in smt("events", "list", "--json", *options).json]

    refunds = [delivery.id for delivery in books.life.deliveries if delivery.type == "PAYMENT.SALE.REFUNDED"]
    assert ids("--type", "PAYMENT.SALE.REFUNDED") == refunds
    assert ids("--state", "parked") == ids("--source", "webhook") == ids("--since", "2099-01-01") == []
    assert len(ids("--limit", "2")) == 2
    assert len(ids("--since", "2020-01-01T00:00:00Z")) == len(books.life.deliveries)


def test_the_table_says_how_many_more_there_are(smt: Smt, books: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.output.SHOWN", 3)
    said = smt("events", "list").out
    assert said.count("WH-") == 3
    assert f"{len(books.life.deliveries) - 3} more" in said


def test_one_event_is_shown_with_its_facts_its_body_and_the_moves_it_made(smt: Smt, books: Told) -> None:
    activated = next(each for each in books.life.deliveries if each.type == "BILLING.SUBSCRIPTION.ACTIVATED")
    found = smt("events", "show", activated.id, "--json").json
    assert found["facts"]["subscription"] == books.life.id
    assert found["body"] == activated.event
    assert found["person"]["email"] == books.life.person.email
    assert [(change["old"], change["new"]) for change in found["changes"]] == [("APPROVAL_PENDING", "ACTIVE")]
    assert "imported" in found["verdict"]
    for_people = smt("events", "show", activated.id).out
    assert books.life.person.email in for_people
    assert "APPROVAL_PENDING" in for_people


@pytest.mark.parametrize("tombstone", [True, False])
def test_the_body_of_an_erased_person_is_said_to_be_erased(
    smt: Smt, books: Told, data_dir: Path, tombstone: bool
) -> None:
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.transaction() as session:
        key = session.get(EncryptionKey, books.life.id)
        assert key is not None
        key.wrapped_key = None
        if not tombstone:
            session.delete(key)
    database.close()
    found = smt("events", "show", books.life.deliveries[0].id, "--json").json
    assert (found["erased"], found["body"], found["person"]) == (True, None, None)
    assert "erased" in smt("events", "show", books.life.deliveries[0].id).out
    assert {row["to"] for row in smt("mail", "list", "--json").json} == {None}
    assert smt("mail", "list").code == smt("subscriptions", "show", books.life.id).code == 0


def test_importing_twice_changes_nothing_and_a_second_body_is_parked(smt: Smt, books: Told, tmp_path: Path) -> None:
    again = smt("events", "import", books.folder, "--json").json
    assert (again["stored"], again["duplicates"], again["conflicts"]) == (0, len(books.life.deliveries), 0)
    other = tmp_path / "other.json"
    other.write_bytes(orjson.dumps({**books.life.deliveries[0].event, "summary": "Another body."}))
    assert smt("events", "import", other, "--json").json["conflicts"] == 1
    [parked] = smt("parked", "list", "--json").json
    assert list(parked) == ROW
    assert parked["reason"].startswith("conflict")


def test_a_list_and_the_apis_answer_are_read_like_single_events(smt: Smt, told: Told, tmp_path: Path) -> None:
    events = [delivery.event for delivery in told.life.deliveries]
    (tmp_path / "list.json").write_bytes(orjson.dumps(events[:2]))
    (tmp_path / "answer.json").write_bytes(orjson.dumps({"events": events[2:], "count": len(events) - 2, "links": []}))
    smt("db", "upgrade")
    answer = smt("events", "import", tmp_path / "list.json", tmp_path / "answer.json", "--json")
    assert (answer.code, answer.json["stored"]) == (0, len(events))


def test_what_cannot_be_read_is_named_and_the_rest_goes_in(smt: Smt, told: Told, tmp_path: Path) -> None:
    bad, nameless, empty = tmp_path / "bad.json", tmp_path / "nameless.json", tmp_path / "empty.json"
    bad.write_text("{not json")
    nameless.write_text('[{"event_type": "X.Y", "resource": {}}, 7]')
    empty.write_bytes(b"")
    smt("db", "upgrade")
    answer = smt("events", "import", bad, nameless, empty, told.folder, "--json")
    assert answer.code == 1
    assert answer.json["stored"] == len(told.life.deliveries)
    refused = {Path(each["file"].partition(",")[0]).name: each["reason"] for each in answer.json["refused"]}
    assert "not JSON" in refused["bad.json"]
    assert "not JSON" in refused["empty.json"]
    assert [each["reason"] for each in answer.json["refused"] if "nameless" in each["file"]] == [
        "the body has no id",
        "the body is JSON, but not an object",
    ]
    assert "bad.json: not JSON" in smt("events", "import", bad).err


def test_a_file_that_is_not_there_is_asked_wrongly_and_nothing_is_imported(smt: Smt, told: Told) -> None:
    smt("db", "upgrade")
    answer = smt("events", "import", told.folder, told.folder / "none.json")
    assert (answer.code, answer.out) == (2, "")
    assert "none.json: no such file" in answer.err
    assert smt("events", "list", "--json").json == []


def test_many_events_go_in_by_groups(smt: Smt, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_import, "GROUP", 2)
    smt("db", "upgrade")
    assert smt("events", "import", told.folder, "--json").json["stored"] == len(told.life.deliveries)


def test_an_ignored_event_is_handled_again_on_demand(smt: Smt, books: Told, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"id": "WH-IGNORED", "event_type": "CUSTOMER.DISPUTE.CREATED", "resource": {}}')
    smt("events", "import", tmp_path / "x.json")
    smt("run", "--until-idle")
    assert [row["id"] for row in smt("events", "list", "--state", "ignored", "--json").json] == ["WH-IGNORED"]
    assert smt("events", "replay", "WH-IGNORED", "--json").json == [
        {"id": "WH-IGNORED", "replayed": True, "reason": None}
    ]
    assert [row["id"] for row in smt("events", "list", "--state", "received", "--json").json] == ["WH-IGNORED"]


def test_what_cannot_be_replayed_says_why(smt: Smt, books: Told, data_dir: Path) -> None:
    handled = books.life.deliveries[0].id
    answer = smt("events", "replay", handled, "WH-NONE", "--json")
    assert answer.code == 1
    assert [row["replayed"] for row in answer.json] == [False, False]
    assert "it was handled already" in answer.json[0]["reason"]
    assert "no event with this id" in answer.json[1]["reason"]
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.reading() as session:
        assert session.query(StatusHistoryEntry).count() == 2
    database.close()


def test_parked_events_are_retried_all_at_once_but_not_conflicts(smt: Smt, books: Told, tmp_path: Path) -> None:
    reversed_of_unknown = {**books.life.deliveries[-1].event, "id": "WH-PARKED", "event_type": "PAYMENT.SALE.REVERSED"}
    reversed_of_unknown["resource"] = {"id": "4WB05631VX123456L", "state": "completed"}
    (tmp_path / "parks.json").write_bytes(orjson.dumps(reversed_of_unknown))
    (tmp_path / "conflict.json").write_bytes(orjson.dumps({**books.life.deliveries[0].event, "summary": "Other."}))
    smt("events", "import", tmp_path / "parks.json", tmp_path / "conflict.json")
    smt("run", "--until-idle")
    parked = {row["id"]: row["reason"] for row in smt("parked", "list", "--json").json}
    assert len(parked) == 2
    assert parked["WH-PARKED"]
    assert [row["id"] for row in smt("parked", "retry", "--all", "--json").json] == ["WH-PARKED"]
    conflict = next(id for id in parked if "~" in id)
    refused = smt("parked", "retry", conflict)
    assert refused.code == 1
    assert "only the first body is used" in refused.err
    assert smt("parked", "retry").code == 2


def test_a_parked_event_that_was_looked_at_is_put_away_with_its_reason(smt: Smt, books: Told, tmp_path: Path) -> None:
    (tmp_path / "conflict.json").write_bytes(orjson.dumps({**books.life.deliveries[0].event, "summary": "Other."}))
    smt("events", "import", tmp_path / "conflict.json")
    [parked] = smt("parked", "list", "--json").json
    answer = smt("parked", "ignore", parked["id"], "WH-NONE", "--json")
    assert (answer.code, answer.json) == (
        1,
        [{"id": parked["id"], "ignored": True}, {"id": "WH-NONE", "ignored": False}],
    )
    assert smt("parked", "list", "--json").json == []
    [ignored] = smt("events", "list", "--state", "ignored", "--json").json
    assert (ignored["id"], ignored["reason"]) == (parked["id"], parked["reason"])
    assert "it is not parked" in smt("parked", "ignore", parked["id"]).err
    assert smt("parked", "retry", parked["id"]).code == 1


def test_an_unknown_event_and_a_time_that_is_none_are_asked_wrongly(smt: Smt, books: Told) -> None:
    assert smt("events", "show", "WH-NONE").code == 2
    answer = smt("events", "list", "--since", "yesterday")
    assert answer.code == 2
    assert "2026-03-01" in answer.err
