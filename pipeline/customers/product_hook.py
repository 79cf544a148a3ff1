"""The product that the customer pays for: asked for its own export of a customer, told when one is erased.

Either a command, which reads one JSON object on stdin and answers on stdout, or an address that the same object is
posted to. What is said: {"action": "export" | "erase", "customer": custom id, "email": address}. An export answers with
one file (a ZIP, as a rule), an erasure with anything; what it says goes no further than that.
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

from pipeline.network.hosts import is_on_this_machine

Action = Literal["export", "erase"]
LARGEST = 512 * 1024 * 1024  # octets of an answer
ANSWER_SECONDS = 300


class ProductUnavailableError(Exception):
    """The product did not do what it was asked. The message says why, without its words: they may be personal."""


@dataclass(frozen=True, slots=True)
class ProductHook:
    """How the product is reached: by a command or by an address, by neither if there is nothing to ask."""

    command: str = ""
    url: str = ""
    token: str = ""

    @property
    def is_configured(self) -> bool:
        return bool(self.command or self.url)

    def call(self, action: Action, customer: Mapping[str, str]) -> bytes:
        """Ask or tell the product; its answer. Raises ProductDown."""
        said = orjson.dumps({"action": action, **customer})
        if self.command:
            return _run(self.command, said)
        return _post(self.url, self.token, said)


def _run(command: str, said: bytes) -> bytes:
    """No shell: what the customer is called can mean nothing to one. The answer goes through a file only we can read."""
    with tempfile.TemporaryFile() as answer:
        try:
            ended = subprocess.run(  # noqa: S603 - the operator's own command
                shlex.split(command),
                input=said,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                timeout=ANSWER_SECONDS,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise ProductUnavailableError(f"SMT_PRODUCT_COMMAND could not be run: {_kind(error)}") from None
        if ended.returncode:
            raise ProductUnavailableError(f"SMT_PRODUCT_COMMAND ended with exit code {ended.returncode}")
        if answer.seek(0, os.SEEK_END) > LARGEST:
            raise ProductUnavailableError(f"SMT_PRODUCT_COMMAND answered with more than {LARGEST // 2**20} MiB")
        answer.seek(0)
        return answer.read()


def _post(url: str, token: str, said: bytes) -> bytes:
    if not is_safe_url(url):
        raise ProductUnavailableError("SMT_PRODUCT_URL must be https://, or http:// on this machine")
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    asked = urllib.request.Request(url, data=said, headers=headers, method="POST")  # noqa: S310 - checked above
    try:
        with _OPENER.open(asked, timeout=ANSWER_SECONDS) as answer:
            found: bytes = answer.read(LARGEST + 1)
    except HTTPError as error:
        error.close()
        raise ProductUnavailableError(f"SMT_PRODUCT_URL answered {error.code}") from None
    except (OSError, HTTPException) as error:
        raise ProductUnavailableError(f"SMT_PRODUCT_URL gives no answer: {_kind(error)}") from None
    if len(found) > LARGEST:
        raise ProductUnavailableError(f"SMT_PRODUCT_URL answered with more than {LARGEST // 2**20} MiB")
    return found


def is_safe_url(url: str) -> bool:
    """Whether personal data may go there: encrypted, or on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_on_this_machine(parts.hostname or ""))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A person's data goes where the operator said, and nowhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Any:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)


def _kind(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
