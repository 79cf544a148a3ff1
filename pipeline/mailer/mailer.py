"""Mailer: claims queued mails in batches, renders them, sends them over SMTP and records the results.

One transaction claims a batch of mails, renders and freezes them. Another transaction records the results of a batch.
While mails are being sent, the next ones are claimed. A retry sends the frozen bytes again, unless the transmission of
the text never began. If a mailer dies, its claims end with its lock (`db.presence`), not by a timer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
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
from pipeline.error_texts import describe
from pipeline.mailer.liveness import ClaimLiveness
from pipeline.mailer.recipients import Recipient, RecipientResolver
from pipeline.mailer.relay_log import envelope_sender_of, message_id_of
from pipeline.mailer.smtp_connection import DeliveryResult
from pipeline.mailer.smtp_relay import Relay
from pipeline.outbox import mail_kinds
from pipeline.outbox import store as outbox
from pipeline.outbox.tokens import unsubscribe_token
from pipeline.rendering.message import Envelope, build_message
from pipeline.rendering.message_check import MessageMismatchError
from pipeline.rendering.templates import RenderError, Templates

log = structlog.get_logger(__name__)

CLAIM = 50  # mails per claim; if the mailer dies, up to twice as many, and those being sent, are left in doubt
POLL_SECONDS = 1.0  # interval of looking for due mails when no notification arrives
NOT_STARTED = DeliveryResult("later", "not started: the mailer was stopped", False)
SAFE_ERRORS = (
    mail_kinds.UnknownMailKindError,
    RenderError,
    InvalidEnvelopeError,
    MessageMismatchError,
    DecryptionError,
    MasterKeyError,
)  # their messages contain no personal data


@dataclass(frozen=True, slots=True)
class Sender:
    """Sender data for all mails. `operator` is the address for the mails that are not for customers.

    `pages` is the public URL of the customer pages, https://…. Optional mail is sent only if it is set, because such
    mail contains an unsubscribe link.
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
    """One claimed and rendered mail, ready to be sent."""

    id: str
    kind: str
    liveness: ClaimLiveness
    attempts: int
    envelope_sender: str
    recipient: str
    data: bytes


