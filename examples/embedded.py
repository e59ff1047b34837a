"""A trio program with a nursery of its own: the server is one child of it, a feed of prices is another.

Run it with: python -m examples.embedded
"""

import random
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate, repeat
from typing import Any

import trio

from trichannels.generic.websocket import AsyncJsonWebsocketConsumer
from trichannels.layers import ChannelLayer, InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path
from trichannels.server import Server, serve


class Ticker(AsyncJsonWebsocketConsumer):
    groups = ("prices",)

    async def price_changed(self, event: Mapping[str, Any]) -> None:
        await self.send_json({"price": event["price"]})


def walk() -> Iterator[float]:
    """Yield prices that go up and down at random."""
    return accumulate(repeat(100.0), lambda price, _: round(price + random.uniform(-1, 1), 2))


async def feed(layer: ChannelLayer, prices: Iterator[float], seconds: float) -> None:
    """Publish a price every so many seconds."""
    for price in prices:
        await layer.group_send("prices", {"type": "price.changed", "price": price})
        await trio.sleep(seconds)


async def main(
    *, bind: str = "127.0.0.1:8000", seconds: float = 1, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve and feed until cancelled; reports the server, whose addresses tell what port 0 became."""
    layer = InMemoryChannelLayer()
    application = ProtocolTypeRouter(
        {"websocket": URLRouter([path("prices/", Ticker.as_asgi())])}, layers={"default": layer}
    )
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, application, bind=bind))
        nursery.start_soon(feed, layer, walk(), seconds)
        print("prices on", *server.addresses)
        task_status.started(server)


if __name__ == "__main__":
    try:
        trio.run(main)
    except* KeyboardInterrupt:
        print("bye")
