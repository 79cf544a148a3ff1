import re

from pipeline.policy.processing_record import notes
from tests.pipeline.policy.docs_table import DOCS, table, written
from tests.support.pipeline_under_test import made


def test_the_table_of_the_docs_is_the_present_one() -> None:
    assert written() == table(), "write it anew: .venv/bin/python -m tests.pipeline.policy.docs_table"


def test_the_docs_say_where_policy_and_law_pull_apart_and_which_setting_decides() -> None:
    text = DOCS.read_text("utf-8")
    clauses = {note.partition(":")[0] for note in notes(made())}
    assert clauses == set(re.findall(r"^\| `(\d+\.\w+)` \|", text, re.MULTILINE))
    assert "SMT_COUNTRY" in text
