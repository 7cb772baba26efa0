"""The hub actor and the feed of updates; `actor.py` is where to begin."""
