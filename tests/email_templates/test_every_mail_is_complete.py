"""Every folder in email_templates/ is a complete, accessible mail: four files, and text and HTML with the same content.

To add a mail, add a folder; this test finds it. List it in OPTIONAL, with the facts that may be null.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.outbox import mail_kinds
from pipeline.rendering.branding import Branding
from pipeline.rendering.message import Envelope, RenderedMail, build_message
from pipeline.rendering.templates import Templates, default_folder

FOLDER = default_folder()
MAILS = sorted(path.name for path in FOLDER.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
OPTIONAL = {
    "account_setup": ["next_billing_at"],
    "receipt": ["paid_through", "regular", "balance"],
    "payment_failed": ["amount", "balance", "retry_at", "reason"],
    "subscription_suspended": ["paid_through", "balance"],
    "subscription_cancelled": ["paid_through", "balance"],
    "refund_receipt": ["paid"],
    "renewal_reminder": ["amount", "price", "balance", "past_due_since", "period"],
    "account_deletion_scheduled": ["cancel"],
    "account_deleted": ["kept_until"],
    "policy_changed": [],
    "product_news": [],
    "news_confirmation": [],
    "privacy_request_received": [],
    "request_refused": [],
    "data_export_ready": [],
    "support_received": [],
    "inbound_reply": [],
    "account_link": [],
    "email_change_requested": [],
    "email_changed": [],
}
EUR_29 = {"amount": 2900, "currency": "EUR"}
LATE = {
    "past_due_since": "2027-01-24T10:00:00Z", "price": EUR_29, "balance": EUR_29,
    "amount": {"amount": 5800, "currency": "EUR"},
}  # fmt: skip
TO_THE_OPERATOR = {
    "custom_id_shared", "event_parked", "system_problem", "dispute", "account_notice", "sign_up_refused",
    "webhook_forged", "request_due", "erasure_waits",
}  # fmt: skip
VENDOR = Branding(
    name="Example Works",
    url="https://works.example.com",
    address="1 Example Street, 12345 Sampletown",
    colour="#8a2be2",
    product="Example Ledger",
    support_email="help@example.com",
)
TEMPLATES = Templates(FOLDER, VENDOR, "en_US")
LINKS = {VENDOR.url, f"mailto:{VENDOR.support_email}", "https://www.paypal.com/myaccount/autopay/"}
OUR_PAGES = "https://billing.example.com/"  # used by the links in example.json
FACT = re.compile(
    r"[$€£]?\d[\d.,]*\d(?:\s[A-Z]{3})?\b"  # amounts and years
    r"|(?:January|February|March|April|May|June|July|August|September|October|November|December) \d{1,2}, \d{4}"
    r"|\b(?=[A-Z-]*\d)[A-Z0-9-]{9,}\b"  # PayPal's ids
    r"|\b[A-Z]+(?:\.[A-Z]+)+\b"  # PayPal's event types
)
VOID = {"meta", "br", "wbr", "img", "link", "hr", "input"}
INLINE = {"text", "wbr", "a", "bdi", "code"}  # inline elements; all others start a new line


@dataclass
class Element:
    """One element of a mail's HTML, with its children and its text."""

    tag: str
    attributes: dict[str, str]
    parent: "Element | None" = None
    children: list["Element"] = field(default_factory=list)
    text: str = ""

    def all(self, *tags: str) -> list["Element"]:
        found = [self] if not tags or self.tag in tags else []
        return found + [element for child in self.children for element in child.all(*tags)]

    def words(self) -> str:
        return " ".join(self._shown().split())

    def _shown(self) -> str:
        inside = self.text + "".join(child._shown() for child in self.children)
        return inside if self.tag in INLINE else f" {inside} "


