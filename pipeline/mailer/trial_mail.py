"""Send a test mail of any kind to one address, without the outbox, to check the relay and the templates."""

import secrets
from datetime import datetime

from pipeline.mailer.mailer import Sender
from pipeline.mailer.relay_log import envelope_sender_of, message_id_of
from pipeline.mailer.smtp_connection import DeliveryResult
from pipeline.mailer.smtp_relay import Relay
from pipeline.rendering import message
from pipeline.rendering.message import Envelope, RenderedMail


async def send_test(
    relay_url: str, sender: Sender, rendered: RenderedMail, address: str, now: datetime
) -> DeliveryResult:
    """Send the mail with "[Test]" in its subject, and return the relay's answer."""
    token = "test" + secrets.token_hex(10)
    envelope = Envelope(
        token=token,
        sender_name=sender.name,
        sender_address=sender.address,
        recipient_name="",
        recipient_address=address,
        reply_to=sender.reply_to,
        date=now,
        message_id=message_id_of(token, sender.envelope_domain),
        locale=sender.locale,
    )
    test = RenderedMail(f"[Test] {rendered.subject}", rendered.text, rendered.html)
    relay = Relay(relay_url, connections=1)
    try:
        data = message.build_message(test, envelope=envelope)
        return await relay.send(envelope_sender_of(token, sender.envelope_domain), address, data, envelope_id=token)
    finally:
        await relay.close()
