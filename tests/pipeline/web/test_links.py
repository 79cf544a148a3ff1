"""The link to a copy of one's data: the copy is made once, and the link serves until there is one."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.customers import links
from pipeline.customers.product_hook import ProductUnavailableError
from tests.support.page_client import Browser, open_pages, sign_up
from tests.support.pipeline_under_test import River


@pytest.fixture
def link(brook: River) -> str:
    """The path of a link to a copy."""
    ada = sign_up(brook)
    with brook.database.transaction() as session:
        return links.url("", "export", links.issue(session, brook.keyring(session), ada, "export", brook.now))


@contextmanager
def open_copies(container: Container, export: Callable[[], bytes]) -> Iterator[str]:
    """The pages, with another way of making copies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "_export", lambda *_: export())
        with open_pages(container) as base:
            yield base


def test_a_copy_is_made_once_for_who_comes_first(container: Container, link: str) -> None:
    made, begun, others_came = list[bytes](), threading.Event(), threading.Event()

    def export() -> bytes:
        made.append(b"PK")
        begun.set()
        assert others_came.wait(10)
        return b"PK"

    with open_copies(container, export) as base, ThreadPoolExecutor() as pool:
        first = pool.submit(Browser(base).post, link)
        assert begun.wait(10)
        assert (Browser(base).get(link).status_code, Browser(base).post(link).status_code) == (410, 410)
        others_came.set()
        assert first.result().content == b"PK"
    assert made == [b"PK"]


def test_to_look_at_the_link_makes_no_copy(container: Container, link: str) -> None:
    made: list[bytes] = []

    def export() -> bytes:
        made.append(b"PK")
        return b"PK"

    with open_copies(container, export) as base:
        for _ in range(3):
            assert Browser(base).get(link).status_code == 200
            assert Browser(base).client.head(link).status_code == 200
    assert made == []


@pytest.mark.parametrize(
    ("fault", "status"), [(ProductUnavailableError("away"), 503), (RuntimeError("a fault of ours"), 500)]
)
def test_a_copy_that_could_not_be_made_can_be_asked_for_again(
    container: Container, link: str, fault: Exception, status: int
) -> None:
    def export() -> bytes:
        raise fault

    with open_copies(container, export) as base:
        assert [Browser(base).post(link).status_code for _ in range(2)] == [status] * 2
        assert Browser(base).get(link).status_code == 200
