"""Checks of `smt-billing doctor` that ask PayPal about the webhook and the plans. They change nothing."""

from pipeline.app.container import Container
from pipeline.app.doctor.result import CheckResult
from pipeline.operations import webhook_check
from pipeline.operations.plan_list import list_plans, plan_problems
from pipeline.operations.webhook_check import WebhookState
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError
from pipeline.settings import SettingsError

PAYPAL_ERRORS = (PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError, SettingsError)


def check_paypal_webhook(container: Container) -> list[CheckResult]:
    """Check that PayPal sends the event types that we handle to our URL. [] without credentials."""
    if not container.settings.has_paypal_credentials:
        return []
    if not container.settings.public_url:
        return [CheckResult("webhook", "warn", "SMT_PUBLIC_URL is not set, so the webhook's URL is unknown", "set it")]
    try:
        return [webhook_result(examine_webhook(container))]
    except PAYPAL_ERRORS as error:
        return [CheckResult("webhook", "warn", str(error), "run: smt-billing paypal webhook check")]


def check_paypal_plans(container: Container) -> list[CheckResult]:
    """Check that customers can subscribe to each plan of SMT_PLANS. [] without credentials or plans."""
    settings = container.settings
    if not settings.has_paypal_credentials or not settings.plans:
        return []
    try:
        problems = plan_problems(list_plans(container.paypal, settings.plans, settings.locale), settings.plans)
    except PAYPAL_ERRORS as error:
        return [CheckResult("plans", "warn", str(error), "run: smt-billing paypal plans list")]
    if problems:
        return [CheckResult("plans", "fail", "; ".join(problems), "see: smt-billing paypal plans list")]
    return [CheckResult("plans", "ok", f"all {len(settings.plans)} plans of SMT_PLANS are active at PayPal")]


def examine_webhook(container: Container) -> WebhookState:
    """Compare the webhook at PayPal with the handlers and the settings. Raises PAYPAL_ERRORS."""
    needed = webhook_check.needed_types(container.handlers)
    settings = container.settings
    return webhook_check.examine(container.paypal, settings.pages_url, needed, settings.paypal_webhook_id)


def webhook_result(state: WebhookState) -> CheckResult:
    """Return the comparison as one line."""
    if state.problems:
        return CheckResult("webhook", "fail", "; ".join(state.problems), "run: smt-billing paypal webhook repair")
    assert state.webhook is not None  # noqa: S101 - without a webhook there is a problem
    sent = f"{state.webhook.id} sends {len(state.webhook.types)} event types to {state.url}"
    return CheckResult("webhook", "ok", sent)
