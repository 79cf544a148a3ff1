"""Card and bank fields never get in: they are dropped from what was sent before anything is stored.

They are known by the names PayPal's specifications give them, and by what they look like wherever they stand: a number
that passes the card industry's check digit (ISO/IEC 7812-1 annex B), an account number that passes IBAN's (ISO 13616).
"""

import re
from functools import lru_cache
from typing import Any

# As names are compared: lower case, without spaces, hyphens and underscores.
FORBIDDEN = frozenset({
    "card", "creditcard", "creditcardtoken", "debitcard", "fundinginstrument", "fundinginstruments", "fundingoption",
    "cardnumber", "cardtype", "number", "cvv", "cvv2", "cvc", "securitycode", "expiry", "expiremonth", "expireyear",
    "expirydate", "lastdigits", "last4", "lastnchars", "bank", "bankaccount", "bankaccountnumber", "bankname",
    "accountnumber", "accountnumberlastnchars", "accountnumberlastdigits", "routingnumber", "iban", "ibanlastchars",
    "bic", "swift", "swiftcode", "sortcode", "sepadebit", "achdebit", "cardholdername", "nameoncard", "pan",
    "externalfunding", "carrieraccount", "achbankaccountnumber",
})  # fmt: skip

DROPPED = "[dropped]"

_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w])", re.ASCII)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}(?!\w)", re.ASCII)
# One look at the raw bytes tells of nearly every body that it holds nothing of the kind.
_KEYS = re.compile(rb'"([^"\\]{1,60})"\s*:')
_LONG_NUMBER = re.compile(rb"(?<![A-Za-z0-9.])(?:\d(?:[ -]?\d){12}|[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11})")


def clean(raw: bytes, document: Any) -> Any:
    """The document (parsed from `raw`) without card and bank fields."""
    return _walk(document) if _is_suspect(raw) else document


def _is_suspect(raw: bytes) -> bool:
    # A backslash may hide a letter of a name, or a digit.
    return b"\\" in raw or _LONG_NUMBER.search(raw) is not None or any(_is_forbidden(key) for key in _KEYS.findall(raw))


@lru_cache(4096)
def _is_forbidden(key: bytes | str) -> bool:
    text = key.decode("utf-8", "replace") if isinstance(key, bytes) else key
    return re.sub(r"[\s_-]", "", text).lower() in FORBIDDEN


def clean_text(text: str) -> str:
    """Text with card and account numbers replaced by `[dropped]`."""
    text = _DIGITS.sub(lambda match: DROPPED if _is_card(match[0]) else match[0], text)
    return _IBAN.sub(lambda match: DROPPED if _is_iban(match[0]) else match[0], text)


def _walk(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _walk(item) for key, item in value.items() if not _is_forbidden(key)}
    if isinstance(value, list):
        return [_walk(item) for item in value]
    if isinstance(value, str) and len(value) > 12:
        return clean_text(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > 10**12:
        return DROPPED if _is_card(str(value)) else value
    return value


def _is_card(text: str) -> bool:
    """Luhn's check digit."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """The remainder by 97 of the rearranged number is 1."""
    compact = text.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1
