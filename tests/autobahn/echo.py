"""The application that the suite wants: it says what it hears."""

from trichannels.events import Receive, Scope, Send


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo each message, as text or bytes as it came."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})
