"""Sources of settings, and the messages about missing, invalid and conflicting settings."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.settings import Settings, SettingsError, load, variable


@pytest.fixture(autouse=True)
def _separate_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o077)  # as `smt-billing` sets it: named files with secrets must be private
    yield
    os.umask(before)


def refusal(**values: Any) -> str:
    with pytest.raises(SettingsError) as error:
        load(**values)
    return str(error.value)


def test_all_settings_have_defaults() -> None:
    settings = load()
    assert settings.data_dir == Path("var")
    assert settings.database == "sqlite:///var/smt-billing.db"
    assert settings.master_key == Path("var/keys/master.key")
    assert settings.broker_url == "memory://"
    assert not settings.has_paypal_credentials
    assert not settings.paypal_accept_simulator


def test_setting_is_read_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID", " 8PT597110X687430L, 1JE4291016473214C ,")
    monkeypatch.setenv("SMT_WEB_PORT", "8080")
    assert load().paypal_webhook_id == ("8PT597110X687430L", "1JE4291016473214C")
    assert load().web_port == 8080


def test_trusted_proxies_are_addresses_and_networks() -> None:
    assert load().trusted_proxies == ("127.0.0.1", "::1")
    assert load(trusted_proxies=" 10.213.78.1, 2001:db8::/48 ").trusted_proxies == ("10.213.78.1", "2001:db8::/48")
    assert load(trusted_proxies="").trusted_proxies == ()
    for wrong in ("proxy.example.com", "*", "10.0.0.1/8"):
        assert "SMT_TRUSTED_PROXIES" in refusal(trusted_proxies=wrong)


def test_environment_takes_precedence_over_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SMT_WEB_PORT=8081\nSMT_VENDOR_NAME=Ünal & Söhne\nUNKNOWN=1\n", "utf-8")
    assert load().web_port == 8081
    assert load().vendor_name == "Ünal & Söhne"
    monkeypatch.setenv("SMT_WEB_PORT", "8082")
    assert load().web_port == 8082


def test_secret_is_read_from_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("hush \n")
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_ID", "app")
    assert load().paypal_client_secret.get_secret_value() == "hush "  # only the line end is removed
    assert load().has_paypal_credentials
    assert "hush" not in repr(load())


SECRET_SETTINGS = [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


@pytest.mark.parametrize("name", [*SECRET_SETTINGS, "database_url", "broker_url", "smtp_url", "paypal_webhook_id"])
def test_named_file_in_dotenv_is_read_for_every_secret(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("sqlite:///x\n")
    Path(".env").write_text(f"{variable(name)}_FILE={tmp_path}/secret\n")
    value = getattr(load(), name)
    assert (value.get_secret_value() if isinstance(value, SecretStr) else value) in ("sqlite:///x", ("sqlite:///x",))


def test_value_in_dotenv_takes_precedence_over_named_file_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("from the file\n")
    Path(".env").write_text(f"SMT_PAYPAL_CLIENT_ID=direct\nSMT_PAYPAL_CLIENT_ID_FILE={tmp_path}/id\n")
    assert load().paypal_client_id == "direct"


def test_missing_named_file_in_dotenv_is_reported_with_dotenv(tmp_path: Path) -> None:
    Path(".env").write_text("SMT_PAYPAL_CLIENT_SECRET_FILE=/nowhere/secret\n")
    assert refusal() == (
        f"SMT_PAYPAL_CLIENT_SECRET_FILE in {tmp_path}/.env names /nowhere/secret: No such file or directory"
    )


def test_master_key_file_in_dotenv_is_a_path(tmp_path: Path) -> None:
    Path(".env").write_text("SMT_MASTER_KEY_FILE=keys/master\n")
    assert load().master_key == Path("keys/master")


@pytest.mark.parametrize(
    "line",
    [
        "SMT_PAYPAL_CLIENT_SECRET=hush",
        "SMT_PRODUCT_TOKEN=hush",
        "SMT_DATABASE_URL=postgresql://u:hush@h/d",
        "SMT_SMTP_URL=smtps://u:hush@relay.example.com",
    ],
)
def test_secret_in_dotenv_that_others_can_read_is_refused(tmp_path: Path, line: str) -> None:
    path = Path(".env")
    path.write_text(line + "\n")
    path.chmod(0o644)
    message = refusal()
    assert message.startswith(f"{tmp_path}/.env contains {line.partition('=')[0]} and is accessible to other accounts")
    assert message.endswith(f"(mode 0644), so it is not read. Run: chmod 600 {tmp_path}/.env")
    assert "hush" not in message
    path.chmod(0o600)
    load()


def test_dotenv_without_secret_may_be_readable_by_others() -> None:
    Path(".env").write_text("SMT_WEB_PORT=8081\nSMT_DATABASE_URL=postgresql://h/d\n")
    Path(".env").chmod(0o644)
    assert load().web_port == 8081


def test_named_file_takes_precedence_over_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("SMT_DATABASE_URL=postgresql://old/one\n")
    (tmp_path / "url").write_text("postgresql://u:p@db/billing\n")
    monkeypatch.setenv("SMT_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert load().database == "postgresql+psycopg://u:p@db/billing"


def test_named_file_may_contain_several_webhook_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ids").write_text("A,B\n")
    monkeypatch.setenv("SMT_PAYPAL_WEBHOOK_ID_FILE", str(tmp_path / "ids"))
    assert load().paypal_webhook_id == ("A", "B")


def test_missing_named_file_is_reported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_SECRET_FILE", "/nowhere/secret")
    assert refusal() == "SMT_PAYPAL_CLIENT_SECRET_FILE names /nowhere/secret: No such file or directory"


def test_binary_named_file_is_reported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    assert refusal() == f"SMT_PAYPAL_CLIENT_SECRET_FILE names {tmp_path}/secret: not UTF-8 text"


def test_master_key_file_is_a_path_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_MASTER_KEY_FILE", str(tmp_path / "key"))
    assert load().master_key == tmp_path / "key"


@pytest.mark.parametrize("in_dotenv", [False, True])
@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_named_file_that_others_can_write_to_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    in_dotenv: bool,  # noqa: FBT001
) -> None:
    """Otherwise another account could choose the program that handles a customer's data."""
    path = tmp_path / "command"
    path.write_text("/bin/true\n")
    path.chmod(mode)
    if in_dotenv:
        Path(".env").write_text(f"SMT_PRODUCT_COMMAND_FILE={path}\n")
    else:
        monkeypatch.setenv("SMT_PRODUCT_COMMAND_FILE", str(path))
    message = refusal()
    assert message.startswith("SMT_PRODUCT_COMMAND_FILE")
    assert f"{path} is writable by other accounts" in message


