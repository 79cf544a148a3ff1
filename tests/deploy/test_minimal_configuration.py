"""The configurations in README.md and deploy/settings.env.example are complete: as written, every role starts."""

import re
import signal
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from dotenv import dotenv_values

from pipeline.app.start_requirements import IDENTITY, require_startable
from pipeline.settings import SettingsError, load, variable
from tests.support.command_line import Smt, smt
from tests.support.subprocesses import ManagedProcess, answers, free_port
from tests.support.vendor import ENVIRONMENT

__all__ = ["smt"]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLE = (ROOT / "deploy" / "settings.env.example").read_text("utf-8")
LIVE = "https://api-m.paypal.com"
Apply = Callable[[dict[str, str], Path, pytest.MonkeyPatch], dict[str, str]]


def readme_block() -> str:
    """Return the text of the `.env` file in README.md."""
    [block] = re.findall(r"```\n([^`]*SMT_PAYPAL_WEBHOOK_ID=[^`]*)```", README)
    return str(block)


def settings_of(text: str) -> dict[str, str]:
    found = dotenv_values(stream=StringIO(text))
    return {name: value or "" for name, value in found.items() if name.startswith("SMT_")}


def in_environment(values: dict[str, str], _: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in values.items():
        patch.setenv(name, value)
    return values


def in_env_file(_: dict[str, str], folder: Path, __: pytest.MonkeyPatch) -> dict[str, str]:
    (folder / ".env").write_text(readme_block(), "utf-8")
    (folder / ".env").chmod(0o600)
    return {}


def in_named_files(values: dict[str, str], folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Half of the file names are in the environment, half in .env."""
    pointers: dict[str, str] = {}
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n", "utf-8")
        (folder / name).chmod(0o600)
        pointers[f"{name}_FILE"] = str(folder / name)
    names = sorted(pointers)
    outside = {name: pointers[name] for name in names[::2]}
    (folder / ".env").write_text("".join(f"{name}={pointers[name]}\n" for name in names[1::2]), "utf-8")
    (folder / ".env").chmod(0o600)
    return in_environment(outside, folder, patch)


@pytest.fixture
def unset(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> Smt:
    """Function that runs commands without any vendor in the environment."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name)
    return smt


@pytest.mark.parametrize("apply", [in_environment, in_env_file, in_named_files])
def test_doctor_and_roles_accept_readme_as_written(
    unset: Smt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apply: Apply
) -> None:
    apply(settings_of(readme_block()), tmp_path, monkeypatch)
    found = {each["name"]: each for each in unset("doctor", "--json").json}
    assert (found["settings"]["state"], found["other settings"]["state"]) == ("ok", "ok"), found
    settings = load()
    for role in ("run", "mailer"):
        require_startable(settings, role)
    assert settings.has_paypal_credentials
    assert settings.vendor_address == "1 Example Street, 12345 Exampletown"


@pytest.mark.slow
@pytest.mark.parametrize("apply", [in_environment, in_env_file, in_named_files])
def test_run_starts_with_readme_as_written(
    unset: Smt, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, apply: Apply
) -> None:
    environment = apply(settings_of(readme_block()), tmp_path, monkeypatch)
    port = free_port()
    more = {"SMT_DATA_DIR": str(data_dir), "SMT_WEB_PORT": str(port), "PYTHONPATH": str(ROOT)}
    running = ManagedProcess([sys.executable, "-m", "pipeline", "run"], tmp_path, environment={**environment, **more})
    running.wait_until(lambda: answers(port))
    assert running.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("text", [readme_block(), EXAMPLE], ids=["README.md", "settings.env.example"])
def test_examples_are_complete_for_sandbox_and_refused_for_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    values = settings_of(text)
    assert [
        variable(name) for name in (*IDENTITY, "paypal_webhook_id", "operator_email") if not values[variable(name)]
    ] == []
    monkeypatch.chdir(tmp_path)
    in_environment({name: value for name, value in values.items() if value}, tmp_path, monkeypatch)
    require_startable(load(), "run")
    with pytest.raises(SettingsError) as refused:
        require_startable(load(paypal_base_url=LIVE), "run")
    names = ("vendor_name", "vendor_url", "vendor_address", "product_name", "mail_from", "operator_email", "public_url")
    assert [variable(name) for name in names if variable(name) not in str(refused.value)] == []


def test_example_settings_name_what_every_installation_chooses() -> None:
    chosen = {variable(name) for name in (*IDENTITY, "support_email", "privacy_email", "plans", "paypal_base_url")}
    assert chosen - settings_of(EXAMPLE).keys() == set()
    assert load(_env_file=None, plans=settings_of(EXAMPLE)["SMT_PLANS"]).plans == {
        "Cloud (monthly)": "P-5ML4271244454362WXNWU5NQ"
    }
