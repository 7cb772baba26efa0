"""The WebSocket of the registry API."""
