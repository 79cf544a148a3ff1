"""Checks of sections 1 and 4: pages and mails load nothing from third parties, and pages set only the session cookie."""

import re
from collections.abc import Iterable
from html.parser import HTMLParser
from urllib.parse import urlsplit

from pipeline.policy.evidence.live_system import FetchedPage, Finding, LiveSystem, broken_if, count_noun, not_applicable
from pipeline.policy.evidence.sent_mails import sent_mails

# Parameters that tell the receiver of a click which mail or customer it comes from.
MARKS = re.compile(r"[?&](utm_\w+|mc_[ce]id|_hs\w+|mkt_tok|gclid|fbclid|c(?:ustomer)?_?id|uid|email)=", re.IGNORECASE)
SESSION = "__Host-session"  # the prefix restricts a cookie to this host and HTTPS (RFC 6265bis section 4.1.3.2)
LONGEST_SESSION = 3600  # seconds
NO_PAGES = "the web role is not configured here, so there are no pages to check"
# Tags and attributes whose URL a browser loads by itself, without a click.
FETCHED = {
    ("img", "src"), ("img", "srcset"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"),
    ("video", "src"), ("audio", "src"), ("embed", "src"), ("object", "data"), ("input", "src"), ("body", "background"),
    ("table", "background"), ("td", "background"), ("form", "action"), ("video", "poster"), ("image", "href"),
}  # fmt: skip
_IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""", re.IGNORECASE)


class _References(HTMLParser):
    """Collects the URLs that a document loads and links to, and counts its pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.pictures = 0
        self.hidden = 0  # pictures that nobody can see
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag in ("img", "image", "picture")
        values = dict(attrs)
        self.hidden += tag == "img" and (values.get("width") in ("0", "1") or values.get("height") in ("0", "1"))
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
    """Every page allows only its own origin and loads nothing from another."""
    pages = _html_pages(live)
    if not pages:
        return not_applicable(NO_PAGES)
    wrong = [page.path for page in pages if not _is_restricted(page) or _foreign(_References(page.body).fetched)]
    figure = f"{count_noun(len(pages), 'page')}, 0 foreign origins"
    return broken_if(wrong, figure, f"other origins are allowed or loaded by {', '.join(wrong)}")


def nothing_calls_home(live: LiveSystem) -> Finding:
    """No mail, neither a template's nor one that was sent, loads anything, links elsewhere, or marks its links."""
    hosts = {live.vendor.site, _host(live.settings.pages_url), "www.paypal.com"}
    sent = list(sent_mails(live))
    wrong = {kind for kind, mail in live.mails.items() if _calls_home(mail.html, hosts)}
    wrong |= {f"{mail.kind} (sent)" for mail in sent if _calls_home(mail.html, hosts) or _marked(mail.text)}
    return broken_if(
        wrong,
        f"{count_noun(len(live.mails), 'kind')} of mail and {count_noun(len(sent), 'sent mail')}, 0 external loads",
        f"load, link to other hosts, or mark their links: {', '.join(sorted(wrong))}",
    )


def cookies(live: LiveSystem) -> Finding:
    """No page sets a cookie other than the session cookie."""
    if not live.pages:
        return not_applicable(NO_PAGES)
    found = [(page.path, cookie) for page in live.pages for cookie in page.headers.get("set-cookie", ())]
    wrong = sorted({path for path, cookie in found if not _is_essential(cookie)})
    figure = f"{count_noun(len(live.pages), 'page')}, {count_noun(len(found), 'cookie')}"
    return broken_if(wrong, figure, f"set a cookie other than the session cookie: {', '.join(wrong)}")


def no_pixels(live: LiveSystem) -> Finding:
    """No page has a picture from another host or a hidden one, and no mail, also none that was sent, has any picture."""
    mails = [kind for kind, mail in live.mails.items() if _References(mail.html).pictures]
    sent = list(sent_mails(live))
    mails += sorted({f"{mail.kind} (sent)" for mail in sent if _References(mail.html).pictures})
    pages = [page.path for page in _html_pages(live) if _References(page.body).hidden]
    pages += [page.path for page in _html_pages(live) if _foreign(_References(page.body).fetched)]
    figure = (
        f"{count_noun(len(live.mails), 'kind')} of mail, {count_noun(len(sent), 'sent mail')} and "
        f"{count_noun(len(live.pages), 'page')}, 0 pixels"
    )
    return broken_if(mails + pages, figure, f"contain external pictures: {', '.join(mails + pages)}")


def _calls_home(html: str, hosts: set[str | None]) -> bool:
    found = _References(html)
    foreign = [link for link in found.linked if urlsplit(link).scheme != "mailto" and _host(link) not in hosts]
    return bool(found.fetched or foreign) or any(map(_marked, found.linked))


def _marked(text: str) -> bool:
    """Return whether a link says from which campaign it comes, or whose it is."""
    return MARKS.search(text) is not None


def _html_pages(live: LiveSystem) -> list[FetchedPage]:
    return [page for page in live.pages if page.is_html]


def _is_restricted(page: FetchedPage) -> bool:
    rules = ";".join(page.headers.get("content-security-policy", ())).split(";")
    allowed = {words[0]: set(words[1:]) for rule in rules if (words := rule.split())}
    others = {source for sources in allowed.values() for source in sources} - {"'self'", "'none'", "data:"}
    return allowed.get("default-src", {"*"}) <= {"'self'", "'none'"} and not others - _paypal_sources(allowed)


def _paypal_sources(allowed: dict[str, set[str]]) -> set[str]:
    """Return the sources of PayPal in `form-action`: a form may redirect there to approve the subscription."""
    return {source for source in allowed.get("form-action", set()) if (_host(source) or "").endswith("paypal.com")}


def _is_essential(cookie: str) -> bool:
    """Return whether this is the session cookie, bound to this host and HTTPS, for the time of a session at most."""
    name, *attributes = (part.strip() for part in cookie.split(";"))
    values = dict(part.lower().partition("=")[::2] for part in attributes)
    is_bound = {"secure", "httponly", "samesite", "path"} <= values.keys()
    return name.startswith(f"{SESSION}=") and is_bound and _is_short(values)


def _is_short(attributes: dict[str, str]) -> bool:
    """Return whether a cookie ends with the browser or after a session's time. Max-Age outranks Expires (RFC 6265bis)."""
    seconds = attributes.get("max-age")
    return "expires" not in attributes if seconds is None else seconds.isdigit() and int(seconds) <= LONGEST_SESSION


def _foreign(references: Iterable[str]) -> list[str]:
    return [each for each in references if _host(each) and not each.startswith("data:")]


def _host(url: str) -> str | None:
    return urlsplit(url.strip()).hostname
