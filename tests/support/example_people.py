"""Three example customers at example.com, a reserved domain (RFC 2606), and their subscriptions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """A subscriber: PayPal account, the vendor's custom id, and one subscription."""

    given_name: str
    surname: str
    email: str
    payer_id: str
    custom_id: str
    subscription: str
    plan: str


# Pays 29.00 EUR a month.
ALICE = Person(
    "Alice", "Andersson", "alice@example.com", "4KALC7NQ2WX8T", "customer-0017", "I-1C93ALX7T0QE",
    "P-4TN61829WE073551MNGQWALI",
)  # fmt: skip
# Pays 499.00 USD a year.
BOB = Person(
    "Bob", "Brontë", "bob@example.com", "9TBBV3M5J6K2R", "customer-0042", "I-8H20B0BM5WKT",
    "P-7YR30418LC995260MNGQWBOB",
)  # fmt: skip
# Pays 4800 JPY a month, three times. PayPal does not know a custom id for him.
CHARLIE = Person(
    "Charlie", "Čapek", "charlie@example.com", "2JCHZ8P4Y7D3G", "", "I-5FCHR4L1E9UD",
    "P-3MO84702JP118463MNGQWCHA",
)  # fmt: skip

PEOPLE = (ALICE, BOB, CHARLIE)
