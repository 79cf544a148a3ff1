"""Refuse requests for other hosts, so that no page, redirect or cache depends on a Host header that a client made up.

The webhook endpoint and the monitoring addresses accept every host: PayPal's signature protects the webhook, monitoring
reaches the web role by internal names, and no answer of theirs contains the host.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.web.problem import problem

ANY_HOST = ("/webhooks/paypal", "/healthz")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")  # with any port: health checks, and pages on the developer's machine
DEFAULT_PORTS = {"https": ":443", "http": ":80"}


class KnownHosts:
    """ASGI layer that answers 400 to requests without exactly one Host header, and 421 to requests for other hosts."""

    def __init__(self, app: ASGIApp, pages_url: str, any_host: Collection[str] = ANY_HOST) -> None:
        """`pages_url`: the public address of the pages. `any_host`: paths that accept every host."""
        self._app, self._any_host = app, frozenset(any_host)
        url = urlsplit(pages_url)
        self._host = url.netloc.lower().removesuffix(DEFAULT_PORTS.get(url.scheme, ""))
        self._default_port = DEFAULT_PORTS.get(url.scheme, "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it (ASGI interface)."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            await problem(400, "A request has exactly one Host header.")(scope, receive, send)
        elif scope["path"] in self._any_host or self._is_known(hosts[0].decode("latin-1").lower()):
            await self._app(scope, receive, send)
        else:
            await problem(421, "This server has no pages for that host.")(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        if host.removesuffix(self._default_port) == self._host:
            return True
        name, _, port = host.rpartition(":")
        return host in LOOPBACK or (name in LOOPBACK and port.isdecimal())
