"""PayPal's signing certificates: checks of each certificate and its chain, and the caches in memory and on disk."""

import asyncio
import hashlib
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from pipeline.app.container import Container
from pipeline.clock import MovableClock
from pipeline.paypal import certificates
from pipeline.paypal.certificate_rules import TrustAnchors, parse_certificate, require_paypal_certificate
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.errors import PaypalUnavailableError, SignatureError
from pipeline.settings import SettingsError, load
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
    """Replaces the download and records the URLs. `answer` is a PEM text, or an error to raise."""

    def __init__(self, answer: bytes | Exception) -> None:
        self.answer, self.fetched = answer, list[str]()

    def __call__(self, url: str) -> bytes:
        self.fetched.append(url)
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


def test_first_certificate_is_used_and_crlf_is_accepted() -> None:
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
def test_certificate_with_another_name_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(SignatureError) as error:
        require_paypal_certificate(parse_certificate(issue(*names).pem), at=NOW, anchors=None)
    assert error.value.check == "certificate subject"


@pytest.mark.parametrize("offset", [timedelta(seconds=-1), YEAR + timedelta(seconds=1)])
def test_certificate_is_refused_outside_its_validity(offset: timedelta) -> None:
    with pytest.raises(SignatureError) as error:
        require_paypal_certificate(parse_certificate(issue(LIVE, start=NOW).pem), at=NOW + offset, anchors=None)
    assert error.value.check == "certificate validity"


@pytest.mark.parametrize("moment", [timedelta(0), YEAR])
def test_certificate_is_valid_in_its_first_and_last_second(moment: timedelta) -> None:
    assert (
        require_paypal_certificate(parse_certificate(issue(LIVE, start=NOW).pem), at=NOW + moment, anchors=None)
        == PAYPALS_KEY
    )


