"""Where the relay is and how to speak to it, read from a URL."""

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.errors import UsageError
from pipeline.network.hosts import is_on_this_machine

PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


class SmtpConfigError(UsageError, ValueError):
    """The relay's URL cannot be used. Says what to write instead; never quotes a password."""


@dataclass(frozen=True, slots=True)
class SmtpUrl:
    """Where the relay is and how to speak to it; read from a URL by `parse_smtp_url`."""

    host: str
    port: int
    use_tls: bool
    start_tls: bool
    username: str | None
    password: str | None


def parse_smtp_url(url: str) -> SmtpUrl:
    """Read `smtp://host:port`, `smtp+starttls://user:password@host` or `smtps://user:password@host`.

    Plain `smtp://` is for this machine. For a relay by name on a private network, as between containers, say so with
    `?tls=off`; a password never goes out in the clear. Raises SmtpConfigError.
    """
    try:
        parts = urlsplit(url)
        host, port, options = parts.hostname or "", parts.port, parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise SmtpConfigError("SMT_SMTP_URL cannot be read; write smtp://host:port") from None
    if parts.scheme not in PORTS or not host or parts.path not in ("", "/") or port == 0:
        raise SmtpConfigError("SMT_SMTP_URL must be smtp://, smtp+starttls:// or smtps:// with a host and no path")
    if options not in ({}, {"tls": ["off"]}) or (options and parts.scheme != "smtp"):
        raise SmtpConfigError("SMT_SMTP_URL knows one option, ?tls=off, and only on smtp://")
    if parts.scheme == "smtp" and not is_on_this_machine(host):
        _refuse_open_way(host, private=bool(options), password=parts.password is not None)
    return SmtpUrl(
        host=host,
        port=port or PORTS[parts.scheme],
        use_tls=parts.scheme == "smtps",
        start_tls=parts.scheme == "smtp+starttls",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
    )


def _refuse_open_way(host: str, *, private: bool, password: bool) -> None:
    if password:
        raise SmtpConfigError(f"SMT_SMTP_URL would send a password in the clear to {host}; use smtp+starttls://")
    if not private:
        raise SmtpConfigError(
            f"SMT_SMTP_URL would send mail in the clear to {host}; use smtp+starttls:// or smtps://, "
            "or add ?tls=off if it stands on a private network"
        )
