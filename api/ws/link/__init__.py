"""The WebSockets of instance nodes: `/api/nodes/link`."""
