"""Parse the URL of the SMTP relay (`SMT_SMTP_URL`)."""

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from pipeline.errors import UsageError
from pipeline.network.hosts import is_on_this_machine

PORTS = {"smtp": 25, "smtps": 465, "smtp+starttls": 587}


class SmtpConfigError(UsageError, ValueError):
    """The relay's URL is invalid or unsafe. The message says what to write instead; it never contains a password."""


@dataclass(frozen=True, slots=True)
class SmtpUrl:
    """Host, port, TLS mode and login of the relay."""

    host: str
    port: int
    use_tls: bool
    start_tls: bool
    username: str | None
    password: str | None


def parse_smtp_url(url: str) -> SmtpUrl:
    """Parse `smtp://host:port`, `smtp+starttls://user:password@host` or `smtps://user:password@host`.

    `smtp://` without TLS is allowed for this machine. For another host on a private network, for example a container,
    `?tls=off` is required. A password is never sent over the network without TLS. Raises SmtpConfigError.
    """
    try:
        parts = urlsplit(url)
        host, port, options = parts.hostname or "", parts.port, parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise SmtpConfigError("SMT_SMTP_URL is not a valid URL; write smtp://host:port") from None
    if parts.scheme not in PORTS or not host or parts.path not in ("", "/") or port == 0:
        raise SmtpConfigError("SMT_SMTP_URL must be smtp://, smtp+starttls:// or smtps:// with a host and no path")
    if options not in ({}, {"tls": ["off"]}) or (options and parts.scheme != "smtp"):
        raise SmtpConfigError("SMT_SMTP_URL allows only the option ?tls=off, and only with smtp://")
    if parts.scheme == "smtp" and not is_on_this_machine(host):
        _check_without_tls(host, private=bool(options), password=parts.password is not None)
    return SmtpUrl(
        host=host,
        port=port or PORTS[parts.scheme],
        use_tls=parts.scheme == "smtps",
        start_tls=parts.scheme == "smtp+starttls",
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password is not None else None,
    )


def _check_without_tls(host: str, *, private: bool, password: bool) -> None:
    if password:
        raise SmtpConfigError(f"SMT_SMTP_URL would send a password unencrypted to {host}; use smtp+starttls://")
    if not private:
        raise SmtpConfigError(
            f"SMT_SMTP_URL would send mail unencrypted to {host}; use smtp+starttls:// or smtps://, "
            "or add ?tls=off if the host is on a private network"
        )