def test_short_or_non_rsa_key_is_refused() -> None:
    for key in (rsa_key(1024), ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(SignatureError) as error:
            require_paypal_certificate(parse_certificate(issue(LIVE, key=key).pem), at=NOW, anchors=None)
        assert error.value.check == "certificate key"


@pytest.mark.parametrize("pem", [b"", b"<html>", paypal().key_pem, paypal().pem[:-200], paypal().pem[40:]])
def test_unreadable_certificate_is_refused(pem: bytes) -> None:
    with pytest.raises(SignatureError) as error:
        require_paypal_certificate(parse_certificate(pem), at=NOW, anchors=None)
    assert error.value.check == "certificate"


# The chain


def test_anchors_supply_the_missing_intermediate(tmp_path: Path) -> None:
    anchors = TrustAnchors.load(bundle(tmp_path, intermediate(), root("Another Root"), root()))
    assert require_paypal_certificate(parse_certificate(paypal().pem), at=NOW, anchors=anchors) == PAYPALS_KEY


def test_served_intermediate_is_used(tmp_path: Path) -> None:
    anchors = TrustAnchors.load(bundle(tmp_path, root()))
    assert (
        require_paypal_certificate(parse_certificate(paypal().pem + intermediate().pem), at=NOW, anchors=anchors)
        == PAYPALS_KEY
    )


def _issued_by_namesake() -> Issued:
    return issue(LIVE, by=issue("Example Intermediate", key=ec.generate_private_key(ec.SECP256R1()), authority=True))


def _issued_by_leaf() -> Issued:
    leaf = issue("shop.example.com", key=ec.generate_private_key(ec.SECP256R1()))
    return Issued(issue(LIVE, by=leaf).certificate, leaf.key)


BROKEN: dict[str, Callable[[], tuple[bytes, list[Issued]]]] = {
    "no intermediate": lambda: (paypal().pem, [root()]),
    "another root": lambda: (paypal().pem, [intermediate(), root("Another Root")]),
    "another authority with the same name": lambda: (_issued_by_namesake().pem, [intermediate(), root()]),
    "issued by a certificate that is not an authority": lambda: (_issued_by_leaf().pem, [intermediate(), root()]),
    "for clients only": lambda: (issue(LIVE, usage=ExtendedKeyUsageOID.CLIENT_AUTH).pem, [intermediate(), root()]),
    "signed by itself": lambda: (issue(LIVE, authority=True).pem, [intermediate(), root()]),
}


@pytest.mark.parametrize("case", BROKEN)
def test_chain_without_trust_anchor_is_refused(case: str, tmp_path: Path) -> None:
    pem, trusted = BROKEN[case]()
    assert require_paypal_certificate(parse_certificate(pem), at=NOW, anchors=None) == PAYPALS_KEY
    with pytest.raises(SignatureError, match="no trust anchor") as error:
        require_paypal_certificate(
            parse_certificate(pem), at=NOW, anchors=TrustAnchors.load(bundle(tmp_path, *trusted))
        )
    assert error.value.check == "certificate chain"


def test_expired_issuer_is_refused(tmp_path: Path) -> None:
    anchors = TrustAnchors.load(bundle(tmp_path, intermediate(), root()))
    later = issue(LIVE, start=NOW)
    with pytest.raises(SignatureError) as error:
        require_paypal_certificate(parse_certificate(later.pem), at=NOW + YEAR * 0.9, anchors=anchors)
    assert error.value.check == "certificate chain"


@pytest.mark.parametrize("content", [None, b"", b"no PEM", intermediate().pem])
def test_unusable_anchors_raise_settings_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "anchors.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"anchors\.pem"):
        store(Fetch(b""), anchors=path)


# Caches


async def test_certificate_is_downloaded_once() -> None:
    fetch = Fetch(paypal().pem)
    keys = store(fetch)
    assert keys.known(URL) is None
    assert await keys.get(URL) == await keys.get(URL) == keys.known(URL) == PAYPALS_KEY
    assert fetch.fetched == [URL]


async def test_concurrent_calls_share_one_download_despite_cancellation() -> None:
    fetched, go = list[str](), threading.Event()

    def fetch(url: str) -> bytes:
        fetched.append(url)
        go.wait(10)
        return paypal().pem

    keys = store(fetch)
    calls = [asyncio.create_task(keys.get(URL)) for _ in range(20)]
    await asyncio.sleep(0)
    calls[0].cancel()
    go.set()
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(outcome[0], asyncio.CancelledError)
    assert (outcome[1:], fetched) == ([PAYPALS_KEY] * 19, [URL])


@pytest.mark.parametrize("failure", [PaypalUnavailableError("down"), issue("evil.example.com").pem])
async def test_new_url_that_failed_is_fetched_again_after_a_minute(failure: bytes | Exception) -> None:
    fetch, now = Fetch(failure), [0.0]
    keys = CertificateStore(folder=None, anchors=None, clock=MovableClock(NOW), fetch=fetch, elapsed=lambda: now[0])
    with pytest.raises((PaypalUnavailableError, SignatureError)):
        await keys.get(URL)
    fetch.answer = paypal().pem
    now[0] = certificates.FAILURE_SECONDS - 1
    with pytest.raises(PaypalUnavailableError, match="in a minute"):
        await keys.get(URL)
    now[0] = certificates.FAILURE_SECONDS
    assert await keys.get(URL) == PAYPALS_KEY
    assert fetch.fetched == [URL, URL]


async def test_known_url_that_failed_is_fetched_again_at_once(tmp_path: Path) -> None:
    keys, fetch = store(Fetch(paypal().pem), tmp_path), Fetch(PaypalUnavailableError("down"))
    await keys.get(URL)
    (file,) = files(tmp_path)
    file.write_bytes(b"corrupt")
    restarted = store(fetch, tmp_path)
    with pytest.raises(PaypalUnavailableError):
        await restarted.get(URL)
    fetch.answer = paypal().pem
    assert await restarted.get(URL) == PAYPALS_KEY


async def test_remembered_failures_are_limited() -> None:
    keys = store(Fetch(PaypalUnavailableError("down")))
    for number in range(certificates.FAILURES_KEPT + 5):
        with pytest.raises(PaypalUnavailableError):
            await keys.get(f"{URL}-{number}")
    assert len(keys._slots._failed) == certificates.FAILURES_KEPT


async def test_refused_certificate_is_not_cached(tmp_path: Path) -> None:
    keys = store(Fetch(issue("evil.example.com").pem), tmp_path)
    with pytest.raises(SignatureError):
        await keys.get(URL)
    assert (keys.known(URL), files(tmp_path)) == (None, [])


@contextmanager
def occupied_slots(folder: Path | None, answer: Callable[[str], bytes]) -> Iterator[CertificateStore]:
    """A store in which made-up URLs occupy all slots that they can get. `answer` serves the other URLs."""
    go = threading.Event()

    def fetch(url: str) -> bytes:
        if "made-up" not in url:
            return answer(url)
        go.wait(10)
        raise PaypalUnavailableError("there is no such certificate")

    keys = store(fetch, folder)
    calls = [asyncio.ensure_future(keys.get(f"{URL}-made-up-{number}")) for number in range(20)]
    yield keys
    go.set()
    for call in calls:
        call.add_done_callback(lambda done: done.exception())


async def test_certificate_on_disk_is_found_while_made_up_urls_occupy_the_slots(tmp_path: Path) -> None:
    await store(Fetch(paypal().pem), tmp_path).get(URL)
    with occupied_slots(tmp_path, Fetch(PaypalUnavailableError("down"))) as keys:
        await until_occupied(keys)
        assert await keys.get(URL) == PAYPALS_KEY


async def test_made_up_urls_leave_a_slot_to_known_ones(tmp_path: Path) -> None:
    await store(Fetch(paypal().pem), tmp_path).get(URL)
    (file,) = files(tmp_path)
    file.write_bytes(b"corrupt")
    with occupied_slots(tmp_path, Fetch(paypal().pem)) as keys:
        await until_occupied(keys)
        with pytest.raises(PaypalUnavailableError, match="too many"):
            await keys.get(f"{URL}-new")
        assert await keys.get(URL) == PAYPALS_KEY


async def until_occupied(keys: CertificateStore) -> None:
    while len(keys._slots._running) < certificates.FETCHES_OF_NEW:
        await asyncio.sleep(0.01)


async def test_expired_certificate_is_refused_from_both_caches(tmp_path: Path) -> None:
    clock = MovableClock(NOW)
    fetch = Fetch(paypal().pem)
    keys = CertificateStore(folder=tmp_path, anchors=None, clock=clock, fetch=fetch)
    await keys.get(URL)
    clock.advance(YEAR)
    assert keys.known(URL) is None
    with pytest.raises(SignatureError) as error:
        await keys.get(URL)
    assert error.value.check == "certificate validity"


async def test_concurrent_downloads_are_limited() -> None:
    go = threading.Event()

    def fetch(_url: str) -> bytes:
        go.wait(10)
        return paypal().pem

    keys = store(fetch)
    calls = [asyncio.create_task(keys.get(f"{URL}-{number}")) for number in range(10)]
    await asyncio.wait(calls[certificates.FETCHES_OF_NEW :])
    go.set()
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    assert outcome[: certificates.FETCHES_OF_NEW] == [PAYPALS_KEY] * certificates.FETCHES_OF_NEW
    assert {type(each) for each in outcome[certificates.FETCHES_OF_NEW :]} == {PaypalUnavailableError}
    assert await keys.get(URL) == PAYPALS_KEY


async def test_slow_download_raises_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "FETCH_SECONDS", 0.01)
    go = threading.Event()

    def fetch(_url: str) -> bytes:
        go.wait(10)
        return paypal().pem

    keys = store(fetch)
    with pytest.raises(PaypalUnavailableError, match="did not arrive"):
        await keys.get(URL)
    go.set()
    await asyncio.gather(*keys._fetches.values())  # the download continues for the next caller
    assert keys.known(URL)


