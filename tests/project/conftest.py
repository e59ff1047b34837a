"""Django is set up before any of these tests is read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..database.postgres import PostgresProcess
from .configured import POSTGRES_PORT, configure
from .programs import copy_of_the_example

configure()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    with PostgresProcess(POSTGRES_PORT) as server:
        yield server


@pytest.fixture(scope="package")
def tables() -> Iterator[None]:
    """The tables of all apps, in the default database."""
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    connections.close_all()
    yield
    call_command("flush", verbosity=0, interactive=False)
    connections.close_all()


@pytest.fixture
def ada(tables: None) -> Iterator[Any]:
    """A user."""
    from django.contrib.auth import get_user_model
    from django.db import connections

    users = get_user_model().objects
    users.filter(username="ada").delete()
    user = users.create_user("ada", password="secret")
    connections.close_all()
    yield user
    users.filter(username="ada").delete()
    connections.close_all()


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example project, with a seeded database."""
    return copy_of_the_example(tmp_path_factory.mktemp("example") / "django_chat")
