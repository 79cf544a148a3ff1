"""No role starts without the vendor's own settings, nor with pretended ones and PayPal's live API."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.app.start_requirements import IDENTITY, needed_by, require_startable
from pipeline.network.hosts import is_reserved_name
from pipeline.settings import DEMO_FILE, EXAMPLE_VENDOR, Settings, SettingsError, load, variable
from tests.support.command_line import Smt
from tests.support.vendor import STARTABLE

LIVE = "https://api-m.paypal.com"
REAL = {
    "vendor_name": "Acme Metal GmbH",
    "vendor_url": "https://acme-metal.com",
    "vendor_address": "Hauptstr. 3, 10115 Berlin",
    "product_name": "Acme Planner",
    "mail_from": "billing@acme-metal.com",
    "public_url": "https://billing.acme-metal.com",
    "country": "DE",
}
ROLES = ("run", "run --until-idle", "web", "worker", "mailer", "scheduler")
Make = Callable[..., Settings]


def refusal(**values: Any) -> str:
    with pytest.raises(SettingsError) as error:
        require_startable(load(_env_file=None, **values), "worker")
    return str(error.value)


def test_settings_that_customers_read_have_no_default() -> None:
    settings = load(_env_file=None)
    assert [name for name in IDENTITY if getattr(settings, name)] == []


def test_real_vendor_may_start_with_live_paypal() -> None:
    require_startable(load(_env_file=None, **REAL, paypal_base_url=LIVE), "worker")


@pytest.mark.parametrize("base_url", ["https://api-m.sandbox.paypal.com", "http://127.0.0.1:8080"])
def test_example_vendor_may_start_without_live_paypal(base_url: str) -> None:
    require_startable(load(_env_file=None, **STARTABLE, paypal_base_url=base_url), "worker")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", IDENTITY)
def test_role_does_not_start_without_vendor(smt: Smt, monkeypatch: pytest.MonkeyPatch, role: str, name: str) -> None:
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", "8PT597110X687430L")
    monkeypatch.setenv("SMT_SMTP_URL", "smtp://127.0.0.1:1")
    monkeypatch.delenv(variable(name))
    answer = smt(*role.split())
    assert (answer.code, f"set {variable(name)} in the environment" in answer.err) == (2, True)
    found = smt("doctor", "--json")
    assert (found.code, variable(name) in found.json[0]["found"]) == (1, True)


def test_all_missing_settings_are_named_at_once(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IDENTITY:
        monkeypatch.delenv(variable(name))
    err = smt("run").err
    assert [name for name in (*IDENTITY, "paypal_webhook_id") if variable(name) not in err] == []


@pytest.mark.parametrize("role", ROLES)
def test_role_does_not_start_as_example_with_live_paypal(smt: Smt, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    monkeypatch.setenv("SMT_PAYPAL_BASE_URL", LIVE)
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", "8PT597110X687430L")
    monkeypatch.setenv("SMT_SMTP_URL", "smtp://127.0.0.1:1")
    answer = smt(*role.split())
    assert (answer.code, "SMT_MAIL_FROM names example.com" in answer.err) == (2, True)
    found = smt("doctor", "--json")
    assert (found.code, "SMT_MAIL_FROM names example.com" in found.json[0]["found"]) == (1, True)


@pytest.mark.parametrize("base_url", [LIVE, "https://api.paypal.com", "https://API-M.PayPal.com/"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail_from", "billing@mail.example.net"),
        ("operator_email", "me@localhost"),
        ("support_email", "help@vendor.test"),
        ("privacy_email", "help@vendor.invalid"),
        ("bounce_domain", "bounces.example.org"),
        ("vendor_url", "https://smtconstructions.example.com"),
        ("public_url", "https://billing.example"),
        ("public_url", "http://127.0.0.1:8000"),
        ("public_url", "https://[::1]"),
        ("vendor_name", EXAMPLE_VENDOR["vendor_name"]),
        ("vendor_address", EXAMPLE_VENDOR["vendor_address"]),
        ("product_name", EXAMPLE_VENDOR["product_name"]),
    ],
)
def test_pretence_is_refused_with_live_paypal(base_url: str, name: str, value: str) -> None:
    message = refusal(**{**REAL, name: value}, paypal_base_url=base_url)
    assert f"but {variable(name)} " in message
    assert (message.count(base_url), message.count("Set your own")) == (1, 1)


def test_live_paypal_is_named_once_for_all_examples() -> None:
    message = refusal(**{**STARTABLE, "vendor_address": EXAMPLE_VENDOR["vendor_address"]}, paypal_base_url=LIVE)
    assert message.count("PayPal's live API") == 1
    for name in ("mail_from", "vendor_url", "public_url", "vendor_address"):
        assert f"{variable(name)} " in message


def test_demo_folder_is_refused_with_live_paypal(data_dir: Path) -> None:
    (data_dir / DEMO_FILE).write_text("{}")
    assert "simulated customers" in refusal(**REAL, paypal_base_url=LIVE, data_dir=data_dir)
    require_startable(load(_env_file=None, **REAL, data_dir=data_dir), "worker")


UNUSABLE = [
    ("mail_from", "nobody"),
    ("operator_email", "me"),
    ("support_email", "a@b@c"),
    ("privacy_email", "privacy"),
    ("bounce_domain", "a@b"),
    ("paypal_base_url", "https://paypal.evil.example"),
    ("paypal_client_secret", "without its id"),
    ("broker_url", "redis://127.0.0.1"),
    ("broker_url", "amqp://user:hush/@h"),
    ("smtp_url", "http://relay.example.com"),
    ("product_url", "http://crm.example.com"),
    ("backup_recipient", "foo"),
]


@pytest.mark.parametrize(("name", "value"), UNUSABLE)
def test_unusable_setting_is_refused(name: str, value: str) -> None:
    message = refusal(**{**REAL, name: value})
    assert variable(name) in message
    assert "hush" not in message


@pytest.mark.parametrize(("name", "value"), UNUSABLE)
def test_run_and_doctor_refuse_the_same_settings(
    smt: Smt, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", "8PT597110X687430L")
    monkeypatch.setenv(variable(name), value)
    answer, found = smt("run"), smt("doctor", "--json")
    assert (answer.code, "Traceback" in answer.err, found.code) == (2, False, 1)
    assert found.json[0]["found"] in answer.err


def test_run_and_doctor_need_the_same_settings(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IDENTITY:
        monkeypatch.delenv(variable(name))
    needed = {f"SMT_{name}" for name in re.findall(r"SMT_(\w+)(?=,| in )", smt("run").err)}
    assert needed == {variable(name) for name in IDENTITY} | {"SMT_PAYPAL_WEBHOOK_ID"}
    assert set(re.findall(r"SMT_\w+", smt("doctor", "--json").json[0]["found"])) == needed


def test_webhook_id_is_needed_only_where_signatures_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(_env_file=None, **STARTABLE)
    assert [role for role in ROLES if "paypal_webhook_id" in needed_by(settings, role)] == ["run", "web"]
    simulated = load(_env_file=None, **STARTABLE, paypal_accept_simulator=True)
    assert [role for role in ROLES if "paypal_webhook_id" in needed_by(simulated, role)] == []


@pytest.mark.parametrize(
    ("host", "reserved"),
    [
        ("example.com", True),
        ("Mail.Example.ORG.", True),
        ("a.b.example", True),
        ("x.test", True),
        ("localhost", True),
        ("notexample.com", False),
        ("example.co.uk", False),
        ("test.acme.com", False),
        ("example.com.acme.de", False),
    ],
)
def test_reserved_names_are_recognised(host: str, reserved: bool) -> None:  # noqa: FBT001
    assert is_reserved_name(host) is reserved


@pytest.mark.parametrize("words", [("mail", "preview", "receipt"), ("mail", "send-test", "receipt", "me@example.com")])
def test_mail_is_not_shown_or_sent_as_another_firm(
    smt: Smt, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SMT_SMTP_URL", "smtp://127.0.0.1:1")
    monkeypatch.delenv("SMT_VENDOR_NAME")
    answer = smt(*words)
    assert (answer.code, "SMT_VENDOR_NAME" in answer.err, answer.out) == (2, True, "")


def test_link_in_mail_never_names_this_machine(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMT_PUBLIC_URL")
    with pytest.raises(SettingsError, match="set SMT_PUBLIC_URL"):
        _ = load(_env_file=None).pages_url


def test_demo_vendor_is_used_in_demo_folder_only(smt: Smt, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IDENTITY:
        monkeypatch.delenv(variable(name))
    assert smt("mail", "preview", "receipt").code == 2
    (data_dir / DEMO_FILE).write_text("{}")
    assert "SMT Constructions" in smt("mail", "preview", "receipt").out
    monkeypatch.setenv("SMT_VENDOR_NAME", "Kestrel Works")
    assert "Kestrel Works" in smt("mail", "preview", "receipt").out
    monkeypatch.setenv("SMT_PAYPAL_BASE_URL", LIVE)
    assert smt("mail", "preview", "receipt").code == 2
