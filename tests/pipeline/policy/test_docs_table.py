"""The generated table in docs/privacy.md is current, and the docs list the conflicts between policy and law."""

import re

from pipeline.policy.processing_record import notes
from tests.pipeline.policy.docs_table import DOCS, table, written
from tests.support.pipeline_under_test import made


def test_docs_contain_current_table() -> None:
    assert written() == table(), "to regenerate it, run: .venv/bin/python -m tests.pipeline.policy.docs_table"


def test_docs_list_conflicts_between_policy_and_law() -> None:
    text = DOCS.read_text("utf-8")
    clauses = {note.partition(":")[0] for note in notes(made())}
    assert clauses == set(re.findall(r"^\| `(\d+\.\w+)` \|", text, re.MULTILINE))
    assert "SMT_COUNTRY" in text
