"""What of the policy is public: the text in force, earlier and coming ones by date, and the last verdicts."""

from datetime import date, datetime
from html import escape
from pathlib import Path

import orjson
from sqlalchemy.orm import Session

from pipeline import files
from pipeline.db.models import Policy
from pipeline.policy import text, versions
from pipeline.policy.clauses import PolicyOwner, document, fill

FILE = "policy.json"  # the last verdicts, in the data folder
WORDS = {"holds": "holds", "broken": "does not hold", "not_applicable": "does not apply"}


def page(session: Session, now: datetime, vendor: PolicyOwner, first: date = date(2025, 5, 1)) -> tuple[str, str, date]:
    """The text in force: as the inside of a page, as plain text, and its effective date.

    Before a first text was kept it is that of this version of the program, in force since `first`.
    """
    row = versions.in_force(session, now)
    kept, effective = (row.text, _day(session, row)) if row else (text.write(document(), vendor), first)
    return text.html(kept, effective) + _others(session, now), text.plain(kept, effective), effective


def page_of(session: Session, id: str) -> tuple[str, str, date] | None:
    """The text of a day (`2026-06-01`), in force or not; None if there is none."""
    row = session.get(Policy, id)
    if row is None or row.withdrawn_at is not None:
        return None
    effective = _day(session, row)
    return text.html(row.text, effective), text.plain(row.text, effective), effective


def evidence(data_dir: Path, vendor: PolicyOwner) -> tuple[str, list[dict[str, str]]]:
    """The last verdicts as the inside of a page, and as JSON: clause, verdict and day, nothing of what was looked at."""
    found = _last(data_dir)
    said = {clause.id: fill(clause.text, vendor) for clause in document().clauses}
    rows = "\n".join(
        f'<tr><th scope="row">{escape(row["clause"])}</th><td>{escape(said.get(row["clause"], ""), quote=False)}</td>'
        f"<td>{WORDS[row['verdict']]}</td><td>{row['date']}</td></tr>"
        for row in found
    )
    head = "<tr><th>Clause</th><th>What we promise</th><th>Found</th><th>On</th></tr>"
    table = f'<table class="evidence">\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>'
    intro = "<p>What the last check of the running system found, clause by clause.</p>\n"
    none = "<p>The policy has not been checked yet.</p>"
    return f"<h1>Is the policy kept?</h1>\n{intro + table if found else none}\n", found


def save_verdicts(data_dir: Path, rows: list[dict[str, str]]) -> None:
    """Keep the last verdicts for `evidence`."""
    files.write_atomically(data_dir / FILE, orjson.dumps(rows))


def _last(data_dir: Path) -> list[dict[str, str]]:
    try:
        rows: list[dict[str, str]] = orjson.loads((data_dir / FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return []
    return [row for row in rows if row.get("verdict") in WORDS]


def _day(session: Session, row: Policy) -> date:
    return (versions.takes_effect(session, row) or row.effective_at).date()


def _others(session: Session, now: datetime) -> str:
    """Links to the texts that are to come and that were."""
    present = versions.in_force(session, now)
    coming = [row.id for row in versions.upcoming(session, now)]
    gone = [
        row.id
        for row in versions.all_texts(session)
        if row is not present and not row.withdrawn_at and row.id not in coming
    ]
    lines = [("A new text takes effect on", coming), ("Earlier texts:", gone)]
    return "".join(f"<p>{escape(words)} {', '.join(map(_link, ids))}</p>\n" for words, ids in lines if ids)


def _link(id: str) -> str:
    return f'<a href="/privacy/{id}">{id}</a>'
