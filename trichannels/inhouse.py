"""Workers inside a server: they begin with it, and drain before its layers close. How one works is in ``worker``."""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio

from .events import ASGIApp
from .exceptions import ConfigError
from .layers.base import ChannelLayer
from .nursery import collapsed
from .worker import Rules, Worker, checked_names, run_worker

log = logging.getLogger("trichannels.worker")

REPLACEMENT = (1.0, 60.0)  # seconds until a worker that failed is replaced: the first time, and at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One channel that workers inside a server work on."""

    channel: str
    rules: Rules


@asynccontextmanager
async def open_workers(
    application: ASGIApp, layers: Mapping[str, ChannelLayer], posts: Sequence[Post]
) -> AsyncIterator[None]:
    """Run workers beside the block; when it ends they are drained, and it waits for them.

    One that fails is logged, and replaced: the sockets beside it go on. Cancellation cancels them.
    """
    async with collapsed(), anyio.create_task_group() as group:
        stop = anyio.Event()
        for post in posts:
            group.start_soon(_keep_working, application, layers[post.rules.alias], post, stop)
        try:
            yield
        finally:
            stop.set()


async def _keep_working(application: ASGIApp, layer: ChannelLayer, post: Post, stop: anyio.Event) -> None:
    pause, most = REPLACEMENT
    while not stop.is_set():
        try:
            await _work_until(stop, application, layer, post)
        except Exception:
            log.exception("the worker on %r failed; another one begins in %g s", post.channel, pause)
            with anyio.move_on_after(pause):
                await stop.wait()
            pause = min(2 * pause, most)


async def _work_until(stop: anyio.Event, application: ASGIApp, layer: ChannelLayer, post: Post) -> None:
    rules = post.rules
    work = partial(
        run_worker,
        application,
        layer,
        post.channel,
        concurrency=rules.concurrency,
        retry=rules.retry,
        drain_time=rules.drain_time,
        alias=rules.alias,
    )
    async with collapsed(), anyio.create_task_group() as group:
        worker: Worker = await group.start(work)
        await stop.wait()
        worker.drain()


def checked_posts(workers: Iterable[str] | Mapping[str, Mapping[str, Any]]) -> list[Post]:
    """Return the workers that a router is given: names, or names with options; raises :class:`ConfigError`."""
    if isinstance(workers, str) or not isinstance(workers, Iterable):
        raise ConfigError(f"workers is a list of channel names, or a dict of names to options, not {workers!r}")
    given = workers if isinstance(workers, Mapping) else {name: {} for name in workers}
    return [Post(channel=channel, rules=_checked_rules(channel, given[channel])) for channel in checked_names(given)]


def _checked_rules(channel: str, options: Mapping[str, Any]) -> Rules:
    known = {"concurrency": "concurrency", "retry": "retry", "drain_time": "drain_time", "layer": "alias"}
    if not isinstance(options, Mapping) or not set(options) <= set(known):
        raise ConfigError(f"workers[{channel!r}] takes a dict with {', '.join(known)}, not {options!r}")
    return Rules(**{known[name]: value for name, value in options.items()})
