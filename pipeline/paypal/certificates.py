"""The certificates PayPal signs webhooks with: from which address, which of them, and kept for how long.

The address comes from a header that anyone can write, so it is judged before a byte goes out. A certificate that
PayPal's own host served over TLS and that bears PayPal's name is what makes a signature a proof. PayPal changes it
about once a year, and its address with it (https://developer.paypal.com/api/rest/webhooks/rest/). Revocation is not
asked for: PayPal has been seen to sign with a revoked certificate.
"""

import asyncio
import hashlib
import http.client
import re
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from pipeline import files
from pipeline.clock import Clock
from pipeline.network import egress
from pipeline.paypal.errors import Refused, Unavailable
from pipeline.settings import SettingsError

# PayPal's simulator signs sandbox events with the live certificate, so host and name are not tied to each other.
SUBJECTS = frozenset({"messageverificationcerts.paypal.com", "messageverificationcerts.sandbox.paypal.com"})
SMALLEST_KEY = 2048  # bits
LARGEST_ANSWER = 64 * 1024  # bytes; the real ones have 3 KB
FETCH_SECONDS = 5.0  # PayPal waits for our answer meanwhile, and sends again when it is 503
FETCHES_AT_ONCE = 4  # a sender of invented addresses may keep these busy, and nothing else
KEPT = 64  # PayPal uses one or two at a time

# The whole address in one pattern: two parsers that disagree about a host are how such checks are fooled.
_ADDRESS = re.compile(
    r"https://api(-m)?(\.sandbox)?\.paypal\.com(:443)?/v1/notifications/certs/[A-Za-z0-9-]{1,128}", re.ASCII
)

