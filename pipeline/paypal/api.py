"""PayPal's API as far as we use it: read objects, create and cancel subscriptions.

The SDK costs a tenth of a second to import and is imported when a `PayPal` is made.
"""

import re
from typing import Any

from pipeline.paypal import requests
from pipeline.paypal.errors import PaypalRejectedError, PaypalUnavailableError
from pipeline.paypal.requests import LookupKind

ENDED = ("CANCELLED", "EXPIRED", "APPROVAL_PENDING")  # nothing is collected, and there is nothing to cancel
LONGEST_REASON = 128  # characters, by the API
LONGEST_CUSTOM_ID = 127

# Where a browser may be sent to approve: PayPal's own pages, or a simulator's on this machine.
_APPROVAL = re.compile(
    r"https://([a-z0-9-]+\.)*paypal\.com/\S{1,1000}|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?/\S{1,1000}", re.ASCII
)
_CUSTOM_ID = re.compile(rf"[\x20-\x7e]{{1,{LONGEST_CUSTOM_ID}}}")


class PaypalApi:
    """PayPal's API, as far as we need it. One serves all threads; its calls wait, so asyncio calls them in a thread.

    Raises SettingsError when `base_url` is not PayPal's API or a simulator on this machine.
    """

    def __init__(
        self, base_url: str, client_id: str, client_secret: str, *, connect_seconds: float = 5, read_seconds: float = 15
    ) -> None:
        from pipeline.paypal.client import PaypalClient  # noqa: PLC0415 - the SDK, see above

        self._client = PaypalClient(
            base_url, client_id, client_secret, connect_seconds=connect_seconds, read_seconds=read_seconds
        )

    def get(self, kind: LookupKind, id: str) -> dict[str, Any]:
        """What PayPal holds under that id, as it writes it. Raises NotFound, Rejected or Unavailable."""
        return self._client.execute(requests.GET_REQUESTS[kind](id))

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
        """Begin a subscription to a plan, `P-…`: its id, and the page on which the subscriber approves it.

        `custom_id` is printable ASCII and comes back in every event. The same `request_id` begins it once. PayPal sends
        the browser on to `return_url` or `cancel_url`. Raises NotFound for an unknown plan, Rejected or Unavailable.
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
        made = self._client.execute(requests.SubscriptionsCreateRequest(body, request_id))
        return _id_of(made), _approval_of(made)

    def cancel_subscription(self, id: str, reason: str) -> None:
        """End a subscription at once. One that has ended, or was never approved, is no failure.

        `reason` is what PayPal keeps with it, 128 characters of it. Raises NotFound, Rejected or Unavailable.
        """
        try:
            self._client.execute(requests.SubscriptionsCancelRequest(id, reason[:LONGEST_REASON] or "Cancelled"))
        except PaypalRejectedError as error:
            # There is no key to make a repetition safe: its answer says that the status is wrong, so we look.
            if error.status != 422 or self.get("subscription", id).get("status") not in ENDED:
                raise

    def check_credentials(self) -> None:
        """Sign in anew. Raises Rejected when PayPal refuses the credentials, Unavailable when it cannot be asked."""
        self._client.sign_in()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _id_of(made: dict[str, Any]) -> str:
    id = made.get("id")
    if not isinstance(id, str) or not id:
        raise PaypalUnavailableError("PayPal's answer names no subscription; try again")
    return id


def _approval_of(made: dict[str, Any]) -> str:
    links = made.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "approve" and _APPROVAL.fullmatch(str(link.get("href"))):
            return str(link["href"])
    raise PaypalUnavailableError("PayPal's answer holds no page to approve the subscription on; try again")
