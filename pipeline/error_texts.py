"""What persons read about an error: plain words, never the name of a Python class.

It is apart from `errors`, because every command loads that module, and these imports take 20 ms.
"""

import http.client
import os
import ssl
import subprocess
from collections.abc import Iterator

from pipeline.errors import OperatorError, place_of


def describe(error: BaseException) -> str:
    """Return in plain words what happened: for persons, so without names of Python classes and without personal data.

    Messages of the program's own errors are quoted. Of a failed connection or file only the operating system's words are:
    messages of libraries may contain requests and answers. Of any other error only its place is shown.
    """
    if isinstance(error, OperatorError):
        return str(error)
    if isinstance(error, OSError | http.client.HTTPException | subprocess.TimeoutExpired):
        return next(filter(None, map(_words, _causes(error))), "the connection failed")
    return f"internal error at {place_of(error)}"


def _words(error: BaseException) -> str:
    """Return the words for an error of the operating system, TLS or HTTP; "" if there are none."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "the TLS connection failed"
    if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        text = (
            error.strerror if error.errno <= 0 else os.strerror(error.errno)
        )  # asyncio adds the address in Python's form
        return text[:1].lower() + text[1:]
    return "the answer is incomplete or not HTTP" if isinstance(error, http.client.HTTPException) else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and the errors that it was raised for, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
