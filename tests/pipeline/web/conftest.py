"""Fixtures for the customer pages: the application over real HTTP on SQLite, a browser and a customer."""

from collections.abc import Iterator

import pytest

from pipeline.app.container import Container
from tests.support.page_client import Browser, open_pages, sign_up
from tests.support.pipeline_under_test import River, make_parts


@pytest.fixture
def container(brook: River) -> Container:
    return make_parts(brook.url, brook.folder, brook.clock, public_url="https://billing.example.com")


@pytest.fixture
def base(container: Container) -> Iterator[str]:
    with open_pages(container) as base:
        yield base


@pytest.fixture
def browser(base: str) -> Browser:
    return Browser(base)


@pytest.fixture
def ada(brook: River) -> str:
    return sign_up(brook)
