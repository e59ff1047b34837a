"""A clock by server-sent events, and a page that shows it. Run it with: trichannels serve examples.clock:application"""

from datetime import UTC, datetime

import anyio

from trichannels.generic.http import AsyncHttpConsumer
from trichannels.generic.sse import EventStreamConsumer
from trichannels.routing import ProtocolTypeRouter, URLRouter, path

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Clock</title>
<h1 id="clock">--:--:--</h1>
<script>
  const clock = document.getElementById("clock");
  const source = new EventSource("/time/"); // comes back by itself when it loses its connection
  source.addEventListener("tick", (event) => { clock.textContent = event.data; });
  source.onerror = () => { clock.textContent = "--:--:--"; };
</script>
</html>
"""


class Page(AsyncHttpConsumer):
    async def handle(self, body: bytes) -> None:
        await self.send_response(200, PAGE.encode(), headers={"content-type": "text/html; charset=utf-8"})


class Clock(EventStreamConsumer):
    retry = 1000

    async def connect(self) -> None:
        self.nursery.start_soon(self.tick)  # ends with the stream

    async def tick(self) -> None:
        while True:
            now = datetime.now(UTC)
            await self.send_event(f"{now:%H:%M:%S}", event="tick")
            await anyio.sleep(1 - now.microsecond / 1_000_000)


application = ProtocolTypeRouter({"http": URLRouter([path("", Page.as_asgi()), path("time/", Clock.as_asgi())])})
