"""The WebSockets of the session API."""
