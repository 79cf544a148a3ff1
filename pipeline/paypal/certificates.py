"""Download and cache PayPal's signing certificates, in memory and in a folder.

PayPal changes its certificate and the certificate's URL about once a year
(https://developer.paypal.com/api/rest/webhooks/rest/).
"""

import asyncio
import hashlib
import http.client
import math
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pipeline import files
from pipeline.clock import Clock
from pipeline.error_texts import describe
from pipeline.limited_log import LimitedLog
from pipeline.network import egress
from pipeline.paypal.certificate_rules import (
    TrustAnchors,
    parse_certificate,
    require_certificate_url,
    require_paypal_certificate,
)
from pipeline.paypal.errors import PaypalUnavailableError, SignatureError

LARGEST_ANSWER = 64 * 1024  # bytes; PayPal's certificates have 3 KB
FETCH_SECONDS = 5.0  # PayPal waits for our response during the download, and retries after a 503
FETCHES_AT_ONCE = 4  # made-up URLs can block these downloads, but nothing else
FETCHES_OF_NEW = 3  # of them for URLs that never had a certificate, so made-up URLs leave one to PayPal's
FAILURE_SECONDS = 60.0  # a new URL whose download failed is not tried again for this long
FAILURES_KEPT = 1000
KEPT = 64  # certificates; PayPal uses one or two at a time

_REQUEST_HEADERS = {"Accept": "application/x-pem-file, */*", "User-Agent": "smt-billing"}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _CachedKey:
    key: RSAPublicKey
    not_before: datetime
    not_after: datetime


