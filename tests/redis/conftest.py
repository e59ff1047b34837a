"""Servers that tests share end with the session."""

from collections.abc import Iterator

import pytest

from .servers import end_shared_servers


@pytest.fixture(scope="session", autouse=True)
def shared_servers() -> Iterator[None]:
    yield
    end_shared_servers()
