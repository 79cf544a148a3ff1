"""The policy's text is generated, stored and shown without a change of its wording."""

import re
from datetime import date

import pytest

from pipeline.policy import text
from pipeline.policy.clauses import PolicyOwner, document
from tests.support.recorded_samples import recorded

# The vendor of the published policy.
VENDOR = PolicyOwner("SMT Constructions", "SMT-CRM", "https://smtconstructions.com", "info@smtconstructions.com")
EFFECTIVE = date(2025, 5, 1)


@pytest.fixture(scope="session")
def published() -> list[str]:
    """Return the published policy, line by line."""
    file = recorded("privacy-policy.txt")
    lines = (re.sub(r"^\s*•\s*", "", line).strip() for line in file.read_text("utf-8").splitlines())
    return [line for line in lines if line and line not in ("Back to SMT-CRM", "Legal")]


def test_text_equals_published_policy(published: list[str]) -> None:
    written = text.plain(text.write(document(), VENDOR), EFFECTIVE)
    lines = [re.sub(r"^\s*•\s*", "", line).strip() for line in written.splitlines()]
    assert [line for line in lines if line] == published


def test_page_equals_published_policy(published: list[str]) -> None:
    page = text.html(text.write(document(), VENDOR), EFFECTIVE)
    words = re.sub(r"<[^>]+>", " ", page).replace("&amp;", "&")
    assert " ".join(words.split()) == re.sub(r" +([.,])", r"\1", " ".join(" ".join(published).split())).replace(
        "info@smtconstructions.com.", "info@smtconstructions.com ."
    )


def test_text_contains_names_of_vendor() -> None:
    other = PolicyOwner("Example Works", "Example Ledger", "https://works.example.com", "privacy@example.com")
    written = text.write(document(), other)
    assert "SMT" not in written.replace("SMTP", "")
    assert written.endswith("Example Works\nworks.example.com\n")


def test_vendor_name_is_escaped_in_page() -> None:
    page = text.html(
        text.write(document(), PolicyOwner("<script>x</script>", "A & B", "https://a.example", "a@b.example")),
        EFFECTIVE,
    )
    assert "<script" not in page
    assert "A &amp; B" in page


def test_page_has_headings_lists_and_mail_link() -> None:
    page = text.html(text.write(document(), VENDOR), EFFECTIVE)
    assert page.count("<h1>") == 1
    assert page.count("<h2>") == 10
    assert page.count("<h3>") == 4
    assert page.count("<li>") == 17
    assert '<a href="mailto:info@smtconstructions.com">' in page
    assert "script" not in page.replace("third-party tracking scripts", "").replace("subscription", "")


def test_text_from_file_loses_date_and_keeps_marks() -> None:
    file = "# Privacy Policy\n\nEffective Date: May 1, 2025\n\nWords.   \n\n\n\n  • one\n  • two\n\n"
    assert text.read(file) == "# Privacy Policy\n\nWords.\n\n- one\n- two\n"


def test_generated_text_is_read_unchanged() -> None:
    written = text.write(document(), VENDOR)
    assert text.read(written) == written
    assert text.read(text.plain(written, EFFECTIVE)).splitlines()[-1] == "smtconstructions.com"
