"""While the product or PayPal is slow, the pages, the health check and the webhooks answer as usual."""

import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import orjson
import pytest

from pipeline.customers import links
from pipeline.customers.accounts import SignUpData
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.server.api import FakePaypalApi
from tests.support.page_client import Browser, open_pages, sign_up
from tests.support.pipeline_under_test import PipelineUnderTest, happened, make_parts, sign
from tests.support.running_roles import running
from tests.support.subprocesses import free_port, until

CUSTOMERS = 3
LINKS_EACH = 3
PAGES = ("/healthz", "/account", "/privacy", "/signup")
FORM = {"name": "Ada", "email": "ada@example.com", "company": "", "phone": "", "plan": "Cloud", "adult": "yes"}
HANGS = 12.0  # seconds until PayPal answers
QUICK = 5.0  # seconds; a thread pool that is blocked answers only when the product or PayPal does


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Path]:
    """A product whose export lasts until this file exists, at most a minute. It records each start in `started`."""
    release = tmp_path / "release"
    yield release
    release.touch()


def slow_command(release: Path) -> str:
    script = f"echo x >> {release.parent}/started; for i in $(seq 600); do test -e {release} && break; sleep 0.1; done"
    return shlex.join(("sh", "-c", f"{script}; echo '{{}}'"))


def started(release: Path) -> int:
    log = release.parent / "started"
    return len(log.read_text().splitlines()) if log.exists() else 0


def export_links(pipeline: PipelineUnderTest) -> list[str]:
    """Return links of several customers, several of each; those of one customer come together."""
    people = [sign_up(pipeline, SignUpData(f"P{n}", f"p{n}@example.com", "", "")) for n in range(CUSTOMERS)]
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        return [
            links.url("", "export", links.issue(session, keyring, person, "export", pipeline.now))
            for person in people
            for _ in range(LINKS_EACH)
        ]


def require_quick_pages(base: str) -> None:
    for path in PAGES:
        httpx.get(base + path, timeout=QUICK, trust_env=False)
    body = orjson.dumps(happened())
    assert httpx.post(f"{base}/webhooks/paypal", content=body, headers=sign(body), timeout=QUICK).status_code == 200


def test_slow_exports_delay_nobody_else(sqlite_pipeline: PipelineUnderTest, product: Path) -> None:
    container = make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock,
        product_command=slow_command(product), web_port=free_port(),
    )  # fmt: skip
    base, paths = f"http://127.0.0.1:{container.settings.web_port}", export_links(sqlite_pipeline)
    with running({"web": container}), ThreadPoolExecutor(len(paths)) as pool:
        waiting = [pool.submit(Browser(base).post, path) for path in paths]
        until(lambda: started(product) == 2, 30, "two exports run")
        refused = _done(waiting, len(paths) - 2)
        require_quick_pages(base)
        product.touch()
        delivered = [each.result() for each in waiting if each.result() not in refused]
        again = Browser(base).post(
            next(path for path, each in zip(paths, waiting, strict=True) if each.result() in refused)
        )
    assert [each.status_code for each in delivered] == [200, 200]
    assert {(each.status_code, each.headers["retry-after"]) for each in refused} == {(503, "60")}
    assert again.status_code == 200  # the refused link was not used up


def test_one_customer_gets_one_export_at_a_time(sqlite_pipeline: PipelineUnderTest, product: Path) -> None:
    container = make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, product_command=slow_command(product)
    )
    mine = export_links(sqlite_pipeline)[:LINKS_EACH]
    with open_pages(container) as base, ThreadPoolExecutor(len(mine)) as pool:
        waiting = [pool.submit(Browser(base).post, path) for path in mine]
        refused = _done(waiting, LINKS_EACH - 1)
        until(lambda: started(product) == 1, 30, "one export runs")
        product.touch()
        assert sorted(each.result().status_code for each in waiting) == [200, 503, 503]
    assert {each.headers["retry-after"] for each in refused} == {"60"}
    assert started(product) == 1


def test_hanging_paypal_delays_nobody_else(sqlite_pipeline: PipelineUnderTest) -> None:
    paypal = FakePaypalApi(clock=sqlite_pipeline.clock, stall_seconds=HANGS)
    paypal.misbehave("stall", 100)
    with paypal.serve() as url:
        container = make_parts(
            sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, web_port=free_port(),
            paypal_base_url=url, paypal_client_id="simulator",
            paypal_client_secret="simulator-secret", plans={"Cloud": CLOUD.id},
        )  # fmt: skip
        base = f"http://127.0.0.1:{container.settings.web_port}"
        with running({"web": container}), ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(Browser(base).post, "/signup", {**FORM, "token": f"t{n}"}) for n in range(12)]
            refused = _done(waiting, 4)
            require_quick_pages(base)
            assert sum(each.done() for each in waiting) < len(waiting)  # PayPal still hangs
        container.paypal.close()
    assert {(each.status_code, each.headers["retry-after"]) for each in refused} == {(503, "60")}


def _done(waiting: list[Future[httpx.Response]], count: int) -> list[httpx.Response]:
    """Wait until so many requests are answered, and return their answers."""
    until(lambda: sum(each.done() for each in waiting) >= count, 30, f"{count} requests are answered")
    return [each.result() for each in waiting if each.done()]
