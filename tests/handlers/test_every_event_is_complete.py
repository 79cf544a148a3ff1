"""Each event type has a handler, a sample and a test. See docs/add-an-event.md."""

import ast
import re
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest

import handlers
from handlers import HANDLERS
from pipeline.db.models import Dispute, Event, Payment, Plan, Refund
from pipeline.inbox.parsing import event_from_lookup, parse_webhook
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import PEOPLE
from tests.support.sample_events import FOLDER, kinds, renamed, sample

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "handlers").glob("*.py") if path.stem != "__init__")
# PayPal's subscription events that a vendor must handle, and its answers to look-ups.
REQUIRED = {
    *(f"BILLING.SUBSCRIPTION.{name}" for name in (
        "CREATED", "ACTIVATED", "UPDATED", "SUSPENDED", "RE-ACTIVATED", "CANCELLED", "EXPIRED", "PAYMENT.FAILED",
    )),
    *(f"PAYMENT.SALE.{name}" for name in ("COMPLETED", "PENDING", "DENIED", "REFUNDED", "REVERSED")),
    *(f"READ.{name}" for name in ("SUBSCRIPTION", "PLAN", "SALE", "REFUND", "CAPTURE", "CAPTURE_REFUND", "DISPUTE")),
}  # fmt: skip
ADDRESS = re.compile(r"[^\s\"<>]+@([^\s\"<>]+)")
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
each_event = pytest.mark.parametrize("event", sorted(HANDLERS))


def event_of(path: Path) -> str:
    """Return the EVENT that a handler file defines."""
    found = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EVENT"
    ]
    assert len(found) == 1, f"{path.name} must define EVENT once"
    return str(ast.literal_eval(found[0]))


def file_name(event: str) -> str:
    return event.lower().replace(".", "_").replace("-", "_")


def test_every_required_event_has_a_handler() -> None:
    assert not REQUIRED - HANDLERS.keys()


def test_handler_map_contains_every_file() -> None:
    assert sorted(HANDLERS) == sorted(event_of(path) for path in FILES)


@each_file
def test_file_is_named_after_its_event(path: Path) -> None:
    assert path.stem == file_name(event_of(path))


@each_file
def test_file_has_a_docstring_and_a_link_to_paypal(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert text, f"{path.name} has no docstring"
    assert "https://developer.paypal.com/" in text or event_of(path).startswith("READ.")


@each_file
def test_file_has_its_own_test(path: Path) -> None:
    assert (ROOT / "tests" / "handlers" / f"test_{path.name}").exists()


def test_every_test_and_sample_has_a_handler() -> None:
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "handlers").glob("test_*.py")}
    assert tests - {Path(__file__).stem.removeprefix("test_")} == {path.stem for path in FILES}
    assert set(kinds()) == set(HANDLERS)


@each_event
def test_sample_has_its_type_and_the_facts_that_handlers_need(event: str) -> None:
    document = sample(event)
    found = parse_webhook(orjson.dumps(document))
    assert (found.type, found.problem) == (event, None)
    assert found.facts.keys() & {"subscription", "sale", "refund", "plan", "account", "invoice"}
    assert "at" in found.facts
    assert "unread" not in found.facts


@pytest.mark.parametrize("event", [event for event in sorted(HANDLERS) if event.startswith("READ.")])
def test_look_up_sample_has_the_envelope_of_the_fetcher(event: str) -> None:
    document = sample(event)
    kind: Any = event.removeprefix("READ.").lower()
    written = orjson.loads(
        event_from_lookup(kind, document["resource"], datetime.fromisoformat(document["create_time"]))
    )
    assert {name: value for name, value in written.items() if name != "read_at"} == document


def test_samples_contain_only_example_people() -> None:
    text = "".join(path.read_text() for path in FOLDER.iterdir())
    assert {person.email for person in PEOPLE} == set(re.findall(r"[\w.]+@[\w.]+", text))
    assert set(ADDRESS.findall(text)) == {"example.com"}
    names = set(re.findall(r'"(?:given_name|surname|full_name)": "([^"]*)"', text))
    allowed = {(person.given_name, person.surname) for person in PEOPLE}
    assert names <= {name for pair in allowed for name in (*pair, " ".join(pair))}


def test_program_does_not_start_if_a_file_has_another_event_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import handlers.payment_sale_denied as twin

    monkeypatch.setattr(twin, "EVENT", "PAYMENT.SALE.COMPLETED")
    with pytest.raises(ImportError, match="Rename the file after its event"):
        handlers._find_handlers()


@pytest.mark.parametrize("seed", range(1, 5))
def test_samples_of_paypal_are_handled_or_kept_and_give_the_same_rows_in_every_order(
    feeder: EventFeeder, shared: Path, seed: int
) -> None:
    # PayPal gave several samples one id.
    samples = [renamed(orjson.loads(path.read_bytes())) for path in sorted(shared.glob("events/*.json"))]
    found: list[tuple[dict[str, Any], list[Any]]] = []
    for order in (samples, Random(seed).sample(samples, len(samples))):
        feeder.pipeline.empty()
        feeder.hear(*order)
        states = {row.id: (row.type, row.state, row.reason) for row in feeder.pipeline.rows(Event)}
        found.append((states, [_rows(feeder, table) for table in (Payment, Refund, Dispute, Plan)]))
    assert found[0] == found[1]
    not_handled = {type: str(reason) for type, state, reason in found[0][0].values() if state != "handled"}
    # It names neither its sale nor its capture, and no API credentials are set.
    assert "needs refund 77689802DL785834G" in not_handled.pop("PAYMENT.SALE.REVERSED")
    assert [type for type, reason in not_handled.items() if not reason.startswith("kept: ")] == []


def _rows(feeder: EventFeeder, table: type[Any]) -> dict[str, dict[str, Any]]:
    """Return the rows without `known`: it contains hashes under a key of this installation."""
    names = [column.name for column in table.__table__.columns if column.name != "known"]
    return {row.id: {name: getattr(row, name) for name in names} for row in feeder.pipeline.rows(table)}
