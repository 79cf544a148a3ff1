"""A client of the simulated PayPal API that shows raw answers, and one server for many tests."""

from typing import Any

import requests
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.simulator.server.api import TOKEN_PATH

CREDENTIALS = ("simulator", "simulator-secret")


class Vendor:
    """An API client with one session and one token."""

    def __init__(self, base_url: str) -> None:
        self.base_url, self.session = base_url, requests.Session()
        self.session.trust_env = False
        self.timeout = 10.0  # seconds

    def token(self, credentials: tuple[str, str] = CREDENTIALS, grant: str = "client_credentials") -> requests.Response:
        body = {"grant_type": grant}
        return self.session.post(self.base_url + TOKEN_PATH, data=body, auth=credentials, timeout=10)

    def sign_in(self) -> None:
        self.session.headers["Authorization"] = "Bearer " + self.token().json()["access_token"]

    def get(self, path: str, **query: object) -> requests.Response:
        parameters = {name: str(value) for name, value in query.items()}
        return self.session.get(self.base_url + path, params=parameters, timeout=self.timeout)

    def post(self, path: str, body: object = None, **headers: str) -> requests.Response:
        return self.send("POST", path, body, **headers)

    def send(self, method: str, path: str, body: object = None, **headers: str) -> requests.Response:
        """Send JSON, or a request without a body. `request_id="1"` becomes the header `PayPal-Request-Id`."""
        named = {"Content-Type": "application/json"}
        if "request_id" in headers:
            named["PayPal-Request-Id"] = headers["request_id"]
        if "prefer" in headers:
            named["Prefer"] = headers["prefer"]
        return self.session.request(method, self.base_url + path, json=body, headers=named, timeout=10)


class SharedServer:
    """One server for many tests; each test installs its own simulated PayPal in it."""

    base_url: str
    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def issues(answer: requests.Response) -> list[str]:
    """Return the issues of an error answer."""
    details: list[dict[str, Any]] = answer.json()["details"]
    return [str(each["issue"]) for each in details]
