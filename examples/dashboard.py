"""A dashboard: three consumers as streams of one socket, one of which can be made to fail.

    trichannels serve examples.dashboard:application

Open http://127.0.0.1:8000. Prices are broadcast by one task to all browsers; notes are yours alone.
"""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.multiplexer import Multiplexer
from trichannels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer, shared_payload
from trichannels.layers import InMemoryChannelLayer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path

EVERY = 0.5  # seconds between two prices


class Prices(AsyncJsonWebsocketConsumer):
    """What everybody sees: encoded once for all sockets."""

    groups = ("prices",)

    @shared_payload
    def price_changed(cls, event: Mapping[str, Any]) -> str:
        return f'{{"price": {event["price"]:.2f}}}'


class Clock(AsyncJsonWebsocketConsumer):
    """Counts the seconds of its socket, in its nursery; "fail" makes that task fail, and with it this stream."""

    async def connect(self) -> None:
        self.fail = anyio.Event()
        await self.accept()
        self.nursery.start_soon(self.tick)

    async def tick(self) -> None:
        seconds = 0
        while not self.fail.is_set():
            await self.send_json({"seconds": seconds})
            seconds += 1
            with anyio.move_on_after(1):
                await self.fail.wait()
        raise RuntimeError("somebody has pressed the button")

    async def receive_json(self, content: Any, **more: Any) -> None:
        if content == "fail":
            self.fail.set()


class Notes(JsonWebsocketConsumer):
    """Keeps what it is told; its handlers block, and run in threads."""

    def connect(self) -> None:
        self.notes: list[str] = []
        self.accept()

    def receive_json(self, content: Any, **more: Any) -> None:
        self.notes.append(str(content)[:200])
        self.send_json({"notes": self.notes[-5:]})


class Page(AsyncHttpConsumer):
    """The page itself."""

    async def handle(self, body: bytes) -> None:
        await self.send_response(200, PAGE.encode(), headers=[(b"content-type", b"text/html; charset=utf-8")])


layer = InMemoryChannelLayer()


@asynccontextmanager
async def market() -> AsyncIterator[None]:
    """Change a price every now and then, for the block."""

    async def change() -> None:
        price = 100.0
        while True:
            price += random.uniform(-1, 1)
            await layer.group_send("prices", {"type": "price.changed", "price": price})
            await anyio.sleep(EVERY)

    async with anyio.create_task_group() as group:
        group.start_soon(change)
        yield
        group.cancel_scope.cancel()


async def lifespan(scope: Any, receive: Any, send: Any) -> None:
    """Keep the market open while the server runs."""
    await receive()
    async with market():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


streams = Multiplexer({"prices": Prices.as_asgi(), "clock": Clock.as_asgi(), "notes": Notes.as_asgi()})

application = ProtocolTypeRouter(
    {
        "lifespan": lifespan,
        "http": URLRouter([path("", Page.as_asgi())]),
        "websocket": URLRouter([path("ws/", streams)]),
    },
    layers={"default": layer},
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Dashboard</title>
<link rel="icon" href="data:,">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color: #1d2733; }
  main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); }
  section { border: 1px solid #dde3ea; border-radius: .5rem; padding: 1rem; }
  section.over { background: #fdf3f2; }
  h2 { font-size: 1rem; margin: 0; color: #687687; }
  output { display: block; font-size: 2rem; min-height: 3rem; }
  #notes output { font-size: 1rem; white-space: pre-line; }
  .state { color: #687687; font-size: .9rem; min-height: 1.5rem; }
  button, input { font: inherit; padding: .3rem .7rem; }
  input { width: 100%; box-sizing: border-box; }
</style>
</head>
<body>
<h1>Three streams, one socket</h1>
<main>
  <section id="prices"><h2>Price, for everybody</h2><output></output><p class="state">open</p></section>
  <section id="clock"><h2>Seconds, of this socket</h2><output></output><p class="state">open</p>
    <button id="fail">Make it fail</button> <button id="again" hidden>Open it again</button></section>
  <section id="notes"><h2>Notes, in threads</h2><output></output><p class="state">open</p>
    <form><input placeholder="a note" maxlength="200"></form></section>
</main>
<script>
const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/`);
const send = (frame) => socket.send(JSON.stringify(frame));
const part = (stream) => document.getElementById(stream);
const shown = {
  prices: ({ price }) => price.toFixed(2),
  clock: ({ seconds }) => String(seconds),
  notes: ({ notes }) => notes.join("\\n"),
};
function tell(stream, text, over) {
  part(stream).querySelector(".state").textContent = text;
  part(stream).classList.toggle("over", over);
}
socket.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if ("payload" in frame) part(frame.stream).querySelector("output").textContent = shown[frame.stream](frame.payload);
  if (frame.close) tell(frame.stream, `closed: ${frame.close.code} ${frame.close.reason}`, true);
  if (frame.open) tell(frame.stream, "open again", false);
  document.getElementById("again").hidden = !part("clock").classList.contains("over");
};
socket.onclose = ({ code }) => {
  for (const stream of Object.keys(shown)) tell(stream, `the socket has closed: ${code}`, true);
};
document.getElementById("fail").onclick = () => send({ stream: "clock", payload: "fail" });
document.getElementById("again").onclick = () => send({ stream: "clock", open: true });
document.querySelector("#notes form").onsubmit = (event) => {
  event.preventDefault();
  send({ stream: "notes", payload: event.target[0].value });
  event.target.reset();
};
</script>
</body>
</html>
"""
