"""Transports: how the bytes of a WebSocket leave and arrive."""
