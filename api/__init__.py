"""How Reileta is reached: one port for HTTP and WebSocket."""
