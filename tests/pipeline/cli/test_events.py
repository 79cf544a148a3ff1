"""`events` and `parked`: import, list, show, replay and dismiss events."""

from pathlib import Path

import orjson
import pytest

from handlers import HANDLERS
from pipeline.db.engine import Database
from pipeline.db.models import EncryptionKey, StatusHistoryEntry
from pipeline.inbox import file_import
from pipeline.inbox.kept_types import KEPT_TYPES
from pipeline.operations.webhook_check import needed_types
from pipeline.simulator.server.event_types import EVENT_TYPES

from .conftest import SavedEvents, Smt

ROW = ["id", "type", "state", "source", "received_at", "reason"]


def test_event_list_has_documented_keys(smt: Smt, imported: SavedEvents) -> None:
    rows = smt("events", "list", "--json").json
    assert [list(row) for row in rows] == [ROW] * len(imported.subscription.deliveries)
    assert {row["id"] for row in rows} == {delivery.id for delivery in imported.subscription.deliveries}
    assert {(row["state"], row["source"], row["reason"]) for row in rows} == {("handled", "import", None)}
    assert all(row["received_at"].endswith("Z") for row in rows)


def test_event_list_can_be_filtered(smt: Smt, imported: SavedEvents) -> None:
    def ids(*options: str) -> list[str]:
        return [row["id"] for row in smt("events", "list", "--json", *options).json]

    refunds = [delivery.id for delivery in imported.subscription.deliveries if delivery.type == "PAYMENT.SALE.REFUNDED"]
    assert ids("--type", "PAYMENT.SALE.REFUNDED") == refunds
    assert ids("--type", "payment.sale.completed") == ids("--type", "PAYMENT.SALE.COMPLETED") != []
    assert ids("--state", "parked") == ids("--source", "webhook") == ids("--since", "2099-01-01") == []
    assert len(ids("--limit", "2")) == 2
    assert len(ids("--since", "2020-01-01T00:00:00Z")) == len(imported.subscription.deliveries)


