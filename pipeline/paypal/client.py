"""HTTP client for PayPal's API: the SDK's client with time-outs, one shared token and typed errors.

The SDK's own `execute` has no time-out, opens a connection for each call and follows redirects. It takes proxies and
passwords from the environment, fetches a token per thread, never replaces a refused token, and prints. This module
replaces that method only. The environment, the token request and the encoders are the SDK's. Importing this module
imports the SDK, so `api` imports it only when it creates a client.
"""

import copy
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn

import requests
import structlog
from paypalcheckoutsdk.core import AccessTokenRequest, PayPalEnvironment, PayPalHttpClient
from requests.adapters import HTTPAdapter

from pipeline.dependencies import Observer, ignore
from pipeline.network import egress
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.settings import SettingsError

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
EXPIRY_MARGIN = 60.0  # seconds; a token is replaced this long before it expires, so that it outlives the call
AUTH_ERROR_STATUSES = (401, 403)  # PayPal refuses the credentials
CONNECTIONS = 16  # kept open for reuse

# The secret is sent in a header, so plain HTTP is allowed only to a simulator on this machine.
_BASE_URL = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    usable_until: float  # on the clock of `elapsed`


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
        elapsed: Callable[[], float] = time.monotonic,
        observe: Observer = ignore,
    ) -> None:
        if not _BASE_URL.fullmatch(base_url.rstrip("/")):
            raise SettingsError("SMT_PAYPAL_BASE_URL must be https://HOST; http:// is allowed only for this machine")
        egress.require_paypal_api(base_url)
        super().__init__(PayPalEnvironment(client_id, client_secret, base_url.rstrip("/"), ""))
        self._session = _open_session()
        self._timeout = (connect_seconds, read_seconds)
        self._elapsed, self._observe = elapsed, observe
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def execute(self, request: Any) -> dict[str, Any]:
        """Send a request and return the JSON object of the answer, or {} if the answer is empty.

        Raises PaypalNotFoundError or PaypalRejectedError. Raises PaypalUnavailableError for network errors, time-outs,
        408, 429, 5xx, and answers that are not a JSON object.
        """
        with self._observed():
            token = self._bearer()
            answer = self._send(request, f"Bearer {token}")
            if answer.status_code == 401:
                # The token was revoked early. Retry only once: if a new token is refused too, the credentials are wrong.
                answer = self._send(request, f"Bearer {self._bearer(refused=token)}")
            return _read(request, answer)

    def sign_in(self) -> None:
        """Fetch a new token, even if the current one is valid.

        Raises PaypalRejectedError if PayPal refuses the credentials, or PaypalUnavailableError.
        """
        with self._observed(), self._lock:
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
            self._observe(error.status not in AUTH_ERROR_STATUSES)
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
        started = self._elapsed()
        request = AccessTokenRequest(self.environment)
        found = _read(request, self._send(request, request.headers["Authorization"]))
        text, seconds = found.get("access_token"), found.get("expires_in")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text) or not isinstance(seconds, int | float):
            raise PaypalUnavailableError("PayPal's answer contains no access token; try again")
        log.info("paypal_token_fetched", lifetime_seconds=seconds)
        return _Token(text, started + seconds - EXPIRY_MARGIN)

    def _send(self, request: Any, authorization: str) -> requests.Response:
        prepared = copy.copy(request)
        prepared.headers = {name.lower(): value for name, value in request.headers.items()}
        prepared.headers |= {"authorization": authorization, "user-agent": self.get_user_agent()}
        data = None if request.body is None else self.encoder.serialize_request(prepared)
        try:
            return self._session.request(
                request.verb,
                self.environment.base_url + request.path,
                headers=prepared.headers,
                data=data,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            error.request = None  # the request contains the authorization header, and errors are logged
            raise PaypalUnavailableError(f"{_name(request)}: {type(error).__name__}; try again") from error


def _open_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # ignore proxies, ~/.netrc and certificate authorities of the environment
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return session


def _read(request: Any, answer: requests.Response) -> dict[str, Any]:
    if not 200 <= answer.status_code <= 299:
        _fail(request, answer)
    if not answer.content:
        return {}
    found = _parse(answer.content)
    if found is None:
        raise PaypalUnavailableError(f"{_name(request)}: PayPal's answer is not a JSON object; try again")
    return found


def _fail(request: Any, answer: requests.Response) -> NoReturn:
    status, body = answer.status_code, _parse(answer.content) or {}
    debug_id = _word(answer.headers.get("paypal-debug-id")) or _word(body.get("debug_id"))
    if status == 404:
        raise PaypalNotFoundError(f"{_name(request)}: PayPal has no such object (debug id {debug_id or 'none'})")
    if status in (408, 429) or not 400 <= status <= 499:
        raise PaypalUnavailableError(
            f"{_name(request)}: PayPal answered {status} (debug id {debug_id or 'none'}); try again later"
        )
    raise PaypalRejectedError(status, _word(body.get("name")) or _word(body.get("error")), debug_id)


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    """Reject NaN and Infinity: they are not JSON, and databases refuse them."""
    raise ValueError(name)


def _word(text: object) -> str:
    """Return the text if it is a single word, otherwise "". Keeps the content of error pages out of our messages."""
    return text if isinstance(text, str) and _WORD.fullmatch(text) else ""


def _name(request: Any) -> str:
    return f"{request.verb} {request.path.partition('?')[0]}"
