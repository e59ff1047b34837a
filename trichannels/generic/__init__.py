"""Ready-made consumers: WebSocket, JSON, HTTP, server-sent events."""
