"""Public pages of the policy: the text in force, earlier and planned texts by date, and the last check results."""

from datetime import date, datetime
from html import escape
from pathlib import Path

import orjson
from sqlalchemy.orm import Session

from pipeline import files
from pipeline.db.models import Policy
from pipeline.policy import text, versions
from pipeline.policy.clauses import PolicyOwner, document, fill

FILE = "policy.json"  # in the data folder: the results of the last check
VERDICT_LABELS = {
    "holds": "holds",
    "broken": "does not hold",
    "not_applicable": "does not apply",
    "not_looked_at": "not looked at",
}


def page(session: Session, now: datetime, vendor: PolicyOwner, first: date = date(2025, 5, 1)) -> tuple[str, str, date]:
    """Return the text in force as HTML and as plain text, and its effective date.

    If no text is stored yet, return the text of this version of the program, in force since `first`.
    """
    row = versions.in_force(session, now)
    stored, effective = (row.text, _day(session, row)) if row else (text.write(document(), vendor), first)
    return text.html(stored, effective) + _other_texts(session, now), text.plain(stored, effective), effective


def page_of(session: Session, id: str) -> tuple[str, str, date] | None:
    """Return the text of a day (`2026-06-01`) like `page`, in force or not. None if there is none or it was withdrawn."""
    row = session.get(Policy, id)
    if row is None or row.withdrawn_at is not None:
        return None
    effective = _day(session, row)
    return text.html(row.text, effective), text.plain(row.text, effective), effective


def evidence(data_dir: Path, vendor: PolicyOwner) -> tuple[str, list[dict[str, str]]]:
    """Return the results of the last check as HTML and as JSON: clause, verdict and day, without figures."""
    found = _last_results(data_dir)
    promises = {clause.id: fill(clause.text, vendor) for clause in document().clauses}
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row["clause"])}</th><td>{escape(promises.get(row["clause"], ""), quote=False)}</td>'
        f"<td>{VERDICT_LABELS[row['verdict']]}</td><td>{row['date']}</td></tr>"
        for row in found
    )
    head = "<tr><th>Clause</th><th>What we promise</th><th>Result</th><th>Date</th></tr>"
    table = f'<table class="evidence">\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>'
    intro = "<p>The results of the last check of the running system, for each clause.</p>\n"
    none = "<p>The policy has not been checked yet.</p>"
    return f"<h1>Policy check</h1>\n{intro + table if found else none}\n", found


def save_verdicts(data_dir: Path, rows: list[dict[str, str]]) -> None:
    """Store the results of the last check for `evidence`."""
    files.write_atomically(data_dir / FILE, orjson.dumps(rows))


def _last_results(data_dir: Path) -> list[dict[str, str]]:
    try:
        rows: list[dict[str, str]] = orjson.loads((data_dir / FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return []
    return [row for row in rows if row.get("verdict") in VERDICT_LABELS]


def _day(session: Session, row: Policy) -> date:
    return (versions.takes_effect(session, row) or row.effective_at).date()


def _other_texts(session: Session, now: datetime) -> str:
    """Return links to the planned and the earlier texts."""
    present = versions.in_force(session, now)
    planned = [row.id for row in versions.upcoming(session, now)]
    earlier = [
        row.id
        for row in versions.all_texts(session)
        if row is not present and not row.withdrawn_at and row.id not in planned
    ]
    lines = [("A new text takes effect on", planned), ("Earlier texts:", earlier)]
    return "".join(f"<p>{escape(words)} {', '.join(map(_link, ids))}</p>\n" for words, ids in lines if ids)


def _link(id: str) -> str:
    return f'<a href="/privacy/{id}">{id}</a>'
