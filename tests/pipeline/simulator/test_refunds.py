"""Refunds of sales and captures at the simulated PayPal."""

from datetime import timedelta

import pytest

from pipeline.clock import MovableClock
from pipeline.money import Money
from pipeline.simulator import shapes
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.timeline import ApiObject, Delivery, Json
from tests.support.api_vendor import Vendor, issues
from tests.support.subprocesses import until

CAPTURE = "2GG279541U471931P"


def refund_path(sale: str) -> str:
    return f"/v1/payments/sale/{sale}/refund"


def v1(total: str, currency: str = "EUR") -> Json:
    return {"amount": {"total": total, "currency": currency}}


def v2(value: str, currency: str = "EUR") -> Json:
    return {"amount": {"value": value, "currency_code": currency}}


def test_partial_refunds_add_up_to_a_full_one(vendor: Vendor, sale: str, sent: list[str]) -> None:
    states, totals = [], []
    for amount in ("9.00", "20.00"):
        answer = vendor.post(refund_path(sale), v1(amount))
        assert answer.status_code == 201
        refund = vendor.get(f"/v1/payments/refund/{answer.json()['id']}").json()
        assert (refund["sale_id"], refund["amount"]["total"]) == (sale, amount)
        totals.append(refund["total_refunded_amount"]["total"])
        states.append(vendor.get(f"/v1/payments/sale/{sale}").json()["state"])
    assert totals == ["9.00", "29.00"]
    assert states == ["partially_refunded", "refunded"]
    until(lambda: sent == ["PAYMENT.SALE.REFUNDED"] * 2, 10, "PayPal sends two events")


def test_refund_without_amount_is_full(vendor: Vendor, sale: str) -> None:
    assert vendor.post(refund_path(sale), {}).json()["amount"] == {"total": "29.00", "currency": "EUR"}
    answer = vendor.post(refund_path(sale), {})
    assert (answer.status_code, answer.json()["name"]) == (400, "TRANSACTION_ALREADY_REFUNDED")


def test_repeated_request_id_refunds_once(vendor: Vendor, sale: str, paypal: FakePaypalApi) -> None:
    answers = [vendor.post(refund_path(sale), v1("9.00"), request_id="refund-1") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert len(paypal.world.ids("refund")) == 1
    other = vendor.post(refund_path(sale), v1("8.00"), request_id="refund-1")
    assert (other.status_code, other.json()["name"]) == (409, "DUPLICATE_REQUEST_ID")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (v1("29.01"), "REFUND_EXCEEDED_TRANSACTION_AMOUNT"),
        (v1("5.00", "USD"), "TRANSACTION_REFUSED"),
        (v1("0.00"), "VALIDATION_ERROR"),
        (v1("-1.00"), "VALIDATION_ERROR"),
        (v1("1.001"), "VALIDATION_ERROR"),
    ],
)
def test_impossible_refund_is_refused(vendor: Vendor, sale: str, body: Json, name: str) -> None:
    answer = vendor.post(refund_path(sale), body)
    assert (answer.status_code, answer.json()["name"]) == (400, name)
    assert vendor.get(f"/v1/payments/sale/{sale}").json()["state"] == "completed"


def test_rest_after_a_partial_refund_needs_an_amount(vendor: Vendor, sale: str) -> None:
    vendor.post(refund_path(sale), v1("9.00"))
    answer = vendor.post(refund_path(sale), {})
    assert answer.json()["name"] == "FULL_REFUND_NOT_ALLOWED_AFTER_PARTIAL_REFUND"
    assert vendor.post(refund_path(sale), v1("20.01")).json()["name"] == "REFUND_EXCEEDED_TRANSACTION_AMOUNT"


def test_sale_cannot_be_refunded_after_180_days(vendor: Vendor, sale: str, clock: MovableClock) -> None:
    clock.advance(timedelta(days=141))  # it is forty days old
    vendor.sign_in()
    assert vendor.post(refund_path(sale), {}).json()["name"] == "REFUND_TIME_LIMIT_EXCEEDED"


@pytest.fixture
def capture(paypal: FakePaypalApi, clock: MovableClock) -> str:
    at, amount = shapes.seconds(clock.now()), Money(1099, "EUR")
    resource = {
        "id": CAPTURE,
        "status": "COMPLETED",
        "amount": shapes.decimals(amount),
        "final_capture": True,
        "custom_id": "order-1001",
        "seller_receivable_breakdown": {
            "gross_amount": shapes.decimals(amount),
            "paypal_fee": shapes.decimals(Money(33, "EUR")),
            "net_amount": shapes.decimals(Money(1066, "EUR")),
        },
        "create_time": at,
        "update_time": at,
        "links": [],
    }
    paypal.world.apply(Delivery(clock.now(), {}, (ApiObject("capture", 1, resource),)))
    return CAPTURE


def test_capture_is_refunded_in_parts(vendor: Vendor, capture: str, sent: list[str]) -> None:
    path = f"/v2/payments/captures/{capture}/refund"
    first = vendor.post(path, v2("4.00"), prefer="return=representation").json()
    assert (first["amount"]["value"], first["custom_id"]) == ("4.00", "order-1001")
    assert vendor.get(f"/v2/payments/captures/{capture}").json()["status"] == "PARTIALLY_REFUNDED"
    answer = vendor.post(path, v2("7.00"))
    assert (answer.status_code, issues(answer)) == (422, ["REFUND_AMOUNT_EXCEEDED"])
    rest = vendor.post(path)
    assert set(rest.json()) == {"id", "status", "links"}
    shown = vendor.get(f"/v2/payments/refunds/{rest.json()['id']}").json()
    assert shown["seller_payable_breakdown"]["total_refunded_amount"]["value"] == "10.99"
    assert vendor.get(f"/v2/payments/captures/{capture}").json()["status"] == "REFUNDED"
    assert issues(vendor.post(path)) == ["CAPTURE_FULLY_REFUNDED"]
    until(lambda: sent == ["PAYMENT.CAPTURE.REFUNDED"] * 2, 10, "PayPal sends two events")


def test_capture_is_refunded_in_its_currency_only(vendor: Vendor, capture: str) -> None:
    answer = vendor.post(f"/v2/payments/captures/{capture}/refund", v2("1.00", "USD"))
    assert (answer.status_code, issues(answer)) == (422, ["REFUND_CAPTURE_CURRENCY_MISMATCH"])
