"""One form is one account, whoever sends it and however often at once, on both databases."""

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
from tests.support.pipeline_under_test import River

ASKED = SignUpForm(SignUpData("Ada Example", "ada@example.com"), "P-1", news=False)


class PayPal:
    """Begins one subscription for a request id, as PayPal does."""

    def __init__(self, faults: int = 0) -> None:
        self.begun: dict[str, str] = {}
        self._faults = faults

    def create_subscription(
        self, plan: str, custom_id: str, request_id: str, *, return_url: str, cancel_url: str
    ) -> tuple[str, str]:
        if self._faults:
            self._faults -= 1
            raise PaypalUnavailableError("PayPal answered 500")
        self.begun[request_id] = custom_id
        return "I-1", f"https://www.paypal.com/webapps/billing/subscriptions?ba_token={request_id}"


def desk(river: River, paypal: PayPal) -> SignUp:
    return SignUp(river.database, river.master, river.clock, paypal, {"Cloud": "P-1"}, "https://billing.example.com")


def test_the_same_form_sent_by_six_at_once_is_one_account(river: River) -> None:
    paypal, start, answers = PayPal(), Barrier(6, timeout=30), list[str]()

    def send() -> None:
        start.wait()
        answers.append(desk(river, paypal).sign_up(ASKED, "token", "192.0.2.7"))

    threads = [Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == len(paypal.begun) == river.count(Customer) == 1
    assert [row.count for row in river.rows(RateLimitCounter)] == [1]


def test_what_paypal_left_half_done_goes_on_with_the_same_account(river: River) -> None:
    paypal = PayPal(faults=1)
    with pytest.raises(PaypalUnavailableError):
        desk(river, paypal).sign_up(ASKED, "token", "192.0.2.7")
    desk(river, paypal).sign_up(ASKED, "token", "192.0.2.7")
    [customer] = river.rows(Customer)
    with river.database.transaction() as session:
        known = accounts.personal_data(session, river.keyring(session), customer.id)
    assert list(paypal.begun.values()) == [known["custom"]]


def test_a_form_sent_once_more_after_its_account_was_erased_makes_another(river: River) -> None:
    paypal = PayPal()
    desk(river, paypal).sign_up(ASKED, "token", "192.0.2.7")
    [gone] = [row.id for row in river.rows(Customer)]
    workflow.erase_now(river.database, river.master, river.clock, ErasureDependencies(), gone, "operator")
    for _ in range(2):
        desk(river, paypal).sign_up(ASKED, "token", "192.0.2.7")
    [back] = [row.id for row in river.rows(Customer) if not row.erased_at]
    assert back != gone
    with river.database.transaction() as session:
        known = accounts.personal_data(session, river.keyring(session), back)
    assert (known["email"], list(paypal.begun.values())[1:]) == (ASKED.person.email, [known["custom"]])


def test_who_is_told_to_wait_leaves_nothing_behind(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PER_HOUR, "sign_up", 1)
    desk(river, PayPal()).sign_up(ASKED, "one", "192.0.2.7")
    with pytest.raises(RateLimitError):
        desk(river, PayPal()).sign_up(ASKED, "two", "192.0.2.7")
    assert (river.count(Customer), river.count(Link)) == (1, 1)


def test_what_somebody_asked_for_does_not_show_in_a_traceback() -> None:
    assert "ada" not in repr(ASKED).lower()
