"""Delivery from actors to client sockets."""