@pytest.mark.parametrize(
    ("name", "value", "is_refused"),
    [
        ("paypal_client_secret", "hush", True),
        ("database_url", "postgresql://u:hush@h/d", True),
        ("vendor_name", "Acme", False),
    ],
)
def test_named_secret_that_others_can_read_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    is_refused: bool,  # noqa: FBT001
) -> None:
    path = tmp_path / "secret"
    path.write_text(value + "\n")
    path.chmod(0o644)
    monkeypatch.setenv(f"{variable(name)}_FILE", str(path))
    if not is_refused:
        load()
        return
    message = refusal()
    assert message.startswith(f"{variable(name)}_FILE: {path} contains a secret and is accessible to other accounts")
    assert message.endswith(f"Run: chmod 600 {path}")
    assert "hush" not in message


def test_secret_on_readonly_mount_may_have_any_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker, Kubernetes and systemd set the mode of the secrets that they mount; no one can write to such a file."""
    path = tmp_path / "secret"
    path.write_text("hush\n")
    path.chmod(0o646)
    monkeypatch.setenv("SMT_PAYPAL_CLIENT_SECRET_FILE", str(path))
    assert "writable by other accounts" in refusal()
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert load().paypal_client_secret.get_secret_value() == "hush"


def test_folder_as_named_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_VENDOR_NAME_FILE", str(tmp_path))
    assert refusal() == f"SMT_VENDOR_NAME_FILE: {tmp_path} is not a file"


def test_every_validator_answers_with_plain_sentence() -> None:
    messages: dict[str, str] = {}
    wrongs: tuple[Any, ...] = ("x y\u2603", "-99999999", "ftp://")
    for name in Settings.model_fields:
        for wrong in wrongs:
            try:
                load(_env_file=None, **{name: wrong})
            except SettingsError as error:
                messages[f"{name} {wrong}"] = str(error)
    assert {name.split()[0] for name in messages} > {"country", "vendor_colour", "web_port", "inbound_notice", "plans"}
    jargon = re.compile("Input|Value error|String should|pattern|parse|is not valid|\u2603")
    assert {name: text for name, text in messages.items() if jargon.search(text)} == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"country": "Germany"}, "SMT_COUNTRY: must be two capital letters, such as DE"),
        ({"vendor_colour": "blue"}, "SMT_VENDOR_COLOUR: must be a colour, such as #1d4e89"),
        ({"web_port": "http"}, "SMT_WEB_PORT: must be a whole number"),
        ({"web_port": 70000}, "SMT_WEB_PORT: must be at most 65535"),
        ({"backup_days": 0}, "SMT_BACKUP_DAYS: must be at least 1"),
        ({"paypal_accept_simulator": "perhaps"}, "SMT_PAYPAL_ACCEPT_SIMULATOR: must be true or false"),
        ({"policy_effective": "May"}, "SMT_POLICY_EFFECTIVE: must be a date, such as 2025-05-01"),
        ({"inbound_notice": "all"}, "SMT_INBOUND_NOTICE: must be 'command' or 'text'"),
    ],
)
def test_invalid_setting_is_explained(values: dict[str, Any], message: str) -> None:
    assert refusal(**values) == message


def test_missing_settings_are_named_in_one_line() -> None:
    with pytest.raises(SettingsError) as error:
        load(smtp_url="smtp://127.0.0.1").require("paypal_client_id", "smtp_url", "paypal_client_secret")
    assert str(error.value) == (
        "set SMT_PAYPAL_CLIENT_ID, SMT_PAYPAL_CLIENT_SECRET in the environment or in .env"
        " (or set SMT_PAYPAL_CLIENT_ID_FILE to the path of a file that contains the value)"
    )


def test_invalid_setting_is_named_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_WEB_PORT", "eighty-secret")
    monkeypatch.setenv("SMT_REMINDER_DAYS_MONTHLY", "99")
    message = refusal()
    assert message.count("\n") == 0
    assert "SMT_WEB_PORT: " in message
    assert "SMT_REMINDER_DAYS_MONTHLY: " in message
    assert "secret" not in message


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "billing.db", "postgresql+asyncpg://u:secret@h/d"])
def test_unsupported_database_is_refused_without_printing_password(url: str) -> None:
    message = refusal(database_url=url)
    assert message.startswith("SMT_DATABASE_URL: ")
    assert "postgresql://" in message
    assert "secret" not in message


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_postgresql_scheme_uses_psycopg(scheme: str) -> None:
    assert load(database_url=f"{scheme}://h/d").database == "postgresql+psycopg://h/d"


def test_simulator_and_webhook_id_are_refused_together() -> None:
    message = refusal(paypal_accept_simulator=True, paypal_webhook_id="8PT597110X687430L")
    assert "SMT_PAYPAL_ACCEPT_SIMULATOR" in message
    assert "SMT_PAYPAL_WEBHOOK_ID" in message
    assert load(paypal_accept_simulator=True).paypal_accept_simulator


@pytest.mark.parametrize(
    "base_url", ["https://api-m.paypal.com", "https://api.paypal.com/", "https://API-M.paypal.com"]
)
def test_simulator_is_refused_with_live_paypal(base_url: str) -> None:
    message = refusal(paypal_accept_simulator=True, paypal_base_url=base_url)
    assert message.startswith("SMT_PAYPAL_ACCEPT_SIMULATOR is set, but SMT_PAYPAL_BASE_URL is PayPal's live API")
    assert load(paypal_accept_simulator=True, paypal_base_url="https://api-m.sandbox.paypal.com").is_live is False


@pytest.mark.parametrize("value", ["acme.com", "ftp://acme.com", "https://"])
def test_vendor_url_must_be_web_address(value: str) -> None:
    assert refusal(vendor_url=value).startswith("SMT_VENDOR_URL: must be https:// and a host")


def test_simulators_id_is_refused_as_webhook_id() -> None:
    """With this id from PayPal's documentation, the program would accept events that anyone can have signed."""
    assert "SMT_PAYPAL_ACCEPT_SIMULATOR" in refusal(paypal_webhook_id="8PT597110X687430L,WEBHOOK_ID")


