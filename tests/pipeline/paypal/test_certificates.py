import asyncio
import hashlib
import stat
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from pipeline.clock import MovableClock
from pipeline.paypal import certificates
from pipeline.paypal.certificate_rules import TrustAnchors, require_paypal_certificate, parse_certificate
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.errors import PaypalUnavailableError, SignatureError
from pipeline.settings import SettingsError
from tests.support.certificate_authority import (
    LIVE,
    NOW,
    SANDBOX,
    URL,
    YEAR,
    Issued,
    intermediate,
    issue,
    paypal,
    root,
    rsa_key,
)

PATH = "/v1/notifications/certs/CERT-360caa42"
PAYPALS_KEY = rsa_key().public_key()


class Fetch:
    """Stands where the download stands and counts. What it is given: a PEM text, or an error to raise."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.asked = answer, list[str]()

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def store(
    fetch: Callable[[str], bytes], folder: Path | None = None, *, anchors: Path | None = None, at: datetime = NOW
) -> CertificateStore:
    return CertificateStore(folder=folder, anchors=anchors, clock=MovableClock(at), fetch=fetch)


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def bundle(folder: Path, *issued: Issued) -> Path:
    path = folder / "anchors.pem"
    path.write_bytes(b"".join(each.pem for each in issued))
    return path


# The certificate


@pytest.mark.parametrize("name", [LIVE, SANDBOX])
def test_paypals_two_names_are_accepted(name: str) -> None:
    assert require_paypal_certificate(parse_certificate(issue(name).pem), at=NOW, anchors=None) == PAYPALS_KEY


def test_the_first_certificate_counts_and_line_ends_may_be_of_either_kind() -> None:
    pem = (issue(LIVE, key=rsa_key(3072)).pem + paypal().pem).replace(b"\n", b"\r\n")
    assert require_paypal_certificate(parse_certificate(pem), at=NOW, anchors=None).key_size == 3072


@pytest.mark.parametrize(
    "names",
    [
        ("messageverificationcerts.paypal.com.evil.example.com",),
        ("evil.messageverificationcerts.paypal.com",),
        ("messageverificationcerts.evil.paypal.com",),
        ("MESSAGEVERIFICATIONCERTS.PAYPAL.COM",),
        ("api.paypal.com",),
        ("*.paypal.com",),
        ("evil.example.com", LIVE),
        (LIVE, SANDBOX),
        (),
    ],
)
def test_a_certificate_in_another_name_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(SignatureError) as refused:
        require_paypal_certificate(parse_certificate(issue(*names).pem), at=NOW, anchors=None)
    assert refused.value.check == "certificate subject"


@pytest.mark.parametrize("late", [timedelta(seconds=-1), YEAR + timedelta(seconds=1)])
def test_a_certificate_is_refused_before_and_after_its_time(late: timedelta) -> None:
    with pytest.raises(SignatureError) as refused:
        require_paypal_certificate(parse_certificate(issue(LIVE, start=NOW).pem), at=NOW + late, anchors=None)
    assert refused.value.check == "certificate validity"


@pytest.mark.parametrize("moment", [timedelta(0), YEAR])
def test_a_certificate_is_valid_on_its_first_and_last_second(moment: timedelta) -> None:
    assert require_paypal_certificate(parse_certificate(issue(LIVE, start=NOW).pem), at=NOW + moment, anchors=None) == PAYPALS_KEY


def test_a_key_that_is_short_or_of_another_kind_is_refused() -> None:
    for key in (rsa_key(1024), ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(SignatureError) as refused:
            require_paypal_certificate(parse_certificate(issue(LIVE, key=key).pem), at=NOW, anchors=None)
        assert refused.value.check == "certificate key"


@pytest.mark.parametrize("pem", [b"", b"<html>", paypal().key_pem, paypal().pem[:-200], paypal().pem[40:]])
def test_what_is_no_certificate_is_refused(pem: bytes) -> None:
    with pytest.raises(SignatureError) as refused:
        require_paypal_certificate(parse_certificate(pem), at=NOW, anchors=None)
    assert refused.value.check == "certificate"


# The chain


def test_a_chain_to_an_anchor_is_accepted_though_paypal_serves_the_leaf_alone(tmp_path: Path) -> None:
    anchors = TrustAnchors.load(bundle(tmp_path, intermediate(), root("Another Root"), root()))
    assert require_paypal_certificate(parse_certificate(paypal().pem), at=NOW, anchors=anchors) == PAYPALS_KEY


def test_an_intermediate_served_along_is_used(tmp_path: Path) -> None:
    anchors = TrustAnchors.load(bundle(tmp_path, root()))
    assert require_paypal_certificate(parse_certificate(paypal().pem + intermediate().pem), at=NOW, anchors=anchors) == PAYPALS_KEY


def _selfmade() -> Issued:
    return issue(LIVE, by=issue("Example Intermediate", key=ec.generate_private_key(ec.SECP256R1()), authority=True))


def _from_a_leaf() -> Issued:
    leaf = issue("shop.example.com", key=ec.generate_private_key(ec.SECP256R1()))
    return Issued(issue(LIVE, by=leaf).certificate, leaf.key)


BROKEN: dict[str, Callable[[], tuple[bytes, list[Issued]]]] = {
    "no intermediate": lambda: (paypal().pem, [root()]),
    "another root": lambda: (paypal().pem, [intermediate(), root("Another Root")]),
    "an authority of the same name": lambda: (_selfmade().pem, [intermediate(), root()]),
    "issued by a certificate that is no authority": lambda: (_from_a_leaf().pem, [intermediate(), root()]),
    "for clients only": lambda: (issue(LIVE, usage=ExtendedKeyUsageOID.CLIENT_AUTH).pem, [intermediate(), root()]),
    "signed by itself": lambda: (issue(LIVE, authority=True).pem, [intermediate(), root()]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_chain_that_does_not_end_at_an_anchor_is_refused(case: str, tmp_path: Path) -> None:
    pem, trusted = BROKEN[case]()
    assert require_paypal_certificate(parse_certificate(pem), at=NOW, anchors=None) == PAYPALS_KEY
    with pytest.raises(SignatureError, match="no trust anchor") as refused:
        require_paypal_certificate(parse_certificate(pem), at=NOW, anchors=TrustAnchors.load(bundle(tmp_path, *trusted)))
    assert refused.value.check == "certificate chain"


def test_an_issuer_past_its_time_vouches_for_nobody(tmp_path: Path) -> None:
    anchors = TrustAnchors.load(bundle(tmp_path, intermediate(), root()))
    later = issue(LIVE, start=NOW)
    with pytest.raises(SignatureError) as refused:
        require_paypal_certificate(parse_certificate(later.pem), at=NOW + YEAR * 0.9, anchors=anchors)
    assert refused.value.check == "certificate chain"


@pytest.mark.parametrize("content", [None, b"", b"no PEM", intermediate().pem])
def test_anchors_that_cannot_be_used_stop_the_start(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "anchors.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"anchors\.pem"):
        store(Fetch(b""), anchors=path)


# Kept


async def test_a_certificate_is_fetched_once_and_then_known() -> None:
    fetch = Fetch(paypal().pem)
    keys = store(fetch)
    assert keys.known(URL) is None
    assert await keys.get(URL) == await keys.get(URL) == keys.known(URL) == PAYPALS_KEY
    assert fetch.asked == [URL]


async def test_calls_at_the_same_time_share_one_fetch_and_one_that_is_cancelled_takes_nothing_from_the_rest() -> None:
    asked, go = list[str](), threading.Event()

    def fetch(url: str) -> bytes:
        asked.append(url)
        go.wait(10)
        return paypal().pem

    keys = store(fetch)
    calls = [asyncio.create_task(keys.get(URL)) for _ in range(20)]
    await asyncio.sleep(0)
    calls[0].cancel()
    go.set()
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcome[0], asyncio.CancelledError)
    assert (outcome[1:], asked) == ([PAYPALS_KEY] * 19, [URL])


async def test_a_failed_fetch_is_forgotten() -> None:
    fetch = Fetch(PaypalUnavailableError("down"))
    keys = store(fetch)
    with pytest.raises(PaypalUnavailableError):
        await keys.get(URL)
    fetch.answer = paypal().pem
    assert await keys.get(URL) == PAYPALS_KEY
    assert fetch.asked == [URL, URL]


async def test_a_fetched_certificate_that_fails_a_check_is_neither_known_nor_written_down(tmp_path: Path) -> None:
    fetch = Fetch(issue("evil.example.com").pem)
    keys = store(fetch, tmp_path)
    for _ in range(2):
        with pytest.raises(SignatureError):
            await keys.get(URL)
    assert (keys.known(URL), files(tmp_path), len(fetch.asked)) == (None, [], 2)


async def test_a_certificate_that_has_expired_since_is_refused_from_memory_and_disk(tmp_path: Path) -> None:
    clock = MovableClock(NOW)
    fetch = Fetch(paypal().pem)
    keys = CertificateStore(folder=tmp_path, anchors=None, clock=clock, fetch=fetch)
    await keys.get(URL)
    clock.advance(YEAR)
    assert keys.known(URL) is None
    with pytest.raises(SignatureError) as refused:
        await keys.get(URL)
    assert refused.value.check == "certificate validity"


async def test_no_more_than_a_few_certificates_are_fetched_at_once() -> None:
    go = threading.Event()

    def fetch(_url: str) -> bytes:
        go.wait(10)
        return paypal().pem

    keys = store(fetch)
    calls = [asyncio.create_task(keys.get(f"{URL}-{number}")) for number in range(10)]
    await asyncio.wait(calls[certificates.FETCHES_AT_ONCE :])
    go.set()
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    assert outcome[: certificates.FETCHES_AT_ONCE] == [PAYPALS_KEY] * certificates.FETCHES_AT_ONCE
    assert {type(each) for each in outcome[certificates.FETCHES_AT_ONCE :]} == {PaypalUnavailableError}
    assert await keys.get(URL) == PAYPALS_KEY


async def test_who_waits_too_long_is_told_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "FETCH_SECONDS", 0.01)
    go = threading.Event()

    def fetch(_url: str) -> bytes:
        go.wait(10)
        return paypal().pem

    keys = store(fetch)
    with pytest.raises(PaypalUnavailableError, match="did not arrive"):
        await keys.get(URL)
    go.set()
    await asyncio.gather(*keys._fetches.values())  # it goes on, for the next who asks
    assert keys.known(URL)


async def test_the_memory_keeps_a_bounded_number_of_certificates(tmp_path: Path) -> None:
    keys = store(Fetch(paypal().pem), tmp_path)
    urls = [f"{URL}-{number}" for number in range(certificates.KEPT + 5)]
    for url in urls:
        await keys.get(url)
    assert [keys.known(url) is None for url in urls] == [True] * 5 + [False] * certificates.KEPT
    assert len(files(tmp_path)) == certificates.KEPT


async def test_the_next_process_finds_the_certificate_on_disk_readable_by_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "certificates"
    await store(Fetch(paypal().pem), folder).get(URL)
    fetch = Fetch(PaypalUnavailableError("down"))
    assert await store(fetch, folder).get(URL) == PAYPALS_KEY
    (file,) = files(folder)
    assert file.name == hashlib.sha256(URL.encode()).hexdigest() + ".pem"
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
    assert fetch.asked == []


@pytest.mark.parametrize("content", [b"", b"\x00\xff", paypal().pem[:300], issue("evil.example.com").pem])
async def test_a_corrupt_file_is_fetched_anew_and_mended(content: bytes, tmp_path: Path) -> None:
    await store(Fetch(paypal().pem), tmp_path).get(URL)
    (file,) = files(tmp_path)
    file.write_bytes(content)
    fetch = Fetch(paypal().pem)
    assert await store(fetch, tmp_path).get(URL) == PAYPALS_KEY
    assert (fetch.asked, file.read_bytes()) == ([URL], paypal().pem)


async def test_a_file_from_before_the_anchors_must_pass_them_too(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    await store(Fetch(_selfmade().pem), folder).get(URL)
    fetch = Fetch(paypal().pem)
    assert await store(fetch, folder, anchors=bundle(tmp_path, intermediate(), root())).get(URL) == PAYPALS_KEY
    assert fetch.asked == [URL]


async def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    keys = store(Fetch(paypal().pem), tmp_path / "file" / "certificates")
    assert await keys.get(URL) == PAYPALS_KEY


async def test_a_certificate_put_in_is_known_without_a_fetch_but_judged_like_any_other(tmp_path: Path) -> None:
    fetch = Fetch(b"")
    keys = store(fetch, tmp_path)
    keys.add(URL, paypal().pem)
    assert await keys.get(URL) == keys.known(URL) == PAYPALS_KEY
    with pytest.raises(SignatureError):
        keys.add(URL + "-2", issue("evil.example.com").pem)
    assert (keys.known(URL + "-2"), fetch.asked, files(tmp_path)) == (None, [], [])
