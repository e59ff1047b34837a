"""Clients that vanish in the middle: of the handshake, of a handler, of what the server sends them."""

import ssl
from contextlib import suppress

import trio

from .peer import BINARY, TEXT, Site, Surprise, frame, moment, room, upgrade_request

SOME = 100_000  # bytes of a flood that are read before the cut


# ---- mid-handshake


async def reset_at_once(site: Site) -> None:
    async with site.dialled() as peer:
        peer.reset()


async def reset_in_request(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(upgrade_request(room())[:80])
        await moment()
        peer.reset()


async def half_close_in_request(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(upgrade_request(room())[:80])
        peer.half_close()
        await peer.sees_the_end()


async def stall_in_request(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(upgrade_request(room())[:80])
        await peer.sees_the_end()


async def reset_behind_request(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(upgrade_request(room()))
        await moment(0.01)
        peer.reset()


async def reset_behind_words(site: Site) -> None:
    """The first messages come in one segment with the request, before it is answered."""
    async with site.dialled() as peer:
        await peer.send(upgrade_request(room()) + frame(TEXT, b"shout") + frame(TEXT, b"wait"))
        await moment()
        peer.reset()


async def reset_in_connect(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(upgrade_request("/handshake/wait/"))
        await moment(0.05)
        peer.reset()


async def reset_threads_in_connect(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(upgrade_request("/threads/1/"))
        await moment(0.01)
        peer.reset()


async def reset_in_tls(site: Site) -> None:
    """Half of a TLS ClientHello."""
    hello = ssl.MemoryBIO()
    shaking = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        shaking.do_handshake()
    async with site.dialled(tls=True) as peer:
        await peer.send(hello.read()[:100])
        await moment()
        peer.reset()


# ---- mid-handler


async def reset_in_handler(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("wait")
        await peer.hears("waiting")
        await moment()
        peer.reset()


async def reset_in_shield(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("linger")
        await peer.hears("waiting")
        peer.reset()


async def half_close_in_handler(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("wait")
        await peer.hears("waiting")
        peer.half_close()
        await peer.sees_the_end()


async def close_in_handler(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("wait")
        await peer.hears("waiting")
        await peer.close(1001)
        await peer.closed_with(1001)
        await peer.sees_the_end()


async def reset_in_handlers(site: Site) -> None:
    """Four at once, and more that wait."""
    async with site.websocket("/crew/2/") as peer:
        for _ in range(6):
            await peer.say("wait")
        for _ in range(4):
            await peer.hears("waiting")
        peer.reset()


async def reset_in_thread(site: Site) -> None:
    async with site.websocket("/threads/3/") as peer:
        await peer.say("wait")
        await peer.hears("waiting")
        peer.reset()


async def reset_with_unread(site: Site) -> None:
    """More messages than anybody reads wait in front of the reset."""
    async with site.websocket() as peer:
        await peer.say("wait")
        await peer.hears("waiting")
        await peer.send(b"".join(frame(TEXT, b"echo") for _ in range(200)))
        await moment()
        peer.reset()


async def reset_in_page(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(request("wait"))
        await moment()
        peer.reset()


# ---- mid-send


async def reset_in_flood(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("flood")
        await peer.read(SOME)
        await moment()
        peer.reset()


async def reset_in_unread_flood(site: Site) -> None:
    async with site.websocket(small=True) as peer:
        await peer.say("flood")
        await moment(0.2)
        peer.reset()


async def half_close_in_flood(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("flood")
        await peer.read(SOME)
        peer.half_close()
        await peer.sees_the_end()


async def stall_in_flood(site: Site) -> None:
    async with site.websocket(small=True) as peer:
        await peer.say("deluge")
        await peer.is_reset()


async def reset_in_roar(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("roar")
        for _ in range(5):
            await peer.frame()
        await moment(0.1)
        peer.reset()


async def reset_in_stream(site: Site) -> None:
    async with site.dialled() as peer:
        if await peer.asked(request("stream")) != 200:
            raise Surprise("no stream")
        await peer.read(SOME)
        await moment()
        peer.reset()


async def reset_in_secure_flood(site: Site) -> None:
    async with site.secure_websocket() as peer:
        await peer.say("flood")
        await peer.read(SOME)
        await moment()
        peer.reset()


# ---- in the middle of what the client itself sends


async def reset_in_frame(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.send(frame(BINARY, bytes(100), announced=1000))
        await moment()
        peer.reset()


async def half_close_in_frame(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.send(frame(BINARY, bytes(100), announced=1000))
        peer.half_close()
        await peer.sees_the_end()


async def reset_between_fragments(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.send(frame(TEXT, b"ech", fin=False))
        await moment()
        peer.reset()


async def reset_in_body(site: Site) -> None:
    async with site.dialled() as peer:
        await peer.send(request("answer", "Content-Length: 1000") + bytes(100))
        await moment()
        peer.reset()


# ---- in the middle of nothing


async def reset_idle(site: Site) -> None:
    async with site.websocket() as peer:
        await moment()
        peer.reset()


async def half_close_idle(site: Site) -> None:
    async with site.websocket() as peer:
        await moment()
        peer.half_close()
        await peer.sees_the_end()


async def reset_secure_idle(site: Site) -> None:
    async with site.secure_websocket() as peer:
        await trio.lowlevel.checkpoint()
        peer.reset()


def request(page: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET /page/{page}/ HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()
