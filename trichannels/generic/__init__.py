"""Ready-made consumers: WebSocket, JSON, HTTP."""
