"""The actor runtime, and the actors: shells around the rules."""
