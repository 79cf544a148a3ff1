"""What a run found, kept in benchmarks/results.json, and from there written into docs/performance.md and its picture."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import chart
from benchmarks.rows import figure, number
from benchmarks.table import Found

Results = Mapping[str, Any]  # what `Found.as_json` makes

# Where docs/performance.md says why a row misses its target, by how the row's name begins.
WHY = {
    "webhook answered": "webhook-ingest",
    "events handled": "event-handling",
    "mail rendered": "mail-delivery",
    "the same compared with smtp-source": "mail-delivery",
    "webhook in": "end-to-end",
}

BEGIN, END = "<!-- the table is written by `python -m benchmarks` -->", "<!-- end of the table -->"


def keep(root: Path, found: Found) -> None:
    """Write what has been found so far, whole or not at all."""
    draft = _results(root).with_suffix(".new")
    draft.write_text(json.dumps(found.as_json(), indent=2, ensure_ascii=False) + "\n", "utf-8")
    draft.replace(_results(root))


def write_docs(root: Path) -> None:
    """The last results, into docs/performance.md and docs/performance.svg."""
    results: Results = json.loads(_results(root).read_text("utf-8"))
    page = root / "docs" / "performance.md"
    before, after = _around_table(page.read_text("utf-8"))
    page.write_text(f"{before}{BEGIN}\n{table(results)}{END}{after}", "utf-8")
    (root / "docs" / "performance.svg").write_text(chart.draw(results["rows"]), "utf-8")


def table(results: Results) -> str:
    """The results as Markdown: the rows, what could not be measured, and where it was measured."""
    lines = ["", "| row | ours | peer | ratio | target | met |", "|---|---:|---:|---:|---:|---|"]
    for row in results["rows"]:
        lines += _lines(row)
    lines += ["", *(f"Could not be measured: {part}: {reason}." for part, reason in results["failed"].items())]
    return "\n".join([*lines, _where(results), ""])


def _lines(row: Mapping[str, Any]) -> list[str]:
    ours, peer = (figure(row[side], *row[f"{side}_range"]) for side in ("ours", "peer"))
    name, target = f"{row['name']}, {row['unit']}", f">= {row['target']:.2g}"
    met = "yes" if row["ratio_met"] else f"no, {_short(row['ratio'], row['target'])}{_why(row['name'])}"
    lines = [_line(name, ours, peer, f"**{number(row['ratio'])}**", target, met)]
    if limit := row.get("limit"):
        ours, peer = (figure(limit[side], *limit[f"{side}_range"]) for side in ("ours", "peer"))
        met = "yes" if limit["met"] else f"no, {number(limit['ours'] / limit['most'])} times that{_why(row['name'])}"
        lines.append(_line(f"… {limit['name']}", ours, peer, "", f"<= {limit['most']:g}", met))
    return lines


def _short(ratio: float, target: float) -> str:
    return f"{100 * (1 - ratio / target):.0f} % short"


def _why(name: str) -> str:
    """A link to the reason, where one is told."""
    return next((f": [why](#{anchor})" for beginning, anchor in WHY.items() if name.startswith(beginning)), "")


def _where(results: Results) -> str:
    kind = "A quick run" if results["quick"] else "A full run"
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    return (
        f"{kind} of {results['rounds']} rounds in turns, begun {results['began']}, {results['seconds']} s; median"
        f" [lowest-highest]. This disk: {results['fsyncs_per_second']:,} fdatasync/s; one core:"
        f" {results['rsa_2048_verifications_per_second']:,} RSA-2048 verifications/s. {machine}."
    )


def _around_table(text: str) -> tuple[str, str]:
    before, after = re.split(f"{re.escape(BEGIN)}.*{re.escape(END)}", text, maxsplit=1, flags=re.DOTALL)
    return before, after


def _results(root: Path) -> Path:
    return root / "benchmarks" / "results.json"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