def test_envelope_domain_defaults_to_domain_of_sender() -> None:
    assert load(mail_from="billing@vendor.example.com").envelope_domain == "vendor.example.com"
    assert load(bounce_domain="bounces.example.com").envelope_domain == "bounces.example.com"


def test_every_setting_has_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        load().web_port = 1  # type: ignore[misc]


def test_environment_of_tests_contains_no_settings() -> None:
    assert [name for name in os.environ if name.startswith(variable("")) and not name.startswith("SMT_TEST_")] == []


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("https://billing.example.com/", "https://billing.example.com"),
        ("https://billing.example.com:8443", "https://billing.example.com:8443"),
        ("http://localhost:8000", "http://localhost:8000"),
    ],
)
def test_public_url_is_stored_without_slash(value: str, kept: str) -> None:
    assert load(public_url=value).public_url == kept


@pytest.mark.parametrize(
    "value", ["http://billing.example.com", "billing.example.com", "https://e.com/path", "ftp://e.com"]
)
def test_unencrypted_public_url_is_refused(value: str) -> None:
    assert refusal(public_url=value).startswith("SMT_PUBLIC_URL: must be https://")


def test_plans_are_parsed_as_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PLANS", "Cloud (monthly)=P-1AB, Licence, yearly = P-2CD ,")
    assert load().plans == {"Cloud (monthly)": "P-1AB", "Licence, yearly": "P-2CD"}
    monkeypatch.setenv("SMT_PLANS", "Cloud=1AB")
    assert refusal().startswith("SMT_PLANS: must be name=P-ID pairs")
