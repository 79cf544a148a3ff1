"""Rendering of templates: missing facts are errors, HTML is escaped, and styles are inlined."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.email_address import clean_name, strip_controls
from pipeline.outbox.mail_kinds import MAILS
from pipeline.rendering.branding import Branding
from pipeline.rendering.message import RenderedMail
from pipeline.rendering.templates import RenderError, Templates, default_folder

VENDOR = Branding(
    name="SMT Constructions",
    url="https://smtconstructions.example.com",
    address="12 Example Street, 12345 Sampletown",
    colour="#1d4e89",
    product="SMT-CRM",
    support_email="help@example.com",
)
RECEIPT = {
    "customer_name": "Ada Example",
    "subscription": "I-BW452GLLEP1G",
    "plan": "",
    "payment": "80021663DE681814L",
    "amount": {"amount": 1999, "currency": "USD"},
    "paid_at": "2026-03-01T23:59:59Z",
    "paid_through": None,
    "regular": None,
    "balance": None,
    "past_due": False,
}
SHIPPED = Templates(default_folder(), VENDOR, "en_US")
Write = Callable[..., Templates]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Returns a function that creates a template folder with one mail, `note`."""

    def make(subject: str = "S", text: str = "T", html: str = "H", base: str = "", locale: str = "en_US") -> Templates:
        for folder in ("note", "_base"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for name, source in (("subject.txt", subject), ("body.txt", text), ("body.html", html)):
            (tmp_path / "note" / name).write_text(source, "utf-8")
        (tmp_path / "_base" / "body.html").write_text(base, "utf-8")
        return Templates(tmp_path, VENDOR, locale)

    return make


def test_receipt_contains_amount_date_and_product() -> None:
    mail = SHIPPED.render("receipt", RECEIPT)
    assert mail.subject == "Receipt: $19.99 USD for SMT-CRM"
    for fact in ("Ada Example", "$19.99 USD", "March 1, 2026", "80021663DE681814L", "I-BW452GLLEP1G"):
        assert fact in mail.text
        assert fact in mail.html


def test_text_starts_with_the_main_fact() -> None:
    mail = SHIPPED.render("receipt", RECEIPT)
    assert mail.text.startswith("We received your payment of $19.99 USD\n")


def test_kinds_are_all_registered_mails() -> None:
    assert set(SHIPPED.kinds) == set(MAILS)
    assert list(SHIPPED.kinds) == sorted(SHIPPED.kinds)


def test_error_names_missing_fact_and_mail() -> None:
    facts = {name: value for name, value in RECEIPT.items() if name != "paid_at"}
    with pytest.raises(RenderError, match=r"mail receipt: a fact is missing: 'paid_at' is undefined"):
        SHIPPED.render("receipt", facts)


def test_error_for_unknown_mail_lists_known_mails() -> None:
    with pytest.raises(RenderError, match=r"there is no mail 'newsletter'; there are: .*account_setup, "):
        SHIPPED.render("newsletter", {})


@pytest.mark.parametrize("kind", ["../receipt", "_base", "receipt/body.txt", ""])
def test_path_is_not_a_mail_kind(kind: str) -> None:
    with pytest.raises(RenderError):
        SHIPPED.render(kind, RECEIPT)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("amount", "ada@example.com"),
        ("amount", {"amount": 1.5, "currency": "USD"}),
        ("amount", {"amount": "ada@example.com", "currency": "USD"}),
        ("amount", {"currency": "USD"}),
        ("paid_at", "ada@example.com"),
        ("paid_at", "2026-02-31T00:00:00Z"),
        ("paid_at", ["ada@example.com"]),
        ("paid_at", 5),
    ],
)
def test_fact_of_wrong_type_is_refused_without_its_value(fact: str, value: object) -> None:
    with pytest.raises(RenderError, match="mail receipt: ") as caught:
        SHIPPED.render("receipt", {**RECEIPT, fact: value})
    assert "ada" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_external_text_cannot_inject_markup_links_or_lines() -> None:
    name = 'Ada <b>"Bold"</b>\r\nYou must pay 1,000,000\u202e www.evil.example'
    mail = SHIPPED.render("receipt", {**RECEIPT, "customer_name": name, "plan": "<script>x</script>\nSubject: y"})
    assert "<b>" not in mail.html
    assert "<script>" not in mail.html
    assert "Ada &lt;b&gt;" in mail.html
    assert f"Hello {clean_name(name)},\n" in mail.text
    assert "www.evil.example" not in mail.text + mail.html
    assert "\n" not in mail.subject
    assert "<script>" in mail.text  # plain text is not escaped


@given(st.text(max_size=300), st.text(max_size=300))
def test_subject_is_one_line_of_at_most_150_characters(name: str, plan: str) -> None:
    mail = SHIPPED.render("receipt", {**RECEIPT, "customer_name": name, "plan": plan})
    assert 0 < len(mail.subject) <= 150
    assert mail.subject.splitlines() == [mail.subject]
    assert mail.subject == strip_controls(mail.subject)
    assert "\r" not in mail.text
    mail.html.encode()
    assert mail.html.count("<h1") == 1


def test_long_subject_is_truncated_with_ellipsis(write: Write) -> None:
    mail = write(subject="{{ long }}\n\n").render("note", {"long": "x" * 200})
    assert mail.subject == "x" * 149 + "…"


def test_control_characters_are_removed_from_nested_facts(write: Write) -> None:
    templates = write(text="{% for event in events %}{{ event.reason }}{% endfor %}")
    assert templates.render("note", {"events": [{"reason": "a\x00b\nc\x1b[31m"}]}).text == "ab c[31m\n"


