"""Layout of tables on terminals of different widths."""

from io import StringIO

import orjson
import pytest
from rich.console import Console

from pipeline.app import logging
from pipeline.cli import output
from pipeline.cli.exit_codes import exit_on_error
from pipeline.errors import OperatorError

HEADINGS = ["id", "e-mail", "what", "since (UTC)"]
ROWS: list[list[str | None]] = [
    ["c0123456789abcdef0123456789abcd", "ada.example@example.com", "A licence, by the year", "2026-03-01 10:00"],
    ["cfedcba9876543210fedcba98765432", "bob.example@example.com", "Managed cloud", None],
]


def drawn(monkeypatch: pytest.MonkeyPatch, width: int, rows: list[list[str | None]]) -> list[str]:
    written = StringIO()
    monkeypatch.setattr(output, "console", lambda: Console(file=written, width=width, highlight=False))
    output.print_table(HEADINGS, rows)
    return [line.rstrip() for line in written.getvalue().splitlines()]


def test_wide_terminal_shows_one_line_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(monkeypatch, 120, ROWS)
    assert lines[0].split() == ["id", "e-mail", "what", "since", "(UTC)"]
    assert len(lines) == 2 + len(ROWS)


@pytest.mark.parametrize("width", [60, 80, 94, 95, 120])
def test_single_words_are_never_wrapped(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    text = "\n".join(drawn(monkeypatch, width, ROWS))
    for whole in ("c0123456789abcdef0123456789abcd", "ada.example@example.com", "2026-03-01 10:00"):
        assert whole in text


def test_narrow_terminal_shows_rows_as_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, 60, ROWS[1:]) == [
        "id      cfedcba9876543210fedcba98765432",
        "e-mail  bob.example@example.com",
        "what    Managed cloud",
    ]


def test_long_word_in_text_keeps_table(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(monkeypatch, 60, [["c1", None, "visits of a-very-long-name.smtconstructions.example.com", None]])
    assert lines[0].split() == ["id", "what"]


# Text from outside: CSI, right-to-left override, line separator, DEL, bell, a tag character, a private one
HOSTILE = "Ada\x9b31m\u202egnp\u2028\x7f\x07\U000e0041\ue000 Ångström 🎉"


def is_harmless(text: str) -> bool:
    return all(character.isprintable() or character in "\n " for character in text)


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], {HOSTILE: {"name": HOSTILE, "number": 1}}, "Ada", None])
def test_json_output_contains_no_control_characters(capsys: pytest.CaptureFixture[str], value: object) -> None:
    output.print_json(value)
    for written in (capsys.readouterr().out, output.json_lines(value)):
        assert is_harmless(written)
        assert orjson.loads(written) == value


def test_json_output_keeps_printable_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(HOSTILE)
    assert "Ångström 🎉" in capsys.readouterr().out


def test_error_message_contains_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), exit_on_error("smt-billing"):
        raise OperatorError(f"there is no customer {HOSTILE}")
    assert is_harmless(capsys.readouterr().err)


def test_log_line_contains_no_control_characters() -> None:
    written = logging._json({"event": "event_parked", "reason": HOSTILE})
    assert is_harmless(written)
    assert orjson.loads(written)["reason"] == HOSTILE
