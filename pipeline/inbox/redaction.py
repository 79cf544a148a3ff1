"""Remove card and bank data from a document before it is stored.

Fields are removed by name, as spelled in PayPal's specifications. Numbers in texts are replaced if they have the form
of a card number (length and prefix of a brand, check digit of ISO/IEC 7812-1 annex B) or of an IBAN (length of its
country, check digits of ISO 13616). PayPal sends none, but a customer may enter one in a note.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

# Names are compared in lower case, letters and digits only.
FORBIDDEN_FIELDS = frozenset({
    "card", "creditcard", "creditcardtoken", "debitcard", "fundinginstrument", "fundinginstruments", "fundingoption",
    "cardnumber", "cardtype", "number", "cvv", "cvv2", "cvc", "securitycode", "expiry", "expiremonth", "expireyear",
    "expirydate", "lastdigits", "last4", "lastnchars", "bank", "bankaccount", "bankaccountnumber", "bankname",
    "accountnumber", "accountnumberlastnchars", "accountnumberlastdigits", "routingnumber", "iban", "ibanlastchars",
    "bic", "swift", "swiftcode", "sortcode", "sepadebit", "achdebit", "cardholdername", "nameoncard", "pan",
    "externalfunding", "carrieraccount", "achbankaccountnumber", "cards", "cardno", "ccnumber", "creditcardnumber",
    "bankaccounts", "expirationdate", "expirationmonth", "expirationyear", "expdate",
})  # fmt: skip

REDACTED = "[dropped]"

# IBAN length -> countries (ISO 13616 registry). PayPal's ids have 17 characters, a length that no country uses. Without
# this check about one id in some thousand would be taken for an IBAN.
_COUNTRIES_BY_LENGTH = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST",
    26: "IS TR", 27: "BI FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV", 29: "BR EG PS QA UA",
    30: "JO KW MU", 31: "MT SC", 32: "LC",
}  # fmt: skip
_IBAN_FORMS = (
    rf"(?:{countries.replace(' ', '|')})[0-9]{{2}}(?:[ \u00a0]?[a-z0-9]){{{length - 4}}}"
    for length, countries in _COUNTRIES_BY_LENGTH.items()
)
_IBAN = re.compile(
    rf"(?<![a-z0-9])(?=[a-z]{{2}}[0-9]{{2}})(?=({'|'.join(_IBAN_FORMS)})(?![a-z0-9]))", re.ASCII | re.IGNORECASE
)

_BRANDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{17,18})"  # Visa: 13, 16, 18 or 19 digits
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11,16}|35(?:2[89]|[3-8]\d)\d{12,15}"  # Diners Club, JCB
    r"|(?:5[06-9]|6\d)\d{11,17}"  # Maestro, Discover, UnionPay, Elo, Hipercard, Verve
    r"|(?:220[0-4]|8[12]\d\d|9792)\d{12,15}"  # Mir, RuPay, Troy
)

# Separators between groups of digits. A number next to a letter is an id; after a decimal point it is a fraction.
_SEPARATOR = r"[ \t\r\n\u00a0\u2007\u2009\u202f\u2010-\u2015\u2212_/.-]"
_GAP = f"{_SEPARATOR}{{1,3}}"
_FOUR = "[0-9]{4}"
_GROUPS = (
    "[0-9]{13,19}",
    f"{_FOUR}(?:{_GAP}{_FOUR}){{2}}{_GAP}[0-9]{{1,4}}",  # 4-4-4-4 and shorter
    f"{_FOUR}{_GAP}[0-9]{{6}}{_GAP}[0-9]{{4,5}}",  # American Express, Diners Club
)
_CARD = re.compile(rf"(?<![A-Za-z0-9])(?<![0-9]\.)(?=({'|'.join(_GROUPS)})(?![A-Za-z0-9]))")

# A quick search that almost no text passes: two digits, either after the two letters that begin an IBAN, or at the
# beginning of a card number. It starts with the digits, because most texts have few.
_MAYBE_NUMBER = re.compile(
    r"[0-9]{2}(?:(?<=[A-Za-z]{2}..)(?<![A-Za-z0-9].{4})[A-Za-z0-9 \u00a0]{11}"
    rf"|(?<![A-Za-z0-9]..)[0-9]{{2}}{_SEPARATOR}{{0,3}}[0-9]{{4}}{_SEPARATOR}{{0,3}}[0-9]{{2}})",
    re.DOTALL,
)


def redact_document(document: Any) -> Any:
    """Return the document without fields that hold card or bank data, and with such numbers replaced in its texts."""
    if isinstance(document, str):
        return redact_text(document) if len(document) > 12 and _MAYBE_NUMBER.search(document) else document
    if isinstance(document, dict):
        return {name: redact_document(item) for key, item in document.items() if (name := _clean_name(key)) is not None}
    if isinstance(document, list):
        return [redact_document(item) for item in document]
    if isinstance(document, int | float) and 10**12 < abs(document) < 10**19:
        return REDACTED if _is_card(str(abs(int(document)))) else document
    return document


def redact_text(text: str) -> str:
    """Return the text with card numbers and IBANs replaced by `[dropped]`."""
    return _replace(_IBAN, _is_iban, _replace(_CARD, _is_card, text))


@lru_cache(4096)  # PayPal's objects use few different names
def _clean_name(name: str) -> str | None:
    """Return the name of a field, None if the field is to be removed."""
    return None if re.sub(r"[\W_]", "", name).lower() in FORBIDDEN_FIELDS else redact_text(name)


def _replace(pattern: re.Pattern[str], is_match: Callable[[str], bool], text: str) -> str:
    kept, place = [], 0
    for match in pattern.finditer(text):
        start, end = match.span(1)
        if start >= place and is_match(match[1]):
            kept += [text[place:start], REDACTED]
            place = end
    return "".join([*kept, text[place:]]) if kept else text


def _is_card(text: str) -> bool:
    """Return whether the digits match a card brand and have a valid Luhn check digit."""
    number = re.sub("[^0-9]", "", text)
    if not _BRANDS.fullmatch(number):
        return False
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2]]
    return (sum(map(int, number[::-2])) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    compact = re.sub("[^A-Za-z0-9]", "", text)
    return int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4])) % 97 == 1
