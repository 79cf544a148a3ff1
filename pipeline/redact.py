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

# By country (ISO 13616 registry). PayPal's own ids have 17 characters, which no country's account numbers have: without
# the lengths, one id in some thousand would pass for an account number.
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST",
        26: "IS TR", 27: "BI FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU",
        31: "MT SC", 32: "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip

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
    return _IBAN.sub(lambda match: _without_iban(match[0]), text)


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


def _without_iban(text: str) -> str:
    """The text without the account number it begins with, if it does: right length, and remainder 1 by 97."""
    length = IBAN_LENGTHS.get(text[:2], 0)
    end = next((place for place in range(len(text) + 1) if len(text[:place].replace(" ", "")) == length), 0)
    compact = text[:end].replace(" ", "")
    if not length or not end or int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 != 1:
        return text
    return DROPPED + text[end:]
