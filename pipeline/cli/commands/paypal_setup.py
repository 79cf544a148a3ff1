"""`smt-billing paypal setup`, `paypal webhook` and `paypal plans`: prepare and check the account at PayPal."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.app import paypal_setup
from pipeline.app.container import Container
from pipeline.app.doctor.paypal_checks import examine_webhook
from pipeline.cli import output
from pipeline.cli.confirmation import Yes, confirm
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.operations import plan_list, plan_sync
from pipeline.operations.plan_file import read_plan_file
from pipeline.operations.webhook_check import WebhookState

webhook = group()
plans = group()


def setup(ctx: typer.Context, yes: Yes = False, json: Json = False) -> None:
    """Check the credentials, create or repair the webhook, compare SMT_PLANS with PayPal, and in the sandbox let PayPal
    send a test event. Asks before it changes the webhook. Exit 1 if a step fails.

    JSON: a list of objects with name, state, found and advice.
    """
    container = _container(ctx)
    steps = []
    for step in paypal_setup.set_up(container, lambda change: confirm(change, yes=yes)):
        steps.append({"name": step.name, "state": step.state, "found": step.text, "advice": step.advice})
        if not json:
            output.print_line(
                f"{step.state:4}  {step.name}: {step.text}" + (f"\n      → {step.advice}" * bool(step.advice))
            )
    if json:
        output.print_json(steps)
    if any(step["state"] == "fail" for step in steps):
        raise typer.Exit(1)


@webhook.command()
def check(ctx: typer.Context, json: Json = False) -> None:
    """Compare the webhook at PayPal with the event types that have a handler. Changes nothing. Exit 1 if it differs.

    JSON: an object with url, id, missing, extra, not_offered, others and problems.
    """
    state = examine_webhook(_container(ctx))
    _print_webhook(state, json=json)
    if state.problems:
        raise typer.Exit(1)


@webhook.command()
def repair(ctx: typer.Context, yes: Yes = False, json: Json = False) -> None:
    """Create the webhook, or replace its event types by exactly those that have a handler. Asks before it changes anything.

    JSON: as for `paypal webhook check`, after the repair.
    """
    container = _container(ctx)
    paypal_setup.repair_webhook(container, examine_webhook(container), lambda change: confirm(change, yes=yes))
    state = examine_webhook(container)
    _print_webhook(state, json=json)
    if state.problems:
        raise typer.Exit(1)


@plans.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List the plans at PayPal with price and status. Exit 1 if no one can subscribe to a plan of SMT_PLANS.

    JSON: an object with plans (id, name, product, status, cycles, offered_as) and problems.
    """
    container = _container(ctx)
    settings = container.settings
    found = plan_list.list_plans(container.paypal, settings.plans, settings.locale)
    problems = plan_list.plan_problems(found, settings.plans)
    if json:
        output.print_json({"plans": [_plan_json(each) for each in found], "problems": problems})
    else:
        rows = [(each.id, each.name, each.status, each.price, each.offered_as) for each in found]
        output.print_table(("id", "name", "status", "price", "in SMT_PLANS as"), rows)
        for problem in problems:
            output.print_line(f"→ {problem}")
    if problems:
        raise typer.Exit(1)


@plans.command()
def sync(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="TOML file with products and plans; docs/going-live.md shows the format.")
    ],
    create: Annotated[
        bool, typer.Option("--create", help="Create at PayPal what it does not have. Asks before.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Compare the products and plans of a file with PayPal. Never changes an existing plan. Exit 1 if there are differences.

    JSON: an object with created and same (id by name) and differences.
    """
    wanted = read_plan_file(file)
    if create:
        confirm(f"Create the products and plans of {file} that PayPal does not have.", yes=yes)
    container = _container(ctx)
    result = plan_sync.sync(container.paypal, wanted, create=create)
    if json:
        output.print_json({"created": result.created, "same": result.same, "differences": result.differences})
    else:
        rows = [(state, name, id) for state in ("created", "same") for name, id in getattr(result, state).items()]
        output.print_table(("", "name", "id"), rows)
        for difference in result.differences:
            output.print_line(f"→ {difference}")
    if result.differences:
        raise typer.Exit(1)


def _container(ctx: typer.Context) -> Container:
    container = container_of(context_of(ctx))
    container.settings.require("paypal_client_id", "paypal_client_secret")
    return container


def _print_webhook(state: WebhookState, *, json: bool) -> None:
    shown: dict[str, Any] = {
        "url": state.url,
        "id": state.webhook.id if state.webhook else None,
        "missing": sorted(state.missing),
        "extra": sorted(state.extra),
        "not_offered": sorted(state.not_offered),
        "others": [{"id": each.id, "url": each.url} for each in state.others],
        "problems": list(state.problems),
    }
    if json:
        output.print_json(shown)
        return
    lines = {"missing types": shown["missing"], "types not needed": shown["extra"], "not offered": shown["not_offered"]}
    others = [f"{each.id} {each.url}" for each in state.others]
    output.print_pairs(
        {"URL": state.url, "id": shown["id"] or "none"}
        | {name: ", ".join(types) or None for name, types in (lines | {"other webhooks": others}).items()}
    )
    for problem in state.problems:
        output.print_line(f"→ {problem}")


def _plan_json(plan: plan_list.ListedPlan) -> dict[str, Any]:
    return {
        "id": plan.id, "name": plan.name, "product": plan.product, "status": plan.status, "cycles": list(plan.cycles),
        "offered_as": plan.offered_as,
    }  # fmt: skip
