"""Webhook sender: posts signed deliveries to the webhook endpoint, and retries as PayPal does.

PayPal posts an event up to 25 times until the answer is 2xx. Each attempt is a new transmission with its own id and
signature (https://developer.paypal.com/api/rest/webhooks/rest/).
"""

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from urllib.parse import urlsplit

from pipeline.clock import Clock
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.timeline import Delivery

TRIES = 25  # attempts per event, as at PayPal
NO_ANSWER = 0  # used as a status: the connection was refused, was lost or timed out


def _no_pause(attempt: int) -> None:
    """Do not wait; PayPal waits minutes between attempts."""


class WebhookSender:
    """Delivers to one URL for one webhook id. It keeps one connection per thread; `close` closes them.

    `timeout` is in seconds. `pause` is called before each retry with the number of attempts so far. `clock` gives the
    times of the transmissions; without it each is sent at the time of its delivery.
    """

    def __init__(
        self,
        url: str,
        signer: Signer,
        webhook_id: str,
        *,
        tries: int = TRIES,
        timeout: float = 30.0,
        pause: Callable[[int], None] = _no_pause,
        clock: Clock | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"the simulator delivers only to http:// URLs, not to {url}")
        self._host, self._port, self._path = parts.hostname, parts.port or 80, parts.path or "/"
        self._signer, self._webhook_id = signer, webhook_id
        self._tries, self._timeout, self._pause = tries, timeout, pause
        self._clock = clock
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []

    def deliver(
        self,
        deliveries: Iterable[Delivery],
        *,
        at_once: int = 1,
        done: Callable[[Delivery, int], None] | None = None,
    ) -> Counter[int]:
        """Send all deliveries, `at_once` in parallel. Return the number of deliveries per final status.

        With `at_once` 1 they arrive in the given order. `done` is called with each delivery and its final status, in the
        thread that sent it.
        """

        def one(delivery: Delivery) -> int:
            status = self.send(delivery)
            if done is not None:
                done(delivery, status)
            return status

        if at_once == 1:
            return Counter(map(one, deliveries))
        with ThreadPoolExecutor(at_once, thread_name_prefix="webhook-sender") as pool:
            return Counter(pool.map(one, deliveries))

    def send(self, delivery: Delivery) -> int:
        """Post one event until the answer is 2xx or no attempt is left. Return the last status, or NO_ANSWER."""
        body, status = delivery.body, NO_ANSWER
        for attempt in range(self._tries):
            if attempt:
                self._pause(attempt)
            sent_at = self._clock.now() if self._clock else delivery.at
            status = self.post(body, self._signer.sign(body, self._webhook_id, sent_at))
            if 200 <= status < 300:
                break
        return status

    def post(self, body: bytes, headers: dict[str, str]) -> int:
        """Post one request without retries. Return its status, or NO_ANSWER."""
        connection = self._connection()
        try:
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            return NO_ANSWER
        return answer.status

    def close(self) -> None:
        """Close all connections."""
        while self._open:
            self._open.pop().close()

    def __enter__(self) -> "WebhookSender":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            self._local.connection = connection
            self._open.append(connection)
        return connection
