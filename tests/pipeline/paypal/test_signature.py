"""Verification of webhook signatures, and parsing of PayPal's headers."""

import base64
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.paypal.errors import MalformedDeliveryError, SignatureError
from pipeline.paypal.signature import Transmission, verify
from tests.support.certificate_authority import BODY, WEBHOOK_ID, deliver, rsa_key

SIGNED = ("Paypal-Transmission-Id", "Paypal-Transmission-Time", "Paypal-Transmission-Sig")


def verify_delivery(headers: dict[str, str], body: bytes = BODY, webhook_ids: tuple[str, ...] = (WEBHOOK_ID,)) -> str:
    return verify(Transmission.read(headers.items()), body, webhook_ids, rsa_key().public_key())


def changed(**headers: str | None) -> dict[str, str]:
    """Return a valid delivery's headers with some replaced, or removed if None."""
    named = {"Paypal-" + name.replace("_", "-"): value for name, value in headers.items()}
    return {name: value for name, value in (deliver() | named).items() if value is not None}


def test_verification_returns_the_matching_webhook_id() -> None:
    assert verify_delivery(deliver(), webhook_ids=("OTHER", WEBHOOK_ID)) == WEBHOOK_ID


@pytest.mark.parametrize("change_case", [str.lower, str.upper, str.title])
def test_header_names_are_case_insensitive(change_case: Callable[[str], str]) -> None:
    assert verify_delivery({change_case(name): value for name, value in deliver().items()}) == WEBHOOK_ID


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, len(BODY) - 1), difference=st.integers(1, 255))
def test_body_with_one_changed_byte_is_refused(place: int, difference: int) -> None:
    body = bytearray(BODY)
    body[place] ^= difference
    with pytest.raises(SignatureError) as error:
        verify_delivery(deliver(), bytes(body))
    assert error.value.check == "signature"


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(SIGNED), data=st.data(), difference=st.integers(1, 127))
def test_signed_header_with_one_changed_character_is_refused(name: str, data: st.DataObject, difference: int) -> None:
    headers = deliver()
    place = data.draw(st.integers(0, len(headers[name]) - 1))
    text = headers[name]
    headers[name] = text[:place] + chr(ord(text[place]) ^ difference) + text[place + 1 :]
    with pytest.raises((SignatureError, MalformedDeliveryError)):
        verify_delivery(headers)


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 255), difference=st.integers(1, 255))
def test_signature_with_one_changed_byte_is_refused(place: int, difference: int) -> None:
    signature = bytearray(base64.b64decode(deliver()["Paypal-Transmission-Sig"]))
    signature[place] ^= difference
    with pytest.raises(SignatureError):
        verify_delivery(changed(Transmission_Sig=base64.b64encode(signature).decode()))


@pytest.mark.parametrize(
    "body", [BODY + b"\n", BODY[:-1], b"", BODY.replace(b"20", b"02"), BODY.decode().encode("utf-16")]
)
def test_shortened_extended_or_reencoded_body_is_refused(body: bytes) -> None:
    with pytest.raises(SignatureError):
        verify_delivery(deliver(), body)


def test_delivery_for_another_webhook_is_refused() -> None:
    with pytest.raises(SignatureError) as error:
        verify_delivery(deliver(webhook_id="1JE4291016473214C"))
    assert error.value.check == "signature"


def test_delivery_signed_with_another_key_is_refused() -> None:
    with pytest.raises(SignatureError) as error:
        verify_delivery(deliver(key=rsa_key(3072)))
    assert error.value.check == "signature"


def test_delivery_is_refused_without_webhook_id() -> None:
    with pytest.raises(SignatureError, match="SMT_PAYPAL_WEBHOOK_ID") as error:
        verify_delivery(deliver(webhook_id=""), webhook_ids=())
    assert error.value.check == "webhook id"


@pytest.mark.parametrize("algorithm", ["SHA1withRSA", "sha256withrsa", "SHA256withRSAandMGF1", "none", "HS256"])
def test_other_algorithm_is_refused(algorithm: str) -> None:
    with pytest.raises(SignatureError) as error:
        verify_delivery(changed(Auth_Algo=algorithm))
    assert error.value.check == "algorithm"


@pytest.mark.parametrize("name", ["Transmission_Id", "Transmission_Time", "Transmission_Sig", "Cert_Url", "Auth_Algo"])
@pytest.mark.parametrize("value", [None, "", "a b", "a\nb", "a|b", "\u0430", "a\x00", "x" * 1369])
def test_missing_long_or_unprintable_header_is_malformed(name: str, value: str | None) -> None:
    with pytest.raises(MalformedDeliveryError, match="paypal-" + name.lower().replace("_", "-")):
        Transmission.read(changed(**{name: value}).items())


def test_duplicate_header_is_malformed() -> None:
    with pytest.raises(MalformedDeliveryError, match="duplicate header"):
        Transmission.read((deliver() | {"PAYPAL-CERT-URL": "https://evil.example.com/"}).items())


def _base64(count: int) -> str:
    return base64.b64encode(bytes(count)).decode()


@pytest.mark.parametrize(
    "text",
    [
        _base64(255),
        _base64(1025),
        _base64(256).rstrip("="),
        _base64(256) + "=",
        _base64(256)[:-3] + "B==",  # different unused bits: the same bytes, a different text
        _base64(257)[:-1] + "-",
        _base64(256).replace("A", "*", 1),
    ],
)
def test_signature_in_non_canonical_base64_is_malformed(text: str) -> None:
    with pytest.raises(MalformedDeliveryError, match="paypal-transmission-sig"):
        Transmission.read(changed(Transmission_Sig=text).items())


def test_signature_of_each_key_size_is_parsed() -> None:
    for count in (256, 384, 512, 1024):
        assert len(Transmission.read(changed(Transmission_Sig=_base64(count)).items()).signature) == count


def test_text_moved_between_headers_is_refused() -> None:
    headers = deliver()
    joined = f"{headers['Paypal-Transmission-Id']}|{headers['Paypal-Transmission-Time']}"
    for split in (10, len(joined) - 10):
        with pytest.raises((MalformedDeliveryError, SignatureError)):
            verify_delivery(changed(Transmission_Id=joined[:split], Transmission_Time=joined[split:]))


def test_verification_does_not_import_the_sdk() -> None:
    program = (
        "import sys, pipeline.paypal.signature, pipeline.paypal.certificates; sys.exit('paypalhttp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
