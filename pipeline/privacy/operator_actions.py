"""Actions of an operator on a customer's behalf: correct a field, opt out of mail, cancel a waiting erasure."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links
from pipeline.db.models import PrivacyRequest
from pipeline.errors import OperatorError
from pipeline.privacy import requests
from pipeline.privacy.erasure import workflow


def correct(
    session: Session, keyring: Keyring, customer_id: str, field: accounts.Field, value: str, now: datetime
) -> bool:
    """Correct a field and return whether it changed. A new e-mail address ends the customer's web sessions.

    Raises CustomerNotFoundError and InvalidFieldError.
    """
    old = accounts.correct_field(session, keyring, customer_id, field, value, now)
    if field == "email":
        links.end_sessions(session, customer_id, now)
    return old != accounts.personal_data(session, keyring, customer_id).get(field)


def opt_out(
    session: Session, keyring: Keyring, customer_id: str, kinds: Sequence[accounts.ConsentKind], now: datetime
) -> None:
    """Opt the customer out of these kinds of mail, and record the request as done. Raises CustomerNotFoundError."""
    accounts.require_customer(session, customer_id)
    for kind in kinds:
        accounts.record_consent(
            session, customer_id, kind, given=False, source="operator", text_version="operator", now=now
        )
    row = requests.open_request(session, keyring, "opt_out", customer_id, "operator", now)
    requests.close_request(session, row.id, "done", now)


def cancel_erasure(session: Session, customer_id: str, now: datetime) -> PrivacyRequest:
    """Cancel a waiting erasure. Raises CustomerNotFoundError, ErasureTooLateError, and OperatorError if there is none."""
    accounts.require_customer(session, customer_id)
    row = requests.find_open(session, customer_id, "erase")
    if row is None:
        raise OperatorError(f"no deletion of customer {customer_id} is scheduled")
    return workflow.cancel_erasure(session, row.id, now)
