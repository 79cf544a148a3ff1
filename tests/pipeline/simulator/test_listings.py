"""Lists of the simulated PayPal: subscriptions, transactions of a subscription, disputes, plans, products."""

from datetime import timedelta
from random import Random
from urllib.parse import parse_qsl, urlsplit

import pytest

from pipeline.clock import MovableClock
from pipeline.money import Money
from pipeline.simulator import scenarios, shapes
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD, LICENCE, PLANS, PRODUCT_ID
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import ApiObject, Delivery, Json
from tests.support.api_vendor import Vendor, issues

SUBSCRIPTIONS = "/v1/billing/subscriptions"
CYCLE: Json = {
    "frequency": {"interval_unit": "MONTH", "interval_count": 1},
    "tenure_type": "REGULAR",
    "sequence": 1,
    "total_cycles": 0,
    "pricing_scheme": {"fixed_price": {"currency_code": "EUR", "value": "9"}},
}
PLAN: Json = {
    "product_id": PRODUCT_ID,
    "name": "SMT-CRM small",
    "billing_cycles": [CYCLE],
    "payment_preferences": {"payment_failure_threshold": 1},
}


def pages(vendor: Vendor, path: str, name: str, **query: object) -> list[list[Json]]:
    """Return the items of each page, following the parameters of the links `next`."""
    found = []
    parameters = {key: str(value) for key, value in query.items()}
    while True:
        answer = vendor.get(path, **parameters).json()
        found.append(answer[name])
        following = [link["href"] for link in answer["links"] if link["rel"] == "next"]
        if not following:
            return found
        parameters = dict(parse_qsl(urlsplit(following[0]).query))


@pytest.fixture
def crowd(paypal: FakePaypalApi, clock: MovableClock) -> list[str]:
    """Ids of 23 active subscriptions, created on 23 days from 14 January 2025 on, alternately to two plans."""
    for day in range(23):
        plan, start = (CLOUD, LICENCE)[day % 2], clock.now() + timedelta(days=day)
        for delivery in scenarios.first_year(PEOPLE[day % 16], plan, start, Random(day))[:3]:
            paypal.world.apply(delivery)
    return paypal.world.ids("subscription")


def test_subscriptions_are_listed_in_pages_of_at_most_20(vendor: Vendor, crowd: list[str]) -> None:
    found = pages(vendor, SUBSCRIPTIONS, "subscriptions", page_size=20)
    assert [len(page) for page in found] == [20, 3]
    assert [each["id"] for page in found for each in page] == crowd
    answer = vendor.get(SUBSCRIPTIONS, total_required="true").json()
    assert (len(answer["subscriptions"]), answer["total_items"], answer["total_pages"]) == (10, 23, 3)
    assert issues(vendor.get(SUBSCRIPTIONS, page_size=21)) == ["INVALID_PARAMETER_VALUE"]


def test_subscriptions_are_filtered(vendor: Vendor, crowd: list[str]) -> None:
    def ids(**query: str) -> list[str]:
        return [each["id"] for page in pages(vendor, SUBSCRIPTIONS, "subscriptions", **query) for each in page]

    assert ids(status_updated_after="2025-02-03T00:00:00Z") == crowd[20:]
    assert ids(status_updated_before="2025-01-16T00:00:00Z") == crowd[:2]
    assert ids(created_after="2025-01-15T00:00:00Z", created_before="2025-01-17T00:00:00Z") == crowd[1:3]
    assert ids(plan_ids=LICENCE.id) == crowd[1::2]
    assert ids(plan_ids=f"{LICENCE.id},{CLOUD.id}") == crowd
    assert ids(statuses="SUSPENDED,CANCELLED") == []
    assert vendor.post(f"{SUBSCRIPTIONS}/{crowd[4]}/suspend", {"reason": "Pause"}).status_code == 204
    assert ids(statuses="SUSPENDED,CANCELLED") == [crowd[4]]
    assert ids(filter="create_time ge 2025-02-03T00:00:00Z and create_time lt 2025-02-04T00:00:00Z") == crowd[20:21]
    assert issues(vendor.get(SUBSCRIPTIONS, filter="status eq ACTIVE")) == ["INVALID_PARAMETER_SYNTAX"]


