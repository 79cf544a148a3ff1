"""Card and bank data is removed anywhere in a body; ids, times and other numbers stay."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.inbox.parsing import parse_webhook
from pipeline.inbox.redaction import REDACTED, redact_document, redact_text
from pipeline.simulator import ids
from tests.support.sample_events import kinds, sample

# Test numbers published by the card brands.
CARDS = {
    "Visa": "4111111111111111",
    "Visa of 13": "4222222222222",
    "Mastercard": "5555555555554444",
    "Mastercard of 2017": "2223003122003222",
    "American Express": "378282246310005",
    "Discover": "6011111111111117",
    "Diners Club": "30569309025904",
    "JCB": "3566002020360505",
    "UnionPay": "6200000000000005",
    "Maestro": "6759649826438453",
    "Mir": "2200770239097761",
}
IBANS = [
    "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "FR1420041010050500013M02606",
    "NO9386011117947", "MT84MALT011000012345MTLCAST001S", "nl91abna0417164300",
]  # fmt: skip
each_card = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)


def redacted_json(document: Any) -> bytes:
    """Return the document as it is stored."""
    return orjson.dumps(redact_document(document))


def grouped(digits: str, separator: str) -> str:
    return separator.join(digits[start : start + 4] for start in range(0, len(digits), 4))


# -- numbers


@each_card
@pytest.mark.parametrize("separator", ["", " ", "-", "  ", "\u00a0", "\u2013"], ids=repr)
def test_card_number_in_a_note_is_removed_in_any_grouping(card: str, separator: str) -> None:
    note = f"Please charge {grouped(card, separator)} 12/27 instead, thanks"
    assert redacted_json({"note": note}).decode() == f'{{"note":"Please charge {REDACTED} 12/27 instead, thanks"}}'


@each_card
def test_card_number_is_removed_as_number_and_as_field_name(card: str) -> None:
    assert card.encode() not in redacted_json({"a": [{"b": int(card)}], "c": float(card), "d": -int(card), card: 1})


@pytest.mark.parametrize("text", [
    "4111.1111.1111.1111", "no.4111111111111111", "(4111111111111111)", "5555555555554444/378282246310005",
    "x 4111111111111111.", "4111 - 1111 - 1111 - 1111", "4111\n1111\n1111\n1111", "4111_1111_1111_1111",
    "4111 / 1111 / 1111 / 1111", "4111\u22121111\u22121111\u22121111",
])  # fmt: skip
def test_punctuation_does_not_hide_a_card_number(text: str) -> None:
    assert not set(CARDS.values()) & set(re.sub(r"[.\s_/\u2212-]", "", redact_text(text)).split(REDACTED))
    assert REDACTED in redact_text(text)


@pytest.mark.parametrize("iban", IBANS)
def test_iban_in_a_note_is_removed_without_the_text_after_it(iban: str) -> None:
    stored = redacted_json({"note": f"IBAN {iban} BIC COBADEFFXXX, {iban}"}).decode()
    assert stored == f'{{"note":"IBAN {REDACTED} BIC COBADEFFXXX, {REDACTED}"}}'


@pytest.mark.parametrize("text", [
    "4111111111111112", "DE89370400440532013001", "1182736450918273645", "0000000000000000", "20260301-000123456",
    "1575072000000", "2014-10-31 15:42:24", "WH-2N242548W9943490U-1JU23391CS4765624", "41111111111111110000000",
    "a4111111111111111", "0.4111111111111111",
])  # fmt: skip
def test_other_long_numbers_stay(text: str) -> None:
    assert redact_text(text) == text


# -- field names


@pytest.mark.parametrize("name", [
    "card", "credit_card", "creditCard", "Credit-Card", "card number", "card_number ", "card.number", "cvv2", "CVC",
    "funding_instruments", "last_digits", "last4", "expire_month", "Expiry", "bank_account", "IBAN", "routing_number",
    "sepa_debit", "number", "account_number_last_digits", "card" + " " * 80,
])  # fmt: skip
def test_card_and_bank_fields_are_removed_in_any_spelling(name: str) -> None:
    document = {"resource": {"payment_source": [{name: {"anything": "secret-7"}}], "id": "KEPT"}}
    stored = redacted_json(document)
    assert b"secret-7" not in stored
    assert b"KEPT" in stored


def test_json_escapes_hide_neither_names_nor_numbers() -> None:
    raw = rb'{"id":"1","event_type":"X","c\u0061rd":{"x":"secret-7"},"note":"\u0034111111111111111"}'
    assert parse_webhook(raw).redacted_body == b'{"id":"1","event_type":"X","note":"[dropped]"}'


def test_card_in_paypals_format_is_removed_and_the_rest_stays() -> None:
    card = {"number": "xxxxxxxxxxxx0331", "type": "visa", "expire_month": 11, "expire_year": 2028, "cvv2": "123"}
    payer = {"payment_method": "credit_card", "funding_instruments": [{"credit_card": card}]}
    event = {**sample("PAYMENT.SALE.COMPLETED"), "payer": payer}
    stored = parse_webhook(orjson.dumps(event)).redacted_body
    assert orjson.loads(stored) == {**event, "payer": {"payment_method": "credit_card"}}


def test_unreadable_body_is_redacted_too() -> None:
    assert b"4111" not in parse_webhook(b'{"card_number": "4111 1111 1111 1111", ').redacted_body


def test_redacted_custom_id_does_not_identify_a_customer() -> None:
    event = sample("BILLING.SUBSCRIPTION.ACTIVATED", {"custom_id": CARDS["Visa"]})
    assert "custom" not in parse_webhook(orjson.dumps(event)).person


# -- unchanged data


@pytest.mark.parametrize("kind", kinds())
def test_body_without_card_or_bank_data_does_not_change(kind: str) -> None:
    assert redact_text(orjson.dumps(sample(kind)).decode()) == orjson.dumps(sample(kind)).decode()
    assert orjson.loads(parse_webhook(orjson.dumps(sample(kind))).redacted_body) == sample(kind)


@given(st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_paypal_ids_stay(rng: Any) -> None:
    paypal_ids = [ids.event(rng), ids.payment(rng), ids.subscription(rng)]
    assert [redact_text(f"see {id}.") for id in paypal_ids] == [f"see {id}." for id in paypal_ids]


@given(
    st.datetimes(),
    st.sampled_from(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%S.%f-0700", "%Y-%m-%d %H:%M:%S"]),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_times_stay(moment: Any, time_format: str) -> None:
    assert redact_text(moment.strftime(time_format)) == moment.strftime(time_format)


@given(st.text(st.sampled_from("0123456789 -ADEX."), max_size=60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_second_redaction_changes_nothing(text: str) -> None:
    assert redact_text(redact_text(text)) == redact_text(text)
