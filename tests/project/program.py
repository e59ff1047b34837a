"""Serves the project of the tests on trio, says where, and ends with its standard input."""

import sys
from functools import partial

import trio

from .configured import configure

configure()


async def main() -> None:
    from trichannels.django.http import DjangoHTTP
    from trichannels.server import Server, serve

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, DjangoHTTP(), bind="127.0.0.1:0"))
        sys.stdout.write(f"{server.addresses[0]}\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read)
        server.drain(1)


if __name__ == "__main__":
    trio.run(main)
