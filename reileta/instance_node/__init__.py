"""The program of an instance node: `reileta ins`."""
