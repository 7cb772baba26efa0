"""The rules of a live instance."""
