"""Validation of e-mail addresses, and cleaning of display names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.customers.rate_limit import mailbox
from pipeline.email_address import (
    InvalidEnvelopeError,
    ascii_address,
    clean_name,
    fold_address,
    needs_smtputf8,
    valid_address,
)
from tests.support.hostile_text import HOSTILE_TEXT, INJECTION


@pytest.mark.parametrize(
    ("outside", "clean"),
    [
        ("Ada Example", "Ada Example"),
        ("  Ada \t Example\r\nBcc: x  ", "Ada Example Bcc: x"),
        ("Ada\u202eelpmaxE\u200b\ufeff", "AdaelpmaxE"),
        (f"Zoe {INJECTION}", "Zoe"),
        ("=?=?utf-8?q?a?=utf-8?q?b?=", ""),
        ("=\u200b?utf-8?q?x?=", ""),
        ("=http://?utf-8?q?x?=", ""),
        ("Visit www.evil.example now", "Visit www. evil. example now"),
        ("https://evil.example/pay", "evil. example/pay"),
        ("HTTPS:\\\\evil", "evil"),
        ("httphttp://://x", "x"),
        ("mailto:a", "a"),
        ("joe@evil.example", "joe at evil. example"),
        ("evil\u2024example", "evil\u2024 example"),
        ("例え。テスト", "例え。 テスト"),
        ("💩.la", "💩. la"),
        ("J.R.Smith", "J. R. Smith"),
        ("Dr. Smith", "Dr. Smith"),
        ("SMT-CRM 2.0", "SMT-CRM 2.0"),
        ("10.0.0.1", "10. 0. 0. 1"),
        ("Call +1 (888) 555-0100 now", "Call now"),
        ("Licence 2026-2027", "Licence 2026-2027"),
        ("O'Brien-Smith, Jr.", "O'Brien-Smith, Jr."),
        ("Zoë Müller", "Zoë Müller"),
        ("\ud800", ""),
        ("x" * 101, "x" * 99 + "…"),
        ("", ""),
    ],
)
def test_external_name_is_cleaned(outside: str, clean: str) -> None:
    assert clean_name(outside) == clean


@given(HOSTILE_TEXT)
def test_clean_name_is_one_short_line_without_links(outside: str) -> None:
    name = clean_name(outside)
    assert clean_name(name) == name
    assert len(name) <= 100
    assert name == name.strip()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b\u202e]|://|@|[^\W\d]\.[^\W\d]|=\?.*\?.*\?.*\?=", name)


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.com",
        "a.b+c@mail.example.com",
        "jörg@bücher.example",
        "o'brien@example.com",
        "root@localhost",
        f"{'x' * 64}@example.com",
        f"a@{'b' * 63}.example",
        "a@xn--bcher-kva.example",
        "A@EXAMPLE.COM",
    ],
)
def test_valid_addresses_are_accepted(address: str) -> None:
    assert valid_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "@",
        "ada",
        "ada@",
        "@example.com",
        "a@b@example.com",
        "ada@example",
        "ada @example.com",
        "ada@example..com",
        ".ada@example.com",
        "ada.@example.com",
        "a..b@example.com",
        "ada@-example.com",
        "ada@example-.com",
        "<ada@example.com>",
        "ada@example.com,b@example.com",
        "ada@example.com;",
        'ada"@example.com',
        "ada(x)@example.com",
        "ada@[127.0.0.1]",
        "ada@127.0.0.1",
        "ada\r\n@example.com",
        "ada@example.com\r\n",
        "ada\u202e@example.com",
        "ada\u200b@example.com",
        "ada\u00a0x@example.com",
        "ada\ud800@example.com",
        "ada\\@example.com",
        "ada@exa_mple.com",
        f"{'x' * 65}@example.com",
        f"a@{'b' * 64}.example",
        f"a@{'b.' * 126}example",
        f"{'ö' * 33}@example.com",
    ],
)
def test_invalid_addresses_are_refused(address: str) -> None:
    assert not valid_address(address)
    with pytest.raises(InvalidEnvelopeError):
        ascii_address(address)


@given(st.text(max_size=80))
def test_accepted_text_is_one_plain_address(text: str) -> None:
    if valid_address(text):
        written = ascii_address(text)
        assert valid_address(written)
        assert written.count("@") == 1
        assert not re.search(r"[\s<>(),;:\"\[\]\\\x00-\x1f]", written)
        assert written.rpartition("@")[2].isascii()


def test_only_non_ascii_local_part_needs_smtputf8() -> None:
    assert needs_smtputf8("jörg@example.com")
    assert not needs_smtputf8("ada@bücher.example")


@pytest.mark.parametrize(
    "spelling",
    [
        "ada@xn--bcher-kva.example",
        "ada@BÜCHER.example",
        " ADA@bücher.EXAMPLE ",
        "ada@\uff42ücher.example",
        "ada@bücher\u3002example",
    ],
)
def test_spellings_of_one_domain_are_one_address(spelling: str) -> None:
    """UTS 46 maps case, full-width letters and the ideographic full stop, as browsers and mail programs do."""
    assert fold_address(spelling) == "ada@xn--bcher-kva.example"
    assert mailbox(spelling) == "ada@xn--bcher-kva.example"


@pytest.mark.parametrize(
    "other", ["\u0430d\u0430@example.com", "ada@ex\u0430mple.com", "ad\u00e1@example.com", "ada@example.co"]
)
def test_similar_addresses_stay_different(other: str) -> None:
    assert fold_address(other) != fold_address("ada@example.com")


@given(st.text(max_size=40))
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold_address(fold_address(text)) == fold_address(text)
