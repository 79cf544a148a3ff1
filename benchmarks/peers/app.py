"""The FastAPI application: PayPal's webhook, verified, handed to Celery, answered when the broker has confirmed it."""

# mypy: disable-error-code="import-not-found, untyped-decorator, no-any-return"
# What is imported here is installed in an environment of its own, which mypy does not look into.

import base64
import zlib
from pathlib import Path
from typing import Annotated, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from fastapi import Depends, FastAPI, HTTPException, Request

from benchmarks.peers.surroundings import CERTIFICATE, WEBHOOK_ID
from benchmarks.peers.tasks import handle

app = FastAPI()
key = cast(RSAPublicKey, x509.load_pem_x509_certificate(Path(CERTIFICATE).read_bytes()).public_key())


async def raw_body(request: Request) -> bytes:
    """The bytes that were signed."""
    return await request.body()


@app.post("/webhooks/paypal")
def webhook(request: Request, body: Annotated[bytes, Depends(raw_body)]) -> dict[str, str]:
    """Runs in a thread of the pool, as Celery's `delay` waits for the broker. That is quicker than `async def` here."""
    sent = request.headers
    message = f"{sent['paypal-transmission-id']}|{sent['paypal-transmission-time']}|{WEBHOOK_ID}|{zlib.crc32(body)}"
    try:
        signature = base64.b64decode(sent["paypal-transmission-sig"])
        key.verify(signature, message.encode(), PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError) as error:
        raise HTTPException(403) from error
    handle.delay(body.decode())
    return {"status": "accepted"}
