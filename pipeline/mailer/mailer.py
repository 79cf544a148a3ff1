"""Claim -> render -> smtp -> settle.

A mail is claimed, rendered and frozen in one transaction, sent, and settled in another, many in each. While some go out,
the next are claimed and those that ended are settled. What was frozen stays the same for every further try, unless DATA
never began. A mailer that dies takes its claims with it, not a timer: see `db.presence`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import TOKENS, DataKey, DecryptionError, Keyring
from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.email_address import InvalidEnvelopeError, valid_address
from pipeline.mailer.liveness import ClaimLiveness
from pipeline.mailer.recipients import Recipient, RecipientResolver
from pipeline.mailer.relay_log import envelope_sender_of
from pipeline.mailer.smtp_connection import DeliveryResult
from pipeline.mailer.smtp_relay import Relay
from pipeline.outbox import mail_kinds
from pipeline.outbox import store as outbox
from pipeline.outbox.tokens import unsubscribe_token
from pipeline.rendering.message import Envelope, build_message
from pipeline.rendering.message_check import MessageMismatchError
from pipeline.rendering.templates import RenderError, Templates

log = structlog.get_logger(__name__)

CLAIM = 50  # mails at once; twice as many, and those on the wire, are what a death in the middle would leave in doubt
POLL_SECONDS = 1.0  # how long a mail may wait when nobody rings
NOT_STARTED = DeliveryResult("later", "not begun: its mailer was told to stop", False)
SAFE_ERRORS = (
    mail_kinds.UnknownMailKindError,
    RenderError,
    InvalidEnvelopeError,
    MessageMismatchError,
    DecryptionError,
    MasterKeyError,
)  # their words name no person


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
class OutgoingMail:
    """One mail, ready to be handed to the relay."""

    id: str
    kind: str
    life: ClaimLiveness
    attempts: int
    envelope_sender: str
    recipient: str
    data: bytes


class Mailer:
    """Sends what is owed. One per process; its presence tells others that what it claims is being sent."""

    def __init__(
        self,
        database: Database,
        master_key: MasterKey,
        clock: Clock,
        templates: Templates,
        relay: Relay,
        sender: Sender,
    ) -> None:
        self._database, self._master, self._clock = database, master_key, clock
        self._templates, self._relay, self._sender = templates, relay, sender
        self._liveness: ClaimLiveness | None = None
        self._unsettled: list[tuple[OutgoingMail, DeliveryResult]] = []
        self._open = 0  # mails claimed and not settled yet
        self._room = asyncio.Event()  # so few mails wait for a connection that more may be claimed
        self._unknown_claims = set[str]()  # holders of claims that failed, and may have been committed all the same

    async def send_due(self) -> int:
        """Send one claim's worth of what is due; how many.

        Raises StoreDown: then either nothing was claimed, or how it ended is kept and settled first the next time.
        """
        async with self._senders() as waiting:
            return await self._claim_more(waiting)

    async def run(self, stop: asyncio.Event, bell: asyncio.Event) -> None:
        """Send until told to stop; woken by the bell, else looking every second. One slow mail keeps no other back."""
        try:
            async with self._senders() as waiting:
                while not stop.is_set():
                    bell.clear()
                    await self._step(waiting, stop, bell)
                self._return_unsent(waiting)
        except (
            DatabaseUnavailableError
        ) as error:  # told to stop meanwhile: how the last ended is for the relay's log to say
            log.warning("store_down", reason=str(error))

    async def _step(self, waiting: asyncio.Queue[OutgoingMail], stop: asyncio.Event, bell: asyncio.Event) -> None:
        """Claim what is due; if nothing is, wait until there may be something to claim or to settle."""
        try:
            claimed = await self._claim_more(waiting)
        except DatabaseUnavailableError as error:
            log.warning("store_down", reason=str(error))
            # What that claim took is given back, but not what is on the wire.
            await _first_of(waiting.join(), stop.wait())
            await _first_of(stop.wait(), seconds=POLL_SECONDS)
            return
        while waiting.qsize() > CLAIM and not stop.is_set():
            self._room.clear()
            await _first_of(self._room.wait(), stop.wait())
        if not claimed:
            ended = [waiting.join()] if self._open else []
            await _first_of(stop.wait(), bell.wait(), *ended, seconds=POLL_SECONDS)

    @contextlib.asynccontextmanager
    async def _senders(self) -> AsyncIterator[asyncio.Queue[OutgoingMail]]:
        """What is put here is sent, as many at once as there are connections; all of it, before this ends."""
        waiting = asyncio.Queue[OutgoingMail]()
        lanes = [asyncio.create_task(self._send_from(waiting)) for _ in range(self._relay.connections)]
        try:
            yield waiting
            await waiting.join()
            await asyncio.to_thread(self._settle)
        except Exception:  # a claim failed; the one before it ends as it would have
            await waiting.join()
            with contextlib.suppress(DatabaseUnavailableError):
                await asyncio.to_thread(self._settle)
            raise
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _send_from(self, waiting: asyncio.Queue[OutgoingMail]) -> None:
        while True:
            letter = await waiting.get()
            if waiting.qsize() <= CLAIM:
                self._room.set()
            self._unsettled.append((letter, await self._send(letter)))
            waiting.task_done()

    async def _claim_more(self, waiting: asyncio.Queue[OutgoingMail]) -> int:
        """Settle what has ended, and claim. How many were claimed."""
        letters = await asyncio.to_thread(self._next)
        self._open += len(letters)
        for letter in letters:
            waiting.put_nowait(letter)
        return len(letters)

    def _return_unsent(self, waiting: asyncio.Queue[OutgoingMail]) -> None:
        """What no connection has begun with is owed again at once: a relay that hangs would keep us from ending."""
        while not waiting.empty():
            self._unsettled.append((waiting.get_nowait(), NOT_STARTED))
            waiting.task_done()

    def _next(self) -> list[OutgoingMail]:
        self._settle()
        return self._claim()

    async def close(self) -> None:
        await self._relay.close()
        life, self._liveness = self._liveness, None
        if life is not None:
            life.end()

    async def _send(self, letter: OutgoingMail) -> DeliveryResult:
        try:
            return await self._relay.send(
                letter.envelope_sender,
                letter.recipient,
                letter.data,
                envelope_id=letter.id,
                allowed=letter.life.is_alive,
            )
        except Exception as error:  # noqa: BLE001 - it may have gone out, and the others have to be settled
            return DeliveryResult("doubt", f"sending failed: {type(error).__name__}", True)

    # -- claim

    def _claim(self) -> list[OutgoingMail]:
        """After a claim of unknown outcome only when all that was claimed before it is settled: see `give_back`."""
        life = self._live()
        unknown = sorted(self._unknown_claims)
        self._unknown_claims.add(life.holder)
        letters: list[OutgoingMail] = []
        with self._database.transaction() as session:
            for holder in unknown:  # what such a claim took was never sent: we were never told that we have it
                outbox.release_claims(session, holder)
            now = self._clock.now()
            keyring = Keyring(self._master, session, now)

            def write(rows: list[outbox.ClaimedMail]) -> None:
                letters.extend(self._prepare_mails(session, keyring, rows, life))

            outbox.claim(session, life.holder, now, CLAIM, write)
        self._unknown_claims.clear()
        return letters

    def _live(self) -> ClaimLiveness:
        """A new name whenever the old one's sign of life was lost, so that old claims are not taken for live ones."""
        if self._liveness is None or not self._liveness.check():
            if self._liveness is not None:
                self._liveness.end()
            self._liveness = ClaimLiveness(self._database)
        return self._liveness

    def _prepare_mails(
        self, session: Session, keyring: Keyring, rows: list[outbox.ClaimedMail], life: ClaimLiveness
    ) -> list[OutgoingMail]:
        if not rows:
            return []
        keyring.system_key(TOKENS)  # raises if the master key is wrong, before any mail is failed for it
        with contextlib.suppress(MasterKeyError):  # one key that does not open is no other mail's problem
            keyring.load([row.key_id for row in rows])
        people = RecipientResolver(session, keyring, rows)
        letters = [self._prepare_mail(row, people, keyring, life) for row in rows]
        return [letter for letter in letters if letter is not None]

    def _prepare_mail(
        self, row: outbox.ClaimedMail, people: RecipientResolver, keyring: Keyring, life: ClaimLiveness
    ) -> OutgoingMail | None:
        """Freeze the mail if it is not frozen yet. None: it cannot go out now, and its row says why."""
        try:
            seal = keyring.get(row.key_id)
            reason = "the person has been erased" if seal is None else self._suppression_reason(row, people)
            if seal is None or reason:
                row.state, row.reason, row.due_at = "withheld", reason, None
                return None
            if self._needs_rendering(row, people, seal):
                frozen = self._freeze(row, people, seal, keyring)
            else:
                frozen = (
                    seal.decrypt("mail.recipient", row.recipient or b""),
                    seal.decrypt("mail.frozen", row.frozen or b""),
                )
        except (DatabaseUnavailableError, SQLAlchemyError):  # the database's word, and no fault of this mail
            raise
        except Exception as error:  # noqa: BLE001 - a mail that cannot be written must not stop the others
            _fail(row, error)
            return None
        if frozen is None:
            return None
        recipient, data = frozen
        return OutgoingMail(
            row.id, row.kind, life, row.attempts, self._envelope_sender(row.id), recipient.decode(), data
        )

    def _suppression_reason(self, row: outbox.ClaimedMail, people: RecipientResolver) -> str | None:
        """Why the mail is not to go out: judged now, for people may have chosen since it was owed."""
        reason = people.opt_out_reason(row)
        if reason is None and mail_kinds.is_optional(row.kind) and not self._sender.pages.startswith("https://"):
            return "mail that can be declined needs a page to decline it on: set SMT_PUBLIC_URL to an https:// address"
        return reason

    @staticmethod
    def _needs_rendering(row: outbox.ClaimedMail, people: RecipientResolver, seal: DataKey) -> bool:
        """Frozen once; anew for an address that was corrected while the mail was on its way to the old one."""
        if row.frozen is None or row.recipient is None:
            return True
        corrected = people.corrected_address(row)
        if corrected in (None, seal.decrypt("mail.recipient", row.recipient).decode()):
            return False
        return outbox.ADDRESS_OVERRIDE not in (seal.decrypt_json("mail.facts", row.facts) or {})

    def _freeze(
        self, row: outbox.ClaimedMail, people: RecipientResolver, seal: DataKey, keyring: Keyring
    ) -> tuple[bytes, bytes] | None:
        """Recipient and mail, as they are sealed in the row. None: it waits for an address."""
        facts = seal.decrypt_json("mail.facts", row.facts) or {}
        found = people.resolve(row, facts) or Recipient(self._sender.operator)
        if not found.address:
            row.state, row.due_at = "queued", None
            return None
        if not valid_address(found.address):
            raise InvalidEnvelopeError("the e-mail address known of this customer cannot be written to; correct it")
        link = self._unsubscribe(row, keyring)
        told = {name: value for name, value in facts.items() if name != outbox.ADDRESS_OVERRIDE}
        rendered = self._templates.render(row.kind, {**told, "customer_name": found.name, "unsubscribe": link})
        row.message_id = f"<{row.kind}.{row.id}@{self._sender.envelope_domain}>"
        data = build_message(rendered, envelope=self._envelope(row, found, keyring.now, link))
        recipient = found.address.encode()
        row.frozen, row.recipient = seal.encrypt("mail.frozen", data), seal.encrypt("mail.recipient", recipient)
        return recipient, data

    def _unsubscribe(self, row: outbox.ClaimedMail, keyring: Keyring) -> str:
        """The page on which this mail's kind is declined; "" for mail that is owed whatever one chooses."""
        if not mail_kinds.is_optional(row.kind):
            return ""
        return f"{self._sender.pages.rstrip('/')}/unsubscribe/{unsubscribe_token(keyring, row.id)}"

    def _envelope(self, row: outbox.ClaimedMail, to: Recipient, now: datetime, unsubscribe: str) -> Envelope:
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
            unsubscribe=unsubscribe,
        )

    def _envelope_sender(self, token: str) -> str:
        """Unique per mail, so that bounces and the relay's log can be matched with it (RFC 5321 section 4.4)."""
        return envelope_sender_of(token, self._sender.envelope_domain)

    # -- settle

    def _settle(self) -> None:
        """Write how mails ended."""
        ended = list(self._unsettled)  # others may end meanwhile
        if not ended:
            return
        with self._database.transaction() as session:
            ends = [(letter.id, letter.life.holder, self._outcome(letter, reply)) for letter, reply in ended]
            outbox.record_results(session, ends)
        del self._unsettled[: len(ended)]
        self._open -= len(ended)
        for letter, reply in ended:
            log.info("mail", mail_id=letter.id, kind=letter.kind, outcome=reply.outcome, attempts=letter.attempts)

    def _outcome(self, letter: OutgoingMail, reply: DeliveryResult) -> dict[str, Any]:
        now = self._clock.now()
        match reply.outcome:
            case "sent":
                return {"state": "sent", "sent_at": now, "relay_reply": reply.text, "due_at": None, "reason": None}
            case "failed":
                return {"state": "failed", "relay_reply": reply.text, "reason": reply.text, "due_at": None}
            case "doubt":
                reason = f"the connection was lost after DATA: {reply.text}"
                return {
                    "state": "doubt",
                    "relay_reply": reply.text,
                    "reason": reason,
                    "due_at": now + outbox.DOUBT_GRACE,
                }
        if reply is NOT_STARTED:
            return {
                "state": "queued",
                "due_at": now,
                "attempts": letter.attempts - 1,
                "frozen": None,
                "recipient": None,
            }
        again = outbox.next_try(letter.attempts, now)
        # What the relay never began to take may be rendered anew: for an address corrected meanwhile, say.
        thaw: dict[str, Any] = {} if reply.data_began else {"frozen": None, "recipient": None}
        state = "queued" if again else "failed"
        return {"state": state, "relay_reply": reply.text, "reason": reply.text, "due_at": again, **thaw}


def _fail(row: outbox.ClaimedMail, error: Exception) -> None:
    """The mail is failed, and its row says why."""
    reason = str(error) if isinstance(error, SAFE_ERRORS) else f"a fault of ours: {type(error).__name__}"
    log.error("mail_failed", mail_id=row.id, kind=row.kind, reason=reason)
    row.state, row.reason, row.due_at = "failed", reason, None


async def _first_of(*waits: Coroutine[Any, Any, object], seconds: float | None = None) -> None:
    """Wait for any of these, or so many seconds at most."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