_ASK = {"Accept": "application/x-pem-file, */*", "User-Agent": "smt-billing"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate that was read and not yet judged."""

    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...]  # served along with it
    names: tuple[str, ...]  # common names of its subject
    key: object
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Anchors:
    """Whom we trust to vouch for PayPal's certificate."""

    store: Store
    intermediates: tuple[x509.Certificate, ...]

    @classmethod
    def load(cls, path: Path) -> "Anchors":
        """Read a PEM file of roots and intermediates; what signed itself is a root. Raises SettingsError."""
        try:
            everyone = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SettingsError(f"the trust anchors in {path} cannot be read: {error}; give a PEM file") from error
        roots = [each for each in everyone if each.issuer == each.subject]
        if not roots:
            raise SettingsError(f"the trust anchors in {path} hold no root; add the one that vouches for the others")
        return cls(Store(roots), tuple(each for each in everyone if each not in roots))


@dataclass(frozen=True, slots=True)
class _Known:
    key: RSAPublicKey
    not_before: datetime
    not_after: datetime


class Certificates:
    """PayPal's keys by address: from memory, else from `folder`, else fetched.

    Only what passed every check is kept, so nobody can fill the memory with addresses. Failures are not kept: PayPal's
    server has had bad minutes, and the next delivery asks again. With `anchors`, a PEM file, the chain is checked too.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        anchors: Path | None,
        clock: Clock,
        fetch: Callable[[str], bytes] | None = None,
    ) -> None:
        self._folder, self._clock, self._fetch = folder, clock, fetch or fetch_certificate
        self._anchors = Anchors.load(anchors) if anchors else None
        self._memory: dict[str, _Known] = {}
        self._fetches: dict[str, asyncio.Task[_Known]] = {}
        # Threads of its own: slow fetches must not take those that write events down.
        self._threads = ThreadPoolExecutor(FETCHES_AT_ONCE, "certificate")

    def known(self, url: str) -> RSAPublicKey | None:
        """The key, if it is in memory and its certificate is valid now. Never waits."""
        found = self._memory.get(url)
        return found.key if found and found.not_before <= self._clock.now() <= found.not_after else None

    async def get(self, url: str) -> RSAPublicKey:
        """The key behind this address. Calls for one address at the same time share one fetch.

        Raises Refused when address or certificate fail a check, Unavailable when the certificate cannot be had within
        FETCH_SECONDS or too many are being fetched.
        """
        judge_address(url)
        if key := self.known(url):
            return key
        task = self._fetches.get(url) or self._begin(url)
        # A caller that is cancelled or gives up must not take the certificate from the others, so `wait`, not `await`.
        await asyncio.wait({task}, timeout=FETCH_SECONDS)
        if not task.done():
            raise Unavailable(f"PayPal's certificate did not come within {FETCH_SECONDS:g} s; try again")
        return task.result().key

    def add(self, url: str, pem: bytes) -> None:
        """Put a certificate in memory as if it had been fetched. Raises Refused like `get`."""
        judge_address(url)
        self._remember(url, self._judge(pem))

    def _begin(self, url: str) -> "asyncio.Task[_Known]":
        if len(self._fetches) >= FETCHES_AT_ONCE:
            raise Unavailable("too many certificates are being fetched; try again")
        task = asyncio.create_task(self._load(url))
        self._fetches[url] = task
        task.add_done_callback(lambda done: self._ended(url, done))
        return task

    def _ended(self, url: str, task: "asyncio.Task[_Known]") -> None:
        del self._fetches[url]
        if not task.cancelled() and not task.exception():
            self._remember(url, task.result())

    async def _load(self, url: str) -> _Known:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read_or_fetch, url)

    def _read_or_fetch(self, url: str) -> _Known:
        if found := self._read(url):
            return found
        pem = self._fetch(url)
        fetched = self._judge(pem)
        log.info("certificate_fetched", url=url, valid_until=fetched.not_after.isoformat())
        if self._folder:
            _write(self._path(self._folder, url), pem)
        return fetched

    def _read(self, url: str) -> _Known | None:
        """What is on disk counts only if it passes today: it may be corrupt, expired, or from before the anchors."""
        try:
            return self._judge(self._path(self._folder, url).read_bytes()) if self._folder else None
        except FileNotFoundError:
            return None
        except (OSError, Refused) as error:
            log.warning("certificate_file_ignored", url=url, reason=str(error))
            return None

    def _judge(self, pem: bytes) -> _Known:
        leaf = read_leaf(pem)
        key = _judge_leaf(leaf, self._clock.now(), self._anchors)
        return _Known(key, leaf.not_before, leaf.not_after)

    def _remember(self, url: str, known: _Known) -> None:
        self._memory[url] = known
        if len(self._memory) > KEPT:
            del self._memory[next(iter(self._memory))]

    @staticmethod
    def _path(folder: Path, url: str) -> Path:
        return folder / f"{hashlib.sha256(url.encode()).hexdigest()}.pem"


def read_certificate(pem: bytes, *, at: datetime, anchors: Anchors | None) -> RSAPublicKey:
    """The key in PayPal's certificate, the first of `pem`, if at that time it is PayPal's own. Raises Refused.

    It must bear one of PayPal's two names, be valid, hold an RSA key of 2048 bits or more, and, with anchors, be
    vouched for by one of them (RFC 5280 section 6, for a TLS server of that name).
    """
    return _judge_leaf(read_leaf(pem), at, anchors)


def judge_address(url: str) -> None:
    """Raises Refused unless it is a certificate's address on PayPal's API, spelled the one way PayPal spells it."""
    if not _ADDRESS.fullmatch(url):
        raise Refused("certificate address", f"not an address of PayPal's certificates: {url[:120]!a}")


def read_leaf(pem: bytes) -> Leaf:
    """Take a PEM text apart. Raises Refused when it holds no certificate that can be read."""
    try:
        leaf, *others = x509.load_pem_x509_certificates(pem)
        names = tuple(str(name.value) for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
        return Leaf(leaf, tuple(others), names, leaf.public_key(), leaf.not_valid_before_utc, leaf.not_valid_after_utc)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("certificate", "not a certificate in PEM form that can be read") from error


def judge_subject(leaf: Leaf) -> str:
    """The name in the certificate. Raises Refused unless it is exactly one of PayPal's two."""
    if len(leaf.names) != 1 or leaf.names[0] not in SUBJECTS:
        raise Refused("certificate subject", f"the certificate is not PayPal's: issued to {', '.join(leaf.names)!a}")
    return leaf.names[0]


def judge_validity(leaf: Leaf, at: datetime) -> None:
    """Raises Refused when the certificate is not valid yet or no longer at that time."""
    if not leaf.not_before <= at <= leaf.not_after:
        span = f"from {leaf.not_before:%Y-%m-%d} to {leaf.not_after:%Y-%m-%d}"
        raise Refused("certificate validity", f"the certificate is valid {span}, not on {at:%Y-%m-%d}")


def judge_key(leaf: Leaf) -> RSAPublicKey:
    """The key in the certificate. Raises Refused unless it is an RSA key of 2048 bits or more."""
    if not isinstance(leaf.key, RSAPublicKey):
        raise Refused("certificate key", "the certificate holds no RSA key")
    if leaf.key.key_size < SMALLEST_KEY:
        raise Refused("certificate key", f"the RSA key has {leaf.key.key_size} bits, fewer than {SMALLEST_KEY}")
    return leaf.key


def judge_chain(leaf: Leaf, at: datetime, anchors: Anchors) -> None:
    """Raises Refused when no anchor vouches for the certificate at that time. PayPal serves it without its issuers."""
    verifier = PolicyBuilder().store(anchors.store).time(at).build_server_verifier(x509.DNSName(leaf.names[0]))
    try:
        verifier.verify(leaf.certificate, [*leaf.others, *anchors.intermediates])
    except (VerificationError, ValueError) as error:
        reason = f"no trust anchor vouches for the certificate, issued by {issuer(leaf)}: {error}"
        raise Refused("certificate chain", reason) from error


def issuer(leaf: Leaf) -> str:
    """Who issued the certificate, for people."""
    return ascii(leaf.certificate.issuer.rfc4514_string())[1:-1]


def fetch_certificate(url: str, *, trust: ssl.SSLContext | None = None) -> bytes:
    """Download a PEM text over TLS: no redirect, no proxy, 64 KiB and about five seconds at most. Raises Unavailable.

    The address must have been judged before. `trust` replaces the authorities that certifi lists.
    """
    where = urlsplit(url)
    context = trust or ssl.create_default_context(cafile=certifi.where())
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=FETCH_SECONDS, context=context)
    try:
        egress.judge(where.hostname or "")
        connection.request("GET", where.path, headers=_ASK)
        pem = _read_answer(connection.getresponse())
        read_leaf(pem)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"PayPal's certificate cannot be fetched ({type(error).__name__}); try again") from error
    except Refused as error:
        raise Unavailable("PayPal answered something else than a certificate; try again") from error
    finally:
        connection.close()
    return pem


def _read_answer(answer: http.client.HTTPResponse) -> bytes:
    if answer.status != 200:
        raise Unavailable(f"PayPal answered {answer.status} instead of a certificate; try again")
    body, until = b"", time.monotonic() + FETCH_SECONDS
    while chunk := answer.read1(LARGEST_ANSWER):
        body += chunk
        if len(body) > LARGEST_ANSWER or time.monotonic() > until:
            raise Unavailable("PayPal's certificate is too long or too slow in coming; try again")
    return body


def _judge_leaf(leaf: Leaf, at: datetime, anchors: Anchors | None) -> RSAPublicKey:
    judge_subject(leaf)
    judge_validity(leaf, at)
    key = judge_key(leaf)
    if anchors:
        judge_chain(leaf, at, anchors)
    return key


def _write(path: Path, pem: bytes) -> None:
    """Keep it. A full disk costs a fetch after the next start, nothing more."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        files.write(path, pem)
        _forget_oldest(path.parent)
    except OSError as error:
        log.warning("certificate_not_kept", reason=error.strerror)


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.pem"), key=lambda each: each.stat().st_mtime)
    for path in files[:-KEPT]:
        path.unlink(missing_ok=True)
