"""The chaos report: its figures add up and are copied into the docs."""

from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.run import Fire, Result

SEEDS = [
    Result(1, "right", 400, 450, 240, {"kill -9 web": 2}, 7, 1, recovery_seconds=4.0),
    Result(2, "right", 410, 460, 250, {"kill -9 web": 1, "Postfix stopped": 1}, 3, 0, recovery_seconds=36.0),
    Result(1, "embedded", 400, 450, 240, {"Postfix stopped": 4}, 0, 2, lost=1, violations=["not handled: WH-1"]),
]


def test_figures_replace_only_their_section_in_docs(tmp_path: Path) -> None:
    figures, docs = tmp_path / "chaos.json", tmp_path / "reliability.md"
    report.write_json(figures, SEEDS, Fire(), 150.0)
    docs.write_text("# Before\n<!-- figures -->\nold\n<!-- end of figures -->\nAfter\n")
    report.write_docs(figures, docs)
    text = docs.read_text()
    assert text.startswith("# Before\n<!-- figures -->\n")
    assert text.endswith("<!-- end of figures -->\nAfter\n")
    assert "old" not in text
    for row in (
        "| events (posts, with repeats) | 810 (910) | 400 (450) |",
        "| **lost** | **0** | **1** |",
        "| seeds that violated anything | none | 1 |",
        "| at rest after the last fault: median, longest | 20.0 s, 36.0 s | 0.0 s, 0.0 s |",
        "| seeds at rest only after 30 s | 1 | 0 |",
        "| Postfix stopped | 1 | 4 |",
    ):
        assert row in text


def test_docs_without_markers_are_refused(tmp_path: Path) -> None:
    figures, docs = tmp_path / "chaos.json", tmp_path / "reliability.md"
    report.write_json(figures, SEEDS, Fire(), 1.0)
    docs.write_text("# Nothing here\n")
    with pytest.raises(ValueError, match="figures"):
        report.write_docs(figures, docs)
    assert docs.read_text() == "# Nothing here\n"


def test_reliability_docs_have_markers_for_figures() -> None:
    assert report.DOCS.read_text().count("<!-- figures -->") == 1


def test_violation_is_reported_with_its_seed() -> None:
    assert list(report.lines(SEEDS[2]))[-1] == "embedded seed 1 VIOLATED: not handled: WH-1"
    assert list(report.summary(SEEDS))[-1] == "violated by: embedded 1"
