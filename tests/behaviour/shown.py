"""Documented behaviours that only a whole server or other processes show: told by tests of ours alone."""

from dataclasses import dataclass

from .rows import DOCS, README

COMMANDS = "tests/project/test_commands.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One of them: what is documented and where, what it is here, and the tests that show that."""

    text: str
    where: str
    here: str
    tests: tuple[str, ...]


SHOWN = (
    Shown(
        text="`manage.py runserver` serves pages, static files and sockets, and begins anew when a file changes",
        where=f"{DOCS}installation.html",
        here="same, without daphne",
        tests=(
            f"{COMMANDS}::test_runserver_serves_pages_static_files_and_sockets_and_tells_of_them",
            f"{COMMANDS}::test_runserver_begins_anew_when_a_file_changes_and_says_goodbye",
        ),
    ),
    Shown(
        text="`manage.py runworker CHANNEL…` works on what is sent to these channels",
        where=f"{DOCS}topics/worker.html#receiving-and-consumers",
        here="better: it drains when it is told to stop",
        tests=(f"{COMMANDS}::test_runworker_works_on_jobs_and_drains",),
    ),
    Shown(
        text="`ChannelsLiveServerTestCase` serves a project to tests that drive a browser",
        where=f"{DOCS}topics/testing.html#channelsliveservertestcase",
        here="same, in a thread in place of a process",
        tests=(f"{COMMANDS}::test_the_tests_of_the_example",),
    ),
    Shown(
        text="Any ASGI server serves the application",
        where=f"{DOCS}deploying.html",
        here="same: uvicorn, hypercorn and daphne do",
        tests=("tests/test_mounted.py::test_by_itself",),
    ),
    Shown(
        text="`hosts` may name sentinels and a master",
        where=f"{README}#hosts",
        here="same",
        tests=(
            "tests/redis/test_address.py::test_sentinels_as_channels_redis_has_them",
            "tests/redis/test_sentinel.py::test_the_layer_over_a_failover",
        ),
    ),
    Shown(
        text="`hosts` may be dicts with the options of redis-py, TLS among them",
        where=f"{README}#hosts",
        here="same",
        tests=("tests/redis/test_address.py::test_an_entry_means_what_it_means_to_channels_redis",),
    ),
)
