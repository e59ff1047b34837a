"""Django with two databases: SQLite in a file, and a PostgreSQL that is started when a test wants it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from ..ports import free_port
from .postgres import PostgresProcess

FOLDER = Path(tempfile.mkdtemp(prefix="django-"))
PORT = free_port()

if not settings.configured:
    settings.configure(
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "db.sqlite3", "CONN_MAX_AGE": 60},
            "pg": {
                "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": PORT, "USER": "postgres",
                "NAME": "postgres", "CONN_MAX_AGE": 60, "OPTIONS": {"application_name": "tests"},
            },
        },
        USE_TZ=True,
        TIME_ZONE="UTC",
        LANGUAGES=[("en", "English"), ("de", "German")],
        SECRET_KEY="for tests",
    )  # fmt: skip
    import django

    django.setup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess(PORT) as server:
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
