"""Every single changed byte of a delivery is refused."""

import base64
from collections.abc import Iterator
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.clock import MovableClock
from pipeline.paypal.certificate_rules import parse_certificate, require_certificate_url, require_paypal_certificate
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
PAYPAL_URL = "https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594"
TRICKY_CHARACTERS = "@:/\\?#%.;&=[]-_~ \t\r\n\0Aa0\u0430\u3002\uff0f\u2024\u00ad"


def is_accepted(headers: dict[str, str], body: bytes) -> bool:
    try:
        verify(Transmission.read(headers.items()), body, (WEBHOOK_ID,), KEY)
    except (MalformedDeliveryError, SignatureError):
        return False
    return True


def one_character_changed(text: str) -> Iterator[str]:
    """Yield the text with one character replaced, for each position and each Latin-1 character."""
    for place, old in enumerate(text):
        for code in range(256):
            if code != ord(old):
                yield f"{text[:place]}{chr(code)}{text[place + 1 :]}"


def test_unchanged_delivery_is_accepted() -> None:
    assert is_accepted(SIGNED, BODY)


def test_each_changed_body_byte_is_refused() -> None:
    for place, old in enumerate(BODY):
        for new in range(256):
            changed = BODY[:place] + bytes([new]) + BODY[place + 1 :]
            assert new == old or not is_accepted(SIGNED, changed), changed


@pytest.mark.parametrize("name", [ID, TIME, SIGNATURE])
def test_each_changed_character_of_signed_header_is_refused(name: str) -> None:
    accepted = [
        changed for changed in one_character_changed(SIGNED[name]) if is_accepted(SIGNED | {name: changed}, BODY)
    ]
    assert accepted == []


@pytest.mark.parametrize("name", [ID, TIME, SIGNATURE])
def test_added_or_removed_character_is_refused(name: str) -> None:
    text = SIGNED[name]
    shorter = [text[:place] + text[place + 1 :] for place in range(len(text))]
    longer = [f"{text[:place]}{more}{text[place:]}" for place in range(len(text) + 1) for more in "A= \n+"]
    assert [each for each in (*shorter, *longer) if is_accepted(SIGNED | {name: each}, BODY)] == []


def test_non_canonical_base64_of_the_signature_is_refused() -> None:
    """Base64 ignores some bits of the last character, and has a second alphabet for URLs."""
    text = SIGNED[SIGNATURE]
    assert text.endswith("=")
    bytes_of = base64.b64decode(text)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = len(text.rstrip("=")) - 1
    same = [text[:last] + letter + text[last + 1 :] for letter in letters if letter != text[last]]
    same = [each for each in same if base64.b64decode(each) == bytes_of]
    assert same
    spellings = [*same, base64.urlsafe_b64encode(bytes_of).decode().rstrip("="), text + "\n", f" {text}", text + "===="]
    assert [each for each in spellings if is_accepted(SIGNED | {SIGNATURE: each}, BODY)] == []


@settings(deadline=None, derandomize=True, max_examples=100)
@given(headers=st.dictionaries(st.sampled_from(HEADERS) | st.text(max_size=20), st.text(max_size=80)), body=st.binary())
def test_arbitrary_delivery_is_refused_without_other_errors(headers: dict[str, str], body: bytes) -> None:
    assert not is_accepted(headers, body)
    assert not is_accepted(SIGNED | headers, body)


# The certificate's URL


@settings(deadline=None, derandomize=True, max_examples=400)
@given(data=st.data())
def test_accepted_url_leads_to_paypal_only(data: st.DataObject) -> None:
    """Random edits of PayPal's URL: every URL that is accepted still leads to PayPal for any parser."""
    url = PAYPAL_URL
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(url)))
        removed = data.draw(st.integers(0, 3))
        inserted = data.draw(
            st.text(st.sampled_from(TRICKY_CHARACTERS), max_size=4) | st.sampled_from(("evil.example.com", "//", ".."))
        )
        url = url[:at] + inserted + url[at + removed :]
    try:
        require_certificate_url(url)
    except SignatureError:
        return
    parsed = urlsplit(url)
    assert url.isascii()
    assert (parsed.scheme, parsed.hostname in HOSTS, parsed.port in (None, 443)) == ("https", True, True)
    assert (parsed.username, parsed.password, parsed.query, parsed.fragment) == (None, None, "", "")
    assert parsed.path.startswith("/v1/notifications/certs/")
    assert not set(parsed.path.removeprefix("/v1/notifications/certs/")) & set("/\\.%")


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    url=st.text(max_size=120)
    | st.text(st.sampled_from(TRICKY_CHARACTERS), max_size=9).map(lambda more: PAYPAL_URL[:22] + more)
)
async def test_refused_url_is_never_requested(url: str) -> None:
    fetched: list[str] = []

    def fetch(url: str) -> bytes:
        fetched.append(url)
        return signer().leaf_pem

    keys = CertificateStore(folder=None, anchors=None, clock=MovableClock(MORNING), fetch=fetch)
    with pytest.raises(SignatureError):
        await keys.get(url)
    assert fetched == []
