"""PayPal's side of the machine: its API, and the proof that a webhook is its own.

    signature      the headers of a delivery, and whether PayPal signed it
    certificates   the keys PayPal signs with: fetched with care, kept
    checks         the same checks one by one, for the operator
    client         the SDK's client with time-outs, one token, and errors we can act on
    requests       the reads we make
    errors         what can go wrong

The SDK costs a tenth of a second to import and is imported when a `PayPal` is made.
"""

from typing import Any, Literal

from pipeline.paypal import requests

ReadKind = Literal["subscription", "plan", "sale", "refund"]

_READS: dict[ReadKind, type[requests.GetRequest]] = {
    "subscription": requests.SubscriptionsGetRequest,
    "plan": requests.PlansGetRequest,
    "sale": requests.SalesGetRequest,
    "refund": requests.RefundsGetRequest,
}


class PayPal:
    """PayPal's API, as far as we read it. One serves all threads; its calls wait, so asyncio calls them in a thread.

    Raises SettingsError when `base_url` is not PayPal's API or a simulator on this machine.
    """

    def __init__(
        self, base_url: str, client_id: str, client_secret: str, *, connect_seconds: float = 5, read_seconds: float = 15
    ) -> None:
        from pipeline.paypal.client import Client  # noqa: PLC0415 - the SDK, see above

        self._client = Client(
            base_url, client_id, client_secret, connect_seconds=connect_seconds, read_seconds=read_seconds
        )

    def read(self, kind: ReadKind, id: str) -> dict[str, Any]:
        """What PayPal holds under that id, as it writes it. Raises NotFound, Rejected or Unavailable."""
        return self._client.execute(_READS[kind](id))

    def check_credentials(self) -> None:
        """Sign in anew. Raises Rejected when PayPal refuses the credentials, Unavailable when it cannot be asked."""
        self._client.sign_in()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
