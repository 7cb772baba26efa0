"""WebSockets: a client's socket as actors see it, and the gateway that serves it."""
