"""The demo in a real browser: a person orders a subscription, approves it at the simulated PayPal, and gets the receipt."""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_pages_in_browser import assert_page_is_clean, chromium
from tests.support.chromium import Chromium
from tests.support.subprocesses import ROOT, ManagedProcess, free_port

__all__ = ["chromium"]

ARRIVES_SECONDS = 30  # much longer than needed, for a busy machine
CUSTOMER = {"name": "Nina Example", "email": "nina@example.com"}


@pytest.fixture
def demo(tmp_path: Path, data_dir: Path) -> Iterator[str]:
    """The URL of a running demo."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "pipeline", "demo", "--months", "1", "--subscribers", "2"]
    process = ManagedProcess(
        [*command, "--port", url.rpartition(":")[2]],
        tmp_path,
        environment={"SMT_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    process.wait_until(lambda: "Ctrl-C stops" in process.log.read_text("utf-8"))
    assert f"{url}/signup" in process.log.read_text("utf-8")
    yield url
    process.end()


def test_order_in_demo_leads_to_welcome_mail_and_receipt(demo: str, chromium: Chromium) -> None:
    page = chromium.open(f"{demo}/")
    assert_page_is_clean(page, demo)
    page.press('a[href="/signup"]')
    for name, value in CUSTOMER.items():
        page.fill(f"#{name}", value)
    page.tick("#adult")
    page.press("main button")
    assert "Simulated PayPal" in page.text
    assert re.search(r"Price\s+\S*\d", page.text)
    for width in (390, 1000):
        page.look(width=width)
        assert page.overflow() <= 0
    page.fill("#email", CUSTOMER["email"])
    page.press("button")  # Agree and Subscribe
    assert page.url.startswith(f"{demo}/signup/done")

    deadline = time.monotonic() + ARRIVES_SECONDS
    while not ("Welcome" in page.text and "Receipt" in page.text):
        assert time.monotonic() < deadline, page.text
        time.sleep(0.2)
        page.go(f"{demo}/mails?q={CUSTOMER['email']}")
    assert "2 of" in page.text
