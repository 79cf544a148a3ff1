"""One receipt rendered and built, in one thread, nothing sent."""

import time

from benchmarks.context import Bench
from benchmarks.peer import Peer
from benchmarks.rows import Figure, Row
from benchmarks.servers import Wrong
from pipeline.clock import SystemClock
from pipeline.rendering.branding import Branding
from pipeline.rendering.message import Envelope, build_message
from pipeline.rendering.templates import Templates, default_folder

WARM = 20
VENDOR = Branding(
    name="SMT Constructions",
    url="https://smtconstructions.example.com",
    address="1 Long Road, Leeds",
    colour="#1d4e89",
    product="SMT-CRM",
    support_email="billing@example.com",
)


def measure(bench: Bench) -> list[Row]:
    """Each receipt is another: its reference, its customer, its time."""
    side = Peer(bench.new_folder(), bench.bins)
    taken = bench.rounds({"receipt": lambda: ours(bench.care.built), "receipt, peer": lambda: _peer(side, bench)})
    one, other = (Figure.of([1e6 * seconds for seconds, _ in rounds]) for rounds in taken.values())
    sizes = [rounds[0][1] for rounds in taken.values()]
    if not 0.9 <= sizes[0] / sizes[1] <= 1.1:
        raise Wrong(f"the receipts are not of the same size: {sizes[0]} and {sizes[1]} bytes")
    name = "render + build one receipt"
    return [Row(name, "EmailMessage + Jinja2", "µs/mail", one, other, 5, smaller_is_better=True)]


def ours(count: int) -> tuple[float, int]:
    """Seconds for one, and its size in bytes."""
    templates = Templates(default_folder(), VENDOR, "en_US")
    for number in range(WARM):
        _one(templates, number)
    size, start = 0, time.perf_counter()
    for number in range(count):
        size = len(_one(templates, number))
    return (time.perf_counter() - start) / count, size


def written() -> bytes:
    """One receipt, as it goes out."""
    return _one(Templates(default_folder(), VENDOR, "en_US"), 0)


def _one(templates: Templates, number: int) -> bytes:
    token = f"benchmark{number}"
    facts = {
        "customer_name": "Ada Example",
        "subscription": f"I-BW452GLL{number:05}",
        "plan": "SMT-CRM managed cloud, monthly",
        "payment": f"80021663DE{number:07}",
        "amount": {"amount": 2900, "currency": "EUR"},
        "paid_at": "2026-03-01T10:00:00Z",
        "paid_through": "2026-04-01T10:00:00Z",
    }
    envelope = Envelope(
        token=token,
        sender_name=VENDOR.name,
        sender_address="billing@example.com",
        recipient_name="Ada Example",
        recipient_address=f"customer{number}@example.com",
        reply_to="billing@example.com",
        date=SystemClock().now(),
        message_id=f"<receipt.{token}@example.com>",
        locale="en_US",
    )
    return build_message(templates.render("receipt", facts), envelope=envelope)


def _peer(side: Peer, bench: Bench) -> tuple[float, int]:
    told = side.call("build", str(bench.care.built))
    return told["seconds"] / told["timed"], told["bytes"]
