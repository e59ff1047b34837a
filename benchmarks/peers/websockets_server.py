"""The ``websockets`` library by itself, on uvloop where there is one; its ``broadcast()`` frames a message once."""

import asyncio
import sys
from importlib import import_module
from importlib.util import find_spec

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

PAGE = "a page that never changes."
MEMBERS: set[ServerConnection] = set()


def page(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(200, PAGE) if request.path == "/" else None


async def handler(connection: ServerConnection) -> None:
    if connection.request is not None and connection.request.path == "/echo":
        async for message in connection:
            await connection.send(message)
        return
    MEMBERS.add(connection)
    try:
        async for message in connection:
            broadcast(MEMBERS, message)
    finally:
        MEMBERS.discard(connection)


async def main(port: int) -> None:
    async with serve(handler, "127.0.0.1", port, compression=None, process_request=page, backlog=1024) as server:
        await server.serve_forever()


if __name__ == "__main__":
    loop_factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main(int(sys.argv[1])))
