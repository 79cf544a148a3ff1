"""Sections 1 and 4: pages and mails fetch nothing from anybody, call nobody, and set one cookie at most."""

import re
from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import urlsplit

from pipeline.policy.evidence.live_system import FetchedPage, Finding, LiveSystem, broken_if, count_noun, not_applicable

COOKIE = "__Host-"  # the prefix that ties a cookie to this host alone, over HTTPS (RFC 6265bis section 4.1.3.2)
NO_PAGES = "the web role is not set up here: no pages to ask for"
# What a browser fetches by itself, by tag and attribute; a link that a person may click is not among it.
FETCHED = {
    ("img", "src"), ("img", "srcset"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"),
    ("video", "src"), ("audio", "src"), ("embed", "src"), ("object", "data"), ("input", "src"), ("body", "background"),
    ("table", "background"), ("td", "background"), ("form", "action"), ("video", "poster"), ("image", "href"),
}  # fmt: skip
_IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""", re.IGNORECASE)


class _References(HTMLParser):
    """Collects what a document fetches, links to, and whether it holds a script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.pictures = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag in ("img", "image", "picture")
        for name, value in attrs:
            if (tag, name) in FETCHED and value:
                self.fetched.append(value)
            elif name == "style" and value:
                self.fetched += _IN_STYLE.findall(value)
            elif (tag, name) == ("a", "href") and value:
                self.linked.append(value)

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.fetched += _IN_STYLE.findall(data)


def no_third_parties(live: LiveSystem) -> Finding:
    """Every page forbids all but our own origin, and asks for nothing from another."""
    pages = _html(live)
    if not pages:
        return not_applicable(NO_PAGES)
    wrong = [page.path for page in pages if not _is_closed(page) or _foreign(_References(page.body).fetched)]
    figure = f"{count_noun(len(pages), 'page')}, 0 foreign origins"
    return broken_if(wrong, figure, f"open to others, or fetching from them: {', '.join(wrong)}")


def nothing_calls_home(live: LiveSystem) -> Finding:
    """No mail fetches anything, and each leads to nobody but the vendor and PayPal."""
    hosts = {live.vendor.site, _host(live.settings.pages_url), "www.paypal.com"}
    wrong = []
    for kind, mail in live.mails.items():
        found = _References(mail.html)
        astray = [link for link in found.linked if urlsplit(link).scheme != "mailto" and _host(link) not in hosts]
        if found.fetched or astray:
            wrong.append(kind)
    return broken_if(
        wrong, f"{count_noun(len(live.mails), 'kind')} of mail, 0 calls", f"lead elsewhere: {', '.join(wrong)}"
    )


def cookies(live: LiveSystem) -> Finding:
    """No page sets a cookie but the one of the session."""
    if not live.pages:
        return not_applicable(NO_PAGES)
    found = [(page.path, cookie) for page in live.pages for cookie in page.headers.get("set-cookie", ())]
    wrong = sorted({path for path, cookie in found if not _is_essential(cookie)})
    figure = f"{count_noun(len(live.pages), 'page')}, {count_noun(len(found), 'cookie')}"
    return broken_if(wrong, figure, f"set another cookie than the session's: {', '.join(wrong)}")


def no_pixels(live: LiveSystem) -> Finding:
    """Neither pages nor mails hold a picture from elsewhere; mails hold none at all."""
    mails = [kind for kind, mail in live.mails.items() if _References(mail.html).pictures]
    pages = [page.path for page in _html(live) if _foreign(_References(page.body).fetched)]
    looked = f"{count_noun(len(live.mails), 'kind')} of mail and {count_noun(len(live.pages), 'page')}, 0 pixels"
    return broken_if(mails + pages, looked, f"with pictures from elsewhere: {', '.join(mails + pages)}")


def _html(live: LiveSystem) -> list[FetchedPage]:
    return [page for page in live.pages if page.is_html]


def _is_closed(page: FetchedPage) -> bool:
    rules = ";".join(page.headers.get("content-security-policy", ())).split(";")
    allowed = {words[0]: set(words[1:]) for rule in rules if (words := rule.split())}
    strangers = {source for sources in allowed.values() for source in sources} - {"'self'", "'none'", "data:"}
    return allowed.get("default-src", {"*"}) <= {"'self'", "'none'"} and not strangers - _ours(allowed)


def _ours(allowed: dict[str, set[str]]) -> set[str]:
    """A form may lead on to PayPal, where the subscription is approved."""
    return {source for source in allowed.get("form-action", set()) if (_host(source) or "").endswith("paypal.com")}


def _is_essential(cookie: str) -> bool:
    attributes = {part.strip().partition("=")[0].lower() for part in cookie.split(";")[1:]}
    return cookie.startswith(COOKIE) and {"secure", "httponly", "samesite", "path"} <= attributes


def _foreign(references: Iterable[str]) -> list[str]:
    return [each for each in references if _host(each) and not each.startswith("data:")]


def _host(url: str) -> str | None:
    return urlsplit(url.strip()).hostname
