"""Several nodes as one server: what nodes know of each other, and how they act together."""
