"""The SDK's client made safe to lean on.

The SDK's own `execute` waits for ever, opens a connection per call, follows redirects, takes proxies and passwords from
the environment, fetches a token per thread, never replaces a refused one, and prints. Here that one method is new; the
environment, the token request and the encoders are the SDK's. Importing this module imports the SDK, so `api` imports
it only when a client is made.
"""

import copy
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, NoReturn

import requests
import structlog
from paypalcheckoutsdk.core import AccessTokenRequest, PayPalEnvironment, PayPalHttpClient
from requests.adapters import HTTPAdapter

from pipeline.network import egress
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.settings import SettingsError

CONNECT_SECONDS = 5.0
READ_SECONDS = 15.0
EXPIRY_MARGIN = 60.0  # seconds before its end in which a token is not used any more: it must outlive the call
CONNECTIONS = 16

# The secret travels in a header: in the clear it may only go to a simulator on this machine.
_BASE_URL = re.compile(r"https://[A-Za-z0-9.-]+(:\d+)?|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,4096}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    good_until: float


class PaypalClient(PayPalHttpClient):  # type: ignore[misc]
    """Executes the SDK's requests and our own. One for all threads: they share the connections and the token.

    `elapsed` counts seconds, like `time.monotonic`: how long a token lasts is PayPal's time, whatever our clock says.
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
    ) -> None:
        if not _BASE_URL.fullmatch(base_url.rstrip("/")):
            raise SettingsError("SMT_PAYPAL_BASE_URL must be https:// and a host; http:// only for this machine")
        egress.require_paypal_api(base_url)
        super().__init__(PayPalEnvironment(client_id, client_secret, base_url.rstrip("/"), ""))
        self._session = _open_session()
        self._timeout = (connect_seconds, read_seconds)
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._token: _Token | None = None

    def execute(self, request: Any) -> dict[str, Any]:
        """Send a request and return the JSON object it is answered with, {} when the answer is empty.

        Raises NotFound, Rejected, or Unavailable: the network, a time-out, 429, 5xx, an answer that is no JSON object.
        """
        token = self._bearer()
        answer = self._send(request, f"Bearer {token}")
        if answer.status_code == 401:
            # Revoked before its time. Not in a loop: if the new one is refused too, the credentials are the reason.
            answer = self._send(request, f"Bearer {self._bearer(refused=token)}")
        return _read(request, answer)

    def sign_in(self) -> None:
        """Fetch a new token, whatever we have. Raises Rejected when PayPal refuses the credentials, or Unavailable."""
        with self._lock:
            self._token = self._fetch_token()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _bearer(self, refused: str = "") -> str:
        """The token in use; a new one if there is none, it is about to expire, or it is the one that was refused."""
        with self._lock:
            token = self._token
            if token is None or token.text == refused or self._elapsed() >= token.good_until:
                token = self._token = self._fetch_token()
            return token.text

    def _fetch_token(self) -> _Token:
        began = self._elapsed()
        request = AccessTokenRequest(self.environment)
        found = _read(request, self._send(request, request.headers["Authorization"]))
        text, seconds = found.get("access_token"), found.get("expires_in")
        if not isinstance(text, str) or not _TOKEN.fullmatch(text) or not isinstance(seconds, int | float):
            raise PaypalUnavailableError("PayPal's answer holds no access token; try again")
        log.info("paypal_token", seconds=seconds)
        return _Token(text, began + seconds - EXPIRY_MARGIN)

    def _send(self, request: Any, authorization: str) -> requests.Response:
        ready = copy.copy(request)
        ready.headers = {name.lower(): value for name, value in request.headers.items()}
        ready.headers |= {"authorization": authorization, "user-agent": self.get_user_agent()}
        data = None if request.body is None else self.encoder.serialize_request(ready)
        try:
            return self._session.request(
                request.verb,
                self.environment.base_url + request.path,
                headers=ready.headers,
                data=data,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            error.request = None  # it holds the authorization header, and errors get logged with all they hold
            raise PaypalUnavailableError(f"{_name(request)}: {type(error).__name__}; try again") from error


def _open_session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxies, no ~/.netrc, no other authorities from the environment
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
        raise PaypalUnavailableError(f"{_name(request)}: PayPal's answer is no JSON object; try again")
    return found


def _fail(request: Any, answer: requests.Response) -> NoReturn:
    status, told = answer.status_code, _parse(answer.content) or {}
    debug_id = _word(answer.headers.get("paypal-debug-id")) or _word(told.get("debug_id"))
    if status == 404:
        raise PaypalNotFoundError(f"{_name(request)}: PayPal has no such thing (debug id {debug_id or 'none'})")
    if status in (408, 429) or not 400 <= status <= 499:
        raise PaypalUnavailableError(
            f"{_name(request)}: PayPal answered {status} (debug id {debug_id or 'none'}); try again later"
        )
    raise PaypalRejectedError(status, _word(told.get("name")) or _word(told.get("error")), debug_id)


def _parse(content: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse_constant(name: str) -> NoReturn:
    """NaN and Infinity are not JSON, and no database takes them as such."""
    raise ValueError(name)


def _word(text: object) -> str:
    """PayPal's word for an error, if it is one word: what an error page says does not enter our messages."""
    return text if isinstance(text, str) and _WORD.fullmatch(text) else ""


def _name(request: Any) -> str:
    return f"{request.verb} {request.path.partition('?')[0]}"
