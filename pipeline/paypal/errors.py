"""Errors of PayPal's API and of webhook verification.

The webhook endpoint answers 400 for `MalformedDeliveryError`, 403 for `SignatureError` and 503 for
`PaypalUnavailableError`; PayPal retries after each. The other errors, and `PaypalUnavailableError`, come from API calls.
No message contains a secret or personal data.
"""

from typing import Literal

from pipeline.errors import OperatorError, UsageError

CheckName = Literal[
    "webhook id",
    "algorithm",
    "certificate address",
    "certificate",
    "certificate subject",
    "certificate validity",
    "certificate key",
    "certificate chain",
    "signature",
    "transmission time",
]


class MalformedDeliveryError(UsageError):
    """The request is not a webhook delivery: a header is missing, duplicated or malformed."""


class SignatureError(Exception):
    """The delivery does not prove that PayPal sent it. `check` names the check that failed."""

    def __init__(self, check: CheckName, message: str) -> None:
        super().__init__(message)
        self.check: CheckName = check


class SimulatedEventError(SignatureError):
    """PayPal's simulator sent the delivery. Anyone can make it send one, so it is accepted only for tests."""

    def __init__(self) -> None:
        super().__init__("webhook id", "signed by PayPal's simulator, whose events are accepted only for tests")


class PaypalUnavailableError(OperatorError):
    """PayPal cannot be reached, is too slow, or sends an unreadable answer. Try again later."""


class PaypalNotFoundError(Exception):
    """PayPal has no object with that id."""


class PaypalRejectedError(OperatorError):
    """PayPal refuses the request. A retry gives the same result.

    `status` is the HTTP status, `name` is PayPal's error name, `debug_id` is the id that PayPal's support asks for.
    `name` and `debug_id` may be "".
    """

    def __init__(self, status: int, name: str, debug_id: str) -> None:
        super().__init__(
            f"PayPal answered {status} {name or 'without an error name'} (debug id {debug_id or 'none'}); {_advice(status)}"
        )
        self.status, self.name, self.debug_id = status, name, debug_id


def _advice(status: int) -> str:
    if status == 401:
        return "check SMT_PAYPAL_CLIENT_ID, SMT_PAYPAL_CLIENT_SECRET and whether they belong to SMT_PAYPAL_BASE_URL"
    if status == 403:
        return "give the app the missing permission in PayPal's dashboard"
    return "contact PayPal's support with the debug id"
