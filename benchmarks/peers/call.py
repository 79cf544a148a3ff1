"""One-off jobs of the peers: `python -m benchmarks.peers.call JOB ...` prints one line of JSON.

tables              make the tables
publish FILE N      hand the first N events of the file to Celery
send N              send N receipts, one after the other; how long it took
build N             render N receipts and build them with the standard library's EmailMessage; how long it took
"""

import json
import sys
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any

WARM = 20  # mails before the clock starts


def tables() -> dict[str, Any]:
    """Make the tables."""
    from benchmarks.peers import store

    store.Base.metadata.create_all(store.engine)
    return {}


def publish(file: str, count: str) -> dict[str, Any]:
    """Hand events to Celery, as the web application does."""
    from benchmarks.peers.tasks import app, handle

    bodies = json.loads(Path(file).read_text("utf-8"))[: int(count)]
    with app.producer_pool.acquire(block=True) as producer:
        for body in bodies:
            handle.apply_async((body,), producer=producer)
    return {"published": len(bodies)}


def send(count: str) -> dict[str, Any]:
    """Send receipts."""
    from benchmarks.peers import mail

    def one(number: int) -> None:
        mail.send(f"customer{number}@example.com", _facts(number))

    return _timed(one, int(count))


def build(count: str) -> dict[str, Any]:
    """Render and build receipts."""
    from benchmarks.peers import mail

    size = 0

    def one(number: int) -> None:
        nonlocal size
        subject, text, html = mail.render(_facts(number))
        built = EmailMessage(policy=SMTP)
        built["From"] = "SMT Constructions <billing@example.com>"
        built["To"] = f"Ada Example <customer{number}@example.com>"
        built["Reply-To"] = "billing@example.com"
        built["Subject"] = subject
        built["Date"] = formatdate()
        built["Message-ID"] = make_msgid(domain="example.com")
        built["Auto-Submitted"] = "auto-generated"
        built.set_content(text)
        built.add_alternative(html, subtype="html")
        size = len(built.as_bytes())

    return {**_timed(one, int(count)), "bytes": size}


def _timed(one: Callable[[int], None], count: int) -> dict[str, Any]:
    for number in range(WARM):
        one(number)
    start = time.perf_counter()
    for number in range(count):
        one(number)
    return {"timed": count, "seconds": time.perf_counter() - start, "made": count + WARM}


def _facts(number: int) -> dict[str, Any]:
    from benchmarks.peers import mail

    owed = {"amount": "29.00 EUR", "payment": f"80021663DE{number:07}", "paid_at": "March 1, 2026"}
    return mail.facts(owed, "Ada Example", f"I-BW452GLL{number:05}")


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"tables": tables, "publish": publish, "send": send, "build": build}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