def test_money_and_dates_use_the_locale(write: Write) -> None:
    text = "{{ sum | money }} / {{ at | date }} / {{ at | datetime }}"
    facts = {"sum": {"amount": 123450, "currency": "EUR"}, "at": "2026-03-01T14:05:00Z"}
    assert (
        write(text=text).render("note", facts).text == "€1,234.50 / March 1, 2026 / March 1, 2026, 2:05\u202fPM UTC\n"
    )
    german = write(text=text, locale="de_DE").render("note", facts).text
    assert german == "1.234,50\xa0€ / 1. März 2026 / 1. März 2026, 14:05 UTC\n"


def test_null_is_empty_and_undefined_is_an_error(write: Write) -> None:
    text = "[{{ a | money }}{{ a | date }}{{ a | datetime }}{{ a | words }}]"
    assert write(text=text).render("note", {"a": None}).text == "[]\n"
    for name in ("money", "date", "datetime", "words"):
        with pytest.raises(RenderError, match="'a' is undefined"):
            write(text=f"{{{{ a | {name} }}}}").render("note", {})


@pytest.mark.parametrize(
    ("locale", "declared"), [("en_US", 'lang="en-US" dir="ltr"'), ("de-DE", 'lang="de-DE" dir="ltr"')]
)
def test_html_declares_its_language(locale: str, declared: str) -> None:
    assert declared in Templates(default_folder(), VENDOR, locale).render("receipt", RECEIPT).html


def test_right_to_left_locale_aligns_text_right() -> None:
    html = Templates(default_folder(), VENDOR, "ar_EG").render("receipt", RECEIPT).html
    assert 'dir="rtl"' in html
    assert "text-align: right" in html
    assert "text-align: left" not in html


def test_unknown_locale_is_refused() -> None:
    with pytest.raises(RenderError, match="SMT_LOCALE"):
        Templates(default_folder(), VENDOR, "xx_NOWHERE")


def test_inlining_keeps_row_loop_inside_its_table(write: Write) -> None:
    base = "<style>td { color: {{ vendor.colour }} } @media print { td { color: #111 } }</style>"
    html = "<table><tbody>{% for n in ns %}<tr><td>{{ n }}</td></tr>{% endfor %}</tbody></table>"
    rendered = write(html=html, base=base).render("note", {"ns": ["a", "b"]}).html
    cell = '<tr><td style="color: #1d4e89;">%s</td></tr>'
    assert rendered == f"<table><tbody>{cell % 'a'}{cell % 'b'}</tbody></table>"


def test_inlining_keeps_media_rules() -> None:
    html = SHIPPED.render("receipt", RECEIPT).html
    assert "@media (prefers-color-scheme: dark)" in html
    assert "@media (max-width: 480px)" in html
    assert 'style="margin: 0 0 16px;"' in html


@pytest.mark.parametrize("html", ["<p {% if a %}class=x{% endif %}>", "<title>{% if a %}x{% endif %}</title>"])
def test_tag_that_inlining_would_lose_is_refused(write: Write, html: str) -> None:
    with pytest.raises(RenderError, match=r"mail note: the template is faulty: .*allows no comment"):
        write(html=html).render("note", {"a": 1})


def test_error_for_faulty_template_names_the_mail(write: Write) -> None:
    with pytest.raises(RenderError, match="mail note: the template is faulty"):
        write(text="{% if %}").render("note", {})
    with pytest.raises(RenderError, match="mail note: the template is faulty"):
        write(text='{% extends "_base/other.txt" %}').render("note", {})


def test_templates_are_loaded_once(write: Write, tmp_path: Path) -> None:
    templates = write(text="before")
    templates.render("note", {})
    (tmp_path / "note" / "body.txt").write_text("after", "utf-8")
    assert templates.render("note", {}).text == "before\n"


def test_braces_in_vendor_name_are_plain_text(write: Write) -> None:
    write(text="{{ vendor.name }}", html="<p>{{ vendor.name }}</p>")
    folder = write(text="{{ vendor.name }}", html="<p>{{ vendor.name }}</p>")._folder
    templates = Templates(folder, replace(VENDOR, name="{{ 7 * 7 }} & {% Co"), "en_US")
    mail = templates.render("note", {})
    assert (mail.text, mail.html) == ("{{ 7 * 7 }} & {% Co\n", "<p>{{ 7 * 7 }} &amp; {% Co</p>")


@pytest.mark.parametrize(
    ("colour", "accent", "on_colour"),
    [("#1d4e89", "#1d4e89", "#fcfcfd"), ("#ffe000", "#24303c", "#24303c"), ("#ffffff", "#24303c", "#24303c")],
)
def test_text_colours_have_sufficient_contrast(colour: str, accent: str, on_colour: str) -> None:
    vendor = replace(VENDOR, colour=colour)
    assert (vendor.accent, vendor.on_colour) == (accent, on_colour)


def test_error_names_missing_example(write: Write) -> None:
    assert SHIPPED.example("receipt")["payment"] == "80021663DE681814L"
    with pytest.raises(RenderError, match=r"mail note: its example\.json cannot be read"):
        write().example("note")


def test_rendering_does_not_change_facts() -> None:
    facts: dict[str, Any] = {**RECEIPT, "customer_name": "www.evil.example"}
    mail = SHIPPED.render("receipt", facts)
    assert isinstance(mail, RenderedMail)
    assert facts == {**RECEIPT, "customer_name": "www.evil.example"}
