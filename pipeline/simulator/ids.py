"""Random ids in PayPal's formats. The same seed gives the same ids."""

from random import Random

_DIGITS = "0123456789"
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def event(rng: Random) -> str:
    """Return an event id: `WH-2HB96170UN4612531-6PJ1555491044161R`."""
    return f"WH-{_mixed(rng, 17)}-{_mixed(rng, 17)}"


def payment(rng: Random) -> str:
    """Return the id of a sale or refund, 17 characters: `7D51924877811803R`."""
    return _mixed(rng, 17)


def subscription(rng: Random) -> str:
    """Return a subscription id: `I-BW452GLLEP1G`."""
    return "I-" + "".join(rng.choice(_LETTERS + _DIGITS) for _ in range(12))


def plan(rng: Random) -> str:
    """Return a plan id: `P-` and 24 characters."""
    return "P-" + _mixed(rng, 24)


def _mixed(rng: Random, length: int) -> str:
    """Return mostly digits, with a digit first and a letter last, as in all observed ids of PayPal."""
    middle = "".join(rng.choice(_DIGITS if rng.random() < 0.75 else _LETTERS) for _ in range(length - 2))
    return rng.choice(_DIGITS) + middle + rng.choice(_LETTERS)
