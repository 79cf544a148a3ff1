"""The calls to PayPal's API: read objects, create and cancel subscriptions.

Importing the SDK takes a tenth of a second, so it is imported when a `PaypalApi` is created.
"""

import re
from typing import Any

from pipeline.dependencies import Observer, ignore
from pipeline.paypal import requests
from pipeline.paypal.errors import PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.requests import LookupKind

ENDED = ("CANCELLED", "EXPIRED", "APPROVAL_PENDING")  # no payments are collected, and nothing is left to cancel
LONGEST_REASON = 128  # characters, limit of the API
LONGEST_CUSTOM_ID = 127  # characters, limit of the API

# Approval pages that a browser may be redirected to: PayPal's own, or a simulator's on this machine.
_APPROVAL = re.compile(
    r"https://([a-z0-9-]+\.)*paypal\.com/\S{1,1000}|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?/\S{1,1000}", re.ASCII
)
_CUSTOM_ID = re.compile(rf"[\x20-\x7e]{{1,{LONGEST_CUSTOM_ID}}}")


class PaypalApi:
    """Client for PayPal's API. All threads share one instance. Calls block, so async code calls them in a thread.

    `observe` gets whether PayPal served each request.
    Raises SettingsError if `base_url` is neither PayPal's API nor a simulator on this machine.
    """

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        connect_seconds: float = 5,
        read_seconds: float = 15,
        observe: Observer = ignore,
    ) -> None:
        from pipeline.paypal.client import PaypalClient  # noqa: PLC0415 - the SDK, see above

        self._client = PaypalClient(
            base_url,
            client_id,
            client_secret,
            connect_seconds=connect_seconds,
            read_seconds=read_seconds,
            observe=observe,
        )

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        """Return PayPal's object with this id, unchanged.

        Raises PaypalNotFoundError, PaypalRejectedError or PaypalUnavailableError.
        """
        request = requests.GET_REQUESTS[kind](id)
        found = self._client.execute(request)
        if found.get(request.id_field) != id:
            raise PaypalUnavailableError(f"PayPal answered with another {kind} than {id}; try again")
        return found

    def create_subscription(
        self,
        plan: str,
        custom_id: str,
        request_id: str,
        *,
        return_url: str,
        cancel_url: str,
        brand: str = "",
        email: str = "",
    ) -> tuple[str, str]:
        """Create a subscription to a plan (`P-…`). Return its id and the URL where the subscriber approves it.

        `custom_id` is printable ASCII; PayPal repeats it in every event. Calls with the same `request_id` create one
        subscription. PayPal redirects the browser to `return_url` or `cancel_url`. Raises PaypalNotFoundError if the
        plan is unknown, PaypalRejectedError or PaypalUnavailableError.
        """
        if not _CUSTOM_ID.fullmatch(custom_id):
            raise ValueError("custom_id must be 1 to 127 printable ASCII characters")
        context = {"brand_name": brand[:127], "shipping_preference": "NO_SHIPPING", "user_action": "SUBSCRIBE_NOW"}
        body = {
            "plan_id": plan,
            "custom_id": custom_id,
            "application_context": {name: value for name, value in context.items() if value}
            | {"return_url": return_url, "cancel_url": cancel_url},
            **({"subscriber": {"email_address": email}} if email else {}),
        }
        created = self._client.execute(requests.SubscriptionsCreateRequest(body, request_id))
        return _subscription_id(created), _approval_url(created)

    def cancel_subscription(self, id: str, reason: str) -> None:
        """Cancel a subscription immediately. Succeeds if it has ended already or was never approved.

        PayPal stores the first 128 characters of `reason`. Raises PaypalNotFoundError, PaypalRejectedError or
        PaypalUnavailableError.
        """
        try:
            self._client.execute(requests.SubscriptionsCancelRequest(id, reason[:LONGEST_REASON] or "Cancelled"))
        except PaypalRejectedError as error:
            # The API has no idempotency key for this call. A repetition is answered 422, so check the status.
            if error.status != 422 or self.get("subscription", id).get("status") not in ENDED:
                raise

    def execute(self, request: Any) -> dict[str, Any]:
        """Send a request of another module of this package, and return the answer.

        Raises PaypalNotFoundError, PaypalRejectedError or PaypalUnavailableError.
        """
        return self._client.execute(request)

    def check_credentials(self) -> None:
        """Fetch a new access token. Raises PaypalRejectedError for bad credentials, or PaypalUnavailableError."""
        self._client.sign_in()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _subscription_id(created: dict[str, Any]) -> str:
    id = created.get("id")
    if not isinstance(id, str) or not id:
        raise PaypalUnavailableError("PayPal's answer contains no subscription id; try again")
    return id


def _approval_url(created: dict[str, Any]) -> str:
    links = created.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "approve" and _APPROVAL.fullmatch(str(link.get("href"))):
            return str(link["href"])
    raise PaypalUnavailableError("PayPal's answer contains no valid approval URL; try again")
