"""Every byte of a delivery counts: whatever single one is changed, it is refused, before or by the signature."""

import base64
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import MovableClock
from pipeline.paypal.certificate_rules import require_paypal_certificate, parse_certificate, require_certificate_url
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.errors import MalformedDeliveryError, SignatureError
from pipeline.paypal.signature import HEADERS, Transmission, verify
from tests.conftest import MORNING
from tests.support.pipeline_under_test import WEBHOOK_ID, happened, sign, signer

BODY = orjson.dumps(happened())
SIGNED = {name.lower(): value for name, value in sign(BODY).items()}
KEY = require_paypal_certificate(parse_certificate(signer().leaf_pem), at=MORNING, anchors=None)
ID, TIME, SIGNATURE, *_ = HEADERS
HOSTS = {"api.paypal.com", "api-m.paypal.com", "api.sandbox.paypal.com", "api-m.sandbox.paypal.com"}
PAYPALS = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594"
TRICKY = "@:/\\?#%.;&=[]-_~ \t\r\n\0Aa0\u0430\u3002\uff0f\u2024\u00ad"


def passes(headers: dict[str, str], body: bytes) -> bool:
    try:
        verify(Transmission.read(headers.items()), body, (WEBHOOK_ID,), KEY)
    except (MalformedDeliveryError, SignatureError):
        return False
    return True


def others(text: str) -> Iterator[str]:
    """The text with one character changed, each in every way that a header can hold."""
    for place, old in enumerate(text):
        for code in range(256):
            if code != ord(old):
                yield f"{text[:place]}{chr(code)}{text[place + 1 :]}"


def test_it_passes_unchanged() -> None:
    assert passes(SIGNED, BODY)


def test_every_changed_byte_of_the_body_is_refused() -> None:
    for place, old in enumerate(BODY):
        for new in range(256):
            changed = BODY[:place] + bytes([new]) + BODY[place + 1 :]
            assert new == old or not passes(SIGNED, changed), changed


@pytest.mark.parametrize("name", [ID, TIME, SIGNATURE])
def test_every_changed_character_of_what_is_signed_is_refused(name: str) -> None:
    passed = [changed for changed in others(SIGNED[name]) if passes(SIGNED | {name: changed}, BODY)]
    assert passed == []


@pytest.mark.parametrize("name", [ID, TIME, SIGNATURE])
def test_a_character_more_or_less_is_refused(name: str) -> None:
    text = SIGNED[name]
    shorter = [text[:place] + text[place + 1 :] for place in range(len(text))]
    longer = [f"{text[:place]}{more}{text[place:]}" for place in range(len(text) + 1) for more in "A= \n+"]
    assert [each for each in (*shorter, *longer) if passes(SIGNED | {name: each}, BODY)] == []


def test_another_spelling_of_the_same_signature_is_refused() -> None:
    """Base64 leaves bits of its last letter unread, and has another alphabet for addresses."""
    text = SIGNED[SIGNATURE]
    assert text.endswith("=")
    bytes_of = base64.b64decode(text)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = len(text.rstrip("=")) - 1
    same = [text[:last] + letter + text[last + 1 :] for letter in letters if letter != text[last]]
    same = [each for each in same if base64.b64decode(each) == bytes_of]
    assert same
    spellings = [*same, base64.urlsafe_b64encode(bytes_of).decode().rstrip("="), text + "\n", f" {text}", text + "===="]
    assert [each for each in spellings if passes(SIGNED | {SIGNATURE: each}, BODY)] == []


@settings(deadline=None, derandomize=True, max_examples=100)
@given(headers=st.dictionaries(st.sampled_from(HEADERS) | st.text(max_size=20), st.text(max_size=80)), body=st.binary())
def test_whatever_headers_and_body_are_it_is_refused_and_nothing_else(headers: dict[str, str], body: bytes) -> None:
    assert not passes(headers, body)
    assert not passes(SIGNED | headers, body)


# The certificate's address


@settings(deadline=None, derandomize=True, max_examples=400)
@given(data=st.data())
def test_an_address_that_passes_leads_to_paypal_and_nowhere_else(data: st.DataObject) -> None:
    """PayPal's address with some pieces cut out, put in or turned: what still passes is read the same by everybody."""
    url = PAYPALS
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(url)))
        gone = data.draw(st.integers(0, 3))
        put = data.draw(
            st.text(st.sampled_from(TRICKY), max_size=4) | st.sampled_from(("evil.example.com", "//", ".."))
        )
        url = url[:at] + put + url[at + gone :]
    try:
        require_certificate_url(url)
    except SignatureError:
        return
    read = urlsplit(url)
    assert url.isascii()
    assert (read.scheme, read.hostname in HOSTS, read.port in (None, 443)) == ("https", True, True)
    assert (read.username, read.password, read.query, read.fragment) == (None, None, "", "")
    assert read.path.startswith("/v1/notifications/certs/")
    assert not set(read.path.removeprefix("/v1/notifications/certs/")) & set("/\\.%")


@settings(deadline=None, derandomize=True, max_examples=100)
@given(url=st.text(max_size=120) | st.text(st.sampled_from(TRICKY), max_size=9).map(lambda more: PAYPALS[:22] + more))
async def test_for_what_is_refused_nobody_is_asked(url: str) -> None:
    asked: list[str] = []

    def fetch(url: str) -> bytes:
        asked.append(url)
        return signer().leaf_pem

    keys = CertificateStore(folder=None, anchors=None, clock=MovableClock(MORNING), fetch=fetch)
    with pytest.raises(SignatureError):
        await keys.get(url)
    assert asked == []
