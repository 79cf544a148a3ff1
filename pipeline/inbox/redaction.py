"""Card and bank fields never get in: they are dropped from what was sent before anything is stored.

They are known by the names PayPal's specifications give them, and by what they look like wherever they stand: a number
that begins and is as long as some brand's cards are and passes their check digit (ISO/IEC 7812-1 annex B), an account
number that passes IBAN's (ISO 13616). Without the brands one order number in ten would pass for a card.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_letters
from typing import Any

# As names are compared: lower case, letters and digits only.
FORBIDDEN = frozenset({
    "card", "creditcard", "creditcardtoken", "debitcard", "fundinginstrument", "fundinginstruments", "fundingoption",
    "cardnumber", "cardtype", "number", "cvv", "cvv2", "cvc", "securitycode", "expiry", "expiremonth", "expireyear",
    "expirydate", "lastdigits", "last4", "lastnchars", "bank", "bankaccount", "bankaccountnumber", "bankname",
    "accountnumber", "accountnumberlastnchars", "accountnumberlastdigits", "routingnumber", "iban", "ibanlastchars",
    "bic", "swift", "swiftcode", "sortcode", "sepadebit", "achdebit", "cardholdername", "nameoncard", "pan",
    "externalfunding", "carrieraccount", "achbankaccountnumber", "cards", "cardno", "ccnumber", "creditcardnumber",
    "bankaccounts", "expirationdate", "expirationmonth", "expirationyear", "expdate",
})  # fmt: skip

DROPPED = "[dropped]"
_HOLDERS = (dict, list)
SHORTEST = 13  # digits of a card number

# By country (ISO 13616 registry). PayPal's own ids have 17 characters, which no country's account numbers have: without
# the lengths, one id in some thousand would pass for an account number.
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST",
        26: "IS TR", 27: "BI FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV", 29: "BR EG PS QA UA",
        30: "JO KW MU", 31: "MT SC", 32: "LC",
    }.items()
    for country in countries.split()
}  # fmt: skip

_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{17,18})"  # Visa: 13, 16, 18 or 19 digits
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11,16}|35(?:2[89]|[3-8]\d)\d{12,15}"  # Diners Club, JCB
    r"|(?:5[06-9]|6\d)\d{11,17}"  # Maestro, Discover, UnionPay, Elo, Hipercard, Verve
    r"|(?:220[0-4]|8[12]\d\d|9792)\d{12,15}"  # Mir, RuPay, Troy
)
# Digits in groups, however they are set apart; letters beside them make an id of them, and a point before, a fraction.
_GAP = r"[ \t\r\n\u00a0\u2007\u2009\u202f\u2010-\u2015\u2212_/-]{1,3}"
_GROUPS = re.compile(rf"(?<![A-Za-z0-9])(?<!\d\.)[0-9]+(?:{_GAP}[0-9]+|\.[0-9]{{4,6}}(?![0-9]))*(?![A-Za-z0-9])")
_GROUP = re.compile(r"[0-9]+")
_IBAN = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}[0-9]{2}(?:[ \u00a0]?[A-Za-z0-9]){11,30}))")

# A look at the raw bytes tells of nearly every body that it holds nothing of the kind. A pattern looks at each place, so
# quicker looks come first, at the bytes by kind: a digit as 0, a letter as a; for numbers without what may part them.
_LETTERS, _DIGITS = ascii_letters.encode(), b"0123456789"
_KINDS = bytes.maketrans(_LETTERS + _DIGITS, b"a" * len(_LETTERS) + b"0" * len(_DIGITS))
_BETWEEN_DIGITS = bytes(set(range(256)) - set(_LETTERS + _DIGITS + b'"'))
_LONG_NUMBER = re.compile(
    rb'(?<![A-Za-z0-9])[0-9](?:[^A-Za-z0-9"]{0,6}[0-9]){12,}(?![A-DF-Za-df-z0-9])'  # an e: 4.1e15 is a number too
)
_ACCOUNT = re.compile(rb"aa00(?<![a0]aa00)(?:[^!-~]{0,2}[a0]){11}")  # in bytes by kind


def clean(raw: bytes, document: Any) -> Any:
    """The document (parsed from `raw`) without card and bank fields."""
    return _walk(document) if _is_suspect(raw) or _names_some(document) else document


def clean_text(text: str) -> str:
    """Text with card and account numbers replaced by `[dropped]`."""
    return _without_ibans(_GROUPS.sub(lambda match: _without_cards(match[0]), text))


def _is_suspect(raw: bytes) -> bool:
    """Whether a number in it may be one: a backslash may hide a digit of it."""
    return b"\\" in raw or _holds_number(raw)


def _names_some(document: Any) -> bool:
    """Whether something in it, however deep, has a forbidden name."""
    holders: list[Any] = [[document]]
    for holder in holders:  # which grows meanwhile
        named = isinstance(holder, dict)
        if named and _are_some_forbidden(tuple(holder)):
            return True
        for item in holder.values() if named else holder:
            if isinstance(item, _HOLDERS):
                holders.append(item)  # noqa: PERF401 - in one step it is slower
    return False


@lru_cache(4096)  # PayPal's objects have the same few sets of names
def _are_some_forbidden(names: tuple[str, ...]) -> bool:
    return any(map(_is_forbidden, names))


def _holds_number(raw: bytes) -> bool:
    if b"0" * SHORTEST in raw.translate(_KINDS, _BETWEEN_DIGITS) and _LONG_NUMBER.search(raw):
        return True
    return _ACCOUNT.search(raw.translate(_KINDS)) is not None


@lru_cache(4096)
def _is_forbidden(name: str) -> bool:
    return re.sub(r"[\W_]", "", name).lower() in FORBIDDEN


def _walk(value: Any) -> Any:
    if isinstance(value, dict):
        return {_walk(key): _walk(item) for key, item in value.items() if not _is_forbidden(key)}
    if isinstance(value, list):
        return [_walk(item) for item in value]
    if isinstance(value, str) and len(value) > 12:
        return clean_text(value)
    if isinstance(value, int | float) and 10**12 < abs(value) < 10**19:
        return DROPPED if _is_card(str(abs(int(value)))) else value
    return value


def _without_cards(text: str) -> str:
    """Groups of digits less those that make a card number together, which may stand among others: its expiry, say."""
    groups = [match.span() for match in _GROUP.finditer(text)]
    kept, place, first = [], 0, 0
    while first < len(groups):
        last = _last_of_card(text, groups, first)
        if last is not None:
            kept += [text[place : groups[first][0]], DROPPED]
            place = groups[last][1]
        first = (first if last is None else last) + 1
    return "".join([*kept, text[place:]])


def _last_of_card(text: str, groups: Sequence[tuple[int, int]], first: int) -> int | None:
    """Which group ends the card number that begins with this one; None if none begins here."""
    number = ""
    for last in range(first, min(first + 19, len(groups))):
        number += text[slice(*groups[last])]
        if len(number) >= SHORTEST and _is_card(number):
            return last
    return None


def _is_card(number: str) -> bool:
    """Whether it looks like some brand's, and Luhn's check digit is right."""
    if not _CARD.fullmatch(number):
        return False
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2]]
    return (sum(map(int, number[::-2])) + sum(doubled)) % 10 == 0


def _without_ibans(text: str) -> str:
    kept, place = [], 0
    for match in _IBAN.finditer(text):
        end = _end_of_iban(text, match.start(), match[1])
        if match.start() >= place and end:
            kept += [text[place : match.start()], DROPPED]
            place = end
    return "".join([*kept, text[place:]])


def _end_of_iban(text: str, start: int, candidate: str) -> int:
    """Where the account number that begins here ends: right length, a word's end, remainder 1 by 97. 0: none begins."""
    length, compact = IBAN_LENGTHS.get(candidate[:2].upper(), 0), ""
    for place, sign in enumerate(candidate):
        compact += sign if sign.isalnum() else ""
        if len(compact) == length:
            end = start + place + 1
            number = int("".join(str(int(sign, 36)) for sign in compact[4:] + compact[:4]))
            return end if number % 97 == 1 and not text[end : end + 1].isalnum() else 0
    return 0
