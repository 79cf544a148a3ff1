"""HTTP client for PayPal's API: the SDK's client with time-outs, one shared token and typed errors.

The SDK's own `execute` has no time-out, opens a connection for each call and follows redirects. It takes proxies and
passwords from the environment, fetches a token per thread, never replaces a refused token, and prints. This module
replaces that method only. The environment, the token request and the encoders are the SDK's. Importing this module
imports the SDK, so `api` imports it only when it creates a client.
"""

import copy
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn

import orjson
import requests
import structlog
from paypalcheckoutsdk.core import AccessTokenRequest, PayPalEnvironment, PayPalHttpClient

from pipeline.dependencies import Observer, ignore
from pipeline.error_texts import describe
from pipeline.network import egress
from pipeline.paypal.deadline import EXCHANGE_SECONDS, WatchedAdapter, deadline, read_body
from pipeline.paypal.errors import (
    AUTH_ERROR_STATUSES,
    Issue,
    PaypalNotFoundError,
    PaypalRejectedError,
    PaypalUnavailableError,
)
from pipeline.paypal.field_reader import text_of
from pipeline.settings import SettingsError

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
EXPIRY_MARGIN = 60.0  # seconds; a token is replaced this long before it expires, so that it outlives the call
CONNECTIONS = 16  # kept open for reuse
FAILURE_SECONDS = 5.0  # a failed token request is not repeated for this long, so that threads do not wait one by one
LATER_STATUSES = (408, 409, 425, 429)  # PayPal may answer differently later
MOST_ISSUES = 10
ISSUE_FIELDS = (("issue", 100), ("field", 200), ("description", 300))  # with the most characters that are kept
LONGEST_PAUSE = timedelta(hours=1)  # the most that a Retry-After header is believed

# The secret is sent in a header, so plain HTTP is allowed only to a simulator on this machine.
_BASE_URL = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    usable_until: float  # on the clock of `elapsed`


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that was read completely."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PaypalClient(PayPalHttpClient):  # type: ignore[misc]
    """Executes requests against PayPal's API. All threads share one instance, its connections and its token.

    `elapsed` returns seconds, as `time.monotonic` does: a token's life must not depend on changes of the system clock.
    """

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        exchange_seconds: float = EXCHANGE_SECONDS,
        elapsed: Callable[[], float] = time.monotonic,
        observe: Observer = ignore,
    ) -> None:
        if not _BASE_URL.fullmatch(base_url.rstrip("/")):
            raise SettingsError("SMT_PAYPAL_BASE_URL must be https://HOST; http:// is allowed only for this machine")
        egress.require_paypal_api(base_url)
        super().__init__(PayPalEnvironment(client_id, client_secret, base_url.rstrip("/"), ""))
        self._session = _open_session()
        self._timeout, self._exchange_seconds = (connect_seconds, read_seconds), exchange_seconds
        self._elapsed, self._observe = elapsed, observe
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._token_failure: tuple[float, PaypalUnavailableError] | None = None

    def execute(self, request: Any) -> dict[str, Any]:
        """Send a request and return the JSON object of the answer; {} if the answer to a change is empty.

        Raises PaypalNotFoundError or PaypalRejectedError, only if PayPal's API itself gave this answer. Raises
        PaypalUnavailableError for network errors, a whole exchange longer than `exchange_seconds`, 408, 409, 425, 429,
        5xx, answers of more than 1 MiB, and answers that are not a JSON object.
        """
        with self._observed():
            token = self._bearer()
            answer = self._send(request, f"Bearer {token}")
            if answer.status == 401:
                # The token was revoked early. Retry only once: if a new token is refused too, the credentials are wrong.
                answer = self._send(request, f"Bearer {self._bearer(refused=token)}")
            return _read(request, answer)

    def sign_in(self) -> None:
        """Fetch a new token, even if the current one is valid.

        Raises PaypalRejectedError if PayPal refuses the credentials, or PaypalUnavailableError.
        """
        with self._observed(), self._lock:
            self._token_failure = None
            self._token = self._fetch_token()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    @contextmanager
    def _observed(self) -> Iterator[None]:
        """Report whether PayPal served the request. Refused credentials are an outage too; a refused object is not."""
        try:
            yield
        except PaypalUnavailableError:
            self._observe(False)
            raise
        except PaypalNotFoundError:
            self._observe(True)
            raise
        except PaypalRejectedError as error:
            self._observe(not error.concerns_credentials)
            raise
        self._observe(True)

    def _bearer(self, refused: str = "") -> str:
        """Return the current token, or a new one if there is none, it expires soon, or PayPal refused it."""
        with self._lock:
            token = self._token
            if token is None or token.text == refused or self._elapsed() >= token.usable_until:
                token = self._token = self._fetch_token()
            return token.text

    def _fetch_token(self) -> _Token:
        if self._token_failure and self._elapsed() < self._token_failure[0]:
            raise self._token_failure[1]
        try:
            return self._request_token()
        except PaypalUnavailableError as error:
            self._token_failure = (self._elapsed() + FAILURE_SECONDS, error)
            raise

    def _request_token(self) -> _Token:
        started = self._elapsed()
        request = AccessTokenRequest(self.environment)
        answer = self._send(request, request.headers["Authorization"])
        if 400 <= answer.status <= 499 and answer.status not in AUTH_ERROR_STATUSES:
            raise _unavailable(request, answer)  # whatever is wrong there, it says nothing about the object of the call
        found = _read(request, answer)
        text, seconds = found.get("access_token"), found.get("expires_in")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text) or not isinstance(seconds, int | float):
            raise PaypalUnavailableError("PayPal's answer contains no access token; try again")
        log.info("paypal_token_fetched", lifetime_seconds=seconds)
        return _Token(text, started + seconds - EXPIRY_MARGIN)

    def _send(self, request: Any, authorization: str) -> _Answer:
        """Send the request. Once more after a broken connection, if a repetition changes nothing more."""
        prepared = copy.copy(request)
        prepared.headers = {name.lower(): value for name, value in request.headers.items()}
        prepared.headers |= {"authorization": authorization, "user-agent": self.get_user_agent()}
        data = None if request.body is None else self.encoder.serialize_request(prepared)
        is_repeatable = request.verb == "GET" or "paypal-request-id" in prepared.headers
        started = self._elapsed()
        try:
            with deadline(self._exchange_seconds):
                return self._exchange(request, prepared.headers, data)
        except requests.ConnectionError as error:
            left = self._exchange_seconds - (self._elapsed() - started)
            if not is_repeatable or not _is_broken(error) or left <= 0:
                raise _no_answer(request, error) from error
        except requests.RequestException as error:
            raise _no_answer(request, error) from error
        try:
            with deadline(left):
                return self._exchange(request, prepared.headers, data)
        except requests.RequestException as error:
            raise _no_answer(request, error) from error

    def _exchange(self, request: Any, headers: Mapping[str, str], data: Any) -> _Answer:
        url = self.environment.base_url + request.path
        answer = self._session.request(
            request.verb, url, headers=headers, data=data, timeout=self._timeout, allow_redirects=False, stream=True
        )
        return _Answer(answer.status_code, answer.headers, read_body(answer))


