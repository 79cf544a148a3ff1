"""Claim -> render -> smtp -> settle.

A mail is claimed, rendered and frozen in one transaction, sent, and settled in another. What was frozen stays the same
for every further try, unless DATA never began. A mailer that dies takes its claims with it, not a timer: see
`Database.presence`.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from pipeline import outbox, purposes
from pipeline.addressee import Addressee, Addressees
from pipeline.clock import Clock
from pipeline.database import Database, Presence, StoreDown
from pipeline.evidence import sender_of
from pipeline.keys import TOKENS, KeyProblem, Keyring, MasterKey, Seal, Unsealable
from pipeline.message import BadEnvelope, Envelope, Forged, build, valid_address
from pipeline.render import RenderError, Templates
from pipeline.smtp import Relay, Reply
from pipeline.tables import Mail

log = structlog.get_logger(__name__)

CLAIM = 50  # mails at once: what a death in the middle would leave in doubt
LOOK_SECONDS = 1.0  # how old the knowledge may be that we are seen alive; far below SETTLE_AFTER
POLL_SECONDS = 1.0  # how long a mail may wait when nobody rings
TOLD = (purposes.NoPurpose, RenderError, BadEnvelope, Forged, Unsealable, KeyProblem)  # their words name no person


@dataclass(frozen=True, slots=True)
class Sender:
    """Who the mails are from. `operator` gets the mails that are not for customers.

    `pages` is where our pages are reached from outside, https://…: mail that can be declined says where, or is not sent.
    """

    name: str
    address: str
    reply_to: str
    envelope_domain: str
    locale: str
    operator: str = ""
    pages: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail, ready to be handed to the relay."""

    id: str
    kind: str
    holder: str
    attempts: int
    envelope_sender: str
    recipient: str
    data: bytes


