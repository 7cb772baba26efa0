"""Reileta: the server's settings, errors, rules, protocol, store and command line."""

__version__ = "0.1.0"
