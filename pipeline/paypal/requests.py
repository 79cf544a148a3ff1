"""PayPal API requests that the SDK's client executes: the look-ups, create a subscription, cancel a subscription.

URLs are built from ids, never taken from links in a payload: such links have pointed to PayPal's internal network.
"""

import re
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from pipeline.paypal.errors import PaypalNotFoundError

LookupKind = Literal["subscription", "plan", "sale", "refund", "capture", "capture_refund", "dispute"]

_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


class GetRequest:
    """A GET request with the attributes that the SDK's client needs. Raises PaypalNotFoundError for an invalid id."""

    route: ClassVar[str]
    id_field: ClassVar[str] = "id"  # of the answer
    verb = "GET"
    body = None

    def __init__(self, id: str) -> None:
        self.path = self.route.format(id=_require_id(id))
        self.headers: dict[str, str] = {"Accept": "application/json"}


class SubscriptionsGetRequest(GetRequest):
    """A subscription (`I-…`) with its plan and last failed payment, which PayPal includes only on request."""

    route = "/v1/billing/subscriptions/{id}?fields=last_failed_payment,plan"


class PlansGetRequest(GetRequest):
    """A plan (`P-…`) with its billing cycles."""

    route = "/v1/billing/plans/{id}"


class SalesGetRequest(GetRequest):
    """A payment of a subscription. PayPal calls it a sale and serves it in the old Payments API (v1)."""

    route = "/v1/payments/sale/{id}"


class RefundsGetRequest(GetRequest):
    """A refund of a sale."""

    route = "/v1/payments/refund/{id}"


class CapturesGetRequest(GetRequest):
    """A payment without a subscription (Payments v2)."""

    route = "/v2/payments/captures/{id}"


class CaptureRefundsGetRequest(GetRequest):
    """A refund of a capture (Payments v2)."""

    route = "/v2/payments/refunds/{id}"


class DisputesGetRequest(GetRequest):
    """A dispute (`PP-…`, Disputes v1)."""

    route = "/v1/customer/disputes/{id}"
    id_field = "dispute_id"


GET_REQUESTS: dict[LookupKind, type[GetRequest]] = {
    "subscription": SubscriptionsGetRequest,
    "plan": PlansGetRequest,
    "sale": SalesGetRequest,
    "refund": RefundsGetRequest,
    "capture": CapturesGetRequest,
    "capture_refund": CaptureRefundsGetRequest,
    "dispute": DisputesGetRequest,
}
# The id of a payment or refund does not tell which of PayPal's two APIs serves it. The second is asked after the first.
SECOND: dict[LookupKind, LookupKind] = {"sale": "capture", "refund": "capture_refund"}


class SubscriptionsCreateRequest:
    """Create a subscription that the subscriber must approve (Subscriptions v1, `subscriptions.create`).

    `request_id` makes retries safe: for 72 hours PayPal answers with the subscription of the first request.
    """

    verb, path = "POST", "/v1/billing/subscriptions"

    def __init__(self, body: dict[str, Any], request_id: str) -> None:
        self.body = body
        self.headers = {**_JSON, "PayPal-Request-Id": request_id, "Prefer": "return=minimal"}


class SubscriptionsCancelRequest:
    """Cancel a subscription (Subscriptions v1, `subscriptions.cancel`). PayPal answers 204; it is final immediately."""

    verb = "POST"

    def __init__(self, id: str, reason: str) -> None:
        self.path = f"/v1/billing/subscriptions/{_require_id(id)}/cancel"
        self.body, self.headers = {"reason": reason}, _JSON


def _require_id(id: str) -> str:
    if not _ID.fullmatch(id):
        raise PaypalNotFoundError("not a PayPal id: an id has 1 to 64 letters, digits and dashes")
    return quote(id, safe="")
