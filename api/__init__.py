"""HTTP and WebSocket APIs of the server, on one port."""
