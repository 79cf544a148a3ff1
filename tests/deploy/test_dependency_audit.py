"""Output and result file of `make audit`, for each possible answer of the vulnerability database."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "scripts" / "dependency_audit.py"
GOOD = {"name": "kombu", "version": "5.5.4", "vulns": []}
VULNERABLE = {"name": "jinja2", "version": "3.0", "vulns": [{"id": "PYSEC-2021-66", "fix_versions": ["3.1"]}]}
SKIPPED = {"name": "starlette", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("report", "code", "words"),
    [
        ({"dependencies": [GOOD]}, 0, "no weakness is known of 1 packages"),
        ({"dependencies": [GOOD, VULNERABLE]}, 1, "jinja2 3.0 (PYSEC-2021-66); update with `make lock`"),
        ({"dependencies": [GOOD, SKIPPED]}, 2, "does not know starlette"),
        ({"dependencies": [SKIPPED, SKIPPED]}, 2, "was not reached; nothing was checked"),
        ({"dependencies": []}, 2, "names no package"),
        (None, 2, "was not reached; nothing was checked. pip-audit said: no way out"),
    ],
    ids=["no vulnerability", "one vulnerable", "one unknown", "all unknown", "no package", "no answer"],
)
def test_audit_passes_only_if_every_package_was_checked(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    report: Any, code: int, words: str,
) -> None:  # fmt: skip
    answer = subprocess.CompletedProcess([], 0, json.dumps(report) if report else "", "ERROR\nno way out\n")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: answer)
    path = tmp_path / "var" / "audit.json"
    assert audit.main(path) == code
    assert words in capsys.readouterr().out
    written = json.loads(path.read_text())
    assert set(written) == {"at", "ok", "found", "reason"}
    assert written["ok"] is (code == 0)
    assert [each["id"] for each in written["found"]] == (["PYSEC-2021-66"] if code == 1 else [])


def test_audit_reports_database_timeout(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def time_out(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("pip-audit", 300)

    monkeypatch.setattr(audit.subprocess, "run", time_out)
    assert audit.main(tmp_path / "audit.json") == 2
    assert "did not answer within 300 seconds" in capsys.readouterr().out
