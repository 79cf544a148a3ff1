"""Objects that are created from the settings."""

import pytest

from pipeline.app.from_settings import MAIL_ID_LENGTH, export_issuer, sender
from pipeline.outbox.store import NewMail
from pipeline.settings import SettingsError
from tests.support.pipeline_under_test import PipelineUnderTest, made


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("Bounces.Example.COM", "bounces.example.com"),  # as the relay logs it: its log is searched for this sender
        ("bücher.example", "xn--bcher-kva.example"),
        (f"{'d' * 63}.{'e' * 63}.{'f' * 63}.{'g' * 29}.com", f"{'d' * 63}.{'e' * 63}.{'f' * 63}.{'g' * 29}.com"),
    ],
)
def test_envelope_domain_is_written_as_relay_logs_it(written: str, used: str) -> None:
    assert sender(made(mail_from="billing@example.com", bounce_domain=written)).envelope_domain == used
    if len(written) < 60:
        assert sender(made(mail_from=f"billing@{written}")).envelope_domain == used


@pytest.mark.parametrize("domain", ["a b", "a@b.com", f"{'d' * 63}.{'e' * 63}.{'f' * 63}.{'g' * 30}.com"])
def test_domain_that_makes_no_envelope_sender_is_refused(domain: str) -> None:
    with pytest.raises(SettingsError, match="SMT_BOUNCE_DOMAIN: mails cannot be sent from the domain"):
        sender(made(mail_from="billing@example.com", bounce_domain=domain))


def test_sender_whose_envelope_sender_is_too_long_is_refused() -> None:
    address = f"b@{'d' * 63}.{'e' * 63}.{'f' * 63}.{'g' * 30}.com"
    with pytest.raises(SettingsError, match="SMT_MAIL_FROM: mails cannot be sent from the domain"):
        sender(made(mail_from=address))


def test_mail_ids_have_the_length_that_the_limit_assumes(sqlite_pipeline: PipelineUnderTest) -> None:
    [mail_id] = sqlite_pipeline.owe(NewMail("receipt", "one", None, {}))
    assert len(mail_id) == MAIL_ID_LENGTH


def test_copy_says_everything_that_article_15_of_the_gdpr_names() -> None:
    """Article 15(1)(a) to (h): purposes, categories, recipients, periods, rights, complaint, source, automated decisions."""
    found = export_issuer(made(country="DE", product_url="https://product.example.com/hook")).processing
    text = " ".join(line for lines in found.values() for line in lines)
    assert list(found) == [
        "Why we process your data",
        "Which categories of data",
        "Who receives it",
        "How long we keep it",
        "Where it comes from",
        "Automated decisions",
        "Your rights",
    ]
    assert all(found.values())
    for words in (
        "contract",
        "PayPal",
        "product.example.com",
        "8 years",
        "2 years",
        "object",
        "restricted",
        "complain",
    ):
        assert words in text
    assert "_" not in "".join(found["Which categories of data"]), "in words, not in names of columns"
