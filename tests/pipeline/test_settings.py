"""Where settings come from, what is said when one is missing or wrong, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.settings import Settings, SettingsError, load, variable


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(**given: Any) -> str:
    with pytest.raises(SettingsError) as error:
        load(**given)
    return str(error.value)


def test_nothing_has_to_be_set() -> None:
    settings = load()
    assert settings.data_dir == Path("var")
    assert settings.database == "sqlite:///var/smt-billing.db"
    assert settings.master_key == Path("var/keys/master.key")
    assert settings.broker_url == "memory://"
    assert not settings.has_paypal_credentials
    assert not settings.paypal_accept_simulator


def test_a_setting_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", " 8PT597110X687430L, 1JE4291016473214C ,")
    monkeypatch.setenv("SMT_WEB_PORT", "8080")
    assert load().paypal_webhook_id == ("8PT597110X687430L", "1JE4291016473214C")
    assert load().web_port == 8080


def test_a_setting_comes_from_a_dotenv_file_unless_the_environment_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SMT_WEB_PORT=8081\nSMT_VENDOR_NAME=Ünal & Söhne\nUNKNOWN=1\n", "utf-8")
    assert load().web_port == 8081
    assert load().vendor_name == "Ünal & Söhne"
    monkeypatch.setenv("SMT_WEB_PORT", "8082")
    assert load().web_port == 8082


def test_a_secret_comes_from_the_file_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("hush \n")
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_ID", "app")
    assert load().paypal_client_secret.get_secret_value() == "hush "  # a line's end is no part of it, a space is
    assert load().has_paypal_credentials
    assert "hush" not in repr(load())


def test_a_file_that_is_named_outranks_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SMT_DATABASE_URL=postgresql://old/one\n")
    (tmp_path / "url").write_text("postgresql://u:p@db/billing\n")
    monkeypatch.setenv("SMT_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert load().database == "postgresql+psycopg://u:p@db/billing"


def test_a_file_may_hold_several_webhook_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ids").write_text("A,B\n")
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID_FILE", str(tmp_path / "ids"))
    assert load().paypal_webhook_id == ("A", "B")


def test_a_named_file_that_is_missing_fails_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_SECRET_FILE", "/nowhere/secret")
    assert refused() == "SMT_PAYPAL_CLIENT_SECRET_FILE names /nowhere/secret: No such file or directory"


def test_a_named_file_that_is_no_text_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    assert refused() == f"SMT_PAYPAL_CLIENT_SECRET_FILE names {tmp_path}/secret: not UTF-8 text"


def test_the_file_of_the_master_key_is_a_path_and_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_MASTER_KEY_FILE", str(tmp_path / "key"))
    assert load().master_key == tmp_path / "key"


def test_all_that_is_missing_is_named_in_one_line() -> None:
    with pytest.raises(SettingsError) as error:
        load(smtp_url="smtp://127.0.0.1").require("paypal_client_id", "smtp_url", "paypal_client_secret")
    assert str(error.value) == (
        "set SMT_PAYPAL_CLIENT_ID, SMT_PAYPAL_CLIENT_SECRET (or SMT_PAYPAL_CLIENT_ID_FILE) in the environment or in .env"
    )


def test_what_cannot_be_read_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_WEB_PORT", "eighty-secret")
    monkeypatch.setenv("SMT_REMINDER_DAYS_MONTHLY", "99")
    said = refused()
    assert said.count("\n") == 0
    assert "SMT_WEB_PORT: " in said
    assert "SMT_REMINDER_DAYS_MONTHLY: " in said
    assert "secret" not in said


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "billing.db", "postgresql+asyncpg://u:secret@h/d"])
def test_a_database_we_do_not_speak_is_refused_without_repeating_its_password(url: str) -> None:
    said = refused(database_url=url)
    assert said.startswith("SMT_DATABASE_URL: ")
    assert "postgresql://" in said
    assert "secret" not in said


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_means_the_driver_we_ship(scheme: str) -> None:
    assert load(database_url=f"{scheme}://h/d").database == "postgresql+psycopg://h/d"


def test_the_simulator_is_refused_beside_a_webhook_id() -> None:
    said = refused(paypal_accept_simulator=True, paypal_webhook_id="8PT597110X687430L")
    assert "SMT_PAYPAL_ACCEPT_SIMULATOR" in said
    assert "SMT_PAYPAL_WEBHOOK_ID" in said
    assert load(paypal_accept_simulator=True).paypal_accept_simulator


def test_the_simulators_own_id_is_no_webhook_id() -> None:
    """Whoever copies it from PayPal's documentation would let in what anyone can have PayPal sign."""
    assert "SMT_PAYPAL_ACCEPT_SIMULATOR" in refused(paypal_webhook_id="8PT597110X687430L,WEBHOOK_ID")


def test_the_envelope_domain_is_that_of_the_sender_unless_set() -> None:
    assert load(mail_from="billing@vendor.example.com").envelope_domain == "vendor.example.com"
    assert load(bounce_domain="bounces.example.com").envelope_domain == "bounces.example.com"


def test_every_setting_has_a_sentence() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(Exception, match="frozen"):
        load().web_port = 1  # type: ignore[misc]


def test_no_setting_of_ours_is_left_in_the_environment_of_a_test() -> None:
    assert [name for name in os.environ if name.startswith(variable("")) and not name.startswith("SMT_TEST_")] == []


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("https://billing.example.com/", "https://billing.example.com"),
        ("https://billing.example.com:8443", "https://billing.example.com:8443"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_a_public_url_is_kept_without_its_slash(value: str, kept: str) -> None:
    assert load(public_url=value).public_url == kept


@pytest.mark.parametrize(
    "value", ["http://billing.example.com", "billing.example.com", "https://e.com/path", "ftp://e.com"]
)
def test_pages_are_reached_encrypted_or_not_from_outside(value: str) -> None:
    assert refused(public_url=value).startswith("SMT_PUBLIC_URL: Value error, must be https://")


def test_plans_are_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PLANS", "Cloud (monthly)=P-1AB, Licence, yearly = P-2CD ,")
    assert load().plans == {"Cloud (monthly)": "P-1AB", "Licence, yearly": "P-2CD"}
    monkeypatch.setenv("SMT_PLANS", "Cloud=1AB")
    assert refused().startswith("SMT_PLANS: Value error, must be name=P-ID pairs")
