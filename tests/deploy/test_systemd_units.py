"""The systemd units in `deploy/systemd`: closed as far as can be, and true to the commands and settings they name."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.__main__ import build
from pipeline.settings import Settings, variable
from tests.conftest import do_without

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
WORST = 20  # tenths: systemd calls 0 to 2 safe
SECRETS = {"SMT_DATABASE_URL_FILE", "SMT_BROKER_URL_FILE", "SMT_PAYPAL_CLIENT_SECRET_FILE"}

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def lines_of(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.+)$", unit.read_text("utf-8"), re.MULTILINE)


def score(unit: Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={WORST}", "--no-pager", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_there_is_a_unit_for_each_role_and_one_for_all() -> None:
    names = {unit.stem for unit in UNITS}
    roles = {f"smt-billing-{role}" for role in ("web", "worker", "mailer", "scheduler")}
    assert names == {"smt-billing", *roles}


@every_unit
def test_systemd_calls_it_safe(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        do_without("systemd-analyze is not installed: apt-get install systemd")
    judged = score(unit)
    assert judged.returncode == 0, judged.stdout[-500:] + judged.stderr


def test_the_judge_calls_an_open_unit_unsafe(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        do_without("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / "open.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert score(unit).returncode != 0


@every_unit
def test_it_starts_a_command_that_there_is(unit: Path) -> None:
    [start] = lines_of(unit, "ExecStart")
    program, *words = start.split()
    assert Path(program).name == "smt-billing"
    assert CliRunner().invoke(build(), [*words, "--help"]).exit_code == 0


@every_unit
def test_its_variables_are_settings_and_its_secrets_are_shown_to_it_as_files(unit: Path) -> None:
    given = dict(line.split("=", 1) for line in lines_of(unit, "Environment"))
    known = {variable(name) for name in Settings.model_fields}
    assert {name for name in given if name.removesuffix("_FILE") not in known} == set()
    shown = {line.split(":", 1)[0] for line in lines_of(unit, "LoadCredential")}
    files = {name: path for name, path in given.items() if name.endswith("_FILE")}
    assert files.keys() <= SECRETS
    assert set(files.values()) == {f"%d/{name}" for name in shown}


@every_unit
def test_the_master_key_lies_where_an_erasure_can_replace_it(unit: Path) -> None:
    """What systemd shows as a credential can be read only, and would outlive every erasure."""
    given = dict(line.split("=", 1) for line in lines_of(unit, "Environment"))
    assert "SMT_MASTER_KEY_FILE" not in given
    assert given["SMT_DATA_DIR"] == f"/var/lib/{lines_of(unit, 'StateDirectory')[0]}"


def test_the_secrets_are_those_that_are_made_for_compose() -> None:
    made = (ROOT / "deploy" / "secrets.sh").read_text("utf-8")
    for unit in UNITS:
        for line in lines_of(unit, "LoadCredential"):
            assert f"keep {line.split(':', 1)[0]} " in made


@pytest.mark.parametrize("role", ["web", "worker", "mailer", "scheduler"])
def test_a_role_is_shown_the_same_secrets_as_its_container(role: str) -> None:
    """Those that ask PayPal's API have its secret, the mailer has not."""
    unit = ROOT / "deploy" / "systemd" / f"smt-billing-{role}.service"
    shown = {line.split(":", 1)[0] for line in lines_of(unit, "LoadCredential")}
    container = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"][role]
    assert shown == set(container["secrets"])
    assert ("paypal_client_secret" in shown) == (role != "mailer")


@every_unit
def test_it_stands_in_the_docs(unit: Path) -> None:
    assert f"`{unit.stem}`" in (ROOT / "docs" / "operations.md").read_text("utf-8")
