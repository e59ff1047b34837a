"""Django with two databases: SQLite in a file, and a PostgreSQL that is started when a test wants it."""

from collections.abc import Iterator

import pytest

from ..project.configured import POSTGRES_PORT, configure
from .postgres import PostgresProcess

configure()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess(POSTGRES_PORT) as server:
        yield server


@pytest.fixture(params=["default", "pg"])
def alias(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a database with an empty table ``items``; no connection of this thread is open."""
    from django.db import connections

    from .items import Item

    alias: str = request.param
    if alias == "pg":
        request.getfixturevalue("postgres")
    connection = connections[alias]
    with connection.schema_editor() as editor:
        editor.create_model(Item)
    connections.close_all()
    yield alias
    with connection.schema_editor() as editor:
        editor.delete_model(Item)
    connections.close_all()
