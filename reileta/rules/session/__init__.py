"""The rules of a session, its state and its tokens."""
