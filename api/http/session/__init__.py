"""Endpoints of the session API: `/auth`, `/session` and `/resource`."""
