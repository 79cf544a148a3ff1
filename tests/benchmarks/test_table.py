"""What a run found is kept, counted and written into the docs as it was found. Nothing is measured here."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.rows import Figure, Limit, Row
from benchmarks.servers import Wrong
from benchmarks.table import Found, show

QUICK_DOOR = Row("door", "a peer", "webhooks/s", Figure.of([1200, 1300, 1100]), Figure.of([100, 90, 110]), 12)


def found(*rows: Row) -> Found:
    run = Found(3, True, "2026-03-01T10:00:00Z", {"processors": 2}, 9831.2, 53735.4)
    run.add("door", lambda: list(rows))
    return run


def broken() -> list[Row]:
    raise Wrong("events stored: 7, and 9 were answered 200")


def in_folder(root: Path) -> Path:
    (root / "benchmarks").mkdir()
    (root / "docs").mkdir()
    (root / "docs" / "performance.md").write_text(f"before\n\n{report.BEGIN}\nold\n{report.END}\n\nafter\n", "utf-8")
    return root


def test_a_ratio_is_of_medians_and_higher_is_always_better() -> None:
    memory = Row("memory", "a peer", "MiB", Figure.of([50]), Figure.of([100]), 2, smaller_is_better=True)
    assert (QUICK_DOOR.ratio, QUICK_DOOR.met) == (12, True)
    assert (memory.ratio, memory.met) == (2, True)


def test_a_row_whose_p99_is_too_high_is_missed_however_fast_it_is() -> None:
    late = Limit("p99 in ms", Figure.of([11, 9, 30]), Figure.of([66]), 10)
    row = Row("door", "a peer", "webhooks/s", Figure.of([1200]), Figure.of([100]), 6, limit=late)
    assert (row.met, row.as_json()["met"], row.as_json()["ratio_met"]) == (False, False, True)


def test_each_row_of_the_results_has_its_numbers() -> None:
    row = found(QUICK_DOOR).as_json()["rows"][0]
    assert {name: row[name] for name in ("name", "ours", "peer", "ratio", "target", "met")} == {
        "name": "door",
        "ours": 1200,
        "peer": 100,
        "ratio": 12,
        "target": 12,
        "met": True,
    }


def test_a_part_that_fails_loses_no_row_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, root = found(QUICK_DOOR), in_folder(tmp_path)
    run.add("end to end", broken)
    run.add("receipt", lambda: [QUICK_DOOR])
    report.keep(root, run)
    kept = json.loads((root / "benchmarks" / "results.json").read_text("utf-8"))
    assert [row["name"] for row in kept["rows"]] == ["door", "door"]
    assert kept["failed"] == {"end to end": "events stored: 7, and 9 were answered 200"}
    show(run)
    assert "could not be measured: end to end" in " ".join(capsys.readouterr().out.split())


def test_the_exit_code_tells_whether_all_was_met_missed_or_not_measured() -> None:
    missed = Row("door", "a peer", "webhooks/s", Figure.of([1199]), Figure.of([100]), 12)
    failed = found(QUICK_DOOR)
    failed.add("end to end", broken)
    assert (found(QUICK_DOOR).exit_code, found(QUICK_DOOR, missed).exit_code, failed.exit_code) == (0, 1, 2)


def test_the_docs_are_written_from_the_results_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    root = in_folder(tmp_path)
    report.keep(root, found(QUICK_DOOR))
    report.write_docs(root)
    page = (root / "docs" / "performance.md").read_text("utf-8")
    assert re.match(r"before\n.*\n\nafter\n$", page, re.DOTALL)
    assert "| door, webhooks/s | 1,200 [1,100-1,300] | 100 [90-110] | **12** | >= 12 | yes |" in page
    assert "old" not in page
    assert "door: 12 times a peer" in (root / "docs" / "performance.svg").read_text("utf-8")


def test_the_docs_say_by_how_much_a_target_is_missed_and_where_the_reason_stands(tmp_path: Path) -> None:
    late = Limit("p99 in ms", Figure.of([25]), Figure.of([66]), 10)
    name = "webhook answered after durable"
    row = Row(name, "a peer", "webhooks/s", Figure.of([300]), Figure.of([100]), 12, limit=late)
    page = report.table(found(row).as_json())
    assert "| **3** | >= 12 | no, 75 % short: [why](#webhook-ingest) |" in page
    assert "|  | <= 10 | no, 2.5 times that: [why](#webhook-ingest) |" in page