def test_transactions_show_gross_fee_and_net(vendor: Vendor, subscription: str, sale: str) -> None:
    path = f"{SUBSCRIPTIONS}/{subscription}/transactions"
    window = {"start_time": "2025-01-01T00:00:00Z", "end_time": "2025-01-31T23:59:59Z"}
    (found,) = vendor.get(path, **window).json()["transactions"]
    amounts = {name: money["value"] for name, money in found["amount_with_breakdown"].items()}
    assert (found["id"], found["status"], found["payer_email"]) == (sale, "COMPLETED", PEOPLE[0].email)
    # 3.49 % of 29.00 and 0.49
    assert amounts == {"gross_amount": "29.00", "fee_amount": "1.50", "net_amount": "27.50"}
    vendor.post(f"/v1/payments/sale/{sale}/refund", {"amount": {"total": "1.00", "currency": "EUR"}})
    assert vendor.get(path, **window).json()["transactions"][0]["status"] == "PARTIALLY_REFUNDED"
    window["end_time"] = "2025-02-28T00:00:00Z"
    assert len(vendor.get(path, **window).json()["transactions"]) == 2
    assert vendor.get(f"{SUBSCRIPTIONS}/I-NOBODY/transactions", **window).status_code == 404


@pytest.mark.parametrize(
    ("query", "issue"),
    [
        ({"start_time": "2025-01-01T00:00:00Z"}, "MISSING_REQUIRED_PARAMETER"),
        ({"start_time": "2025-01-01", "end_time": "2025-02-01T00:00:00Z"}, "INVALID_PARAMETER_SYNTAX"),
        ({"start_time": "2025-02-01T00:00:00Z", "end_time": "2025-01-01T00:00:00Z"}, "INVALID_PARAMETER_VALUE"),
    ],
)
def test_transactions_need_two_times(vendor: Vendor, subscription: str, query: dict[str, str], issue: str) -> None:
    answer = vendor.get(f"{SUBSCRIPTIONS}/{subscription}/transactions", **query)
    assert (answer.status_code, issues(answer)) == (400, [issue])


def test_disputes_are_listed_by_update_and_sale(vendor: Vendor, paypal: FakePaypalApi, clock: MovableClock) -> None:
    for number in range(3):
        at = clock.now() + timedelta(days=number)
        resource = {
            "dispute_id": f"PP-D-{number}",
            "create_time": shapes.millis(at),
            "update_time": shapes.millis(at),
            "disputed_transactions": [{"seller_transaction_id": f"45V487086B98990{number}H"}],
            "reason": "UNAUTHORISED",
            "status": "OPEN",
            "dispute_amount": shapes.decimals(Money(2900, "EUR")),
            "links": [shapes.link(f"{shapes.API}/v1/customer/disputes/PP-D-{number}", "self")],
        }
        paypal.world.apply(Delivery(at, {}, (ApiObject("dispute", 1, resource),)))

    def ids(**query: object) -> list[str]:
        return [
            each["dispute_id"] for page in pages(vendor, "/v1/customer/disputes", "items", **query) for each in page
        ]

    assert ids(page_size=1) == ["PP-D-0", "PP-D-1", "PP-D-2"]
    assert ids(update_time_after="2025-01-15T00:00:00Z") == ["PP-D-1", "PP-D-2"]
    assert ids(update_time_before="2025-01-15T00:00:00Z") == ["PP-D-0"]
    assert ids(disputed_transaction_id="45V487086B989901H") == ["PP-D-1"]
    assert "disputed_transactions" not in vendor.get("/v1/customer/disputes").json()["items"][0]
    found = vendor.get("/v1/customer/disputes/PP-D-1").json()
    assert found["disputed_transactions"][0]["seller_transaction_id"] == "45V487086B989901H"


def test_plans_are_complete_only_on_request(vendor: Vendor) -> None:
    brief = pages(vendor, "/v1/billing/plans", "plans", page_size=4)
    assert [len(page) for page in brief] == [4, 2]
    assert {each["id"] for page in brief for each in page} == set(PLANS)
    assert not any("billing_cycles" in each for page in brief for each in page)
    whole = vendor.send("GET", "/v1/billing/plans", prefer="return=representation").json()["plans"]
    assert all(each["billing_cycles"] for each in whole)
    assert vendor.get("/v1/billing/plans", product_id="PROD-OTHER").json()["plans"] == []
    assert [each["id"] for each in vendor.get("/v1/billing/plans", plan_ids=CLOUD.id).json()["plans"]] == [CLOUD.id]


