"""Errors of the PayPal side, named after what the caller does about them.

A webhook is answered 400 for `MalformedDeliveryError`, 403 for `SignatureError` and 503 for `PaypalUnavailableError`;
PayPal sends it again after each. The others, and `PaypalUnavailableError`, end a look-up in the API. No message holds a
secret or personal data.
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
]


class MalformedDeliveryError(UsageError):
    """The request is no webhook delivery: a header is missing, comes twice or cannot be read."""


class SignatureError(Exception):
    """The delivery does not prove that PayPal sent it. `check` names the check that failed."""

    def __init__(self, check: CheckName, message: str) -> None:
        super().__init__(message)
        self.check: CheckName = check


class PaypalUnavailableError(OperatorError):
    """PayPal cannot be reached, is too slow, or answers what cannot be read. Try again later."""


class PaypalNotFoundError(Exception):
    """PayPal knows nothing under that id."""


class PaypalRejectedError(OperatorError):
    """PayPal understood the request and refuses it; sending it again changes nothing.

    `status` is HTTP's, `name` PayPal's word for the error, `debug_id` what PayPal's support asks for; both may be "".
    """

    def __init__(self, status: int, name: str, debug_id: str) -> None:
        super().__init__(
            f"PayPal answered {status} {name or 'without a reason'} (debug id {debug_id or 'none'}); {_advice(status)}"
        )
        self.status, self.name, self.debug_id = status, name, debug_id


def _advice(status: int) -> str:
    if status == 401:
        return "check SMT_PAYPAL_CLIENT_ID, SMT_PAYPAL_CLIENT_SECRET and whether SMT_PAYPAL_BASE_URL is theirs"
    if status == 403:
        return "give the app in PayPal's dashboard the permission it lacks"
    return "quote the debug id to PayPal's support"
