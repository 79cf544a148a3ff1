import re
from datetime import date

import pytest

from pipeline.policy import text
from pipeline.policy.clauses import PolicyOwner, document
from tests.support.recorded_samples import recorded

# The vendor whose policy it was written for.
VENDOR = PolicyOwner("SMT Constructions", "SMT-CRM", "https://smtconstructions.com", "info@smtconstructions.com")
BEGAN = date(2025, 5, 1)


@pytest.fixture(scope="session")
def published() -> list[str]:
    """The policy as it was published, line by line."""
    file = recorded("privacy-policy.txt")
    lines = (re.sub(r"^\s*•\s*", "", line).strip() for line in file.read_text("utf-8").splitlines())
    return [line for line in lines if line and line not in ("Back to SMT-CRM", "Legal")]


def test_the_text_says_what_was_published_line_by_line_and_no_more(published: list[str]) -> None:
    written = text.plain(text.write(document(), VENDOR), BEGAN)
    lines = [re.sub(r"^\s*•\s*", "", line).strip() for line in written.splitlines()]
    assert [line for line in lines if line] == published


def test_the_page_says_the_same(published: list[str]) -> None:
    page = text.html(text.write(document(), VENDOR), BEGAN)
    words = re.sub(r"<[^>]+>", " ", page).replace("&amp;", "&")
    assert " ".join(words.split()) == re.sub(r" +([.,])", r"\1", " ".join(" ".join(published).split())).replace(
        "info@smtconstructions.com.", "info@smtconstructions.com ."
    )


def test_another_vendor_has_their_own_names_in_it() -> None:
    other = PolicyOwner("Example Works", "Example Ledger", "https://works.example.com", "privacy@example.com")
    written = text.write(document(), other)
    assert "SMT" not in written.replace("SMTP", "")
    assert written.endswith("Example Works\nworks.example.com\n")


def test_a_vendors_name_cannot_put_marks_into_the_page() -> None:
    page = text.html(
        text.write(document(), PolicyOwner("<script>x</script>", "A & B", "https://a.example", "a@b.example")), BEGAN
    )
    assert "<script" not in page
    assert "A &amp; B" in page


def test_the_page_has_headings_lists_and_a_link_to_write_to() -> None:
    page = text.html(text.write(document(), VENDOR), BEGAN)
    assert page.count("<h1>") == 1
    assert page.count("<h2>") == 10
    assert page.count("<h3>") == 4
    assert page.count("<li>") == 17
    assert '<a href="mailto:info@smtconstructions.com">' in page
    assert "script" not in page.replace("third-party tracking scripts", "").replace("subscription", "")


def test_a_text_from_a_file_is_kept_without_date_and_with_marks() -> None:
    file = "# Privacy Policy\n\nEffective Date: May 1, 2025\n\nWords.   \n\n\n\n  • one\n  • two\n\n"
    assert text.read(file) == "# Privacy Policy\n\nWords.\n\n- one\n- two\n"


def test_what_is_written_is_read_as_the_same() -> None:
    written = text.write(document(), VENDOR)
    assert text.read(written) == written
    assert text.read(text.plain(written, BEGAN)).splitlines()[-1] == "smtconstructions.com"
