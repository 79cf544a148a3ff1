"""RabbitMQ backend: parses the URL and TLS options, and explains the broker's errors."""

import ssl
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from kombu.connection import Connection

from pipeline.error_texts import describe
from pipeline.settings import SettingsError

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 10.0  # timeout for reading an answer and for writing, unless a call sets its own

_PORTS = {"amqp": 5672, "amqps": 5671}
_TLS_OPTIONS = {"cacertfile": "ca_certs", "certfile": "certfile", "keyfile": "keyfile"}
_LOGIN = "Check user, password and virtual host in SMT_BROKER_URL."
_ADVICE = {  # by AMQP's reply codes
    403: _LOGIN,
    530: _LOGIN,
    406: "If queues of these names exist with other options, delete them: the tables still have their events and mails.",
}


class RabbitMQ:
    """One RabbitMQ server. Raises SettingsError, which never quotes the URL, because that contains a password."""

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
        """Do nothing: RabbitMQ wakes its consumers itself."""

    def describe(self, channel: Any) -> str:
        found = channel.connection.server_properties
        return f"{found.get('product', 'AMQP broker')} {found.get('version', '')} at {self._host}:{self._port}"

    def explain(self, error: BaseException) -> str:
        advice = _ADVICE.get(getattr(error, "reply_code", 0), "Start the broker, or correct SMT_BROKER_URL.")
        reason = getattr(error, "reply_text", None) or str(error) or describe(error)
        return f"Cannot use {self}: {reason.rstrip('.')}. {advice} No event or mail is lost."


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        readable = parts.port != 0
    except ValueError:
        raise SettingsError(_INVALID_URL) from None  # the error's text may contain part of the password
    if parts.scheme not in _PORTS:
        raise SettingsError("SMT_BROKER_URL must start with memory://, amqp:// or amqps://")
    if not readable or "@" in parts.path + parts.query or parts.fragment:
        raise SettingsError(_INVALID_URL)
    return parts


_INVALID_URL = "SMT_BROKER_URL cannot be read: write / ? # @ in user and password as %2F %3F %23 %40"


def _tls(parts: SplitResult, host: str) -> dict[str, object] | bool:
    query = dict(parse_qsl(parts.query))
    if set(query) - set(_TLS_OPTIONS):
        raise SettingsError(f"SMT_BROKER_URL has an unknown option; the options are {', '.join(_TLS_OPTIONS)}")
    if parts.scheme == "amqp":
        return False
    # Without server_hostname py-amqp accepts a valid certificate of any host.
    files = {_TLS_OPTIONS[name]: value for name, value in query.items()}
    return {"server_hostname": host, "cert_reqs": ssl.CERT_REQUIRED, **files}
