"""Generate the table of clauses in docs/privacy.md. Run it with `python -m tests.pipeline.policy.docs_table`."""

import re
from pathlib import Path

from pipeline.policy.clauses import Clause, document
from pipeline.policy.stated_limits import PARAMETERS
from tests.pipeline.policy.mutants import MUTANTS

DOCS = Path(__file__).parents[3] / "docs" / "privacy.md"
BEGIN, END = "<!-- the table is generated: begin -->\n", "<!-- end -->\n"


def table() -> str:
    """Return the table that the docs should contain."""
    clauses = len(list(document().clauses))
    mutants = sum(map(len, MUTANTS.values()))
    count = f"{clauses} clauses, {mutants} mutants; a test fails if a check does not detect its mutant.\n\n"
    head = (
        count
        + "| clause | text | control | check | evidence | not looked at | the check fails when … | mutants |\n"
        + "|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(f"{_row(clause)}\n" for clause in document().clauses)


def written() -> str:
    """Return the table that the docs contain."""
    return DOCS.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def _row(clause: Clause) -> str:
    text = re.sub(r"\{(\w+)\}", lambda found: str(PARAMETERS.get(found[1], f"*{found[1]}*")), clause.text)
    mutants = MUTANTS[clause.id]
    mutant = (mutants[0].__doc__ or "").strip().rstrip(".")
    cells = [
        clause.id,
        text,
        f"`{clause.control}`",
        f"`{clause.check}`",
        clause.evidence,
        clause.unseen,
        mutant[:1].lower() + mutant[1:],
        str(len(mutants)),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    before, _, rest = DOCS.read_text("utf-8").partition(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", "utf-8")
