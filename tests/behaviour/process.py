"""The process that runs scenarios on one library: ``python -m tests.behaviour.process channels asyncio null [ROW…]``.

All of them, or those of the rows that are named; in the place of ``null``, JSON says where a Redis server is. A process
for each library, for both want Django's settings and keep things for the whole process. It prints one line:
what was seen, by the names of the rows, as JSON. ``{"error": traceback}`` stands for a scenario that has failed.
"""

import inspect
import json
import logging
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import anyio

from .library import Library
from .rows import Row, all_rows, plain

DEADLINE = 30.0  # seconds; a scenario that takes longer is seen to hang


def configure(package: str, folder: Path) -> None:
    """Set Django up, with the settings that a project of this library has."""
    import django
    from django.conf import settings

    memory = {"BACKEND": f"{package}.layers.InMemoryChannelLayer"}
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"}},
        INSTALLED_APPS=[
            "channels" if package == "channels" else "trichannels.django",
            "django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
        ],
        CHANNEL_LAYERS={"default": memory, "second": memory, "brief": {**memory, "CONFIG": {"group_expiry": 1}}},
        ROOT_URLCONF="tests.behaviour.urls",
        ASGI_APPLICATION="tests.behaviour.urls.application",
        ALLOWED_HOSTS=["good.example", "testserver"],
        SECRET_KEY="for tests",
        USE_TZ=True,
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    )  # fmt: skip
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    connections.close_all()


async def bounded(row: Row, lib: Library) -> Any:
    """Return what the scenario of a row has seen."""
    with anyio.move_on_after(DEADLINE):
        return plain(await row.scenario(lib))
    return "hangs"


def alone(row: Row, lib: Library, backend: str) -> Any:
    """Run the scenario of a row, and return what it has seen."""
    try:
        if inspect.iscoroutinefunction(row.scenario):
            return anyio.run(bounded, row, lib, backend=backend)
        return plain(row.scenario(lib))
    except BaseException:  # noqa: BLE001 - the test of this row fails with it
        return {"error": traceback.format_exc()}


async def side_by_side(rows: list[Row], lib: Library) -> dict[str, Any]:
    """Run scenarios that wait, all at once, and return what each has seen."""
    seen: dict[str, Any] = {}

    async def one(row: Row) -> None:
        try:
            seen[row.name] = await bounded(row, lib)
        except Exception:  # noqa: BLE001 - the test of this row fails with it
            seen[row.name] = {"error": traceback.format_exc()}

    async with lib.opened(), anyio.create_task_group() as tasks:
        for row in rows:
            tasks.start_soon(one, row)
    return seen


def observe(lib: Library, backend: str, wanted: list[str]) -> dict[str, Any]:
    """Return what is seen of all rows, or of those that are wanted."""
    rows = [row for row in all_rows() if row.name in wanted or not wanted]
    rows = [row for row in rows if lib.redis or not row.on_redis]
    seen = {}
    for row in rows:
        if not row.waits:
            lib.forget_layers()
            seen[row.name] = alone(row, lib, backend)
    lib.forget_layers()
    return seen | anyio.run(side_by_side, [row for row in rows if row.waits], lib, backend=backend)


def main(package: str, backend: str, redis: str, *wanted: str) -> None:
    """Observe, and print it."""
    logging.disable()  # what a library logs of the errors that scenarios make is no observation
    lib = Library(package, json.loads(redis))
    with tempfile.TemporaryDirectory() as folder:
        configure(package, Path(folder))
        print(json.dumps(observe(lib, backend, list(wanted))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
