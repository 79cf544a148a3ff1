"""Transaction Search of the simulated PayPal: entries, balances, the delay and the limits of a request."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from pipeline.clock import MovableClock
from pipeline.money import Money
from pipeline.simulator import scenarios, shapes
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import ApiObject, Delivery, Json
from tests.support.api_vendor import Vendor, issues

TRANSACTIONS = "/v1/reporting/transactions"
WINDOW = {"start_date": "2025-01-24T00:00:00Z", "end_date": "2025-02-24T00:00:00Z"}


def entries(vendor: Vendor, **query: object) -> list[Json]:
    answer = vendor.get(TRANSACTIONS, **{**WINDOW, **query})
    assert answer.status_code == 200, answer.text
    found: list[Json] = [each["transaction_info"] for each in answer.json()["transaction_details"]]
    return found


def test_sale_and_refund_have_event_codes_signs_and_references(
    vendor: Vendor, subscription: str, sale: str, clock: MovableClock
) -> None:
    refund = vendor.post(f"/v1/payments/sale/{sale}/refund", {"amount": {"total": "9.00", "currency": "EUR"}}).json()
    clock.advance(timedelta(hours=3))
    second, returned = entries(vendor)
    assert (second["transaction_event_code"], second["paypal_reference_id"]) == ("T0002", subscription)
    assert second["paypal_reference_id_type"] == "SUB"
    assert (second["transaction_amount"]["value"], second["fee_amount"]["value"]) == ("29.00", "-1.50")
    assert (returned["transaction_id"], returned["transaction_event_code"]) == (refund["id"], "T1107")
    assert (returned["paypal_reference_id"], returned["paypal_reference_id_type"]) == (sale, "TXN")
    assert returned["transaction_amount"]["value"] == "-9.00"
    # 27.50 twice, less 9.00; PayPal keeps the fee.
    assert [each["ending_balance"]["value"] for each in (second, returned)] == ["55.00", "46.00"]


def test_transaction_appears_after_the_delay(
    vendor: Vendor, sale: str, clock: MovableClock, paypal: FakePaypalApi
) -> None:
    vendor.post(f"/v1/payments/sale/{sale}/refund", {})
    assert [each["transaction_event_code"] for each in entries(vendor)] == ["T0002"]
    clock.advance(timedelta(hours=3) - timedelta(seconds=1))
    assert len(entries(vendor)) == 1
    clock.advance(timedelta(seconds=1))
    assert len(entries(vendor)) == 2
    paypal.reporting.delay = timedelta(hours=9)
    assert len(entries(vendor)) == 1


def test_request_may_span_31_days(vendor: Vendor, subscription: str) -> None:
    answer = vendor.get(TRANSACTIONS, start_date="2025-01-24T00:00:00Z", end_date="2025-02-24T00:00:01Z")
    assert (answer.status_code, answer.json()["name"]) == (400, "INVALID_REQUEST")
    assert issues(answer) == ["Date range is greater than 31 days"]
    assert entries(vendor)
    assert issues(vendor.get(TRANSACTIONS, start_date="2025-01-24T00:00:00Z")) == ["MISSING_REQUIRED_PARAMETER"]
    assert issues(vendor.get(TRANSACTIONS, **WINDOW, page_size=501)) == ["INVALID_PARAMETER_VALUE"]


def test_fields_select_the_parts(vendor: Vendor, subscription: str) -> None:
    def parts(**query: str) -> set[str]:
        return set(vendor.get(TRANSACTIONS, **WINDOW, **query).json()["transaction_details"][0])

    assert parts() == {"transaction_info"}
    assert parts(fields="transaction_info,payer_info") == {"transaction_info", "payer_info"}
    assert {"payer_info", "cart_info", "shipping_info"} < parts(fields="all")


def test_year_of_a_vendor_adds_up_to_the_cent(vendor: Vendor, paypal: FakePaypalApi, clock: MovableClock) -> None:
    until = datetime(2026, 2, 1, tzinfo=UTC)
    for delivery in scenarios.vendor_months(5, 12, until, 30):
        paypal.world.apply(delivery)
    clock.move_to(until + timedelta(days=1))
    vendor.sign_in()
    found: list[Json] = []
    start = until - timedelta(days=380)
    while start < until:
        window = {
            "start_date": f"{start:%Y-%m-%dT00:00:00Z}",
            "end_date": f"{start + timedelta(days=30):%Y-%m-%dT23:59:59Z}",
        }
        for page in range(1, 9):
            answer = vendor.get(TRANSACTIONS, **window, page=page, page_size=20).json()
            found += [each["transaction_info"] for each in answer["transaction_details"]]
            if page >= answer["total_pages"]:
                break
        start += timedelta(days=31)
    assert len({each["transaction_id"] for each in found}) == len(found)
    sums: dict[str, Decimal] = {}
    for each in found:
        currency = each["transaction_amount"]["currency_code"]
        change = Decimal(each["transaction_amount"]["value"]) + Decimal(each.get("fee_amount", {}).get("value", "0"))
        sums[currency] = sums.get(currency, Decimal(0)) + change
        assert Decimal(each["ending_balance"]["value"]) == sums[currency]
    balances = vendor.get("/v1/reporting/balances").json()["balances"]
    assert {each["currency"]: Decimal(each["total_balance"]["value"]) for each in balances} == sums
    assert len(sums) >= 3


def test_converted_sale_has_one_conversion_for_each_currency(
    vendor: Vendor, paypal: FakePaypalApi, clock: MovableClock
) -> None:
    at = clock.now()
    sale = shapes.sale("7D51924877811803R", "I-BW452GLLEP1G", "", Money(5000, "JPY"), at)
    sale |= {
        "transaction_fee": {"value": "1.75", "currency": "USD"},
        "receivable_amount": {"value": "31.40", "currency": "USD"},
        "exchange_rate": "0.00663",
    }
    paypal.world.apply(Delivery(at, {}, (ApiObject("sale", 1, sale),)))
    clock.advance(timedelta(days=1))
    vendor.sign_in()
    found = entries(vendor, start_date="2025-01-14T00:00:00Z", end_date="2025-01-16T00:00:00Z")
    shown = [
        (each["transaction_event_code"], *each["transaction_amount"].values(), each["ending_balance"]["value"])
        for each in found
    ]
    assert shown == [
        ("T0002", "JPY", "5000", "5000"),
        ("T0200", "JPY", "-5000", "0"),
        ("T0200", "USD", "31.40", "31.40"),
    ]
    assert [each.get("paypal_reference_id") for each in found] == ["I-BW452GLLEP1G", sale["id"], sale["id"]]


def test_won_dispute_brings_the_money_back(
    vendor: Vendor, paypal: FakePaypalApi, sale: str, clock: MovableClock
) -> None:
    vendor.post(f"/v1/payments/sale/{sale}/refund", {})
    (reversal,) = paypal.world.show_all("refund")
    won_at = clock.now() + timedelta(hours=2)
    change = {"refund_reason_code": "CHARGEBACK", "state": "cancelled", "update_time": shapes.seconds(won_at)}
    paypal.world.apply(Delivery(won_at, {}, (ApiObject("refund", 9, {**reversal, **change}),)))
    clock.advance(timedelta(hours=6))
    _, reversed_, returned = entries(vendor, end_date="2025-02-24T00:00:00Z")
    codes = [each["transaction_event_code"] for each in (reversed_, returned)]
    amounts = [each["transaction_amount"]["value"] for each in (reversed_, returned)]
    assert (codes, amounts) == (["T1106", "T1202"], ["-29.00", "29.00"])
    assert (returned["ending_balance"]["value"], returned["paypal_reference_id"]) == ("55.00", reversal["id"])
    assert vendor.post(f"/v1/payments/sale/{sale}/refund", {"amount": {"total": "29.00", "currency": "EUR"}}).ok


@pytest.mark.parametrize(("day", "total"), [("2025-01-13", None), ("2025-01-20", "27.50"), ("2025-02-20", "55.00")])
def test_balance_is_that_of_the_requested_time(vendor: Vendor, subscription: str, day: str, total: str | None) -> None:
    balances = vendor.get("/v1/reporting/balances", as_of_time=f"{day}T00:00:00Z").json()["balances"]
    assert [each["total_balance"]["value"] for each in balances] == ([total] if total else [])
