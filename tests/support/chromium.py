"""Headless Chromium, controlled over its debugging pipe. It needs no driver, no package and no open port.

with Chromium(folder) as chromium:
    page = chromium.open("http://127.0.0.1:8000/signup")
    page.fill("#name", "Ada Example")
    page.press("button")
    assert page.foreign("http://127.0.0.1:8000") == set()
"""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.servers import Missing

SECONDS = 60  # Timeout of one step. A working step is much faster.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Chromium:
    """One browser with its own profile, stored in `folder`."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        if program is None:
            raise Missing("chromium is not installed")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # The browser reads from descriptor 3 and writes to 4.
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, program, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._number = b"", 0
        self._answers: dict[int, dict[str, Any]] = {}
        self.pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._out)
        os.close(self._in)

    def open(self, url: str, *, width: int = 1000, dark: bool = False) -> "Page":
        """Open this page in a new tab, `width` CSS pixels wide."""
        target = self.ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = self.pages[session] = Page(self, session)
        page.look(width=width, dark=dark)
        page.go(url)
        return page

    def cookies(self) -> list[dict[str, Any]]:
        """Return every cookie in the browser."""
        found: list[dict[str, Any]] = self.ask("Storage.getCookies")["cookies"]
        return found

    def ask(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """Send one command of the DevTools protocol, and return its result."""
        self._number += 1
        number, said = self._number, {"id": self._number, "method": method, "params": params or {}}
        os.write(self._out, json.dumps(said | ({"sessionId": session} if session else {})).encode() + b"\0")
        self.wait(lambda: number in self._answers)
        answer = self._answers.pop(number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, happened: Callable[[], bool]) -> None:
        """Process the browser's messages until `happened` returns true."""
        end = time.monotonic() + SECONDS
        while not happened():
            assert time.monotonic() < end, f"the browser did not finish the step within {SECONDS} seconds"
            self._take()

    def _take(self) -> None:
        data = os.read(self._in, 1 << 20)
        assert data, "the browser exited"
        *whole, self._rest = (self._rest + data).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self._answers[message["id"]] = message
            elif message.get("sessionId") in self.pages:
                self.pages[message["sessionId"]].note(message["method"], message["params"])


class Page:
    """One tab: its requests, its console errors, and actions such as fill and press."""

    def __init__(self, chromium: Chromium, session: str) -> None:
        self._chromium, self._session = chromium, session
        self.asked: list[str] = []  # The URL of every request, in order.
        self.complaints: list[str] = []  # Console messages, exceptions and blocked requests.
        self.referrers: list[str] = []
        self.status = 0  # HTTP status of the current page.
        self._loads = 0
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._ask(f"{domain}.enable")

    def note(self, method: str, params: dict[str, Any]) -> None:
        """Record one DevTools event of this tab."""
        match method:
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
                headers = {name.lower(): value for name, value in params["request"]["headers"].items()}
                self.referrers += [headers["referer"]] if "referer" in headers else []
            case "Network.responseReceived" if params["type"] == "Document":
                self.status = params["response"]["status"]
            case "Log.entryAdded":
                self.complaints.append(f"{params['entry'].get('url', '')} {params['entry']['text']}")
            case "Runtime.exceptionThrown" | "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(params))
            case "Page.loadEventFired":
                self._loads += 1

    def go(self, url: str) -> None:
        """Open a URL in this tab."""
        self._loading(lambda: self._ask("Page.navigate", {"url": url}))

    def press(self, selector: str) -> None:
        """Click an element and wait until the next page is loaded."""
        self._loading(lambda: self.run(f"document.querySelector({json.dumps(selector)}).click()"))

    def tick(self, selector: str) -> None:
        """Click an element that does not load another page."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def fill(self, selector: str, text: str) -> None:
        """Replace the content of a field with this text."""
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self._ask("Input.insertText", {"text": text})

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression. The page's Content Security Policy does not apply to it."""
        found = self._ask("Runtime.evaluate", {"expression": script, "returnByValue": True})
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    @property
    def url(self) -> str:
        return str(self.run("location.href"))

    @property
    def text(self) -> str:
        """Return the visible text."""
        return str(self.run("document.body.innerText"))

    def look(self, *, width: int, dark: bool = False) -> None:
        """Set the window width in CSS pixels and the light or dark colour scheme."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self._ask("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", {"features": [scheme]})

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def foreign(self, *ours: str) -> set[str]:
        """Return the requested origins other than these."""
        origins = {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in self.asked}
        return origins - {*ours, "about://"}

    def photograph(self, path: Path) -> None:
        """Save a screenshot of the whole page as PNG."""
        shot = self._ask("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def _loading(self, act: Callable[[], object]) -> None:
        before = self._loads
        act()
        self._chromium.wait(lambda: self._loads > before)

    def _ask(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._chromium.ask(method, params, self._session)
