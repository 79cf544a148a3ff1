"""The record of processing (GDPR article 30) follows the settings."""

from pipeline.app.from_settings import policy_owner
from pipeline.policy.processing_record import build_record, format_record
from tests.support.pipeline_under_test import made

VENDOR = {"vendor_name": "Example Works", "product_name": "Example Ledger", "vendor_url": "https://works.example.com"}


def test_product_elsewhere_is_a_transfer() -> None:
    elsewhere = made(**VENDOR, product_url="https://hooks.example.net/x")
    assert "hooks.example.net" in build_record(elsewhere, policy_owner(elsewhere))["transfers"]
    here = made(**VENDOR, product_command="/usr/local/bin/product")
    assert build_record(here, policy_owner(here))["transfers"] == "only to PayPal, the customer's own payment service"


def test_copies_outside_the_database_have_their_periods() -> None:
    settings = made(**VENDOR, backup_days=14, backup_keys_days=5)
    record = build_record(settings, policy_owner(settings))
    periods = {each["data"]: each["period"] for each in record["periods"]}
    assert (periods["copies of the database"], periods["copies of the keys"]) == ("14 days", "5 days")
    assert "the relay's queue" in periods
    assert any("copies of the database: 14 days" in line for _, lines in format_record(record) for line in lines)
