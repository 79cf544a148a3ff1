"""Compare the app's webhooks at PayPal with what this installation needs, and repair the difference."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from pipeline.errors import OperatorError
from pipeline.paypal import webhook_settings
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.webhook_settings import ALL_TYPES, MOST_WEBHOOKS, Webhook

WEBHOOK_PATH = "/webhooks/paypal"


@dataclass(frozen=True, slots=True)
class WebhookState:
    """What PayPal has and what is needed.

    `webhook`: the one with our URL, None if there is none. `missing`: types that it does not send. `extra`: types that we
    do not need; they are stored without effect. `not_offered`: types that we need but PayPal does not offer.
    `problems` are sentences for the operator; [] means that all is well.
    """

    url: str
    webhook: Webhook | None
    others: tuple[Webhook, ...]
    missing: frozenset[str]
    extra: frozenset[str]
    not_offered: frozenset[str]
    problems: tuple[str, ...]


def examine(paypal: PaypalApi, public_url: str, needed: Iterable[str], configured: Iterable[str]) -> WebhookState:
    """Compare. `needed`: the event types with a handler. `configured`: the ids in SMT_PAYPAL_WEBHOOK_ID.

    Raises PaypalRejectedError or PaypalUnavailableError.
    """
    webhooks, offered = webhook_settings.list_webhooks(paypal), webhook_settings.offered_types(paypal)
    url = public_url + WEBHOOK_PATH
    ours = next((each for each in webhooks if _same(each.url, url)), None)
    wanted = frozenset(needed)
    sent = (offered if ALL_TYPES in ours.types else ours.types) if ours else frozenset()
    not_offered = wanted - offered if offered else frozenset()
    state = WebhookState(
        url=url,
        webhook=ours,
        others=tuple(each for each in webhooks if each is not ours),
        missing=wanted - not_offered - sent,
        extra=sent - wanted,
        not_offered=not_offered,
        problems=(),
    )
    problems = tuple(problem for rule in RULES if (problem := rule(state, frozenset(configured))))
    return replace(state, problems=problems)


def needed_types(handled: Iterable[str]) -> frozenset[str]:
    """Return the event types that PayPal must send: those with a handler, without the answers to look-ups and actions."""
    return frozenset(each for each in handled if not each.startswith(("READ.", "ACTION.")))


def repair(paypal: PaypalApi, state: WebhookState, needed: Iterable[str]) -> Webhook:
    """Create the webhook, or replace its event types by exactly those that are needed. Return it.

    Raises OperatorError if the app has no free webhook, PaypalRejectedError or PaypalUnavailableError.
    """
    types = frozenset(needed) - state.not_offered
    if state.webhook is None:
        _require_free_place(state)
        return webhook_settings.create_webhook(paypal, state.url, types)
    if state.missing or state.extra:
        webhook_settings.replace_types(paypal, state.webhook.id, types)
    return Webhook(state.webhook.id, state.webhook.url, types)


def _require_free_place(state: WebhookState) -> None:
    if len(state.others) >= MOST_WEBHOOKS:
        listed = "; ".join(f"{each.id} {each.url}" for each in state.others)
        raise OperatorError(
            f"PayPal allows {MOST_WEBHOOKS} webhooks for an app, and this app has {len(state.others)}: {listed}. "
            "Delete one in PayPal's dashboard (Apps & Credentials, your app, Webhooks), then run this command again"
        )


def _is_missing(state: WebhookState, _: frozenset[str]) -> str:
    return (
        ""
        if state.webhook
        else f"no webhook of this app has the URL {state.url}; run: smt-billing paypal webhook repair"
    )


def _lacks_types(state: WebhookState, _: frozenset[str]) -> str:
    if state.webhook is None or not state.missing:
        return ""
    return f"webhook {state.webhook.id} does not send {', '.join(sorted(state.missing))}; run: smt-billing paypal webhook repair"


def _is_not_configured(state: WebhookState, configured: frozenset[str]) -> str:
    if state.webhook is None or state.webhook.id in configured:
        return ""
    return f"SMT_PAYPAL_WEBHOOK_ID does not contain {state.webhook.id}, so its events are refused; set it and restart"


def _is_unknown(state: WebhookState, configured: frozenset[str]) -> str:
    known = {each.id for each in (*state.others, *([state.webhook] if state.webhook else []))}
    unknown = sorted(configured - known)
    if not unknown:
        return ""
    return f"SMT_PAYPAL_WEBHOOK_ID contains {', '.join(unknown)}, which is no webhook of this app; remove it"


def _same(one: str, other: str) -> bool:
    """Return whether two URLs are equal. PayPal keeps a final slash."""
    return one.rstrip("/").casefold() == other.rstrip("/").casefold()


RULES: tuple[Callable[[WebhookState, frozenset[str]], str], ...] = (
    _is_missing,
    _lacks_types,
    _is_not_configured,
    _is_unknown,
)
