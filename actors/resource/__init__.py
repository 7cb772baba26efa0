"""The resource actor and its parts; `actor.py` is where to begin."""
