"""What admins see of a running server, here and at all nodes of a cluster."""
