"""Each GET request that we make, and the token, gets hostile answers: none crashes, stores a wrong fact or stops another.

`make test` takes every 97th odd field and no slow answers. SMT_TEST_HOSTILE=1 takes all, which needs minutes.
"""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from handlers import HANDLERS
from pipeline.db.models import Event, PaypalLookup, Refund, Subscription
from pipeline.db.models import Payment as PaymentRow
from pipeline.inbox import lookup_fetcher, lookups
from pipeline.inbox.parsing import event_from_lookup, parse_webhook
from pipeline.operations import plan_list
from pipeline.paypal import catalog, webhook_settings
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.rate_limit import TokenBucket
from pipeline.paypal.requests import GET_REQUESTS, LookupKind
from pipeline.reconciliation.history import HistoryImport, ImportResult, sale_from_transaction
from pipeline.reconciliation.run import Reconciliation
from tests.support.hostile_answers import Json, odd_fields, odd_http
from tests.support.loopback_http import Answer, Asked, loopback
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

WHOLE = bool(os.environ.get("SMT_TEST_HOSTILE"))
STEP = 1 if WHOLE else 97
SECONDS = 0.2  # deadline of an exchange, so that a slow answer ends soon
REFUSALS = (PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError)
TOKEN = "/v1/oauth2/token"
GOOD_TOKEN = {"access_token": "A21AA", "token_type": "Bearer", "expires_in": 32400}
EVENTS, SUBSCRIPTIONS = "/v1/notifications/webhooks-events", "/v1/billing/subscriptions"
REPORT, PLANS, PRODUCTS = "/v1/reporting/transactions", "/v1/billing/plans", "/v1/catalogs/products"
WEBHOOKS, EVENT_TYPES = "/v1/notifications/webhooks", "/v1/notifications/webhooks-event-types"
SALE = sample("PAYMENT.SALE.COMPLETED")
SUBSCRIPTION = sample("READ.SUBSCRIPTION")["resource"]
TRANSACTIONS = f"{SUBSCRIPTIONS}/{SUBSCRIPTION['id']}/transactions"
USD = {"currency_code": "USD", "value": "10.00"}
LISTS: dict[str, Json] = {
    EVENTS: {"events": [SALE], "count": 1, "links": [{"rel": "self", "href": "https://api-m.paypal.com/x?page_size=1"}]},
    SUBSCRIPTIONS: {"subscriptions": [SUBSCRIPTION], "total_items": 1, "total_pages": 1, "links": []},
    REPORT: {
        "transaction_details": [
            {"transaction_info": {
                "transaction_id": "5TY05013RG002845M", "transaction_event_code": "T0002", "transaction_status": "S",
                "transaction_amount": USD, "fee_amount": {"currency_code": "USD", "value": "-0.50"},
                "transaction_initiation_date": "2026-02-14T10:00:00+0000",
            }},
        ],
        "total_items": 1, "total_pages": 1, "page": 1,
    },
    TRANSACTIONS: {
        "transactions": [
            {"id": "TRFGHNJKOIIOJKL", "status": "COMPLETED", "time": "2026-02-14T10:00:00Z", "payer_email": "a@example.com",
             "amount_with_breakdown": {"gross_amount": USD, "fee_amount": USD, "net_amount": USD}},
        ],
        "total_items": 1, "total_pages": 1,
    },
    PLANS: {"plans": [sample("READ.PLAN")["resource"]], "total_items": 1, "total_pages": 1},
    PRODUCTS: {"products": [{"id": "PROD-1", "name": "One", "description": "The first"}], "total_items": 1},
    WEBHOOKS: {"webhooks": [{"id": "WH-1", "url": "https://example.com/w", "event_types": [{"name": "A.B"}]}]},
    EVENT_TYPES: {"event_types": [{"name": "A.B", "description": "It happened", "status": "ENABLED"}]},
}  # fmt: skip
LOOKUPS: dict[LookupKind, Json] = {kind: sample(f"READ.{kind.upper()}")["resource"] for kind in GET_REQUESTS}
OTHER = {"id": "P-GOOD", "name": "Good", "update_time": "2026-03-01T11:00:00Z"}


class Paypal:
    """An API with good answers, except to the path `odd_path`."""

    def __init__(self) -> None:
        self.odd_path, self.odd, self.asked = "", Answer(), list[str]()

    def __call__(self, asked: Asked) -> Answer:
        path = asked.path.partition("?")[0]
        self.asked.append(path)
        if path == self.odd_path:
            return self.odd
        if path == TOKEN:
            return Answer(200, orjson.dumps(GOOD_TOKEN))
        single = OTHER if path.endswith("/P-GOOD") else self._single(path)
        return Answer(200, orjson.dumps(LISTS.get(path) or single))

    def _single(self, path: str) -> Json:
        return next((each for kind, each in LOOKUPS.items() if path == route(kind)), {})


