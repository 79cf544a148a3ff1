"""SMTP server for the demo that stores every mail in a folder, in a background thread on a free loopback port."""

import asyncio
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from pipeline import files

NAME = "catcher.localhost"  # set explicitly, because the default would require a DNS look-up
# The id of a mail is the left side of its Message-ID. Characters with a meaning for file systems are excluded.
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*<([A-Za-z0-9]{1,60})@", re.MULTILINE | re.IGNORECASE)
OTHER = "other"  # the kind of a mail that is not in the outbox


@contextmanager
def catch_mail(folder: Path, kind_of: Callable[[str], str | None]) -> Iterator[str]:
    """Run the server for the duration of the block and yield its URL.

    A mail is stored as `KIND.ID.eml`. `kind_of` returns the kind of the mail with this id, None if it is unknown.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=_run, args=(loop,), name="catcher", daemon=True)
    thread.start()
    starting = loop.create_server(lambda: _protocol(Catcher(folder, kind_of), loop), sock=listener)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result()
    try:
        yield f"smtp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


class Catcher:
    """Handler that aiosmtpd calls for each mail."""

    def __init__(self, folder: Path, kind_of: Callable[[str], str | None]) -> None:
        self._folder, self._kind_of = folder, kind_of

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Store the mail with the envelope's addresses as headers, as final delivery does (RFC 5321 section 4.4)."""
        sender, recipients = envelope.mail_from or "", ", ".join(envelope.rcpt_tos)
        content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        head = f"Return-Path: <{sender}>\r\nDelivered-To: {recipients}\r\n".encode()
        try:
            _write(self._folder, self._name(content), head + content)
        except OSError as error:
            return f"452 cannot store the mail: {error.strerror}"
        return "250 stored"

    def _name(self, content: bytes) -> str:
        found: Any = _MESSAGE_ID.search(content.partition(b"\r\n\r\n")[0])
        mail_id = found[1].decode() if found else os.urandom(8).hex()
        return f"{self._kind_of(mail_id) or OTHER}.{mail_id}"


def _protocol(catcher: Catcher, loop: asyncio.AbstractEventLoop) -> SMTP:
    return SMTP(catcher, hostname=NAME, ident="smt-billing demo", enable_SMTPUTF8=True, loop=loop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _write(folder: Path, name: str, data: bytes) -> None:
    """Write the file. A second mail with the same Message-ID gets a number, so that both stay visible."""
    path, number = folder / f"{name}.eml", 1
    while True:
        try:
            with files.create_private(path) as file:
                file.write(data)
                return
        except FileExistsError:
            number += 1
            path = folder / f"{name}-{number}.eml"
