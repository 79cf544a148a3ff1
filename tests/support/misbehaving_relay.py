"""SMTP relay on a real socket that misbehaves on demand: it refuses, hangs, or drops connections."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, AnyStr

from aiosmtpd.smtp import SMTP, Envelope

from pipeline.mailer.smtp_connection import DeliveryResult
from pipeline.mailer.smtp_relay import Relay

MAIL = b"Subject: x\r\n\r\n.\r\n..two\r\nlast\r\n"
SENDER, ADA = "b+token@bounces.example.com", "ada@example.com"


class MisbehavingRelay:
    """A scripted relay. `script` lists one action for each arrival of an SMTP verb: an answer, `drop`, `close` or `hang`.

    The verb CONNECT is a new connection before its greeting. The verb DOT is the end of a mail's text.
    """

    def __init__(self, **script: list[str]) -> None:
        self.script = script
        self.said: list[str] = []
        self.received: list[tuple[str, bytes]] = []
        self.connections = 0
        self.opened = asyncio.Event()
        self.hanging = asyncio.Event()
        self.wires: list[Wire] = []
        self.last_word = ""
        self.offers = True
        self.in_groups = False  # Whether it announces PIPELINING (RFC 2920).

    async def acts(self, wire: "Wire", verb: str, arg: str = "") -> bool:
        """Do the next action for this verb. Return whether the script has one."""
        self.said.append(f"{verb} {arg}".strip())
        if not self.script.get(verb):
            return False
        match self.script[verb].pop(0):
            case "drop":
                wire.transport.abort()
            case "close":
                wire.transport.close()
            case "hang":
                self.hanging.set()
                await self.opened.wait()
            case answer if verb == "DOT":
                self.last_word = answer
            case answer:
                await wire.push(answer)
                if answer.startswith("421"):
                    wire.transport.close()
        return True

    async def handle_DATA(self, wire: "Wire", session: object, envelope: Envelope) -> str:  # noqa: N802
        self.received.append((envelope.rcpt_tos[0], envelope.original_content or b""))
        self.last_word = "250 2.0.0 queued as 4Xyz"
        await self.acts(wire, "DOT")
        return self.last_word


class Wire(SMTP):
    """One connection to a MisbehavingRelay. It announces DSN and accepts the DSN parameters, which aiosmtpd does not support."""

    transport: Any

    def __init__(self, house: MisbehavingRelay, **options: Any) -> None:
        super().__init__(house, hostname="relay.example.com", ident="ESMTP", **options)
        self.house = house
        house.wires.append(self)

    async def _handle_client(self) -> None:
        self.house.connections += 1
        if await self.house.acts(self, "CONNECT"):
            self.transport.close()  # without a greeting; a client would wait for one until its timeout
        else:
            await super()._handle_client()

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802
        if not await self.house.acts(self, "EHLO", hostname):
            await super().smtp_EHLO(hostname)

    async def push(self, status: AnyStr) -> None:
        if not self.house.offers and str(status).startswith("250-"):
            return
        if self.house.offers and status == "250 HELP":
            await super().push("250-DSN")
            if self.house.in_groups:
                await super().push("250-PIPELINING")
        await super().push(status)

    async def smtp_MAIL(self, arg: str) -> None:  # noqa: N802
        if not await self.house.acts(self, "MAIL", arg):
            await super().smtp_MAIL(re.sub(r" (RET|ENVID)=\S+", "", arg))

    async def smtp_RCPT(self, arg: str) -> None:  # noqa: N802
        if not await self.house.acts(self, "RCPT", arg):
            await super().smtp_RCPT(re.sub(r" (NOTIFY|ORCPT)=\S+", "", arg))

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        if not await self.house.acts(self, "DATA"):
            await super().smtp_DATA(arg)

    async def smtp_RSET(self, arg: str) -> None:  # noqa: N802
        if not await self.house.acts(self, "RSET"):
            await super().smtp_RSET(arg)

    async def smtp_QUIT(self, arg: str) -> None:  # noqa: N802
        if not await self.house.acts(self, "QUIT"):
            await super().smtp_QUIT(arg)


Serve = Callable[..., Awaitable[str]]
MakeRelay = Callable[..., Relay]


@asynccontextmanager
async def open_houses() -> AsyncIterator[Serve]:
    """Yield a function that starts a relay on a free port and returns its URL. All stop at the end of the block."""
    servers: list[tuple[asyncio.Server, MisbehavingRelay]] = []

    async def make(house: MisbehavingRelay, *, over: ssl.SSLContext | None = None, **options: Any) -> str:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Wire(house, loop=loop, **options), "127.0.0.1", 0, ssl=over)
        servers.append((server, house))
        return f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield make
    for server, house in servers:
        server.close()
        house.opened.set()
        for wire in house.wires:
            if wire.transport is not None:
                wire.transport.abort()
    await asyncio.sleep(0.01)


async def send(relay: Relay, recipient: str = ADA, data: bytes = MAIL) -> DeliveryResult:
    return await relay.send(SENDER, recipient, data, envelope_id="token+1")
