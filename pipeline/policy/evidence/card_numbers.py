"""Find card numbers, bank accounts and fields for them in a text. Written for the checks, not shared with the redaction.

Card numbers: ISO/IEC 7812, with the check digit of its annex B (Luhn). Bank accounts: IBAN, ISO 13616, check digits by
ISO 7064 MOD 97-10.
"""

import re

# A number of 13 to 19 digits that begins like one of a card scheme; digits may be grouped by spaces or dashes.
_CARD = re.compile(r"(?<![\w.-])(?:[3-6]\d{3})(?:[ -]?\d){9,15}(?![\w-])")
_IBAN = re.compile(r"(?<!\w)([A-Z]{2}\d{2})((?: ?[A-Z0-9]){11,30})(?!\w)")
IBAN_LENGTHS = {
    "AT": 20, "BE": 16, "CH": 21, "CZ": 24, "DE": 22, "DK": 18, "ES": 24, "FI": 18, "FR": 27, "GB": 22, "HU": 28, "IE": 22,
    "IT": 27, "LU": 20, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "SE": 24,
}  # fmt: skip
# Fields of PayPal's APIs and of card forms, with a value that is not blanked.
_FIELD = re.compile(
    r'"(?:card_number|pan|cvv2?|cvc|security_code|account_number|bank_account|routing_number|iban|sort_code)"'
    r'\s*:\s*"?(?!null|"|\[?removed|\[?redacted|\*|x{3})[^",}\s]',
    re.IGNORECASE,
)


def names_payment_means(content: bytes) -> bool:
    """Return whether the content has a card number, a bank account number, or a filled field for one."""
    text = content.decode("utf-8", "replace")
    cards = (re.sub(r"[ -]", "", found[0]) for found in _CARD.finditer(text))
    accounts = ((found[1] + found[2]).replace(" ", "") for found in _IBAN.finditer(text))
    return any(map(_is_card, cards)) or any(map(_is_account, accounts)) or _FIELD.search(text) is not None


def _is_card(digits: str) -> bool:
    if len(set(digits)) == 1:
        return False
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _is_account(iban: str) -> bool:
    if len(iban) != IBAN_LENGTHS.get(iban[:2]):
        return False
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(letter, 36)) for letter in moved)) % 97 == 1
