"""Errors of PayPal's API and of webhook verification.

The webhook endpoint answers 400 for `MalformedDeliveryError`, 403 for `SignatureError` and 503 for
`PaypalUnavailableError`; PayPal retries after each. The other errors, and `PaypalUnavailableError`, come from API calls.
No message contains a secret or personal data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
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

AUTH_ERROR_STATUSES = (401, 403)  # PayPal refuses the credentials


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
    """PayPal cannot be reached, is too slow, or sends an unreadable answer. Try again later.

    `retry_after`: how long PayPal asks to wait before the next call, None if it does not say.
    """

    retry_after: timedelta | None = None


class PaypalNotFoundError(OperatorError):
    """PayPal has no object with that id."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One reason of a refusal: PayPal's name of it, the JSON path of the field, and a sentence. The last two may be ""."""

    issue: str
    field: str = ""
    description: str = ""

    def __str__(self) -> str:
        named = f"{self.issue} ({self.field})" if self.field else self.issue
        return f"{named}: {self.description.rstrip('.')}" if self.description else named


class PaypalRejectedError(OperatorError):
    """PayPal refuses the request. A retry gives the same result.

    `status` is the HTTP status, `name` is PayPal's error name, `debug_id` is the id that PayPal's support asks for.
    `name` and `debug_id` may be "". `issues` are PayPal's reasons.
    """

    def __init__(self, status: int, name: str, debug_id: str, issues: Sequence[Issue] = ()) -> None:
        reasons = "".join(f"; {each}" for each in issues)
        super().__init__(
            f"PayPal answered {status} {name or 'without an error name'} (debug id {debug_id or 'none'}){reasons}; "
            f"{_advice(status)}"
        )
        self.status, self.name, self.debug_id, self.issues = status, name, debug_id, tuple(issues)

    @property
    def concerns_credentials(self) -> bool:
        """Whether PayPal refuses the credentials or their permissions, not the request."""
        return self.status in AUTH_ERROR_STATUSES


def _advice(status: int) -> str:
    if status == 401:
        return "check SMT_PAYPAL_CLIENT_ID, SMT_PAYPAL_CLIENT_SECRET and whether they belong to SMT_PAYPAL_BASE_URL"
    if status == 403:
        return "give the app the missing permission in PayPal's dashboard"
    return "contact PayPal's support with the debug id"