class Mailer:
    """Sends queued mails. There is one mailer per process; it claims mails under the name of its `ClaimLiveness`."""

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
        self._unrecorded: list[tuple[OutgoingMail, DeliveryResult]] = []
        self._open = 0  # claimed mails without a recorded result
        self._has_room = asyncio.Event()  # set when at most CLAIM mails wait for a connection
        self._unknown_claims = set[str]()  # holders of failed claims, whose transaction may have been committed anyway

    async def send_due(self) -> int:
        """Claim and send up to CLAIM due mails. Return how many were claimed.

        Raises DatabaseUnavailableError. Then nothing was claimed, or the results are kept and recorded by the next call.
        """
        async with self._senders() as waiting:
            return await self._claim_more(waiting)

    async def run(self, stop: asyncio.Event, wakeup: asyncio.Event) -> None:
        """Send due mails until `stop` is set. `wakeup` starts a claim at once; otherwise it polls every POLL_SECONDS.

        A slow mail occupies one connection and does not delay the mails on the others.
        """
        try:
            async with self._senders() as waiting:
                while not stop.is_set():
                    wakeup.clear()
                    await self._step(waiting, stop, wakeup)
                self._return_unsent(waiting)
        except DatabaseUnavailableError as error:
            # The last results were not recorded. The relay's log resolves these mails later.
            log.warning("store_down", reason=str(error))

    async def _step(self, waiting: asyncio.Queue[OutgoingMail], stop: asyncio.Event, wakeup: asyncio.Event) -> None:
        """Claim due mails. If there are none, wait for a notification, a finished mail or POLL_SECONDS."""
        try:
            claimed = await self._claim_more(waiting)
        except DatabaseUnavailableError as error:
            log.warning("store_down", reason=str(error))
            # The next claim releases this failed one. That requires that all mails claimed before are finished.
            await _first_of(waiting.join(), stop.wait())
            await _first_of(stop.wait(), seconds=POLL_SECONDS)
            return
        while waiting.qsize() > CLAIM and not stop.is_set():
            self._has_room.clear()
            await _first_of(self._has_room.wait(), stop.wait())
        if not claimed:
            ended = [waiting.join()] if self._open else []
            await _first_of(stop.wait(), wakeup.wait(), *ended, seconds=POLL_SECONDS)

    @contextlib.asynccontextmanager
    async def _senders(self) -> AsyncIterator[asyncio.Queue[OutgoingMail]]:
        """Yield a queue whose mails are sent, one per connection at a time. On exit, wait until all are finished."""
        waiting = asyncio.Queue[OutgoingMail]()
        tasks = [asyncio.create_task(self._send_from(waiting)) for _ in range(self._relay.connections)]
        try:
            yield waiting
            await waiting.join()
            await asyncio.to_thread(self._record)
        except Exception:  # a claim failed; the mails of the earlier claims are still finished and recorded
            await waiting.join()
            with contextlib.suppress(DatabaseUnavailableError):
                await asyncio.to_thread(self._record)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_from(self, waiting: asyncio.Queue[OutgoingMail]) -> None:
        while True:
            mail = await waiting.get()
            if waiting.qsize() <= CLAIM:
                self._has_room.set()
            self._unrecorded.append((mail, await self._send(mail)))
            waiting.task_done()

    async def _claim_more(self, waiting: asyncio.Queue[OutgoingMail]) -> int:
        """Record the results of finished mails and claim new ones. Return how many were claimed."""
        mails = await asyncio.to_thread(self._next)
        self._open += len(mails)
        for mail in mails:
            waiting.put_nowait(mail)
        return len(mails)

    def _return_unsent(self, waiting: asyncio.Queue[OutgoingMail]) -> None:
        """Queue the mails again that no connection has started. Waiting for a slow relay would delay the stop."""
        while not waiting.empty():
            self._unrecorded.append((waiting.get_nowait(), NOT_STARTED))
            waiting.task_done()

    def _next(self) -> list[OutgoingMail]:
        self._record()
        return self._claim()

    async def close(self) -> None:
        """Close the connections to the relay and release the mailer's lock."""
        await self._relay.close()
        liveness, self._liveness = self._liveness, None
        if liveness is not None:
            liveness.end()

    async def _send(self, mail: OutgoingMail) -> DeliveryResult:
        try:
            return await self._relay.send(
                mail.envelope_sender,
                mail.recipient,
                mail.data,
                envelope_id=mail.id,
                allowed=mail.liveness.is_alive,
            )
        except Exception as error:  # noqa: BLE001 - the mail may have been sent, and the others must be recorded
            return DeliveryResult("doubt", f"sending failed: {describe(error)}", True)

    # -- claim

    def _claim(self) -> list[OutgoingMail]:
        """Claim due mails, and first release failed claims whose transaction may have been committed.

        Releasing is safe only when all mails claimed before are recorded: see `outbox.release_claims`.
        """
        liveness = self._valid_liveness()
        unknown = sorted(self._unknown_claims)
        self._unknown_claims.add(liveness.holder)
        mails: list[OutgoingMail] = []
        with self._database.transaction() as session:
            for holder in unknown:  # these mails were never sent, because the commit was never confirmed
                outbox.release_claims(session, holder)
            now = self._clock.now()
            keyring = Keyring(self._master, session, now)

            def prepare(rows: list[outbox.ClaimedMail]) -> None:
                mails.extend(self._prepare_mails(session, keyring, rows, liveness))

            outbox.claim(session, liveness.holder, now, CLAIM, prepare)
        self._unknown_claims.clear()
        return mails

    def _valid_liveness(self) -> ClaimLiveness:
        """Return a `ClaimLiveness` whose lock is held. A new one gets a new name, so the old claims become `doubt`."""
        if self._liveness is None or not self._liveness.check():
            if self._liveness is not None:
                self._liveness.end()
            self._liveness = ClaimLiveness(self._database)
        return self._liveness

    def _prepare_mails(
        self, session: Session, keyring: Keyring, rows: list[outbox.ClaimedMail], liveness: ClaimLiveness
    ) -> list[OutgoingMail]:
        if not rows:
            return []
        keyring.system_key(TOKENS)  # raises if the master key is wrong, so that no mail fails for this reason
        with contextlib.suppress(MasterKeyError):  # a data key that cannot be opened must not affect other mails
            keyring.load([row.key_id for row in rows])
        recipients = RecipientResolver(session, keyring, rows)
        mails = [self._prepare_mail(row, recipients, keyring, liveness) for row in rows]
        return [mail for mail in mails if mail is not None]

    def _prepare_mail(
        self, row: outbox.ClaimedMail, recipients: RecipientResolver, keyring: Keyring, liveness: ClaimLiveness
    ) -> OutgoingMail | None:
        """Return the mail to send, rendered and frozen if necessary. None if it cannot be sent; the row has the reason."""
        try:
            data_key = keyring.get(row.key_id)
            reason = (
                "the customer's data has been erased" if data_key is None else self._suppression_reason(row, recipients)
            )
            if data_key is None or reason:
                row.state, row.reason, row.due_at = "withheld", reason, None
                return None
            if self._needs_rendering(row, recipients, data_key):
                frozen = self._freeze(row, recipients, data_key, keyring)
            else:
                frozen = (
                    data_key.decrypt("mail.recipient", row.recipient or b""),
                    data_key.decrypt("mail.frozen", row.frozen or b""),
                )
        except (DatabaseUnavailableError, SQLAlchemyError):  # a database error, not caused by this mail
            raise
        except Exception as error:  # noqa: BLE001 - a mail that cannot be rendered must not stop the others
            _fail(row, error)
            return None
        if frozen is None:
            return None
        recipient, data = frozen
        return OutgoingMail(
            row.id, row.kind, liveness, row.attempts, self._envelope_sender(row.id), recipient.decode(), data
        )

    def _suppression_reason(self, row: outbox.ClaimedMail, recipients: RecipientResolver) -> str | None:
        """Return why the mail must not be sent, or None. The customer may have opted out since it was queued."""
        reason = recipients.opt_out_reason(row)
        if reason is None and mail_kinds.is_optional(row.kind) and not self._sender.pages.startswith("https://"):
            return "optional mail needs an unsubscribe page: set SMT_PUBLIC_URL to an https:// address"
        return reason

    @staticmethod
    def _needs_rendering(row: outbox.ClaimedMail, recipients: RecipientResolver, data_key: DataKey) -> bool:
        """Return whether the mail is not frozen yet, or frozen for an address that the customer has corrected since."""
        if row.frozen is None or row.recipient is None:
            return True
        corrected = recipients.corrected_address(row)
        if corrected in (None, data_key.decrypt("mail.recipient", row.recipient).decode()):
            return False
        return outbox.ADDRESS_OVERRIDE not in (data_key.decrypt_json("mail.facts", row.facts) or {})

    def _freeze(
        self, row: outbox.ClaimedMail, recipients: RecipientResolver, data_key: DataKey, keyring: Keyring
    ) -> tuple[bytes, bytes] | None:
        """Render the mail and store it encrypted in the row. Return recipient and mail, or None if no address is known."""
        facts = data_key.decrypt_json("mail.facts", row.facts) or {}
        found = recipients.resolve(row, facts) or Recipient(self._sender.operator)
        if not found.address:
            row.state, row.due_at = "queued", None
            return None
        if not valid_address(found.address):
            raise InvalidEnvelopeError("the customer's e-mail address is not valid; correct it")
        link = self._unsubscribe_link(row, keyring)
        template_facts = {name: value for name, value in facts.items() if name != outbox.ADDRESS_OVERRIDE}
        rendered = self._templates.render(
            row.kind, {**template_facts, "customer_name": found.name, "unsubscribe": link}
        )
        row.message_id = message_id_of(row.id, self._sender.envelope_domain)
        data = build_message(rendered, envelope=self._envelope(row, found, keyring.now, link, facts))
        recipient = found.address.encode()
        row.frozen, row.recipient = data_key.encrypt("mail.frozen", data), data_key.encrypt("mail.recipient", recipient)
        return recipient, data

    def _unsubscribe_link(self, row: outbox.ClaimedMail, keyring: Keyring) -> str:
        """Return the unsubscribe link for optional mail; "" for mail that is always sent."""
        if not mail_kinds.is_optional(row.kind):
            return ""
        return f"{self._sender.pages.rstrip('/')}/unsubscribe/{unsubscribe_token(keyring, row.id)}"

    def _envelope(
        self, row: outbox.ClaimedMail, to: Recipient, now: datetime, unsubscribe: str, facts: Mapping[str, Any]
    ) -> Envelope:
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
            references=tuple(facts.get(outbox.REFERENCES, ())),
            automatic=row.kind != "inbound_reply",
        )

    def _envelope_sender(self, token: str) -> str:
        """Return the mail's unique envelope sender. Bounces and the relay's log are matched by it."""
        return envelope_sender_of(token, self._sender.envelope_domain)

    # -- record

    def _record(self) -> None:
        """Write the results of finished mails to the database."""
        ended = list(self._unrecorded)  # a copy, because more mails may finish during the transaction
        if not ended:
            return
        with self._database.transaction() as session:
            ends = [(mail.id, mail.liveness.holder, self._outcome(mail, reply)) for mail, reply in ended]
            outbox.record_results(session, ends)
        del self._unrecorded[: len(ended)]
        self._open -= len(ended)
        for mail, reply in ended:
            log.info("mail_attempted", mail_id=mail.id, kind=mail.kind, outcome=reply.outcome, attempts=mail.attempts)

    def _outcome(self, mail: OutgoingMail, reply: DeliveryResult) -> dict[str, Any]:
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
            return {"state": "queued", "due_at": now, "attempts": mail.attempts - 1, "frozen": None, "recipient": None}
        again = outbox.next_try(mail.attempts, now)
        # A mail whose text was never transmitted is rendered again, for example for a corrected address.
        unfrozen: dict[str, Any] = {} if reply.data_began else {"frozen": None, "recipient": None}
        state = "queued" if again else "failed"
        return {"state": state, "relay_reply": reply.text, "reason": reply.text, "due_at": again, **unfrozen}


def _fail(row: outbox.ClaimedMail, error: Exception) -> None:
    """Set the row to `failed` with the reason."""
    reason = str(error) if isinstance(error, SAFE_ERRORS) else describe(error)
    log.error("mail_failed", mail_id=row.id, kind=row.kind, reason=reason)
    row.state, row.reason, row.due_at = "failed", reason, None


async def _first_of(*waits: Coroutine[Any, Any, object], seconds: float | None = None) -> None:
    """Wait until one of these ends, at most `seconds` (None: no limit)."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
