"""Requests as bytes."""

from __future__ import annotations

HEAD = b"GET /api/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
"""An upgrade to WebSocket, up to the end of its head."""
