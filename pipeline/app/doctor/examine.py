"""Runs all checks of `smt-billing doctor`. A check reports problems as results; it does not raise them."""

from collections.abc import Callable

from pipeline.app.container import Container
from pipeline.app.doctor.connection_checks import check_broker, check_paypal, check_relay
from pipeline.app.doctor.database_checks import check_database
from pipeline.app.doctor.file_checks import (
    check_certificates,
    check_data_folder,
    check_env_file,
    check_master_key,
    check_trust_anchors,
)
from pipeline.app.doctor.paypal_checks import check_paypal_plans, check_paypal_webhook
from pipeline.app.doctor.program_checks import check_interpreter, check_templates
from pipeline.app.doctor.result import CheckResult
from pipeline.app.doctor.settings_checks import check_other_settings, check_proxies, check_settings
from pipeline.app.doctor.unfinished_checks import check_roles, check_servers
from pipeline.settings import SettingsError

LAST_CHECKS = (
    check_other_settings, check_proxies, check_broker, check_relay, check_paypal, check_certificates, check_trust_anchors,
    check_interpreter, check_templates, check_servers, check_roles,
)  # fmt: skip


def run_checks(open_container: Callable[[], Container]) -> list[CheckResult]:
    """Run all checks. A check whose precondition failed is omitted; with invalid settings only that is reported."""
    try:
        container = open_container()
        settings = check_settings(container)
    except SettingsError as error:
        return [CheckResult("settings", "fail", str(error), "fix the settings listed, in the environment or in .env")]
    first = (settings, check_env_file(container), check_data_folder(container), check_master_key(container))
    last = [check(container) for check in LAST_CHECKS]
    return [*first, *check_database(container), *last, *_check_account(container, last)]


def _check_account(container: Container, results: list[CheckResult]) -> list[CheckResult]:
    """Check the webhook and the plans at PayPal, unless PayPal did not answer a moment ago."""
    if any(each.name == "PayPal" and each.state == "fail" for each in results):
        return []
    return [*check_paypal_webhook(container), *check_paypal_plans(container)]
