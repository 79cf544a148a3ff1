"""Reports of a chaos run: a line for each seed, a table, a summary, and the figures as JSON and in docs/reliability.md."""

import os
import platform
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import orjson
from rich import box
from rich.table import Table

from tests.chaos.environment import ROOT
from tests.chaos.run import Fire, Result

TARGET_SECONDS = 30.0  # From the last fault, or its timeout, until no work is left.
DOCS = ROOT / "docs" / "reliability.md"
_FIGURES = re.compile(r"(?s)(<!-- figures -->\n).*?(<!-- end of figures -->)")


def lines(result: Result) -> Iterator[str]:
    """Yield the report lines of one seed. They are printed when it ends, so an interrupted run shows its results."""
    name = f"{result.column} seed {result.seed}"
    yield (
        f"{name}: {result.events} events, {result.mails} mails, {sum(result.faults.values())} faults, "
        f"{result.doubts} doubts resolved, no work left after {result.recovery_seconds:.1f} s"
        + (f" (waited last for: {result.last})" if result.last else "")
        + f", {result.seconds:.0f} s in total"
    )
    if result.died:
        yield f"{name}: unexpected exits, restarted: {result.died}"
    for violation in result.violations:
        yield f"{name} VIOLATED: {violation}"


def table(results: Sequence[Result]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = "column,seed,events,posted,refused,mails,faults,doubts,lost,twice,mails twice,rest s,waited last for,"
    for heading in headings.split(","):
        made.add_column(heading, justify="left" if heading in ("column", "waited last for", "") else "right")
    for one in sorted(results, key=lambda one: (one.column, one.seed)):
        figures = (
            one.seed, one.events, one.posted, one.refused, one.mails, sum(one.faults.values()), one.doubts, one.lost,
            one.duplicated_effects, one.duplicated_mails, f"{one.recovery_seconds:.1f}", one.last,
        )  # fmt: skip
        made.add_row(one.column, *map(str, figures), "[red]violated[/]" if one.violations else "[green]kept[/]")
    return made


def summary(results: Sequence[Result]) -> Iterator[str]:
    rests = [one.recovery_seconds for one in results]
    slow = sum(rest > TARGET_SECONDS for rest in rests)
    yield (
        f"seeds {len(results)}, events {_sum(results, 'events'):,}, posted {_sum(results, 'posted'):,}, "
        f"mails {_sum(results, 'mails'):,}"
    )
    yield "faults: " + ", ".join(f"{kind} {count}" for kind, count in sorted(_faults(results).items()))
    yield (
        f"lost {_sum(results, 'lost')}, duplicated effects {_sum(results, 'duplicated_effects')}, "
        f"duplicated mails {_sum(results, 'duplicated_mails')}, doubts resolved {_sum(results, 'doubts')}"
    )
    yield f"recovery: median {median(rests):.1f} s, longest {max(rests):.1f} s, over {TARGET_SECONDS:g} s: {slow}"
    bad = [f"{one.column} {one.seed}" for one in results if one.violations]
    yield f"violated by: {', '.join(bad)}" if bad else "no violations"


def write_json(path: Path, results: Sequence[Result], fire: Fire, seconds: float) -> None:
    """Write all figures, with the date and the machine."""
    report = {
        "at": datetime.now(UTC).date().isoformat(),  # noqa: TID251 - the date of the run
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}, {_system()}",
        "minutes": round(seconds / 60),
        "fire": asdict(fire),
        "results": [asdict(result) for result in results],
    }
    path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))


def write_docs(path: Path, docs: Path = DOCS) -> None:
    """Copy the figures of the JSON file into the docs. Raises ValueError if the docs have no markers for them."""
    report = orjson.loads(path.read_bytes())
    text, found = _FIGURES.subn(lambda match: match[1] + figures(report) + match[2], docs.read_text())
    if found != 1:
        raise ValueError(f"{docs} has no lines <!-- figures --> and <!-- end of figures -->")
    docs.write_text(text)


def figures(report: dict[str, object]) -> str:
    """Return the Markdown with the figures, from the content of `write_json`."""
    results = [Result(**one) for one in report["results"]]  # type: ignore[attr-defined]
    columns = [name for name in ("right", "embedded") if any(one.column == name for one in results)]
    by_column = [[one for one in results if one.column == name] for name in columns]
    rows = [_row(name, columns, by_column) for name in ROWS]
    faults = [
        f"| {kind} | " + " | ".join(str(_faults(ones)[kind] or "-") for ones in by_column) + " |"
        for kind in sorted(_faults(results))
    ]
    head = f"| {{}} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}"
    return (
        f"{report['at']}: {report['machine']}, {report['minutes']} minutes in total.\n\n"
        + "\n".join([head.format(""), *rows, "", head.format("fault that struck"), *faults])
        + "\n"
    )


ROWS = {
    "seeds": lambda ones: _numbers([one.seed for one in ones]),
    "events (posts, with repeats)": lambda ones: f"{_sum(ones, 'events'):,} ({_sum(ones, 'posted'):,})",
    "mails sent": lambda ones: f"{_sum(ones, 'mails'):,}",
    "faults": lambda ones: f"{_faults(ones).total():,}",
    "posts not answered 200, posted again": lambda ones: f"{_sum(ones, 'refused'):,}",
    "**lost**": lambda ones: f"**{_sum(ones, 'lost')}**",
    "**effects doubled**": lambda ones: f"**{_sum(ones, 'duplicated_effects')}**",
    "**mails doubled**": lambda ones: f"**{_sum(ones, 'duplicated_mails')}**",
    "seeds that violated anything": lambda ones: _numbers([one.seed for one in ones if one.violations]) or "none",
    "doubts, all settled by the relay's log": lambda ones: f"{_sum(ones, 'doubts'):,}",
    "at rest after the last fault: median, longest": lambda ones: (
        f"{median(one.recovery_seconds for one in ones):.1f} s, {max(one.recovery_seconds for one in ones):.1f} s"
    ),
    "seeds at rest only after 30 s": lambda ones: str(sum(one.recovery_seconds > TARGET_SECONDS for one in ones)),
}


def _row(name: str, columns: Sequence[str], by_column: Sequence[Sequence[Result]]) -> str:
    return f"| {name} | " + " | ".join(ROWS[name](ones) for ones in by_column) + " |"


def _numbers(numbers: Sequence[int]) -> str:
    """Return a range such as `1 to 10`, or the numbers separated by commas."""
    listed = sorted(numbers)
    if len(listed) > 2 and listed == list(range(listed[0], listed[-1] + 1)):
        return f"{listed[0]} to {listed[-1]}"
    return ", ".join(map(str, listed))


def _sum(results: Sequence[Result], name: str) -> int:
    return sum(getattr(one, name) for one in results)


def _faults(results: Sequence[Result]) -> Counter[str]:
    faults: Counter[str] = Counter()
    for one in results:
        faults.update(one.faults)
    return faults


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()
