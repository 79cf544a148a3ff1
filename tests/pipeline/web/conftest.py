"""Fixtures for the customer pages: the application over real HTTP on SQLite, a browser and a customer."""

from collections.abc import Iterator

import pytest

from pipeline.app.container import Container
from tests.support.page_client import Browser, open_pages, sign_up
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts


@pytest.fixture
def container(sqlite_pipeline: PipelineUnderTest) -> Container:
    return make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, public_url="https://billing.example.com"
    )


@pytest.fixture
def base(container: Container) -> Iterator[str]:
    with open_pages(container) as base:
        yield base


@pytest.fixture
def browser(base: str) -> Browser:
    return Browser(base)


@pytest.fixture
def ada(sqlite_pipeline: PipelineUnderTest) -> str:
    return sign_up(sqlite_pipeline)
