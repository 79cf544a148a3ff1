"""PayPal's signing certificates: kept in memory and in a folder, downloaded when needed, replaced when they expire.

PayPal changes its certificate about once a year, and its address with it
(https://developer.paypal.com/api/rest/webhooks/rest/).
"""

import asyncio
import hashlib
import http.client
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
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pipeline import files
from pipeline.clock import Clock
from pipeline.network import egress
from pipeline.paypal.certificate_rules import TrustAnchors, judge_leaf, parse_certificate, require_certificate_url
from pipeline.paypal.errors import PaypalUnavailableError, SignatureError

LARGEST_ANSWER = 64 * 1024  # bytes; the real ones have 3 KB
FETCH_SECONDS = 5.0  # PayPal waits for our answer meanwhile, and sends again when it is 503
FETCHES_AT_ONCE = 4  # a sender of invented addresses may keep these busy, and nothing else
KEPT = 64  # PayPal uses one or two at a time

_ASK = {"Accept": "application/x-pem-file, */*", "User-Agent": "smt-billing"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    key: RSAPublicKey
    not_before: datetime
    not_after: datetime


class CertificateStore:
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
        self._anchors = TrustAnchors.load(anchors) if anchors else None
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
        require_certificate_url(url)
        if key := self.known(url):
            return key
        task = self._fetches.get(url) or self._begin(url)
        # A caller that is cancelled or gives up must not take the certificate from the others, so `wait`, not `await`.
        await asyncio.wait({task}, timeout=FETCH_SECONDS)
        if not task.done():
            raise PaypalUnavailableError(f"PayPal's certificate did not come within {FETCH_SECONDS:g} s; try again")
        return task.result().key

    def add(self, url: str, pem: bytes) -> None:
        """Put a certificate in memory as if it had been fetched. Raises Refused like `get`."""
        require_certificate_url(url)
        self._remember(url, self._judge(pem))

    def _begin(self, url: str) -> "asyncio.Task[_Known]":
        if len(self._fetches) >= FETCHES_AT_ONCE:
            raise PaypalUnavailableError("too many certificates are being fetched; try again")
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
        except (OSError, SignatureError) as error:
            log.warning("certificate_file_ignored", url=url, reason=str(error))
            return None

    def _judge(self, pem: bytes) -> _Known:
        leaf = parse_certificate(pem)
        key = judge_leaf(leaf, self._clock.now(), self._anchors)
        return _Known(key, leaf.not_before, leaf.not_after)

    def _remember(self, url: str, known: _Known) -> None:
        self._memory[url] = known
        if len(self._memory) > KEPT:
            del self._memory[next(iter(self._memory))]

    @staticmethod
    def _path(folder: Path, url: str) -> Path:
        return folder / f"{hashlib.sha256(url.encode()).hexdigest()}.pem"


def fetch_certificate(url: str, *, trust: ssl.SSLContext | None = None) -> bytes:
    """Download a PEM text over TLS: no redirect, no proxy, 64 KiB and about five seconds at most. Raises Unavailable.

    The address must have been judged before. `trust` replaces the authorities that certifi lists.
    """
    where = urlsplit(url)
    context = trust or ssl.create_default_context(cafile=certifi.where())
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=FETCH_SECONDS, context=context)
    try:
        egress.require_paypal_host(where.hostname or "")
        connection.request("GET", where.path, headers=_ASK)
        pem = _read_answer(connection.getresponse())
        parse_certificate(pem)
    except (OSError, http.client.HTTPException) as error:
        raise PaypalUnavailableError(
            f"PayPal's certificate cannot be fetched ({type(error).__name__}); try again"
        ) from error
    except SignatureError as error:
        raise PaypalUnavailableError("PayPal answered something else than a certificate; try again") from error
    finally:
        connection.close()
    return pem


def _read_answer(answer: http.client.HTTPResponse) -> bytes:
    if answer.status != 200:
        raise PaypalUnavailableError(f"PayPal answered {answer.status} instead of a certificate; try again")
    body, until = b"", time.monotonic() + FETCH_SECONDS
    while chunk := answer.read1(LARGEST_ANSWER):
        body += chunk
        if len(body) > LARGEST_ANSWER or time.monotonic() > until:
            raise PaypalUnavailableError("PayPal's certificate is too long or too slow in coming; try again")
    return body


def _write(path: Path, pem: bytes) -> None:
    """Keep it. A full disk costs a fetch after the next start, nothing more."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        files.write_atomically(path, pem)
        _forget_oldest(path.parent)
    except OSError as error:
        log.warning("certificate_not_kept", reason=error.strerror)


def _forget_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.pem"), key=lambda each: each.stat().st_mtime)
    for path in files[:-KEPT]:
        path.unlink(missing_ok=True)