def route(kind: LookupKind) -> str:
    request = GET_REQUESTS[kind](str(LOOKUPS[kind][GET_REQUESTS[kind].id_field]))
    return request.path.partition("?")[0]


class Scene:
    """The API, its client with a short deadline, and a pipeline."""

    def __init__(self, pipeline: PipelineUnderTest, paypal: Paypal, client: PaypalApi, elsewhere: str) -> None:
        self.pipeline, self.paypal, self.client, self.elsewhere = pipeline, paypal, client, elsewhere

    def answers(self, good: Json, keep: tuple[str, ...] = ()) -> Iterator[tuple[str, Answer]]:
        """Yield the name and the answer of each case."""
        answers = odd_http(good, self.elsewhere)
        yield from ((name, each) for name, each in answers.items() if WHOLE or not (each.drip or each.slow_head))
        for number, (name, body) in enumerate(odd_fields(good, keep)):
            if number % STEP == 0:
                yield name, Answer(200, body)

    def each(self, path: str, good: Json, run: Callable[[], object]) -> None:
        """Give each hostile answer to requests of this path, and run the program's code."""
        for name, answer in self.answers(good):
            self.paypal.odd_path, self.paypal.odd = path, answer
            self.paypal.asked.clear()
            self.pipeline.empty()
            try:
                run()
            except REFUSALS:
                pass
            except Exception as error:
                raise AssertionError(f"{path} with {name}") from error
            assert "/elsewhere" not in self.paypal.asked, name
            self.assert_facts_are_part_of(name)

    def assert_facts_are_part_of(self, name: str) -> None:
        """Check that no stored fact differs from the good answer's."""
        for row in self.pipeline.rows(Event):
            main = MAIN.get(row.type)
            good = next(
                (each for type, each in GOOD if main and (type, each.get(main)) == (row.type, row.facts.get(main))),
                None,
            )
            if good is not None:
                # PayPal has written refunds with a minus sign, so -1 is read as a refund of 1.
                facts = {
                    key: value for key, value in row.facts.items() if not (name.endswith("= -1") and "refund" in good)
                }
                wrong = {key: value for key, value in facts.items() if not is_part(key, value, good.get(key))}
                assert not wrong, f"{name}: {row.type}"
        assert {row.status for row in self.pipeline.rows(PaymentRow)} <= STATUSES, name
        assert {row.status for row in self.pipeline.rows(Subscription)} <= {None, SUBSCRIPTION["status"]}, name
        payments, refunds = self.pipeline.rows(PaymentRow), self.pipeline.rows(Refund)
        amounts = {(row.amount, row.currency) for row in payments} | {(row.amount, row.currency) for row in refunds}
        assert amounts - {(None, None)} <= GOOD_AMOUNTS, name


# Facts that say how the answer is written, or that follow from the absence of others.
# The keyed hashes of the subscriber differ for each master key.
ABOUT = frozenset(
    {
        "unread",
        "custom_ref",
        "payer_ref",
        "at",
        "has_surcharge",
        "has_trial",
        "is_graduated",
        "bills_balance",
        "is_overridden",
    }
)


# Texts that PayPal may choose freely. Nothing follows from an unknown one.
FREE_TEXTS = frozenset({"reason", "state", "status", "stage", "outcome", "name", "failed_reason", "unit"})


def is_part(key: str, found: Any, good: Any) -> bool:
    """Return whether a fact is the good one, or a part of it. Missing is never wrong."""
    if key in ABOUT or found is None or found == good:
        return True
    if key in FREE_TEXTS and isinstance(found, str):
        return found == "../../etc" or set(found) == {"x"}
    if isinstance(found, dict) and isinstance(good, dict):
        return all(is_part(inner, value, good.get(inner)) for inner, value in found.items())
    if isinstance(found, list) and isinstance(good, list):
        return all(any(is_part("", each, other) for other in good) for each in found)
    return False


def facts_of(body: bytes) -> Json:
    return dict(parse_webhook(body).facts)


@pytest.fixture(scope="module")
def paypal() -> Paypal:
    return Paypal()


@pytest.fixture(scope="module")
def server(paypal: Paypal) -> Iterator[tuple[PaypalApi, str]]:
    with loopback(paypal) as serving:
        base = f"http://127.0.0.1:{serving.port}"
        client = PaypalApi(base, "client", "secret", read_seconds=SECONDS)
        client._client._exchange_seconds = SECONDS
        yield client, f"{base}/elsewhere"
        client.close()


@pytest.fixture
def scene(sqlite_pipeline: PipelineUnderTest, paypal: Paypal, server: tuple[PaypalApi, str]) -> Scene:
    return Scene(sqlite_pipeline, paypal, *server)


AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
IMPORTED = sale_from_transaction(LISTS[TRANSACTIONS]["transactions"][0], str(SUBSCRIPTION["id"])) or {}
# The fact that is the object's id.
MAIN = {
    "READ.SUBSCRIPTION": "subscription", "READ.PLAN": "plan", "READ.SALE": "sale", "READ.REFUND": "refund",
    "READ.CAPTURE": "sale", "READ.CAPTURE_REFUND": "refund", "READ.DISPUTE": "dispute", SALE["event_type"]: "sale",
}  # fmt: skip
GOOD = [
    *((f"READ.{kind.upper()}", facts_of(event_from_lookup(kind, found, AT))) for kind, found in LOOKUPS.items()),
    ("READ.SALE", facts_of(event_from_lookup("sale", IMPORTED, AT))),
    (SALE["event_type"], facts_of(orjson.dumps(SALE))),
]
STATUSES = {None, "pending", "completed", "partially_refunded", "refunded", "reversed"}
GOOD_AMOUNTS = {tuple(each["amount"]) for _, each in GOOD if each.get("amount")}


@pytest.mark.parametrize("kind", sorted(GET_REQUESTS))
def test_look_up(scene: Scene, kind: LookupKind) -> None:
    """Another look-up of the same round is answered, whatever the first one gets."""

    def run() -> None:
        pipeline, id = scene.pipeline, str(LOOKUPS[kind][GET_REQUESTS[kind].id_field])
        with pipeline.database.transaction() as session:
            wanted = [
                lookups.LookupRequest(kind, id, pipeline.now),
                lookups.LookupRequest("plan", "P-GOOD", pipeline.now),
            ]
            lookups.enqueue(session, wanted)
        ids = lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, scene.client)
        pipeline.worker(HANDLERS, may_read=True).handle(ids)
        assert {row.state for row in pipeline.rows(Event) if row.facts.get("plan") == "P-GOOD"} == {"handled"}
        left = [row for row in pipeline.rows(PaypalLookup) if row.id == id and row.kind == kind]
        assert all(row.due_at is None or row.due_at > pipeline.now or row.reason is None for row in left)

    scene.each(route(kind), LOOKUPS[kind], run)


@pytest.mark.parametrize("path", [EVENTS, SUBSCRIPTIONS, REPORT])
def test_list_of_a_reconciliation(scene: Scene, path: str) -> None:
    """The other lists are compared, whatever one of them contains."""

    def run() -> None:
        pipeline = scene.pipeline
        try:
            Reconciliation(pipeline.database, pipeline.master, pipeline.clock, scene.client).run()
        finally:
            assert {EVENTS, SUBSCRIPTIONS, REPORT} <= set(scene.paypal.asked)
        pipeline.worker(HANDLERS, may_read=True).handle([row.id for row in pipeline.rows(Event)])

    scene.each(path, LISTS[path], run)


@pytest.mark.parametrize("path", [SUBSCRIPTIONS, TRANSACTIONS])
def test_list_of_an_import(scene: Scene, path: str) -> None:
    def run() -> None:
        pipeline = scene.pipeline
        rate = TokenBucket(pipeline.clock, burst=100)
        history = HistoryImport(pipeline.database, pipeline.master, pipeline.clock, scene.client, rate)
        history.total()
        history.run(history.all_ids(), ImportResult(), lambda _: None)
        pipeline.worker(HANDLERS, may_read=True).handle([row.id for row in pipeline.rows(Event)])

    scene.each(path, LISTS[path], run)


@pytest.mark.parametrize(
    ("path", "read"),
    [
        (PLANS, lambda client: plan_list.list_plans(client, {}, "en_US")),
        (PRODUCTS, catalog.list_products),
        (WEBHOOKS, webhook_settings.list_webhooks),
        (EVENT_TYPES, webhook_settings.offered_types),
    ],
    ids=["plans", "products", "webhooks", "event types"],
)
def test_list_of_the_account(scene: Scene, path: str, read: Callable[[PaypalApi], object]) -> None:
    scene.each(path, LISTS[path], lambda: read(scene.client))


def test_token(scene: Scene) -> None:
    """A failed token is no answer about the object: the look-up is repeated later."""

    def run() -> None:
        client = scene.client._client
        client._token = client._token_failure = None
        pipeline = scene.pipeline
        with pipeline.database.transaction() as session:
            lookups.enqueue(session, [lookups.LookupRequest("plan", "P-GOOD", pipeline.now)])
        lookup_fetcher.fetch_due(pipeline.database, pipeline.master, pipeline.clock, scene.client)
        answered = bool(pipeline.rows(Event))
        assert answered or pipeline.rows(PaypalLookup)[0].due_at is not None

    try:
        scene.each(TOKEN, GOOD_TOKEN, run)
    finally:
        scene.paypal.odd_path = ""
        scene.client._client._token = scene.client._client._token_failure = None
