"""The event types that this program knows: what each does, or why it is kept, and whether the webhook subscribes to it."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.billing.unit_of_work import Handler
from pipeline.inbox.kept_types import KEPT_TYPES
from pipeline.operations.webhook_check import needed_types


def event_kinds(handlers: Mapping[str, Handler]) -> Iterator[dict[str, Any]]:
    """Yield `type, is_handled, is_subscribed, about`: the handled types in alphabetical order, then the kept ones.

    A kept type may end with `*`. `is_subscribed`: `paypal webhook repair` subscribes the webhook to it.
    """
    subscribed = needed_types(handlers)
    for type in sorted(handlers):
        yield {
            "type": type,
            "is_handled": True,
            "is_subscribed": type in subscribed,
            "about": _first_sentence(sys.modules[handlers[type].__module__].__doc__ or ""),
        }
    for name, reason in KEPT_TYPES.items():
        type = f"{name}*" if name.endswith(".") else name
        yield {"type": type, "is_handled": False, "is_subscribed": False, "about": reason}


def _first_sentence(text: str) -> str:
    """Return the first paragraph's first sentence, on one line."""
    first = " ".join(text.strip().partition("\n\n")[0].split())
    return first.partition(". ")[0].rstrip(".") + "."
