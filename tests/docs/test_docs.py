"""Settings, commands, events, mails, modules and links that the docs name exist, and those that exist are named."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import report
from handlers import HANDLERS
from pipeline.__main__ import build
from pipeline.rendering.template_filters import make_filters
from pipeline.settings import Settings, variable

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:`|bin/|^)smt-billing ([^`\n]*)", re.MULTILINE)


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def everything() -> str:
    return "\n".join(text_of(path) for path in DOCS)


def test_every_setting_is_listed_with_its_sentence_and_no_other_is_named() -> None:
    listed = text_of(ROOT / "docs" / "operations.md")
    for name, field in Settings.model_fields.items():
        assert f"| `{variable(name)}` |" in listed, f"docs/operations.md does not list {variable(name)}"
        assert str(field.description) in listed, f"docs/operations.md says something else of {variable(name)}"
    known = {variable(name) for name in Settings.model_fields}
    named = {name.removesuffix("_FILE") for name in re.findall(r"SMT_[A-Z][A-Z_]*[A-Z]", everything())}
    assert {name for name in named if not name.startswith("SMT_TEST")} <= known | {"SMT_MASTER_KEY"}


def test_every_handled_event_stands_in_the_recipe_and_no_other() -> None:
    table = re.findall(r"^\| `([A-Z._-]+)` \|", text_of(ROOT / "docs" / "add-an-event.md"), re.MULTILINE)
    assert sorted(table) == sorted(HANDLERS)


def test_every_mail_stands_in_the_recipe() -> None:
    folders = {path.parent.name for path in (ROOT / "email_templates").glob("*/subject.txt")}
    table = text_of(ROOT / "docs" / "add-a-mail.md").partition("## Mails")[2]
    assert folders
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(folders)


def test_every_filter_of_a_mail_stands_in_the_recipe() -> None:
    told = re.search(r"Filters: ([^.]*)\.", text_of(ROOT / "docs" / "add-a-mail.md"))
    assert told
    assert sorted(re.findall(r"`(\w+)`", told[1])) == sorted(make_filters("en_US"))


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", text_of(path)):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_files_and_folders_that_are_named_exist() -> None:
    for name in re.findall(r"`((?:pipeline|handlers|tests|docs|deploy|email_templates)/[\w./]*)`", everything()):
        assert (ROOT / name).exists(), f"the docs name {name}"


def test_the_table_of_performance_is_the_last_results() -> None:
    results = json.loads(text_of(ROOT / "benchmarks" / "results.json"))
    assert f"{report.BEGIN}\n{report.table(results)}{report.END}" in text_of(ROOT / "docs" / "performance.md")


def test_each_row_that_misses_its_target_says_why() -> None:
    page = text_of(ROOT / "docs" / "performance.md")
    headings = {line.strip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")}
    missed = re.findall(r"^\|.*\| no, .*\|$", page, re.MULTILINE)
    assert [line for line in missed if not set(re.findall(r"\[why\]\(#(.+?)\)", line)) & headings] == []


def test_the_packages_in_the_docs_are_those_of_the_program() -> None:
    packages = {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    architecture, readme = text_of(ROOT / "docs" / "architecture.md"), text_of(ROOT / "README.md")
    listed = re.findall(
        r"^\| `(\w+)` \|", architecture.partition("## Packages")[2].partition("## Promises")[0], re.MULTILINE
    )
    assert sorted(listed) == sorted(packages)
    stations = re.findall(r"^ \d (\w+)  ", architecture, re.MULTILINE)
    assert stations
    assert set(stations) <= packages
    picture = readme.partition("## Architecture")[2].split("```")[1]
    assert packages - set(re.findall(r"\w+", picture)) == set()


def test_make_targets_that_are_named_exist() -> None:
    makefile = text_of(ROOT / "Makefile")
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", everything(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"the docs name make {target}"


def test_every_command_that_is_named_answers_to_help_and_has_the_options_named() -> None:
    named = {line.split("  ")[0].strip() for line in COMMAND.findall(everything())}
    assert {"parked list", "doctor", "mail settle ID --sent"} <= named
    for line in sorted(named):
        words = [word for word in line.split() if word.isascii() and word.replace("-", "").islower()]
        answer = help_of([word for word in words if not word.startswith("--")])
        for option in (word for word in words if word.startswith("--")):
            assert option in answer, f"the docs name smt-billing {line}, which has no {option}"


def help_of(words: list[str]) -> str:
    """The help of a command; words that its help is not about are arguments."""
    for length in (3, 2, 1):
        done = CliRunner().invoke(build(), [*words[:length], "--help"], env={"COLUMNS": "200"})
        if done.exit_code == 0:
            return done.output
    raise AssertionError(f"the docs name smt-billing {' '.join(words)}, which is no command")
