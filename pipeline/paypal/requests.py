"""The reads of PayPal's API we make, and the two writes, as requests the SDK's client can execute.

Addresses are built from ids, never taken from the links in a payload: those have pointed at PayPal's inner network.
"""

import re
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from pipeline.paypal.errors import PaypalNotFoundError

LookupKind = Literal["subscription", "plan", "sale", "refund"]

_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class GetRequest:
    """What the SDK's client asks of a request: verb, path, headers, body. Raises NotFound for what can be no id."""

    route: ClassVar[str]
    verb = "GET"
    body = None

    def __init__(self, id: str) -> None:
        self.path = self.route.format(id=_checked(id))
        self.headers: dict[str, str] = {"Accept": "application/json"}


class SubscriptionsGetRequest(GetRequest):
    """A subscription, `I-…`, with its plan and last failed payment, which come on request only."""

    route = "/v1/billing/subscriptions/{id}?fields=last_failed_payment,plan"


class PlansGetRequest(GetRequest):
    """A plan, `P-…`, with its billing cycles."""

    route = "/v1/billing/plans/{id}"


class SalesGetRequest(GetRequest):
    """A payment of a subscription: PayPal still calls it a sale and keeps it in the old payments API."""

    route = "/v1/payments/sale/{id}"


class RefundsGetRequest(GetRequest):
    """A refund of a sale."""

    route = "/v1/payments/refund/{id}"


GET_REQUESTS: dict[LookupKind, type[GetRequest]] = {
    "subscription": SubscriptionsGetRequest,
    "plan": PlansGetRequest,
    "sale": SalesGetRequest,
    "refund": RefundsGetRequest,
}


class SubscriptionsCreateRequest:
    """A subscription that waits for its subscriber's approval (Subscriptions v1, `subscriptions.create`).

    `request_id` makes it safe to repeat: within 72 hours PayPal answers with the subscription it made the first time.
    """

    verb, path = "POST", "/v1/billing/subscriptions"

    def __init__(self, body: dict[str, Any], request_id: str) -> None:
        self.body = body
        self.headers = {**_JSON, "PayPal-Request-Id": request_id, "Prefer": "return=minimal"}


class SubscriptionsCancelRequest:
    """The end of a subscription (Subscriptions v1, `subscriptions.cancel`): answered 204, final at once."""

    verb = "POST"

    def __init__(self, id: str, reason: str) -> None:
        self.path = f"/v1/billing/subscriptions/{_checked(id)}/cancel"
        self.body, self.headers = {"reason": reason}, _JSON


def _checked(id: str) -> str:
    if not _ID.fullmatch(id):
        raise PaypalNotFoundError("PayPal gives no such ids: letters, digits and dashes, 64 at most")
    return quote(id, safe="")
