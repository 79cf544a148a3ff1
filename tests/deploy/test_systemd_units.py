"""The systemd units in `deploy/systemd` are sandboxed, and use existing commands, settings and secrets."""

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
MAX_EXPOSURE = 20  # Tenths. systemd rates an exposure of 0.0 to 2.0 as safe.
SECRETS = {"SMT_DATABASE_URL_FILE", "SMT_BROKER_URL_FILE", "SMT_PAYPAL_CLIENT_SECRET_FILE"}

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def lines_of(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.+)$", unit.read_text("utf-8"), re.MULTILINE)


def score(unit: Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", "--no-pager", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_each_role_has_a_unit() -> None:
    names = {unit.stem for unit in UNITS}
    roles = {f"smt-billing-{role}" for role in ("web", "worker", "mailer", "scheduler")}
    assert names == {"smt-billing", *roles}


@every_unit
def test_systemd_rates_unit_as_safe(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        do_without("systemd-analyze is not installed: apt-get install systemd")
    result = score(unit)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr


@every_unit
def test_unit_limits_memory_processes_and_core_dumps(unit: Path) -> None:
    assert lines_of(unit, "LimitCORE") == lines_of(unit, "MemorySwapMax") == ["0"]
    [memory], [tasks] = lines_of(unit, "MemoryMax"), lines_of(unit, "TasksMax")
    assert re.fullmatch(r"[1-4]G", memory)
    assert 64 <= int(tasks) <= 512


@every_unit
def test_systemd_knows_every_directive(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        do_without("systemd-analyze is not installed: apt-get install systemd")
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", unit.read_text("utf-8"), flags=re.MULTILINE))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Unknown" not in done.stderr
    assert "Failed to parse" not in done.stderr


def test_systemd_rates_unprotected_unit_as_unsafe(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        do_without("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / "open.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert score(unit).returncode != 0


@every_unit
def test_unit_starts_existing_command(unit: Path) -> None:
    [start] = lines_of(unit, "ExecStart")
    program, *words = start.split()
    assert Path(program).name == "smt-billing"
    assert CliRunner().invoke(build(), [*words, "--help"]).exit_code == 0


@every_unit
def test_unit_uses_known_settings_and_secret_files(unit: Path) -> None:
    variables = dict(line.split("=", 1) for line in lines_of(unit, "Environment"))
    known = {variable(name) for name in Settings.model_fields}
    assert {name for name in variables if name.removesuffix("_FILE") not in known} == set()
    credentials = {line.split(":", 1)[0] for line in lines_of(unit, "LoadCredential")}
    files = {name: path for name, path in variables.items() if name.endswith("_FILE")}
    assert files.keys() <= SECRETS
    assert set(files.values()) == {f"%d/{name}" for name in credentials}


@every_unit
def test_master_key_is_in_writable_folder(unit: Path) -> None:
    """An erasure replaces the master key. A systemd credential is read-only, so it could not be replaced."""
    variables = dict(line.split("=", 1) for line in lines_of(unit, "Environment"))
    assert "SMT_MASTER_KEY_FILE" not in variables
    assert variables["SMT_DATA_DIR"] == f"/var/lib/{lines_of(unit, 'StateDirectory')[0]}"


def test_secrets_script_creates_every_credential() -> None:
    made = (ROOT / "deploy" / "secrets.sh").read_text("utf-8")
    for unit in UNITS:
        for line in lines_of(unit, "LoadCredential"):
            assert f"keep {line.split(':', 1)[0]} " in made


@pytest.mark.parametrize("role", ["web", "worker", "mailer", "scheduler"])
def test_role_gets_same_secrets_as_its_container(role: str) -> None:
    """Each role that calls PayPal's API gets the client secret; the mailer does not."""
    unit = ROOT / "deploy" / "systemd" / f"smt-billing-{role}.service"
    credentials = {line.split(":", 1)[0] for line in lines_of(unit, "LoadCredential")}
    container = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"][role]
    assert credentials == set(container["secrets"])
    assert ("paypal_client_secret" in credentials) == (role != "mailer")


@every_unit
def test_docs_mention_unit(unit: Path) -> None:
    assert f"`{unit.stem}`" in (ROOT / "docs" / "operations.md").read_text("utf-8")