def test_created_plan_takes_subscriptions_at_its_price(vendor: Vendor, sent: list[str], paypal: FakePaypalApi) -> None:
    answers = [vendor.post("/v1/billing/plans", PLAN, request_id="plan-1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    plan = answers[0].json()
    assert (plan["id"], plan["status"]) == (answers[1].json()["id"], "ACTIVE")
    context = {"return_url": "https://billing.example.com/a", "cancel_url": "https://billing.example.com/b"}
    created = vendor.post(SUBSCRIPTIONS, {"plan_id": plan["id"], "application_context": context}).json()
    page = next(link["href"] for link in created["links"] if link["rel"] == "approve")
    vendor.session.post(page, allow_redirects=False, timeout=10)
    assert [each.event["resource"]["amount"]["total"] for each in paypal.events if "SALE" in each.type] == ["9.00"]
    assert sent[:2] == ["BILLING.PLAN.CREATED", "BILLING.PLAN.ACTIVATED"]


def test_changed_price_has_a_new_version(vendor: Vendor, paypal: FakePaypalApi) -> None:
    def change(value: str, currency: str = "EUR", sequence: int = 1) -> object:
        price = {"fixed_price": {"currency_code": currency, "value": value}}
        return {"pricing_schemes": [{"billing_cycle_sequence": sequence, "pricing_scheme": price}]}

    path = f"/v1/billing/plans/{CLOUD.id}"
    assert vendor.post(path + "/update-pricing-schemes", change("35")).status_code == 204
    scheme = vendor.get(path).json()["billing_cycles"][0]["pricing_scheme"]
    assert (scheme["fixed_price"]["value"], scheme["version"]) == ("35.0", 2)
    assert [each.type for each in paypal.events] == ["BILLING.PLAN.PRICING-CHANGE.ACTIVATED"]
    assert issues(vendor.post(path + "/update-pricing-schemes", change("35", "USD"))) == ["CURRENCY_MISMATCH"]
    assert issues(vendor.post(path + "/update-pricing-schemes", change("36", "EUR", 7))) == [
        "INVALID_BILLING_CYCLE_SEQUENCE"
    ]


def test_plan_is_changed_and_switched_off_and_on(vendor: Vendor, paypal: FakePaypalApi) -> None:
    path = f"/v1/billing/plans/{CLOUD.id}"
    rename = [{"op": "replace", "path": "/name", "value": "Cloud"}]
    assert vendor.send("PATCH", path, rename).status_code == 204
    assert vendor.get(path).json()["name"] == "Cloud"
    assert issues(vendor.post(path + "/activate")) == ["PLAN_STATUS_INVALID"]
    assert vendor.post(path + "/deactivate").status_code == 204
    assert issues(vendor.send("PATCH", path, rename)) == ["PLAN_STATUS_INACTIVE"]
    assert vendor.post(path + "/activate").status_code == 204
    assert [each.type.removeprefix("BILLING.PLAN.") for each in paypal.events] == [
        "UPDATED", "DEACTIVATED", "ACTIVATED",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cycles", "issue"),
    [
        ([{**CYCLE, "tenure_type": "TRIAL"}], "MISSING_REGULAR_BILLING_CYCLE"),
        ([{**CYCLE, "sequence": 2}], "INVALID_BILLING_CYCLE_SEQUENCE"),
        ([], "MISSING_REQUIRED_PARAMETER"),
    ],
)
def test_plan_needs_one_regular_cycle(vendor: Vendor, cycles: list[Json], issue: str) -> None:
    assert issues(vendor.post("/v1/billing/plans", {**PLAN, "billing_cycles": cycles})) == [issue]


def test_products_are_created_changed_and_listed(vendor: Vendor, sent: list[str]) -> None:
    created = vendor.post("/v1/catalogs/products", {"name": "SMT-ERP", "type": "SERVICE"})
    assert created.status_code == 201
    path = f"/v1/catalogs/products/{created.json()['id']}"
    assert vendor.send("PATCH", path, [{"op": "add", "path": "/description", "value": "Planning"}]).status_code == 204
    assert vendor.get(path).json()["description"] == "Planning"
    assert issues(vendor.send("PATCH", path, [{"op": "replace", "path": "/name", "value": "x"}])) == [
        "INVALID_PATCH_PATH"
    ]
    names = [each["name"] for each in vendor.get("/v1/catalogs/products").json()["products"]]
    assert names == ["SMT-CRM", "SMT-ERP"]
    assert issues(vendor.post("/v1/catalogs/products", {"name": "x", "type": "x"})) == ["INVALID_PARAMETER_VALUE"]