async def test_caches_keep_a_limited_number_of_certificates(tmp_path: Path) -> None:
    keys = store(Fetch(paypal().pem), tmp_path)
    urls = [f"{URL}-{number}" for number in range(certificates.KEPT + 5)]
    for url in urls:
        await keys.get(url)
    assert [keys.known(url) is None for url in urls] == [True] * 5 + [False] * certificates.KEPT
    assert len(files(tmp_path)) == certificates.KEPT


async def test_next_process_reads_private_file_from_disk(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "certificates"
    await store(Fetch(paypal().pem), folder).get(URL)
    fetch = Fetch(PaypalUnavailableError("down"))
    assert await store(fetch, folder).get(URL) == PAYPALS_KEY
    (file,) = files(folder)
    assert file.name == hashlib.sha256(URL.encode()).hexdigest() + ".pem"
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
    assert fetch.fetched == []


@pytest.mark.parametrize("content", [b"", b"\x00\xff", paypal().pem[:300], issue("evil.example.com").pem])
async def test_corrupt_file_is_downloaded_again_and_replaced(content: bytes, tmp_path: Path) -> None:
    await store(Fetch(paypal().pem), tmp_path).get(URL)
    (file,) = files(tmp_path)
    file.write_bytes(content)
    fetch = Fetch(paypal().pem)
    assert await store(fetch, tmp_path).get(URL) == PAYPALS_KEY
    assert (fetch.fetched, file.read_bytes()) == ([URL], paypal().pem)


async def test_file_stored_without_anchors_is_verified_with_them(tmp_path: Path) -> None:
    folder = tmp_path / "certificates"
    await store(Fetch(_issued_by_namesake().pem), folder).get(URL)
    fetch = Fetch(paypal().pem)
    assert await store(fetch, folder, anchors=bundle(tmp_path, intermediate(), root())).get(URL) == PAYPALS_KEY
    assert fetch.fetched == [URL]


async def test_unwritable_folder_disables_only_the_disk_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    keys = store(Fetch(paypal().pem), tmp_path / "file" / "certificates")
    assert await keys.get(URL) == PAYPALS_KEY


async def test_added_certificate_is_verified_and_needs_no_download(tmp_path: Path) -> None:
    fetch = Fetch(b"")
    keys = store(fetch, tmp_path)
    keys.add(URL, paypal().pem)
    assert await keys.get(URL) == keys.known(URL) == PAYPALS_KEY
    with pytest.raises(SignatureError):
        keys.add(URL + "-2", issue("evil.example.com").pem)
    assert (keys.known(URL + "-2"), fetch.fetched, files(tmp_path)) == (None, [], [])


# The live API


async def test_certificate_of_sandbox_is_refused_with_live_api() -> None:
    """A stored certificate of a simulated PayPal is refused too: it has the sandbox's URL."""
    sandbox_url = URL.replace("//api.", "//api.sandbox.").replace("//api-m.", "//api-m.sandbox.")
    for url, name, accepted in ((URL, LIVE, True), (URL, SANDBOX, False), (sandbox_url, LIVE, False)):
        fetch = Fetch(issue(name).pem)
        keys = CertificateStore(folder=None, anchors=None, clock=MovableClock(NOW), fetch=fetch, live=True)
        if accepted:
            await keys.get(url)
            continue
        with pytest.raises(SignatureError):
            await keys.get(url)
        with pytest.raises(SignatureError):
            keys.add(url, fetch("") if isinstance(fetch.answer, bytes) else b"")


@pytest.mark.parametrize(("base_url", "live"), [("https://api-m.paypal.com", True), ("http://127.0.0.1:1", False)])
async def test_web_role_accepts_certificates_of_its_own_api(tmp_path: Path, base_url: str, live: bool) -> None:  # noqa: FBT001
    container = Container(load(_env_file=None, data_dir=tmp_path, paypal_base_url=base_url), {}, MovableClock(NOW))
    sandbox = issue(SANDBOX).pem
    if live:
        with pytest.raises(SignatureError, match="not PayPal's"):
            container.certificates.add(URL, sandbox)
    else:
        container.certificates.add(URL, sandbox)
