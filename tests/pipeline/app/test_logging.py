"""Strangers cannot fill the log with the warnings of libraries."""

import logging

import pytest

from pipeline.app.logging import WARNING, set_up


def test_warnings_that_each_request_can_cause_are_limited(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(WARNING)
    for _ in range(1000):
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("uvicorn.error").warning("Another one.")
    for _ in range(3):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application")
    lines = capsys.readouterr().err.splitlines()
    assert sum("Invalid HTTP request" in line for line in lines) == 1
    assert sum("Another one" in line for line in lines) == 1
    assert sum("Exception in" in line for line in lines) == 3
