"""What a row of the table is: a documented behaviour, a scenario that shows it, and what each library is seen to do."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias

DOCS = "https://channels.readthedocs.io/en/latest/"
README = "https://github.com/django/channels_redis"

AREAS = {
    "consumers": "Consumers",
    "websockets": "WebSocket consumers",
    "json_frames": "JSON consumers",
    "http": "HTTP consumers",
    "routing": "Routing",
    "middleware": "Middleware and origins",
    "sessions": "Sessions",
    "auth": "Users",
    "database": "The database",
    "layers": "Layers",
    "redis": "Redis",
    "worker": "Workers",
    "communicators": "Testing",
}
"""The modules that have scenarios, and the headings above their rows."""

Scenario: TypeAlias = Callable[[Any], Any]
Verdict: TypeAlias = Literal["same", "better", "different"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One documented behaviour. ``theirs`` and ``ours`` are what the scenario must return; alike, they are "same".

    ``on_asyncio`` is what ours returns there, where that is not what it returns on trio.
    ``how`` says how it is better, or why it is different, if it is; ``where`` is the page that documents it.
    ``tests`` show what ``how`` says beyond the scenario. A scenario that ``waits`` does little else, shares no settings
    or groups or rows of the database with others, and holds no thread: those run side by side.
    """

    name: str
    area: str
    text: str
    where: str
    scenario: Scenario
    theirs: Any
    ours: Any
    on_asyncio: Any
    verdict: Verdict
    how: str
    tests: tuple[str, ...] = ()
    waits: bool = False

    @property
    def on_redis(self) -> bool:
        """Whether it needs a Redis server."""
        return self.area in ("redis", "worker")


ROWS: dict[str, Row] = {}


class _Missing:
    """No value was given: None is one."""


def documented_at(page: str) -> Callable[..., Callable[[Scenario], Scenario]]:
    """Return the decorator for the scenarios of a page of Channels' documentation, or of any other address."""
    base = page if "://" in page else DOCS + page

    def behaviour(
        anchor: str,
        text: str,
        *,
        same: Any = _Missing,
        theirs: Any = _Missing,
        ours: Any = _Missing,
        on_asyncio: Any = _Missing,
        better: str = "",
        different: str = "",
        tests: tuple[str, ...] = (),
        waits: bool = False,
    ) -> Callable[[Scenario], Scenario]:
        verdict: Verdict = "better" if better else "different" if different else "same"
        if (same is not _Missing) != (verdict == "same"):
            raise ValueError(f"{text}: give same=…, or theirs=… and ours=… with better=… or different=…")
        where = anchor if "://" in anchor else base + anchor

        def register(scenario: Scenario) -> Scenario:
            area = scenario.__module__.rpartition(".")[2]
            name = f"{area}-{scenario.__name__}"
            assert name not in ROWS, f"two scenarios are named {name}"
            first, second = (same, same) if verdict == "same" else (theirs, ours)
            assert (plain(first) == plain(second)) == (verdict == "same"), f"{name} is said to be {verdict}"
            ROWS[name] = Row(
                name=name,
                area=area,
                text=text,
                where=where,
                scenario=scenario,
                theirs=plain(first),
                ours=plain(second),
                on_asyncio=plain(second if on_asyncio is _Missing else on_asyncio),
                verdict=verdict,
                how=better or different,
                tests=tests,
                waits=waits,
            )
            return scenario

        return register

    return behaviour


def plain(observation: Any) -> Any:
    """Return an observation as it comes out of JSON: tuples are lists, bytes are text."""
    return json.loads(json.dumps(observation, default=lambda value: value.decode()))


def all_rows() -> list[Row]:
    """Return the rows of all areas, in the order of the table."""
    for area in AREAS:
        import_module(f"{__package__}.{area}")
    return [row for area in AREAS for row in ROWS.values() if row.area == area]
