"""RabbitMQ: the URL, TLS, and what its refusals mean."""

import ssl
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kombu.connection import Connection

from pipeline.settings import SettingsError

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0  # the longest wait for an answer or for room to write, where nothing else is said

_PORTS = {"amqp": 5672, "amqps": 5671}
_FILES = {"cacertfile": "ca_certs", "certfile": "certfile", "keyfile": "keyfile"}
_LOGIN = "Check user, password and virtual host in SMT_BROKER_URL."
_ADVICE = {  # by AMQP's reply codes
    403: _LOGIN,
    530: _LOGIN,
    406: "If queues of these names were declared otherwise, delete them: what they held is found in the tables.",
}


class RabbitMQ:
    """One server, by its URL. Raises SettingsError, without repeating any of the URL: it has a password in it."""

    exclusive = False

    def __init__(self, url: str) -> None:
        parts = _split(url)
        host = parts.hostname or "127.0.0.1"
        self._host, self._port = f"[{host}]" if ":" in host else host, parts.port or _PORTS[parts.scheme]
        self._login = {"userid": unquote(parts.username or "guest"), "password": unquote(parts.password or "guest")}
        self._virtual_host = unquote(parts.path[1:]) or "/"
        self._tls = _tls(parts, host)

    def __str__(self) -> str:
        return f"the broker at {self._host}:{self._port}"

    def connection(self, name: str, heartbeat: float) -> Any:
        return Connection(  # type: ignore[no-untyped-call]
            self._host,
            **self._login,
            port=self._port,
            virtual_host=self._virtual_host,
            ssl=self._tls,
            transport="pyamqp",  # kombu's `amqp` is another driver where librabbitmq is installed
            connect_timeout=CONNECT_SECONDS,
            heartbeat=heartbeat,
            transport_options={
                "read_timeout": ANSWER_SECONDS,
                "write_timeout": ANSWER_SECONDS,
                "client_properties": {"connection_name": name},
            },
        )

    def drain(self, connection: Any, seconds: float) -> None:
        connection.drain_events(timeout=seconds)

    def notify(self) -> None:
        """RabbitMQ does so."""

    def describe(self, channel: Any) -> str:
        found = channel.connection.server_properties
        return f"{found.get('product', 'AMQP broker')} {found.get('version', '')} at {self._host}:{self._port}"

    def explain(self, error: BaseException) -> str:
        advice = _ADVICE.get(getattr(error, "reply_code", 0), "Start it, or correct SMT_BROKER_URL.")
        reason = getattr(error, "reply_text", None) or str(error) or type(error).__name__
        return f"{self} cannot be used: {reason.rstrip('.')}. {advice} Nothing is lost meanwhile."


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        readable = parts.port != 0
    except ValueError:
        raise SettingsError(_UNREADABLE) from None  # its text may hold a piece of the password
    if parts.scheme not in _PORTS:
        raise SettingsError("SMT_BROKER_URL must begin with memory://, amqp:// or amqps://")
    if not readable or "@" in parts.path + parts.query or parts.fragment:
        raise SettingsError(_UNREADABLE)
    return parts


_UNREADABLE = "SMT_BROKER_URL cannot be read: write / ? # @ in user and password as %2F %3F %23 %40"


def _tls(parts: SplitResult, host: str) -> dict[str, object] | bool:
    query = dict(parse_qsl(parts.query))
    if set(query) - set(_FILES):
        raise SettingsError(f"SMT_BROKER_URL has an option that is not among {', '.join(_FILES)}")
    if parts.scheme == "amqp":
        return False
    # Without server_hostname py-amqp accepts any valid certificate, whoever it was made out to.
    files = {_FILES[name]: value for name, value in query.items()}
    return {"server_hostname": host, "cert_reqs": ssl.CERT_REQUIRED, **files}