class Reader(HTMLParser):
    """Parses HTML into a tree of elements. It ignores the text of <style> and <title>, which is not visible."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.top = self.here = Element("", {})
        self.feed(html)
        assert self.here is self.top, f"<{self.here.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self.here)
        self.here.children.append(element)
        if tag not in VOID:
            self.here = element

    def handle_endtag(self, tag: str) -> None:
        assert self.here.tag == tag, f"</{tag}> closes <{self.here.tag}>"
        assert self.here.parent is not None
        self.here = self.here.parent

    def handle_data(self, data: str) -> None:
        if self.here.tag in ("style", "title"):
            return
        self.here.children.append(Element("text", {}, self.here, text=data))


@pytest.fixture(params=MAILS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def facts(kind: str) -> dict[str, Any]:
    return TEMPLATES.example(kind)


@pytest.fixture
def mail(kind: str, facts: dict[str, Any]) -> RenderedMail:
    return TEMPLATES.render(kind, facts)


@pytest.fixture
def page(mail: RenderedMail) -> Element:
    return Reader(mail.html).top


def test_every_mail_folder_is_tested() -> None:
    assert len(MAILS) >= 8
    assert set(OPTIONAL) | TO_THE_OPERATOR == set(MAILS)


def test_every_mail_kind_has_a_registered_purpose(kind: str) -> None:
    assert mail_kinds.info(kind).purpose in mail_kinds.PURPOSES


def test_only_optional_mail_contains_an_unsubscribe_link(kind: str, facts: dict[str, Any]) -> None:
    assert ("unsubscribe" in facts) == mail_kinds.is_optional(kind)


def test_mail_folder_contains_exactly_four_files(kind: str) -> None:
    names = {path.name for path in (FOLDER / kind).iterdir()}
    assert names == {"subject.txt", "body.txt", "body.html", "example.json"}


def test_subject_is_one_short_line_without_customer_name(mail: RenderedMail, facts: dict[str, Any]) -> None:
    assert mail.subject.splitlines() == [mail.subject]
    assert 10 < len(mail.subject) <= 90
    assert mail.subject.isascii()
    assert not facts["customer_name"] or facts["customer_name"] not in mail.subject


def test_text_and_html_contain_the_same_facts(mail: RenderedMail, page: Element) -> None:
    (body,) = page.all("body")
    assert set(FACT.findall(body.words())) == set(FACT.findall(" ".join(mail.text.split())))


def test_text_and_html_contain_the_same_links(facts: dict[str, Any], mail: RenderedMail, page: Element) -> None:
    links = {link.attributes["href"] for link in page.all("a")}
    named = set(re.findall(r"https://[^\s,]+|[\w.]+@[\w.]+\w", mail.text))
    # An address that a customer entered is no link: another person may have entered it.
    assert {link.removeprefix("mailto:") for link in links} == named - {facts.get("new_address")}


def test_mail_contains_every_amount_date_and_id(kind: str, facts: dict[str, Any], mail: RenderedMail) -> None:
    render = TEMPLATES._plain
    for name, value in facts.items():
        if isinstance(value, dict):
            written = render.filters["period" if name == "period" else "money"](value)
        elif isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", value):
            written = render.filters["date"](value)
        elif isinstance(value, str) and name != "reason":
            written = value
        else:
            continue
        assert written in mail.text, name
        assert written in mail.html, name


def test_mail_contains_only_known_links(page: Element) -> None:
    links = {link.attributes["href"] for link in page.all("a")}
    assert {link for link in links if not link.startswith(OUR_PAGES)} <= LINKS
    for element in page.all():
        assert not {"src", "srcset", "background", "action", "poster", "data"} & set(element.attributes)
    assert not page.all("img", "link", "script", "iframe", "form", "object", "video", "audio", "svg", "base")


def test_html_loads_nothing_and_hides_nothing(mail: RenderedMail) -> None:
    assert not re.search(r"url\(|@import|@font-face|expression\(", mail.html)
    assert not re.search(r"display:\s*none|visibility:\s*hidden|font-size:\s*[01]px|opacity|max-height:\s*0", mail.html)
    assert "{{" not in mail.html + mail.text
    assert "{%" not in mail.html + mail.text
    assert not re.search(r"hidden\d", mail.html)


def test_html_declares_language_direction_and_landmarks(page: Element) -> None:
    (body,) = page.all("body")
    (article,) = [element for element in body.all() if element.attributes.get("role") == "article"]
    assert article.attributes["lang"] == "en-US"
    assert article.attributes["dir"] == "ltr"
    assert article.attributes["aria-roledescription"] == "email"
    (heading,) = body.all("h1")
    assert article.attributes["aria-label"] == heading.words()
    (main,) = [element for element in article.all() if element.attributes.get("role") == "main"]
    assert heading in main.all()
    assert len([element for element in article.all() if element.attributes.get("role") == "contentinfo"]) == 1
    (html,) = page.all("html")
    assert (html.attributes["lang"], html.attributes["dir"]) == ("en-US", "ltr")


def test_data_table_has_caption_and_headings(page: Element) -> None:
    tables = page.all("table")
    data = [table for table in tables if table.attributes.get("role") != "presentation"]
    assert len(data) == 1
    for table in data:
        assert table.all("caption")[0].words()
        for row in table.all("tr"):
            assert row.all("th"), row.words()
        assert all(cell.attributes.get("scope") in ("row", "col") for cell in table.all("th"))


def test_link_text_describes_its_target(page: Element) -> None:
    for link in page.all("a"):
        assert len(link.words()) > 5
        assert link.words().lower() not in ("click here", "here", "link", "read more")


def test_html_supports_phones_and_dark_mode(mail: RenderedMail, page: Element) -> None:
    metas = {meta.attributes.get("name"): meta.attributes.get("content") for meta in page.all("meta")}
    assert metas["color-scheme"] == "light dark"
    assert "width=device-width" in str(metas["viewport"])
    assert re.search(r"<table[^>]*width=\"100%\"[^>]*max-width: 600px", mail.html)
    assert not re.search(r'\swidth="\d{3,}"', mail.html)
    assert "@media (prefers-color-scheme: dark)" in mail.html
    assert not re.search(r"#(000|fff|000000|ffffff)\b|:\s*(black|white)\b", mail.html, re.IGNORECASE)


def test_styles_are_inlined(page: Element) -> None:
    for element in page.all("h1", "p", "th", "td"):
        assert element.attributes.get("style"), element.tag
    (sheet,) = page.all("style")
    assert sheet.parent is not None


def test_mail_states_its_reason_and_its_sender(kind: str, mail: RenderedMail) -> None:
    for body in (mail.text, mail.html):
        assert "You receive this mail because" in body
        assert VENDOR.name in body
        assert VENDOR.address in body
        assert VENDOR.url in body
    if kind not in TO_THE_OPERATOR:
        assert VENDOR.support_email in mail.text


def test_mail_is_smaller_than_30_kilobytes(kind: str, mail: RenderedMail) -> None:
    assert len(mail.html.encode()) < 30_000
    assert len(build_message(mail, envelope=envelope(kind))) < 30_000


@pytest.mark.parametrize("type", [each for each in HANDLERS if each.startswith(("CUSTOMER.ACCOUNT-", "MERCHANT."))])
def test_account_notice_has_a_subject_for_each_type_and_no_gap_where_paypal_names_nothing(type: str) -> None:
    nothing = dict.fromkeys(("account", "limitation", "reason", "status"))
    mail = TEMPLATES.render("account_notice", {**TEMPLATES.example("account_notice"), "type": type, **nothing})
    assert "account" in mail.subject
    assert "None" not in mail.text + mail.html


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in OPTIONAL for name in [*OPTIONAL[kind], "all"]])
def test_mail_has_no_gaps_when_optional_facts_are_null(kind: str, name: str) -> None:
    facts = TEMPLATES.example(kind)
    facts |= dict.fromkeys(OPTIONAL[kind] if name == "all" else [name])
    facts |= {fact: "" for fact in ("plan", "customer_name") if fact in facts and name == "all"}
    mail = TEMPLATES.render(kind, facts)
    (body,) = Reader(mail.html).top.all("body")
    assert facts.get("plan", "no plan fact") or VENDOR.product in mail.text
    for text in (mail.subject, body.words(), *(line.strip() for line in mail.text.splitlines() if ":  " not in line)):
        assert "None" not in text
        assert not re.search(r" {2}|\(\)|\b(on|of|until)\s*[.,;]|\bfor\s+[.,;]", text), text
    assert set(FACT.findall(body.words())) == set(FACT.findall(" ".join(mail.text.split())))


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("subscription_cancelled", {"paid_through": "2026-03-01T00:00:00Z"}, "ended on March 1, 2026"),
        ("subscription_suspended", {"paid_through": "2026-03-01T00:00:00Z"}, "ended on March 1, 2026"),
        ("refund_receipt", {"in_full": True}, "Your whole payment of $19.99 USD has now been refunded"),
        ("refund_receipt", {"in_full": True, "paid": None}, "Your whole payment has now been refunded"),
        ("payment_failed", {"retry_at": None}, "PayPal has not announced another attempt"),
        ("subscription_suspended", {"balance": None}, "If you do not want to continue, no action is needed"),
        ("subscription_cancelled", {"balance": EUR_29}, "A balance of €29.00 is still open"),
        ("renewal_reminder", LATE, "has been past due since January 24, 2027"),
        (
            "renewal_reminder",
            LATE,
            "€58.00 with the payment method you chose, including the open balance of €29.00.",
        ),
        ("renewal_reminder", LATE | {"amount": None}, "PayPal will then try to collect the amount that is then due"),
        ("receipt", {"regular": EUR_29, "balance": EUR_29}, "in addition to the regular amount of €29.00"),
        ("receipt", {"balance": EUR_29}, "It settles the open balance of €29.00"),
        ("receipt", {"past_due": True}, "Your subscription is still past due"),
        ("event_parked", {"events": [{"id": "WH-1", "type": None, "reason": None}]}, "no reason was recorded"),
        ("event_parked", {"count": 1, "events": []}, "1 event is parked and needs you"),
        ("request_due", {"days": 0}, "A request needs your answer"),
        ("account_notice", {}, "answer what PayPal asks for"),
        ("account_notice", {"type": "CUSTOMER.ACCOUNT-LIMITATION.LIFTED"}, "Nothing has to be done. Payments"),
        ("account_notice", {"type": "MERCHANT.PARTNER-CONSENT.REVOKED"}, "must be connected again"),
        ("account_notice", {"type": "MERCHANT.ONBOARDING.COMPLETED"}, "if you know the account"),
    ],
)
def test_mail_describes_special_case(kind: str, change: dict[str, Any], expected: str) -> None:
    mail = TEMPLATES.render(kind, {**TEMPLATES.example(kind), **change})
    assert expected in mail.text
    assert expected in mail.html


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("renewal_reminder", LATE),
        ("renewal_reminder", LATE | {"amount": None}),
        ("renewal_reminder", LATE | {"balance": None, "price": None}),
        ("receipt", {"past_due": True}),
        ("payment_failed", {"retry_at": None}),
        ("subscription_suspended", {}),
        ("subscription_cancelled", {"balance": EUR_29}),
    ],
)
def test_customer_in_arrears_is_not_told_that_nothing_is_to_be_done(kind: str, change: dict[str, Any]) -> None:
    mail = TEMPLATES.render(kind, {**TEMPLATES.example(kind), **change})
    for words in (mail.text, mail.html):
        assert not re.search(r"nothing you need to do|no action is needed|need to do nothing", words, re.IGNORECASE)


@pytest.mark.parametrize("change", [LATE, LATE | {"amount": None}, LATE | {"period": None}])
def test_overdue_reminder_has_the_same_facts_in_text_and_html(change: dict[str, Any]) -> None:
    mail = TEMPLATES.render("renewal_reminder", {**TEMPLATES.example("renewal_reminder"), **change})
    (body,) = Reader(mail.html).top.all("body")
    assert set(FACT.findall(body.words())) == set(FACT.findall(" ".join(mail.text.split())))
    assert "past due" in mail.subject


def test_missing_vendor_address_leaves_no_gap(kind: str, facts: dict[str, Any]) -> None:
    vendor = Branding("Example Works", VENDOR.url, "", "#ffe000", VENDOR.product, VENDOR.support_email)
    mail = Templates(FOLDER, vendor, "en_US").render(kind, facts)
    assert "Example Works\nhttps://works.example.com\n" in mail.text
    assert ", <br>" not in mail.html


def envelope(kind: str) -> Envelope:
    return Envelope(
        token="abc",
        sender_name=VENDOR.name,
        sender_address="billing@example.com",
        recipient_name="Ada Example",
        recipient_address="ada@example.com",
        reply_to="help@example.com",
        date=datetime(2026, 3, 1, tzinfo=UTC),
        message_id=f"<{kind}.abc@example.com>",
        locale="en_US",
    )


def test_templates_of_this_checkout_are_tested() -> None:
    assert Path(__file__).resolve().parents[2] / "email_templates" == FOLDER
