"""Several nodes that act as one server: the bus between them, and what lies on it."""
