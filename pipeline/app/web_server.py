"""The HTTP servers of the web role: uvicorn, and its settings.

The listener for monitoring is separate, because health details and metrics are not for strangers.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp

from pipeline.settings import Settings
from pipeline.web.client_address import ClientAddresses
from pipeline.web.connection_limits import LimitedProtocol, limit_connections
from pipeline.web.host_header import KnownHosts

log = structlog.get_logger(__name__)


class WebServer(uvicorn.Server):
    """Uvicorn server that logs the address on which it listens, also if the system chose the port."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                host = f"[{host}]" if ":" in host else host
                log.info("server_started", url=f"http://{host}:{port}/webhooks/paypal")

    def end(self) -> None:
        """Answer in-flight requests, then end."""
        self.should_exit = True


class MonitoringServer(uvicorn.Server):
    """Server for `/healthz` with details and `/metrics`. It leaves the signals to the web server next to it."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("monitoring_started", host=host, port=port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def monitoring_server(settings: Settings, app: ASGIApp) -> MonitoringServer | None:
    """Return the server of the monitoring application; None if it is switched off."""
    if not settings.metrics_host:
        return None
    config = uvicorn.Config(
        app,
        host=settings.metrics_host,
        port=settings.metrics_port,
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return MonitoringServer(config)


def web_server(settings: Settings, app: ASGIApp) -> WebServer:
    """Return the server for this application; `serve` runs it."""
    config = uvicorn.Config(
        limit_connections(checked(settings, app)),
        host=settings.web_host,
        port=settings.web_port,
        loop="uvloop",
        http=LimitedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # `checked` reads them, and knows SMT_TRUSTED_PROXIES
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        backlog=512,
    )
    return WebServer(config)


def checked(settings: Settings, app: ASGIApp) -> ASGIApp:
    """Return the application behind the checks of client address and Host header."""
    return ClientAddresses(KnownHosts(app, settings.pages_url), settings.trusted_proxies)
