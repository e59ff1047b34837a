"""A client that speaks HTTP/2 in the clear, by prior knowledge, and that may also misbehave."""

import h2.config
import h2.connection
import h2.events
import trio


class H2Client:
    """One connection; speaks enough for a WebSocket (RFC 8441)."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        anything = h2.config.H2Configuration(
            header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(anything)
        self.h2.initiate_connection()
        self.data: dict[int, bytearray] = {}
        self.status: dict[int, str] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.generous = True
        """Whether windows are opened again by as much as has come. That of the connection always is."""

    async def request(self, stream_id: int, *headers: tuple[str, str], end: bool = True) -> None:
        self.data[stream_id] = bytearray()
        self.h2.send_headers(stream_id, [(":authority", "test"), (":scheme", "http"), *headers], end_stream=end)
        await self.flush()

    async def flush(self) -> None:
        await self.stream.send_all(self.h2.data_to_send())

    async def more(self) -> None:
        data = await self.stream.receive_some(65536)
        assert data, "the server closed the connection"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.status[event.stream_id] = dict(event.headers)[b":status"].decode()
            elif isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] += event.data
                if self.generous:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif event.flow_controlled_length:
                    self.h2.increment_flow_control_window(event.flow_controlled_length)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.reset.add(event.stream_id)
        await self.flush()

    async def websocket(self, stream_id: int) -> None:
        await self.request(
            stream_id,
            *((":method", "CONNECT"), (":path", "/ws"), (":protocol", "websocket")),
            ("sec-websocket-version", "13"),
            end=False,
        )
        while stream_id not in self.status:
            await self.more()
        assert self.status[stream_id] == "200"

    async def get(self, stream_id: int, path: str = "/") -> bytes:
        """Return the body of a response."""
        await self.request(stream_id, (":method", "GET"), (":path", path))
        while stream_id not in self.ended:
            await self.more()
        return bytes(self.data[stream_id])

    async def over(self) -> None:
        """Read on until the server has closed the connection."""
        while data := await self.stream.receive_some(65536):
            self.h2.receive_data(data)
