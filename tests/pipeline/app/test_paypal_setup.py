"""`paypal setup` against the simulated PayPal: the webhook is created and repaired, plans are compared, a test event arrives."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from handlers import HANDLERS
from pipeline.app import paypal_setup
from pipeline.app.container import Container
from pipeline.app.doctor.paypal_checks import check_paypal_plans, check_paypal_webhook, examine_webhook
from pipeline.errors import OperatorError
from pipeline.operations import heartbeat, test_event, webhook_check
from pipeline.operations.plan_file import read_plan_file
from pipeline.operations.plan_list import list_plans
from pipeline.operations.plan_sync import sync
from pipeline.paypal import webhook_settings
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.world import PaypalState
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts

PUBLIC = "https://billing.example.org"


class Account:
    """A PayPal account, and the container of an installation that uses it."""

    def __init__(self, pipeline: PipelineUnderTest, stack: ExitStack) -> None:
        self.pipeline = pipeline
        self.base = stack.enter_context(FakePaypalApi(PaypalState(), clock=pipeline.clock).serve())
        self.container = self.with_settings()

    def with_settings(self, **settings: Any) -> Container:
        values = {
            "paypal_base_url": self.base, "paypal_client_id": "simulator", "paypal_client_secret": "simulator-secret",
            "public_url": PUBLIC, "plans": {"Cloud": CLOUD.id}, "paypal_webhook_id": (),
        }  # fmt: skip
        return make_parts(self.pipeline.url, self.pipeline.folder, self.pipeline.clock, HANDLERS, **(values | settings))

    def repair(self, container: Container | None = None) -> str:
        used = container or self.container
        return paypal_setup.repair_webhook(used, examine_webhook(used), lambda _: None).id


@pytest.fixture
def account(sqlite_pipeline: PipelineUnderTest) -> Iterator[Account]:
    with ExitStack() as stack:
        yield Account(sqlite_pipeline, stack)


def needed() -> frozenset[str]:
    return webhook_check.needed_types(HANDLERS)


def test_webhook_is_created_with_exactly_the_handled_types(account: Account) -> None:
    before = examine_webhook(account.container)
    assert before.webhook is None
    assert [each.name for each in check_paypal_webhook(account.container)] == ["webhook"]
    id = account.repair()
    [webhook] = webhook_settings.list_webhooks(account.container.paypal)
    assert (webhook.id, webhook.url, webhook.types) == (id, f"{PUBLIC}/webhooks/paypal", needed())
    assert not any(each.startswith("READ.") for each in webhook.types)
    [problem] = examine_webhook(account.container).problems
    assert f"SMT_PAYPAL_WEBHOOK_ID does not contain {id}" in problem
    assert examine_webhook(account.with_settings(paypal_webhook_id=(id,))).problems == ()


def test_wrong_types_are_replaced(account: Account) -> None:
    paypal = account.container.paypal
    created = webhook_settings.create_webhook(
        paypal, f"{PUBLIC}/webhooks/paypal", ["PAYMENT.SALE.COMPLETED", "VAULT.PAYMENT-TOKEN.CREATED"]
    )
    state = examine_webhook(account.container)
    assert state.extra == {"VAULT.PAYMENT-TOKEN.CREATED"}
    assert state.missing == needed() - {"PAYMENT.SALE.COMPLETED"}
    assert account.repair() == created.id
    assert examine_webhook(account.with_settings(paypal_webhook_id=(created.id,))).problems == ()


def test_eleventh_webhook_is_explained(account: Account) -> None:
    for number in range(10):
        webhook_settings.create_webhook(account.container.paypal, f"https://other{number}.example.org/hook", needed())
    with pytest.raises(
        OperatorError, match=r"PayPal allows 10 webhooks .* https://other9\.example\.org/hook.*Delete one"
    ):
        account.repair()


def test_id_of_another_app_is_named(account: Account) -> None:
    account.repair()
    problems = examine_webhook(account.with_settings(paypal_webhook_id=("1AB23456CD789012E",))).problems
    assert any("1AB23456CD789012E, which is no webhook of this app" in each for each in problems)


def test_refused_change_changes_nothing(account: Account) -> None:
    def refuse(_: str) -> None:
        raise OperatorError("not confirmed")

    with pytest.raises(OperatorError, match="not confirmed"):
        paypal_setup.repair_webhook(account.container, examine_webhook(account.container), refuse)
    assert webhook_settings.list_webhooks(account.container.paypal) == []


def test_plans_are_listed_with_their_price(account: Account) -> None:
    found = {plan.id: plan for plan in list_plans(account.container.paypal, {"Cloud": CLOUD.id}, "en_US")}
    assert found[CLOUD.id].price == "€29.00 every month"
    assert (found[CLOUD.id].status, found[CLOUD.id].offered_as) == ("ACTIVE", "Cloud")
    assert [each.state for each in check_paypal_plans(account.container)] == ["ok"]
    [unknown] = check_paypal_plans(account.with_settings(plans={"Gone": "P-0000UNKNOWN00000000"}))
    assert unknown.state == "fail"
    assert "PayPal has no such plan" in unknown.text


def test_plan_file_is_compared_and_created_once(account: Account, tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(
        '[[product]]\nname = "Example App"\n[[product.plan]]\nname = "Team"\ncurrency = "EUR"\nprice = "10.00"\n'
        'every = "1 month"\n'
        'tax = "19"\ntax_included = false\n'
    )
    wanted, paypal = read_plan_file(file), account.container.paypal
    assert len(sync(paypal, wanted, create=False).differences) == 2
    created = sync(paypal, wanted, create=True)
    assert (sorted(created.created), created.differences) == (["Example App", "Team"], [])
    again = sync(paypal, wanted, create=True)
    assert (again.created, list(again.same), again.differences) == ({}, ["Team"], [])
    file.write_text(file.read_text().replace("10.00", "12.00"))
    [difference] = sync(paypal, read_plan_file(file), create=True).differences
    assert "the file says 12.00, PayPal has 10.0" in difference


def test_set_up_waits_until_the_test_event_has_arrived(account: Account) -> None:
    id = account.repair()
    container = account.with_settings(paypal_webhook_id=(id,))
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        account.pipeline.clock.advance(timedelta(seconds=seconds))
        if len(waited) == 3:  # the web role writes its heartbeat
            container.dependencies.observe(test_event.NAME, answered=True)
            heartbeat.write(container.settings.data_dir, "web", account.pipeline.now, container.dependencies)

    steps = {step.name: step for step in paypal_setup.set_up(container, lambda _: None, sleep)}
    assert {name: step.state for name, step in steps.items()} == {
        "PayPal": "ok", "webhook": "ok", "plans": "ok", "test event": "ok",
    }  # fmt: skip
    assert len(waited) == 3


def test_set_up_says_what_to_do_if_the_test_event_does_not_arrive(account: Account) -> None:
    container = account.with_settings(paypal_webhook_id=(account.repair(),))
    steps = list(
        paypal_setup.set_up(
            container, lambda _: None, lambda seconds: account.pipeline.clock.advance(timedelta(seconds=seconds))
        )
    )
    assert (steps[-1].name, steps[-1].state) == ("test event", "fail")
    assert "reaches it from the internet" in steps[-1].advice


def test_wrong_credentials_end_the_set_up(account: Account) -> None:
    container = account.with_settings(paypal_client_secret="wrong")  # noqa: S106 - of the simulator
    [step] = paypal_setup.set_up(container, lambda _: None, lambda _: None)
    assert (step.name, step.state) == ("PayPal", "fail")
