"""Pages of the caught mails: list, filters, mail view, and protection against active content."""

import asyncio
import re
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from pipeline.demo.mailbox_pages import MailboxPages

MAIL = """Return-Path: <b+x@example.com>\r
Delivered-To: {to}\r
From: SMT Constructions <billing@example.com>\r
To: {name} <{to}>\r
Subject: {subject}\r
Date: {date}\r
Message-ID: <{kind}.{token}@example.com>\r
MIME-Version: 1.0\r
Content-Type: multipart/alternative; boundary="=_b"\r
\r
--=_b\r
Content-Type: text/plain; charset=utf-8\r
\r
Hello {name}, <script>text()</script>\r
--=_b\r
Content-Type: text/html; charset=utf-8\r
\r
<p>Hello <img src="https://evil.example.com/x.gif"><script>html()</script></p>\r
--=_b--\r
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


class Web:
    """Client that calls the application without a network."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    def get(self, address: str) -> httpx.Response:
        return asyncio.run(self._get(address))

    async def _get(self, address: str) -> httpx.Response:
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", follow_redirects=True) as client:
            return await client.get(address)


@pytest.fixture
def web(folder: Path) -> Web:
    def show(date: datetime) -> str:
        return f"{date:%Y-%m-%d %H:%M}"

    return Web(Starlette(routes=MailboxPages(folder, show, "A note.").routes()))


def put(
    folder: Path,
    token: str = "a1",
    *,
    kind: str = "receipt",
    name: str = "Ada",
    to: str = "ada@example.com",
    subject: str = "Receipt",
    date: str = "Sun, 01 Mar 2026 10:00:00 +0000",
) -> str:
    text = MAIL.format(kind=kind, token=token, name=name, to=to, subject=subject, date=date)
    (folder / f"{kind}.{token}.eml").write_text(text, "utf-8", newline="")
    return f"/mails/{kind}.{token}"


def listed(web: Web, query: str = "") -> list[str]:
    return re.findall(r'href="(/mails/[a-z_]+\.[^"]+)"', web.get(f"/mails{query}").text)


def test_empty_list_says_so(web: Web) -> None:
    page = web.get("/mails")
    assert (page.status_code, "No mails yet" in page.text) == (200, True)


def test_new_mails_appear_first(web: Web, folder: Path) -> None:
    old = put(folder, "old", date="Sun, 01 Feb 2026 10:00:00 +0000")
    assert listed(web) == [old]
    new, dateless = put(folder, "new"), put(folder, "dateless", date="some day")
    assert listed(web) == [new, old, dateless]
    assert "2026-03-01 10:00" in web.get("/mails").text


def test_list_is_filtered_by_kind_and_text(web: Web, folder: Path) -> None:
    one = put(folder, "one", name="Zoë", to="zoe@example.com")
    two = put(folder, "two", kind="payment_failed", subject="It failed")
    assert listed(web, "?kind=payment_failed") == [two]
    assert listed(web, "?q=ZOË") == listed(web, "?q=zoe@") == [one]
    assert listed(web, "?q=failed") == [two]
    assert listed(web, "?q=unknown") == []
    assert "1 of 2 mails" in web.get("/mails?q=failed").text


def test_long_list_is_paginated(web: Web, folder: Path) -> None:
    for number in range(120):
        put(folder, f"n{number}")
    pages = [listed(web, f"?page={page}") for page in (1, 2, 3)]
    assert [len(page) for page in pages] == [50, 50, 20]
    assert len({mail for page in pages for mail in page}) == 120
    assert listed(web, "?page=99") == pages[2]
    assert listed(web, "?page=-1") == listed(web, "?page=x") == pages[0]


def test_mail_page_shows_text_headers_and_frame(web: Web, folder: Path) -> None:
    mail = put(folder)
    page = web.get(mail).text
    assert f'<iframe sandbox="allow-popups allow-popups-to-escape-sandbox" src="{mail}/html"' in page
    assert "&lt;script&gt;text()&lt;/script&gt;" in page
    assert "b+x@example.com" in page
    assert web.get(f"{mail}/source").content == (folder / "receipt.a1.eml").read_bytes()


def test_mail_content_is_escaped(web: Web, folder: Path) -> None:
    mail = put(folder, name='"><script>alert(1)</script>', subject="<b>bold</b>")
    for address in ("/mails", mail, '/mails?q="><script>alert(1)</script>&kind="><script>'):
        page = web.get(address).text
        assert "<script" not in page
        assert "<b>bold" not in page


def test_pages_load_no_third_party_content_and_no_scripts(web: Web, folder: Path) -> None:
    mail = put(folder)
    for address in ("/mails", mail):
        answer = web.get(address)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "script-src" not in answer.headers["content-security-policy"]
        assert {link for link in re.findall(r'(?:src|href|action)="([^"]+)"', answer.text) if "//" in link} == set()
    for part in ("html", "source"):
        policy = web.get(f"{mail}/{part}").headers["content-security-policy"]
        assert policy.startswith("sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'")
    assert web.get("/pages/style.css").headers["content-type"].startswith("text/css")
    assert "url(" not in web.get("/pages/style.css").text


@pytest.mark.parametrize(
    "name", ["..%2Fsecret", "receipt.none", "receipt", "receipt.a1.eml", "%00", "x%2F..%2Freceipt.a1"]
)
def test_only_mails_of_the_folder_are_served(web: Web, folder: Path, name: str) -> None:
    put(folder)
    (folder / "secret.eml").write_text("Subject: secret")
    for part in ("", "/html", "/source"):
        assert web.get(f"/mails/{name}{part}").status_code == 404


def test_encoded_words_are_joined_without_spaces(web: Web, folder: Path) -> None:
    words = "=?utf-8?q?=D9=85=D8=AD?= =?utf-8?q?=D9=85=D8=AF?="
    put(folder, name=words, subject="=?utf-8?q?Caf?=\r\n =?utf-8?q?=C3=A9?=")
    page = web.get("/mails").text
    assert "محمد" in page
    assert "Café" in page


def test_undecodable_mail_is_shown_unchanged(web: Web, folder: Path) -> None:
    mail = put(folder, subject="=?utf-8?q?=FF=FE?= and =?klingon?q?x?=", name="")
    assert web.get("/mails").status_code == web.get(mail).status_code == 200
    (folder / "receipt.bare.eml").write_bytes(b"no headers at all\xff")
    (folder / "receipt.raw.eml").write_bytes(b"Subject: \xff\xc3\xa9=?utf-8?q?=ED=A0=80?=\r\n\r\n\xff")
    assert web.get("/mails").status_code == web.get("/mails/receipt.bare").status_code == 200
    assert web.get("/mails/receipt.raw").status_code == 200
