"""Endpoints of the registry API (`/api/…`), one file per noun."""
