"""WebSockets: transports, the gateway, and the connections of both APIs."""
