"""Parsing of the relay URL: which URLs are valid, and which are refused."""

import pytest

from pipeline.mailer.smtp_relay import Relay
from pipeline.network.smtp_url import SmtpConfigError, parse_smtp_url


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "starttls"),
    [
        ("smtp://127.0.0.1", "127.0.0.1", 25, False, False),
        ("smtp://localhost:2525", "localhost", 2525, False, False),
        ("smtp://[::1]:25/", "::1", 25, False, False),
        ("smtp://user:password@127.0.0.1", "127.0.0.1", 25, False, False),
        ("smtp://postfix:25?tls=off", "postfix", 25, False, False),
        ("smtps://mail.example.com", "mail.example.com", 465, True, False),
        ("smtp+starttls://mail.example.com", "mail.example.com", 587, False, True),
    ],
)
def test_valid_url_is_parsed(url: str, host: str, port: int, tls: bool, starttls: bool) -> None:
    route = parse_smtp_url(url)
    assert (route.host, route.port, route.use_tls, route.start_tls) == (host, port, tls, starttls)


def test_user_and_password_are_percent_decoded() -> None:
    route = parse_smtp_url("smtps://bill%40example.com:p%2Fw%3Aord@mail.example.com")
    assert (route.username, route.password) == ("bill@example.com", "p/w:ord")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example.com",
        "http://mail.example.com",
        "smtp://",
        "smtp://mail.example.com:secret",
        "smtp://mail.example.com:99999",
        "smtp://mail.example.com",
        "smtp://user:secret@mail.example.com",
        "smtp://user:secret@mail.example.com?tls=off",
        "smtp://10.0.0.1",
        "smtp://postfix?tls=on",
        "smtp://postfix?tls=off&secret=1",
        "smtps://mail.example.com?tls=off",
        "smtps://mail.example.com/secret",
    ],
)
def test_error_for_invalid_url_names_the_setting(url: str) -> None:
    with pytest.raises(SmtpConfigError, match="SMT_SMTP_URL") as caught:
        Relay(url, connections=1)
    assert "secret" not in str(caught.value)
