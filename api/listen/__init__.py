"""The listening port: connections, HTTP/1.1, HTTP/2, and the upgrade to WebSocket."""