def _is_broken(error: requests.ConnectionError) -> bool:
    """Return whether an existing connection broke. A new one that cannot be opened, or a time-out, is not tried again."""
    return not isinstance(error, requests.ConnectTimeout | requests.ReadTimeout) and "NewConnectionError" not in repr(
        error
    )


def _no_answer(request: Any, error: requests.RequestException) -> PaypalUnavailableError:
    error.request = None  # the request contains the authorization header, and errors are logged
    return PaypalUnavailableError(f"{_name(request)}: {describe(error)}; try again")


def _open_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # ignore proxies, ~/.netrc and certificate authorities of the environment
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("https://", "http://"):
        session.mount(scheme, WatchedAdapter(pool_maxsize=CONNECTIONS))
    return session


def _read(request: Any, answer: _Answer) -> dict[str, Any]:
    if not 200 <= answer.status <= 299:
        _fail(request, answer)
    if not answer.body and request.verb != "GET":
        return {}
    found = _parse(answer.body)
    if found is None:
        raise PaypalUnavailableError(f"{_name(request)}: PayPal's answer is not a JSON object; try again")
    return found


def _fail(request: Any, answer: _Answer) -> NoReturn:
    body = _parse(answer.body) or {}
    name, debug_id = _word(body.get("name")) or _word(body.get("error")), _debug_id(answer, body)
    # A gateway in between answers without PayPal's error name. Its 404 says nothing about the object.
    if answer.status in LATER_STATUSES or not 400 <= answer.status <= 499 or not name:
        raise _unavailable(request, answer)
    if answer.status == 404:
        raise PaypalNotFoundError(f"{_name(request)}: PayPal has no such object (debug id {debug_id or 'none'})")
    raise PaypalRejectedError(answer.status, name, debug_id, _issues(body.get("details")))


def _unavailable(request: Any, answer: _Answer) -> PaypalUnavailableError:
    debug_id = _debug_id(answer, _parse(answer.body) or {})
    error = PaypalUnavailableError(
        f"{_name(request)}: PayPal answered {answer.status} (debug id {debug_id or 'none'}); try again later"
    )
    error.retry_after = _retry_after(answer.headers)
    return error


def _retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return the pause of a Retry-After header (RFC 9110, section 10.2.3): seconds, or a date after the answer's Date."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdecimal():
        return min(timedelta(seconds=int(text[:9])), LONGEST_PAUSE)
    try:
        pause = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(pause, timedelta(0)), LONGEST_PAUSE)


def _issues(details: object) -> tuple[Issue, ...]:
    """Return PayPal's reasons, without the value of the field: it may be personal data."""
    found = [each for each in details if isinstance(each, dict)] if isinstance(details, list) else []
    read = [Issue(*(text_of(each, key, limit) for key, limit in ISSUE_FIELDS)) for each in found[:MOST_ISSUES]]
    return tuple(issue for issue in read if issue.issue)


def _debug_id(answer: _Answer, body: Mapping[str, Any]) -> str:
    return _word(answer.headers.get("paypal-debug-id")) or _word(body.get("debug_id"))


def _parse(content: bytes) -> dict[str, Any] | None:
    """Return the JSON object, None if it is none. orjson refuses NaN and lone surrogates."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _word(text: object) -> str:
    """Return the text if it is a single word, otherwise "". Keeps the content of error pages out of our messages."""
    return text if isinstance(text, str) and _WORD.fullmatch(text) else ""


def _name(request: Any) -> str:
    return f"{request.verb} {request.path.partition('?')[0]}"
