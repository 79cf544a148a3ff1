"""Prepare a PayPal account step by step: credentials, webhook, plans, test event. Each step is one result."""

import time
from collections.abc import Callable, Iterator

from pipeline.app.container import Container
from pipeline.app.doctor.connection_checks import check_paypal
from pipeline.app.doctor.paypal_checks import PAYPAL_ERRORS, check_paypal_plans, examine_webhook, webhook_result
from pipeline.app.doctor.result import CheckResult
from pipeline.operations import test_event, webhook_check
from pipeline.operations.webhook_check import WebhookState
from pipeline.paypal.webhook_settings import Webhook

Confirm = Callable[
    [str], None
]  # gets what will be changed; raises OperatorError or UsageError if that is not confirmed


def set_up(
    container: Container, confirm: Confirm, sleep: Callable[[float], None] = time.sleep
) -> Iterator[CheckResult]:
    """Yield the result of each step. Ends after a step without which the next one is impossible.

    Raises OperatorError or UsageError if a change is not confirmed, or if the app has no free webhook.
    """
    container.settings.require("paypal_client_id", "paypal_client_secret", "public_url")
    credentials = check_paypal(container)
    yield credentials
    if credentials.state == "fail":
        return
    try:
        webhook = repair_webhook(container, examine_webhook(container), confirm)
    except PAYPAL_ERRORS as error:
        yield CheckResult("webhook", "fail", str(error), "fix this first, then run this command again")
        return
    yield _webhook_step(container, webhook)
    yield from check_paypal_plans(container) or [CheckResult("plans", "warn", "SMT_PLANS is not set", PLANS_ADVICE)]
    yield _test_event_step(container, webhook, sleep)


PLANS_ADVICE = "no one can sign up until you set it; see: smt-billing paypal plans list"


def repair_webhook(container: Container, state: WebhookState, confirm: Confirm) -> Webhook:
    """Repair the webhook if it needs that, after `confirm`. Return it."""
    if state.webhook is None:
        confirm(f"Create a webhook at PayPal for {state.url}.")
    elif state.missing or state.extra:
        confirm(f"Replace the event types of webhook {state.webhook.id}: {_changes(state)}.")
    return webhook_check.repair(container.paypal, state, webhook_check.needed_types(container.handlers))


def _changes(state: WebhookState) -> str:
    parts = (("add", state.missing), ("remove", state.extra))
    return "; ".join(f"{verb} {', '.join(sorted(types))}" for verb, types in parts if types)


def _webhook_step(container: Container, webhook: Webhook) -> CheckResult:
    if webhook.id not in container.settings.paypal_webhook_id:
        ids = ",".join((*container.settings.paypal_webhook_id, webhook.id))
        return CheckResult(
            "webhook",
            "warn",
            f"{webhook.id} sends {len(webhook.types)} event types to {webhook.url}",
            f"set SMT_PAYPAL_WEBHOOK_ID={ids}, restart the web role, then run this command again",
        )
    return webhook_result(examine_webhook(container))


def _test_event_step(container: Container, webhook: Webhook, sleep: Callable[[float], None]) -> CheckResult:
    name, settings = "test event", container.settings
    if settings.is_live:
        return CheckResult(name, "ok", "not sent: PayPal's live API has no test events; the first real event proves it")
    if webhook.id not in settings.paypal_webhook_id:
        return CheckResult(name, "warn", "not sent, because the webhook id is not set yet", "set it first")
    try:
        arrived = test_event.send_and_wait(container.paypal, webhook.id, settings.data_dir, container.clock, sleep)
    except PAYPAL_ERRORS as error:
        return CheckResult(name, "warn", str(error), "run this command again")
    if arrived is None:
        return CheckResult(name, "fail", f"not seen by a web role of {settings.data_dir.absolute()}", NOT_SEEN_ADVICE)
    return CheckResult(name, "ok", f"PayPal's test event arrived at {arrived:%H:%M:%S} UTC, and its signature is valid")


NOT_SEEN_ADVICE = (
    "check that smt-billing run or web is running with these settings, and that the webhook's URL reaches it from the "
    "internet over HTTPS"
)