def test_table_prints_number_of_omitted_rows(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.output.SHOWN", 3)
    output = smt("events", "list").out
    assert output.count("WH-") == 3
    assert f"{len(imported.subscription.deliveries) - 3} more" in output


def test_show_prints_event_with_facts_body_and_changes(smt: Smt, imported: SavedEvents) -> None:
    activated = next(each for each in imported.subscription.deliveries if each.type == "BILLING.SUBSCRIPTION.ACTIVATED")
    found = smt("events", "show", activated.id, "--json").json
    assert found["facts"]["subscription"] == imported.subscription.id
    assert found["body"] == activated.event
    assert found["person"]["email"] == imported.subscription.person.email
    assert [(change["old"], change["new"]) for change in found["changes"]] == [("APPROVAL_PENDING", "ACTIVE")]
    assert "imported" in found["verdict"]
    text = smt("events", "show", activated.id).out
    assert imported.subscription.person.email in text
    assert "APPROVAL_PENDING" in text


@pytest.mark.parametrize("tombstone", [True, False])
def test_body_of_erased_customer_is_shown_as_erased(
    smt: Smt, imported: SavedEvents, data_dir: Path, tombstone: bool
) -> None:
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.transaction() as session:
        key = session.get(EncryptionKey, imported.subscription.id)
        assert key is not None
        key.wrapped_key = None
        if not tombstone:
            session.delete(key)
    database.close()
    found = smt("events", "show", imported.subscription.deliveries[0].id, "--json").json
    assert (found["erased"], found["body"], found["person"]) == (True, None, None)
    assert "erased" in smt("events", "show", imported.subscription.deliveries[0].id).out
    assert {row["to"] for row in smt("mail", "list", "--json").json} == {None}
    assert smt("mail", "list").code == smt("subscriptions", "show", imported.subscription.id).code == 0


def test_second_import_changes_nothing_and_conflict_is_parked(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    again = smt("events", "import", imported.folder, "--json").json
    assert (again["stored"], again["duplicates"], again["conflicts"]) == (0, len(imported.subscription.deliveries), 0)
    other = tmp_path / "other.json"
    other.write_bytes(orjson.dumps({**imported.subscription.deliveries[0].event, "summary": "Another body."}))
    assert smt("events", "import", other, "--json").json["conflicts"] == 1
    [parked] = smt("parked", "list", "--json").json
    assert list(parked) == ROW
    assert parked["reason"].startswith("conflict")


def test_import_accepts_arrays_and_api_answers(smt: Smt, saved_events: SavedEvents, tmp_path: Path) -> None:
    events = [delivery.event for delivery in saved_events.subscription.deliveries]
    (tmp_path / "list.json").write_bytes(orjson.dumps(events[:2]))
    (tmp_path / "answer.json").write_bytes(orjson.dumps({"events": events[2:], "count": len(events) - 2, "links": []}))
    smt("db", "upgrade")
    answer = smt("events", "import", tmp_path / "list.json", tmp_path / "answer.json", "--json")
    assert (answer.code, answer.json["stored"]) == (0, len(events))


def test_import_refuses_id_of_a_system_key(smt: Smt, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(
        '[{"id": "smt:index", "event_type": "X.Y"}, {"id": "event:WH-1", "event_type": "X.Y"}]'
    )
    smt("db", "upgrade")
    refused = smt("events", "import", tmp_path / "e.json", "--json").json["refused"]
    assert [("reserved" in each["reason"]) for each in refused] == [True, True]


def test_import_names_unreadable_files_and_imports_others(smt: Smt, saved_events: SavedEvents, tmp_path: Path) -> None:
    bad, nameless, empty = tmp_path / "bad.json", tmp_path / "nameless.json", tmp_path / "empty.json"
    bad.write_text("{not json")
    nameless.write_text('[{"event_type": "X.Y", "resource": {}}, 7]')
    empty.write_bytes(b"")
    smt("db", "upgrade")
    answer = smt("events", "import", bad, nameless, empty, saved_events.folder, "--json")
    assert answer.code == 1
    assert answer.json["stored"] == len(saved_events.subscription.deliveries)
    refused = {Path(each["file"].partition(",")[0]).name: each["reason"] for each in answer.json["refused"]}
    assert "not JSON" in refused["bad.json"]
    assert "not JSON" in refused["empty.json"]
    assert [each["reason"] for each in answer.json["refused"] if "nameless" in each["file"]] == [
        "the body has no id",
        "the body is JSON, but not an object",
    ]
    assert "bad.json: not JSON" in smt("events", "import", bad).err


def test_missing_file_is_usage_error_and_imports_nothing(smt: Smt, saved_events: SavedEvents) -> None:
    smt("db", "upgrade")
    answer = smt("events", "import", saved_events.folder, saved_events.folder / "none.json")
    assert (answer.code, answer.out) == (2, "")
    assert "none.json: no such file" in answer.err
    assert smt("events", "list", "--json").json == []


def test_many_events_are_imported_in_groups(
    smt: Smt, saved_events: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_import, "GROUP", 2)
    smt("db", "upgrade")
    assert smt("events", "import", saved_events.folder, "--json").json["stored"] == len(
        saved_events.subscription.deliveries
    )


def test_ignored_event_can_be_replayed(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"id": "WH-IGNORED", "event_type": "RISK.DISPUTE.CREATED", "resource": {}}')
    smt("events", "import", tmp_path / "x.json")
    smt("run", "--until-idle")
    assert [row["id"] for row in smt("events", "list", "--state", "ignored", "--json").json] == ["WH-IGNORED"]
    assert smt("events", "replay", "WH-IGNORED", "--json").json == [
        {"id": "WH-IGNORED", "replayed": True, "reason": None}
    ]
    assert [row["id"] for row in smt("events", "list", "--state", "received", "--json").json] == ["WH-IGNORED"]


def test_refused_replay_has_reason(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    handled = imported.subscription.deliveries[0].id
    answer = smt("events", "replay", handled, "--json")
    assert answer.code == 1
    assert [row["replayed"] for row in answer.json] == [False]
    assert "it was handled already" in answer.json[0]["reason"]
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.reading() as session:
        assert session.query(StatusHistoryEntry).count() == 2
    database.close()


def test_retry_all_excludes_conflicts(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    reversed_of_unknown = {
        **imported.subscription.deliveries[-1].event,
        "id": "WH-PARKED",
        "event_type": "PAYMENT.SALE.REVERSED",
    }
    reversed_of_unknown["resource"] = {"id": "4WB05631VX123456L", "state": "completed"}
    (tmp_path / "parks.json").write_bytes(orjson.dumps(reversed_of_unknown))
    (tmp_path / "conflict.json").write_bytes(
        orjson.dumps({**imported.subscription.deliveries[0].event, "summary": "Other."})
    )
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


def test_dismissed_event_keeps_reason(smt: Smt, imported: SavedEvents, tmp_path: Path) -> None:
    (tmp_path / "conflict.json").write_bytes(
        orjson.dumps({**imported.subscription.deliveries[0].event, "summary": "Other."})
    )
    smt("events", "import", tmp_path / "conflict.json")
    [parked] = smt("parked", "list", "--json").json
    handled = imported.subscription.deliveries[0].id
    answer = smt("parked", "ignore", parked["id"], handled, "--json")
    assert (answer.code, answer.json) == (
        1,
        [{"id": parked["id"], "ignored": True}, {"id": handled, "ignored": False}],
    )
    assert smt("parked", "list", "--json").json == []
    [ignored] = smt("events", "list", "--state", "ignored", "--json").json
    assert (ignored["id"], ignored["reason"]) == (parked["id"], parked["reason"])
    assert "it is not parked" in smt("parked", "ignore", parked["id"]).err
    assert smt("parked", "retry", parked["id"]).code == 1


def test_unknown_event_and_invalid_time_are_usage_errors(smt: Smt, imported: SavedEvents) -> None:
    assert smt("events", "show", "WH-NONE").code == 2
    for words in (("events", "replay"), ("parked", "retry"), ("parked", "ignore")):
        answer = smt(*words, imported.subscription.deliveries[0].id, "WH-NONE")
        assert (answer.code, "there is no event WH-NONE;" in answer.err, answer.out) == (2, True, "")
    answer = smt("events", "list", "--since", "last week")
    assert answer.code == 2
    assert "2026-03-01" in answer.err


def test_kinds_lists_handled_and_kept_types(smt: Smt) -> None:
    kinds = {each["type"]: each for each in smt("events", "kinds", "--json").json}
    assert kinds["PAYMENT.SALE.COMPLETED"]["is_subscribed"]
    assert kinds["PAYMENT.SALE.COMPLETED"]["about"].startswith("A payment arrived")
    assert (kinds["READ.SALE"]["is_handled"], kinds["READ.SALE"]["is_subscribed"]) == (True, False), "PayPal sends none"
    assert (kinds["VAULT.*"]["is_handled"], kinds["VAULT.*"]["is_subscribed"]) == (False, False)
    assert all(each["about"].endswith(".") for each in kinds.values())


def test_kinds_are_shown_as_a_table(smt: Smt) -> None:
    lines = smt("events", "kinds").out.splitlines()
    [handled] = [line for line in lines if line.startswith("INVOICING.INVOICE.PAID ")]
    [kept] = [line for line in lines if line.startswith("INVOICING.INVOICE.CREATED ")]
    assert " yes " in handled
    assert handled.rstrip().endswith("look up its payments, which have their own events.")
    assert " yes " not in kept
    assert kept.rstrip().endswith("not paid yet.")


def test_the_webhook_subscribes_to_what_has_a_handler_and_to_nothing_that_is_kept(smt: Smt) -> None:
    """The same types as `paypal webhook repair` subscribes to; each one is a type that PayPal offers."""
    kinds = smt("events", "kinds", "--json").json
    subscribed = {each["type"] for each in kinds if each["is_subscribed"]}
    assert subscribed == needed_types(HANDLERS) == {each for each in HANDLERS if not each.startswith("READ.")}
    assert subscribed <= EVENT_TYPES.keys()
    assert not subscribed & KEPT_TYPES.keys()


def test_every_type_that_paypal_offers_is_handled_or_kept(smt: Smt) -> None:
    kinds = [each["type"] for each in smt("events", "kinds", "--json").json]
    families = tuple(kind.removesuffix("*") for kind in kinds if kind.endswith("*"))
    assert [kind for kind in EVENT_TYPES if kind not in kinds and not kind.startswith(families)] == []
