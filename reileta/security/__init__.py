"""Passwords, tokens and the server's key."""
