"""What the console shows: figures, lists and traces. Pure."""
