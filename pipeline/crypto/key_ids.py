"""Key ids. Each kind of owner has its own name space, so an id that comes from outside never names the key of another kind.

c… or p… and 30 hex digits   a person; a keyed hash that this program computes
I-…                          a subscription: PayPal's id, which contains no colon and never has the form of a person's
sale:…, event:…              a sale or an event without a subscription: PayPal's id
letter:…, request:…          an unknown sender, and a data-subject request without a customer
erased:…                     the confirmation of an erasure
visits:…                     the access log of one day
smt:…                        this installation; these keys are never destroyed
"""

from collections.abc import Iterable

from pipeline.errors import OperatorError

SYSTEM, SALE, EVENT, SENDER = "smt:", "sale:", "event:", "letter:"
REQUEST, CONFIRMATION, DAY = "request:", "erased:", "visits:"
RESERVED = (SYSTEM, SALE, EVENT, SENDER, REQUEST, CONFIRMATION, DAY)  # no id from outside begins with one of these


class ProtectedKeyError(OperatorError):
    """A key of this installation was to be destroyed. Nothing is changed."""


def require_destroyable(key_ids: Iterable[str]) -> None:
    """Raise ProtectedKeyError if one of the key ids is a system key. Without these keys nothing works any more."""
    protected = sorted(key_id for key_id in key_ids if key_id.startswith(SYSTEM))
    if protected:
        raise ProtectedKeyError(f"the key {protected[0]} belongs to this installation and cannot be destroyed")
