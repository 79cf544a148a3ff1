"""The tables of "Monitoring" in docs/operations.md are those of the program."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from pipeline.__main__ import build
from pipeline.operations.health import Health
from pipeline.operations.heartbeat import ALIVE_SECONDS
from pipeline.operations.limits import DEPENDENCY_SECONDS, JOB_SECONDS, LIMITS, PROCESSING_SECONDS
from pipeline.operations.outages import Outage
from pipeline.operations.unfinished_work import Unfinished, UnfinishedWork
from pipeline.web.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
MONITORING = PAGE.partition("## Monitoring\n")[2].partition("\n## ")[0]
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
STATES = ("queued", "received", "sending", "doubt", "failed")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def seconds(text: str) -> float | None:
    """Return a limit of the table in seconds; None for `never`."""
    if text == "`SMT_HEALTH_LIMIT_SECONDS`":
        return PROCESSING_SECONDS
    if text == "never":
        return None
    number, unit = text.split()
    return float(number) * UNITS[unit.removesuffix("s")]


def figures() -> dict[str, tuple[float | None, bool]]:
    rows = re.findall(r"^\| `?(\w+)`? \| [^|]+ \| ([^|]+) \| (yes|no) \|$", MONITORING, re.MULTILINE)
    return {name: (seconds(limit), stalls == "yes") for name, limit, stalls in rows}


def test_every_figure_is_explained_with_its_limit() -> None:
    expected: dict[str, tuple[float | None, bool]] = {
        kind: (limit.seconds, limit.stalled) for kind, limit in LIMITS.items()
    }
    outages = {"dependency": DEPENDENCY_SECONDS, "role": float(ALIVE_SECONDS), "job": JOB_SECONDS}
    assert figures() == expected | {kind: (limit, kind != "job") for kind, limit in outages.items()}


def test_every_metric_is_explained_with_its_labels() -> None:
    metrics = Metrics()
    metrics.count_webhook(200)
    work = UnfinishedWork(NOW, dict.fromkeys(LIMITS, Unfinished(1, 2.0)))
    outages = tuple(Outage(kind, "web", NOW - timedelta(hours=1)) for kind in ("role", "dependency"))
    rendered = metrics.render(Health(NOW, work, outages, 300, NOW)).decode()
    samples = (sample for family in text_string_to_metric_families(rendered) for sample in family.samples)
    served = {sample.name: set(sample.labels) for sample in samples if not sample.name.endswith("_created")}
    rows = re.findall(r"^\| `(smt_\w+)` \| ([^|]*)\| [^|]+ \|$", MONITORING, re.MULTILINE)
    assert {name: set(re.findall(r"\w+", labels)) for name, labels in rows} == served


def test_metrics_in_the_alerting_rules_exist() -> None:
    rules = MONITORING.partition("```")[2]
    listed = set(re.findall(r"^\| `(smt_\w+)`", MONITORING, re.MULTILINE))
    named = set(re.findall(r"\bsmt_\w+", rules))
    assert named
    assert named <= listed


@pytest.mark.parametrize("command", sorted({limit.command for limit in LIMITS.values()}))
def test_every_command_that_a_figure_names_exists(command: str) -> None:
    program, *words = command.split()
    assert program == "smt-billing"
    names = [word for word in words if not word.startswith("--") and word not in STATES]
    answer = CliRunner().invoke(build(), [*names, "--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0, answer.output
    assert all(word in answer.output for word in words if word not in names)
