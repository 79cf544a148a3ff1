"""PayPal's calls that change a subscription or pay money back.

Subscriptions v1 (https://developer.paypal.com/docs/api/subscriptions/v1/) and Payments v1 for sales. Each raises
PaypalNotFoundError, PaypalRejectedError or PaypalUnavailableError.
"""

import re
from typing import Any
from urllib.parse import quote

from pipeline.money import Money, format_amount
from pipeline.paypal.api import LONGEST_REASON, PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError

_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class ActionRequest:
    """A POST request that the SDK's client executes. With `key`, PayPal carries out its repetition only once."""

    verb = "POST"

    def __init__(self, path: str, body: dict[str, Any], key: str = "") -> None:
        self.path, self.body = path, body
        self.headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if key:
            self.headers["PayPal-Request-Id"] = key


def change_status(paypal: PaypalApi, id: str, verb: str, reason: str) -> None:
    """Cancel, suspend or activate a subscription (`verb`). PayPal has no key for these calls."""
    paypal.execute(ActionRequest(_subscription(id, verb), {"reason": reason[:LONGEST_REASON]}))


def capture_balance(paypal: PaypalApi, id: str, amount: Money, note: str, key: str) -> None:
    """Collect an outstanding balance now."""
    body = {"note": note[:LONGEST_REASON], "capture_type": "OUTSTANDING_BALANCE", "amount": _v2(amount)}
    paypal.execute(ActionRequest(_subscription(id, "capture"), body, key))


def revise(paypal: PaypalApi, id: str, plan: str | None, quantity: int | None) -> str:
    """Change plan or quantity. Return the URL where the subscriber agrees, "" if PayPal needs no consent."""
    body = {"plan_id": plan, "quantity": None if quantity is None else str(quantity)}
    wanted = {name: value for name, value in body.items() if value is not None}
    links = paypal.execute(ActionRequest(_subscription(id, "revise"), wanted)).get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "approve" and isinstance(link.get("href"), str):
            return str(link["href"])
    return ""


def refund_sale(paypal: PaypalApi, id: str, amount: Money | None, key: str) -> str:
    """Pay a sale back, wholly if `amount` is None. Return the id of the refund."""
    body = {} if amount is None else {"amount": {"total": format_amount(amount), "currency": amount.currency}}
    refunded = paypal.execute(ActionRequest(f"/v1/payments/sale/{_require(id)}/refund", body, key))
    return str(refunded.get("id") or "")


def refund_capture(paypal: PaypalApi, id: str, amount: Money | None, key: str) -> str:
    """Pay a capture back, wholly if `amount` is None. Return the id of the refund."""
    body = {} if amount is None else {"amount": {"value": format_amount(amount), "currency_code": amount.currency}}
    refunded = paypal.execute(ActionRequest(f"/v2/payments/captures/{_require(id)}/refund", body, key))
    return str(refunded.get("id") or "")


def _subscription(id: str, verb: str) -> str:
    return f"/v1/billing/subscriptions/{_require(id)}/{verb}"


def _require(id: str) -> str:
    if not _ID.fullmatch(id):
        raise PaypalNotFoundError("not a PayPal id: an id has 1 to 64 letters, digits and dashes")
    return quote(id, safe="")


def _v2(money: Money) -> dict[str, str]:
    return {"currency_code": money.currency, "value": format_amount(money)}