class CertificateStore:
    """PayPal's public keys by certificate URL: from memory, otherwise from `folder`, otherwise downloaded.

    Only certificates that pass every check are cached, so made-up URLs cannot fill the memory. Failures of URLs that never
    had a certificate are remembered for a minute. For a known URL the next delivery tries again, because PayPal's server
    has short outages. With `anchors`, a PEM file, the chain is verified too.
    """

    def __init__(
        self,
        *,
        folder: Path | None,
        anchors: Path | None,
        clock: Clock,
        fetch: Callable[[str], bytes] | None = None,
        live: bool = False,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """With `live`, refuse the certificates of PayPal's sandbox."""
        self._folder, self._clock, self._fetch = folder, clock, fetch or fetch_certificate
        self._live = live
        self._anchors = TrustAnchors.load(anchors) if anchors else None
        self._memory: dict[str, _CachedKey] = {}
        self._fetches: dict[str, asyncio.Task[_CachedKey]] = {}
        self._slots = _Slots(elapsed)
        self._warn = LimitedLog(log.warning)
        # Separate thread pools: slow downloads must not occupy the threads that store events or read files.
        self._threads = ThreadPoolExecutor(FETCHES_AT_ONCE, "certificate")
        self._file_thread = ThreadPoolExecutor(1, "certificate-file")

    def known(self, url: str) -> RSAPublicKey | None:
        """Return the key if it is in memory and its certificate is valid now, otherwise None. Never blocks."""
        found = self._memory.get(url)
        return found.key if found and found.not_before <= self._clock.now() <= found.not_after else None

    async def get(self, url: str) -> RSAPublicKey:
        """Return the key of the certificate at this URL. Concurrent calls for one URL share one download.

        Raises SignatureError if the URL or the certificate fails a check. Raises PaypalUnavailableError if the download
        fails or takes longer than FETCH_SECONDS, failed within FAILURE_SECONDS, or if too many downloads are running.
        """
        require_certificate_url(url, live=self._live)
        if key := self.known(url):
            return key
        task = self._fetches.get(url) or self._start_fetch(url)
        # `wait`, not `await`: a caller that is cancelled or times out must not cancel the download for the others.
        await asyncio.wait({task}, timeout=FETCH_SECONDS)
        if not task.done():
            raise PaypalUnavailableError(f"PayPal's certificate did not arrive within {FETCH_SECONDS:g} s; try again")
        return task.result().key

    def add(self, url: str, pem: bytes) -> None:
        """Cache a certificate in memory as if it had been downloaded. Raises SignatureError, as `get` does."""
        require_certificate_url(url, live=self._live)
        self._cache(url, self._verify(pem))

    def _start_fetch(self, url: str) -> "asyncio.Task[_CachedKey]":
        task = asyncio.create_task(self._load(url))
        self._fetches[url] = task
        task.add_done_callback(lambda done: self._finish_fetch(url, done))
        return task

    def _finish_fetch(self, url: str, task: "asyncio.Task[_CachedKey]") -> None:
        del self._fetches[url]
        if not task.cancelled() and not task.exception():
            self._cache(url, task.result())

    async def _load(self, url: str) -> _CachedKey:
        """Read the file before a slot is taken: made-up URLs must not delay the certificate that is on disk."""
        loop = asyncio.get_running_loop()
        found, is_known = await loop.run_in_executor(self._file_thread, self._read_file, url)
        if found:
            return found
        with self._slots.take(url, is_known=is_known or url in self._memory):
            return await loop.run_in_executor(self._threads, self._download, url)

    def _download(self, url: str) -> _CachedKey:
        pem = self._fetch(url)
        fetched = self._verify(pem)
        log.info("certificate_fetched", url=url, valid_until=fetched.not_after.isoformat())
        if self._folder:
            _write_file(self._path(self._folder, url), pem)
        return fetched

    def _read_file(self, url: str) -> tuple[_CachedKey | None, bool]:
        """Return the certificate on disk, and whether there is a file.

        It is verified again, because it may be corrupt, expired, or older than the anchors.
        """
        try:
            return (self._verify(self._path(self._folder, url).read_bytes()), True) if self._folder else (None, False)
        except (FileNotFoundError, NotADirectoryError):
            return None, False
        except (OSError, SignatureError) as error:
            self._warn("certificate_file_ignored", url=url, reason=str(error))
            return None, True

    def _verify(self, pem: bytes) -> _CachedKey:
        leaf = parse_certificate(pem)
        key = require_paypal_certificate(leaf, self._clock.now(), self._anchors, live=self._live)
        return _CachedKey(key, leaf.not_before, leaf.not_after)

    def _cache(self, url: str, cached: _CachedKey) -> None:
        self._memory[url] = cached
        if len(self._memory) > KEPT:
            del self._memory[next(iter(self._memory))]

    @staticmethod
    def _path(folder: Path, url: str) -> Path:
        return folder / f"{hashlib.sha256(url.encode()).hexdigest()}.pem"


class _Slots:
    """Limits the downloads that run at once, and remembers the URLs whose download failed."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        self._elapsed = elapsed
        self._running: dict[str, bool] = {}  # URL -> whether it is known
        self._failed: dict[str, float] = {}  # URL -> time of the failure, oldest first

    @contextmanager
    def take(self, url: str, *, is_known: bool) -> Iterator[None]:
        """Occupy a slot during the block. Raises PaypalUnavailableError if none is free, or this new URL just failed."""
        if not is_known and self._elapsed() - self._failed.get(url, -math.inf) < FAILURE_SECONDS:
            raise PaypalUnavailableError("no certificate could be downloaded from this URL; try again in a minute")
        new = sum(not known for known in self._running.values())
        if len(self._running) >= FETCHES_AT_ONCE or (not is_known and new >= FETCHES_OF_NEW):
            raise PaypalUnavailableError("too many certificate downloads are running; try again")
        self._running[url] = is_known
        try:
            yield
        except (PaypalUnavailableError, SignatureError):
            self._remember_failure(url)
            raise
        finally:
            del self._running[url]

    def _remember_failure(self, url: str) -> None:
        self._failed.pop(url, None)
        self._failed[url] = self._elapsed()
        if len(self._failed) > FAILURES_KEPT:
            del self._failed[next(iter(self._failed))]


def fetch_certificate(url: str, *, trust: ssl.SSLContext | None = None) -> bytes:
    """Download a PEM text over TLS, without redirects and proxies. Raises PaypalUnavailableError.

    The limits are 64 KiB and about five seconds. The caller must have checked the URL. `trust` replaces the
    certificate authorities of certifi.
    """
    parts = urlsplit(url)
    context = trust or ssl.create_default_context(cafile=certifi.where())
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=FETCH_SECONDS, context=context)
    try:
        egress.require_paypal_host(parts.hostname or "")
        connection.request("GET", parts.path, headers=_REQUEST_HEADERS)
        pem = _read_answer(connection.getresponse())
        parse_certificate(pem)
    except (OSError, http.client.HTTPException) as error:
        raise PaypalUnavailableError(f"cannot download PayPal's certificate ({describe(error)}); try again") from error
    except SignatureError as error:
        raise PaypalUnavailableError("PayPal's answer is not a certificate; try again") from error
    finally:
        connection.close()
    return pem


def _read_answer(answer: http.client.HTTPResponse) -> bytes:
    if answer.status != 200:
        raise PaypalUnavailableError(f"PayPal answered {answer.status} instead of a certificate; try again")
    body, deadline = b"", time.monotonic() + FETCH_SECONDS
    while chunk := answer.read1(LARGEST_ANSWER):
        body += chunk
        if len(body) > LARGEST_ANSWER or time.monotonic() > deadline:
            raise PaypalUnavailableError("PayPal's certificate is too large or arrives too slowly; try again")
    return body


def _write_file(path: Path, pem: bytes) -> None:
    """Store the certificate on disk. If that fails, the next start downloads it again."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        files.write_atomically(path, pem)
        _delete_oldest(path.parent)
    except OSError as error:
        log.warning("certificate_file_not_written", reason=error.strerror)


def _delete_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.pem"), key=lambda each: each.stat().st_mtime)
    for path in files[:-KEPT]:
        path.unlink(missing_ok=True)
