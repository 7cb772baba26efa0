"""The endpoints of `/api`, one file per noun (PROTOCOL §§1-6)."""
