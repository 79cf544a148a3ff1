"""Hook to the product that customers pay for: requests its export of a customer, and notifies it of an erasure.

The hook is a command (one JSON object on stdin, answer on stdout) or a URL to which the same object is posted:
{"action": "export" | "erase", "customer": custom id, "email": address}. The answer to an export is one file, usually a
ZIP. The answer to an erasure is ignored. {"action": "privacy"} asks what the product does with its data; see docs/privacy.md.
"""

import os
import shlex
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import IO, Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit

import orjson

from pipeline.child_environment import child_environment
from pipeline.error_texts import describe
from pipeline.errors import OperatorError
from pipeline.network.hosts import is_on_this_machine

Action = Literal["export", "erase", "privacy"]
MAX_ANSWER_BYTES = 512 * 1024 * 1024  # the answer is held in memory
TIMEOUT_SECONDS = 300  # an export may have to collect many files


class ProductUnavailableError(OperatorError):
    """The product did not carry out the request. The message never quotes its answer, which may hold personal data."""


@dataclass(frozen=True, slots=True)
class ProductHook:
    """The command or URL of the product; both are empty if no product is configured."""

    command: str = ""
    url: str = ""
    token: str = ""

    @property
    def is_configured(self) -> bool:
        return bool(self.command or self.url)

    def call(self, action: Action, customer: Mapping[str, str]) -> bytes:
        """Send the action to the product and return its answer. Raises ProductUnavailableError."""
        body = orjson.dumps({"action": action, **customer})
        if self.command:
            return _run(self.command, body)
        return _post(self.url, self.token, body)


def _run(command: str, body: bytes) -> bytes:
    """Run the command without a shell, so customer data is never interpreted. A private temporary file takes the answer."""
    with tempfile.TemporaryFile() as answer:
        try:
            finished = subprocess.run(  # noqa: S603 - the operator's own command
                shlex.split(command),
                input=body,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise ProductUnavailableError(f"cannot run SMT_PRODUCT_COMMAND: {describe(error)}") from None
        if finished.returncode:
            raise ProductUnavailableError(f"SMT_PRODUCT_COMMAND ended with exit code {finished.returncode}")
        if answer.seek(0, os.SEEK_END) > MAX_ANSWER_BYTES:
            raise ProductUnavailableError(
                f"SMT_PRODUCT_COMMAND answered with more than {MAX_ANSWER_BYTES // 2**20} MiB"
            )
        answer.seek(0)
        return answer.read()


def _post(url: str, token: str, body: bytes) -> bytes:
    if not is_safe_url(url):
        raise ProductUnavailableError("SMT_PRODUCT_URL must be https://, or http:// on this machine")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # noqa: S310 - checked above
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
            found: bytes = answer.read(MAX_ANSWER_BYTES + 1)
    except HTTPError as error:
        error.close()
        raise ProductUnavailableError(f"SMT_PRODUCT_URL answered {error.code}") from None
    except (OSError, HTTPException) as error:
        raise ProductUnavailableError(f"cannot reach SMT_PRODUCT_URL: {describe(error)}") from None
    if len(found) > MAX_ANSWER_BYTES:
        raise ProductUnavailableError(f"SMT_PRODUCT_URL answered with more than {MAX_ANSWER_BYTES // 2**20} MiB")
    return found


def is_safe_url(url: str) -> bool:
    """Return whether personal data may be sent to this URL: HTTPS, or HTTP on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_on_this_machine(parts.hostname or ""))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: personal data goes only to the configured URL."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Any:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
