"""Export link: the export is built once, and the link stays usable until that succeeds."""

import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.customers import links
from pipeline.customers.product_hook import ProductUnavailableError
from pipeline.privacy.export.spool import Spool
from tests.support.page_client import Browser, open_pages, sign_up
from tests.support.pipeline_under_test import PipelineUnderTest


@pytest.fixture
def link(sqlite_pipeline: PipelineUnderTest) -> str:
    """The path of an export link."""
    ada = sign_up(sqlite_pipeline)
    with sqlite_pipeline.database.transaction() as session:
        return links.url(
            "", "export", links.issue(session, sqlite_pipeline.keyring(session), ada, "export", sqlite_pipeline.now)
        )


@contextmanager
def open_pages_with_export(container: Container, export: Callable[[], Spool]) -> Iterator[str]:
    """Serve the pages with another export function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "_export", lambda *_: export())
        with open_pages(container) as base:
            yield base


def spool(content: bytes) -> Spool:
    made = Spool(Path(tempfile.gettempdir()))
    made.write(content)
    return made


def test_download_is_deleted_afterwards(container: Container, link: str) -> None:
    made = spool(b"PK" * 10**6)
    with open_pages_with_export(container, lambda: made) as base:
        assert Browser(base).post(link).content == b"PK" * 10**6
    assert made._file.closed


def test_concurrent_requests_build_one_export(container: Container, link: str) -> None:
    built, started, others_done = list[bytes](), threading.Event(), threading.Event()

    def export() -> Spool:
        built.append(b"PK")
        started.set()
        assert others_done.wait(10)
        return spool(b"PK")

    with open_pages_with_export(container, export) as base, ThreadPoolExecutor() as pool:
        first = pool.submit(Browser(base).post, link)
        assert started.wait(10)
        assert (Browser(base).get(link).status_code, Browser(base).post(link).status_code) == (410, 410)
        others_done.set()
        assert (first.result().content, first.result().headers["content-length"]) == (b"PK", "2")
    assert built == [b"PK"]


def test_opening_the_link_builds_no_export(container: Container, link: str) -> None:
    built: list[bytes] = []

    def export() -> Spool:
        built.append(b"PK")
        return spool(b"PK")

    with open_pages_with_export(container, export) as base:
        for _ in range(3):
            assert Browser(base).get(link).status_code == 200
            assert Browser(base).client.head(link).status_code == 200
    assert built == []


@pytest.mark.parametrize(
    ("fault", "status"), [(ProductUnavailableError("away"), 503), (RuntimeError("internal error"), 500)]
)
def test_link_stays_usable_when_export_fails(container: Container, link: str, fault: Exception, status: int) -> None:
    def export() -> Spool:
        raise fault

    with open_pages_with_export(container, export) as base:
        assert [Browser(base).post(link).status_code for _ in range(2)] == [status] * 2
        assert Browser(base).get(link).status_code == 200
