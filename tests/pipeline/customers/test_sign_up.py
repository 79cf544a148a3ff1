"""Sign-up: one form creates one account, even if it is submitted repeatedly or concurrently."""

from threading import Barrier, Thread

import pytest

from pipeline.customers import accounts
from pipeline.customers.accounts import SignUpData
from pipeline.customers.rate_limit import PER_HOUR
from pipeline.customers.sign_up import RateLimitError, SignUp, SignUpForm
from pipeline.db.models import Customer, Link, RateLimitCounter
from pipeline.paypal.errors import PaypalUnavailableError
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from tests.support.pipeline_under_test import PipelineUnderTest

FORM = SignUpForm(SignUpData("Ada Example", "ada@example.com"), "P-1", news=False)


class PayPal:
    """Simulated PayPal: creates one subscription per request id."""

    def __init__(self, failures: int = 0) -> None:
        self.created: dict[str, str] = {}
        self._failures = failures

    def create_subscription(
        self, plan: str, custom_id: str, request_id: str, *, return_url: str, cancel_url: str
    ) -> tuple[str, str]:
        if self._failures:
            self._failures -= 1
            raise PaypalUnavailableError("PayPal answered 500")
        self.created[request_id] = custom_id
        return "I-1", f"https://www.paypal.com/webapps/billing/subscriptions?ba_token={request_id}"


def service(pipeline: PipelineUnderTest, paypal: PayPal) -> SignUp:
    return SignUp(
        pipeline.database, pipeline.master, pipeline.clock, paypal, {"Cloud": "P-1"}, "https://billing.example.com"
    )


def test_concurrent_submissions_create_one_account(pipeline: PipelineUnderTest) -> None:
    paypal, start, answers = PayPal(), Barrier(6, timeout=30), list[str]()

    def send() -> None:
        start.wait()
        answers.append(service(pipeline, paypal).sign_up(FORM, "token", "192.0.2.7"))

    threads = [Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == len(paypal.created) == pipeline.count(Customer) == 1
    assert [row.count for row in pipeline.rows(RateLimitCounter)] == [1]


def test_repeated_form_after_paypal_error_uses_same_account(pipeline: PipelineUnderTest) -> None:
    paypal = PayPal(failures=1)
    with pytest.raises(PaypalUnavailableError):
        service(pipeline, paypal).sign_up(FORM, "token", "192.0.2.7")
    service(pipeline, paypal).sign_up(FORM, "token", "192.0.2.7")
    [customer] = pipeline.rows(Customer)
    with pipeline.database.transaction() as session:
        known = accounts.personal_data(session, pipeline.keyring(session), customer.id)
    assert list(paypal.created.values()) == [known["custom"]]


def test_repeated_form_after_erasure_creates_new_account(pipeline: PipelineUnderTest) -> None:
    paypal = PayPal()
    service(pipeline, paypal).sign_up(FORM, "token", "192.0.2.7")
    [erased] = [row.id for row in pipeline.rows(Customer)]
    workflow.erase_now(pipeline.database, pipeline.master, pipeline.clock, ErasureDependencies(), erased, "operator")
    for _ in range(2):
        service(pipeline, paypal).sign_up(FORM, "token", "192.0.2.7")
    [new] = [row.id for row in pipeline.rows(Customer) if not row.erased_at]
    assert new != erased
    with pipeline.database.transaction() as session:
        known = accounts.personal_data(session, pipeline.keyring(session), new)
    assert (known["entered_email"], list(paypal.created.values())[1:]) == (FORM.person.email, [known["custom"]])


def test_rate_limited_sign_up_stores_nothing(pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PER_HOUR, "sign_up", 1)
    service(pipeline, PayPal()).sign_up(FORM, "one", "192.0.2.7")
    with pytest.raises(RateLimitError):
        service(pipeline, PayPal()).sign_up(FORM, "two", "192.0.2.7")
    assert (pipeline.count(Customer), pipeline.count(Link)) == (1, 2), (
        "a link for the form, and one that confirms the address"
    )


def test_form_repr_contains_no_personal_data() -> None:
    assert "ada" not in repr(FORM).lower()
