"""Clients that stay until the socket has ended, by their own close, by the application or by the server's deadlines."""

from itertools import count

from .abrupt import request
from .peer import BINARY, TEXT, Peer, Site, Surprise, frame, room, upgrade_request

BAD_TEXT = b"\xff\xfe"


async def _told(site: Site, word: str, code: int, path: str = "") -> None:
    """Say a word for which the server closes, and close too."""
    async with site.websocket(path) as peer:
        await peer.say(word)
        await _answered(peer, code)


async def _answered(peer: Peer, code: int) -> None:
    await peer.closed_with(code)
    await peer.close(code)
    await peer.sees_the_end()


async def _refused(site: Site, path: str, status: int) -> None:
    async with site.dialled() as peer:
        got = await peer.asked(upgrade_request(path))
        if got != status:
            raise Surprise(f"{path} was answered with {got}, not {status}")
        await peer.sees_the_end()


# ---- closed by the client


async def echo_and_close(site: Site, path: str = "") -> None:
    async with site.websocket(path) as peer:
        await peer.say("echo")
        await peer.hears("echo")
        await peer.close()
        await peer.closed_with(1000)
        await peer.sees_the_end()


async def echo_and_close_threads(site: Site) -> None:
    await echo_and_close(site, "/threads/4/")


async def shout_and_close(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("shout")
        await peer.say("echo")
        await peer.hears("echo")
        await peer.close(4321)
        await peer.closed_with(4321)
        await peer.sees_the_end()


# ---- closed by the application


async def closed(site: Site) -> None:
    await _told(site, "close", 4000)


async def closed_threads(site: Site) -> None:
    await _told(site, "close", 4000, "/threads/5/")


async def stopped(site: Site) -> None:
    await _told(site, "stop", 1000)


ROOMS = count(1000)  # which nobody shares: what floods one would overrun another who has just come in


async def overrun(site: Site) -> None:
    await _told(site, "overrun", 1013, f"/overrun/{next(ROOMS)}/")


async def refused(site: Site) -> None:
    await _refused(site, "/handshake/refuse/", 403)


async def lost(site: Site) -> None:
    await _refused(site, "/nowhere/", 404)


# ---- failures of the application


async def failed(site: Site) -> None:
    await _told(site, "fail", 1011)


async def failed_threads(site: Site) -> None:
    await _told(site, "fail", 1011, "/threads/7/")


async def failed_crew(site: Site) -> None:
    await _told(site, "fail", 1011, "/crew/8/")


async def failed_beside(site: Site) -> None:
    await _told(site, "fail_beside", 1011)


async def failed_connect(site: Site) -> None:
    await _refused(site, "/handshake/fail/", 500)


async def failed_page(site: Site) -> None:
    async with site.dialled() as peer:
        if await peer.asked(request("fail")) != 500:
            raise Surprise("a page that fails is answered with 500")


async def failed_goodbye(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("fail_goodbye")
        await peer.hears("spoiled")
        peer.reset()


# ---- closed by the server


async def unmasked(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.send(frame(TEXT, b"echo", masked=False))
        await _answered(peer, 1002)


async def not_text(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.send(frame(TEXT, BAD_TEXT))
        await _answered(peer, 1007)


async def too_large(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.send(frame(BINARY, bytes(100), announced=2**21))
        await _answered(peer, 1009)


async def ignores_the_close(site: Site) -> None:
    async with site.websocket() as peer:
        await peer.say("close")
        await peer.closed_with(4000)
        await peer.sees_the_end()


async def answers_no_ping(site: Site) -> None:
    async with site.websocket(room()) as peer:
        await peer.sees_the_end()


# ---- HTTP


async def page(site: Site) -> None:
    async with site.dialled() as peer:
        for _ in range(2):  # the second on the same connection
            if await peer.asked(request("answer")) != 200 or await peer.read(2) != b"ok":
                raise Surprise("no page")