class Mailer:
    """Sends what is owed. One per process; its presence tells others that what it claims is being sent."""

    def __init__(
        self, database: Database, master: MasterKey, clock: Clock, templates: Templates, relay: Relay, sender: Sender
    ) -> None:
        self._database, self._master, self._clock = database, master, clock
        self._templates, self._relay, self._sender = templates, relay, sender
        self._holder = ""
        self._presence: Presence | None = None
        self._unsettled: list[tuple[Letter, Reply]] = []
        self._present, self._looked_at, self._looking = False, 0.0, asyncio.Lock()
        self._unknown_claim = ""  # the holder of a claim that failed, and may have been committed all the same

    async def send_due(self) -> int:
        """Send one claim's worth of what is due; how many.

        Raises StoreDown: then either nothing was claimed, or how it ended is kept and settled first the next time.
        """
        await asyncio.to_thread(self._settle)
        looked_at = asyncio.get_running_loop().time()
        letters = await asyncio.to_thread(self._claim)
        self._present, self._looked_at = True, looked_at
        replies = await asyncio.gather(*(self._send(letter) for letter in letters))
        self._unsettled = list(zip(letters, replies, strict=True))
        await asyncio.to_thread(self._settle)
        return len(letters)

    async def run(self, stop: asyncio.Event, bell: asyncio.Event, alive: Callable[[], object]) -> None:
        """Send until told to stop; woken by the bell, else looking every second."""
        while not stop.is_set():
            alive()
            try:
                if await self.send_due():
                    continue
            except StoreDown as error:
                log.warning("store_down", reason=str(error))
            bell.clear()
            await _first_of(stop, bell, seconds=POLL_SECONDS)

    async def close(self) -> None:
        await self._relay.close()
        presence, self._presence = self._presence, None
        if presence is not None:
            presence.leave()

    async def _send(self, letter: Letter) -> Reply:
        try:
            return await self._relay.send(
                letter.envelope_sender, letter.recipient, letter.data, envelope_id=letter.id, allowed=self._is_present
            )
        except Exception as error:  # noqa: BLE001 - it may have gone out, and the others have to be settled
            return Reply("doubt", f"sending failed: {type(error).__name__}", True)

    async def _is_present(self) -> bool:
        """Whether others still see us alive. If not, our claims are in doubt and may be sent by others soon."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._presence and self._present and now - self._looked_at > LOOK_SECONDS:
                self._present = await asyncio.to_thread(self._presence.still_held)
                self._looked_at = now
            return self._present

    # -- claim

    def _claim(self) -> list[Letter]:
        self._be_present()
        unknown, self._unknown_claim = self._unknown_claim, self._holder
        with self._database.transaction() as session:
            if unknown:  # what a claim of unknown outcome took was never sent: we were never told that we have it
                outbox.give_back(session, unknown)
            now = self._clock.now()
            keyring = Keyring(self._master, session, now)
            rows = outbox.claim(session, self._holder, now, CLAIM)
            if rows:
                keyring.own(TOKENS)  # raises if the master key is wrong, before any mail is failed for it
            with contextlib.suppress(KeyProblem):  # one key that does not open is no other mail's problem
                keyring.fetch([row.label for row in rows])
            people = Addressees(session, keyring, rows)
            letters = [self._letter(row, people, keyring, now) for row in rows]
        self._unknown_claim = ""
        return [letter for letter in letters if letter is not None]

    def _be_present(self) -> None:
        """A new name whenever the old one's sign of life was lost, so that old claims are not taken for live ones."""
        if self._presence is None or not self._presence.still_held():
            if self._presence is not None:
                self._presence.leave()
            self._holder = f"mailer-{secrets.token_hex(8)}"
            self._presence = self._database.presence(self._holder)

    def _letter(self, row: Mail, people: Addressees, keyring: Keyring, now: datetime) -> Letter | None:
        """Freeze the mail if it is not frozen yet. None: it cannot go out now, and its row says why."""
        try:
            seal = keyring.get(row.label)
            reason = "the person has been erased" if seal is None else self._unwanted(row, people)
            if seal is None or reason:
                row.state, row.reason, row.due_at = "withheld", reason, None
                return None
            if self._is_to_be_written(row, people, seal) and not self._freeze(row, people, seal, keyring, now):
                return None
            recipient = seal.open("mail.recipient", row.recipient or b"").decode()
            data = seal.open("mail.frozen", row.frozen or b"")
        except Exception as error:  # noqa: BLE001 - a mail that cannot be written must not stop the others
            _fail(row, error)
            return None
        return Letter(row.id, row.kind, self._holder, row.attempts, self._envelope_sender(row.id), recipient, data)

    def _unwanted(self, row: Mail, people: Addressees) -> str | None:
        """Why the mail is not to go out: judged now, for people may have chosen since it was owed."""
        reason = people.declined(row)
        if reason is None and purposes.is_optional(row.kind) and not self._sender.pages.startswith("https://"):
            return "mail that can be declined needs a page to decline it on: set SMT_PUBLIC_URL to an https:// address"
        return reason

    @staticmethod
    def _is_to_be_written(row: Mail, people: Addressees, seal: Seal) -> bool:
        """Frozen once; anew for an address that was corrected while the mail was on its way to the old one."""
        if row.frozen is None or row.recipient is None:
            return True
        corrected = people.corrected_address(row)
        if corrected in (None, seal.open("mail.recipient", row.recipient).decode()):
            return False
        return outbox.TO not in (seal.open_json("mail.facts", row.facts) or {})

    def _freeze(self, row: Mail, people: Addressees, seal: Seal, keyring: Keyring, now: datetime) -> bool:
        facts = seal.open_json("mail.facts", row.facts) or {}
        found = people.of(row, facts) or Addressee(self._sender.operator)
        if not found.address:
            row.state, row.due_at = "owed", None  # waits for an address
            return False
        if not valid_address(found.address):
            raise BadEnvelope("the e-mail address known of this customer cannot be written to; correct it")
        link = self._unsubscribe(row, keyring)
        told = {name: value for name, value in facts.items() if name != outbox.TO}
        rendered = self._templates.render(row.kind, {**told, "customer_name": found.name, "unsubscribe": link})
        row.message_id = f"<{row.kind}.{row.id}@{self._sender.envelope_domain}>"
        data = build(rendered, envelope=self._envelope(row, found, now, link))
        row.frozen, row.recipient = seal.seal("mail.frozen", data), seal.seal("mail.recipient", found.address.encode())
        return True

    def _unsubscribe(self, row: Mail, keyring: Keyring) -> str:
        """The page on which this mail's kind is declined; "" for mail that is owed whatever one chooses."""
        if not purposes.is_optional(row.kind):
            return ""
        return f"{self._sender.pages.rstrip('/')}/unsubscribe/{outbox.unsubscribe_token(keyring, row.id)}"

    def _envelope(self, row: Mail, to: Addressee, now: datetime, unsubscribe: str) -> Envelope:
        return Envelope(
            token=row.id,
            sender_name=self._sender.name,
            sender_address=self._sender.address,
            recipient_name=to.name,
            recipient_address=to.address,
            reply_to=self._sender.reply_to,
            date=now,
            message_id=row.message_id or "",
            locale=self._sender.locale,
            kind=row.kind,
            unsubscribe=unsubscribe,
        )

    def _envelope_sender(self, token: str) -> str:
        """Unique per mail, so that bounces and the relay's log can be matched with it (RFC 5321 section 4.4)."""
        return sender_of(token, self._sender.envelope_domain)

    # -- settle

    def _settle(self) -> None:
        """Write how the last claim's mails ended."""
        if not self._unsettled:
            return
        with self._database.transaction() as session:
            ends = [(letter.id, letter.holder, self._outcome(letter, reply)) for letter, reply in self._unsettled]
            outbox.settle(session, ends)
        for letter, reply in self._unsettled:
            log.info("mail", mail_id=letter.id, kind=letter.kind, outcome=reply.outcome, attempts=letter.attempts)
        self._unsettled = []

    def _outcome(self, letter: Letter, reply: Reply) -> dict[str, Any]:
        now = self._clock.now()
        match reply.outcome:
            case "sent":
                return {"state": "sent", "sent_at": now, "reply": reply.text, "due_at": None, "reason": None}
            case "failed":
                return {"state": "failed", "reply": reply.text, "reason": reply.text, "due_at": None}
            case "doubt":
                reason = f"the connection was lost after DATA: {reply.text}"
                return {"state": "doubt", "reply": reply.text, "reason": reason, "due_at": now + outbox.SETTLE_AFTER}
        again = outbox.next_try(letter.attempts, now)
        # What the relay never began to take may be rendered anew: for an address corrected meanwhile, say.
        thaw: dict[str, Any] = {} if reply.data_began else {"frozen": None, "recipient": None}
        state = "owed" if again else "failed"
        return {"state": state, "reply": reply.text, "reason": reply.text, "due_at": again, **thaw}


def _fail(row: Mail, error: Exception) -> None:
    """The mail is failed, and its row says why."""
    reason = str(error) if isinstance(error, TOLD) else f"a fault of ours: {type(error).__name__}"
    log.error("mail_failed", mail_id=row.id, kind=row.kind, reason=reason)
    row.state, row.reason, row.due_at = "failed", reason, None


async def _first_of(*events: asyncio.Event, seconds: float) -> None:
    """Wait for any of these, or so many seconds."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
